-- No frame, hop or second without its spectrogram, nor of an expired one.
SELECT orphan.spectrogram_id, format('%s rows of %s belong to no living spectrogram', orphan.n, orphan.source) AS breach
FROM (
    SELECT 'mel_frames' AS source, spectrogram_id, count(*) AS n FROM spectralize.mel_frames GROUP BY spectrogram_id
    UNION ALL
    SELECT 'waveform_frames', spectrogram_id, count(*) FROM spectralize.waveform_frames GROUP BY spectrogram_id
    UNION ALL
    SELECT 'mel_seconds', spectrogram_id, count(*) FROM spectralize.mel_seconds GROUP BY spectrogram_id
) AS orphan
WHERE NOT EXISTS (
    SELECT FROM spectralize.spectrograms AS s WHERE s.spectrogram_id = orphan.spectrogram_id AND s.status <> 'expired'
)
