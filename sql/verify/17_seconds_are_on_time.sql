-- A second starts at recorded_at + second_index seconds, and its mean and deviation have n_mels bands.
SELECT s.spectrogram_id,
       format('%s seconds at the wrong time or of the wrong size, first second_index %s', count(*), min(m.second_index)) AS breach
FROM spectralize.spectrograms AS s
JOIN spectralize.mel_seconds AS m USING (spectrogram_id)
WHERE m.second_at <> s.recorded_at + m.second_index * INTERVAL '1 second'
   OR vector_dims(m.mel_mean) <> s.n_mels OR vector_dims(m.mel_std) <> s.n_mels
GROUP BY s.spectrogram_id
