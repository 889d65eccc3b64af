-- frame_time = recorded_at + frame_index * hop_length / sr, to the microsecond, and each vector has n_mels bands.
SELECT s.spectrogram_id,
       format('%s frames at the wrong time or of the wrong size, first frame_index %s', count(*), min(f.frame_index)) AS breach
FROM spectralize.spectrograms AS s
JOIN spectralize.mel_frames AS f USING (spectrogram_id)
WHERE vector_dims(f.mel) <> s.n_mels
   OR f.frame_time <> s.recorded_at
      + ((f.frame_index::bigint * s.hop_length * 1000000 + s.sr / 2) / s.sr) * INTERVAL '1 microsecond'
GROUP BY s.spectrogram_id
