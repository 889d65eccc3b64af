-- Every spectrogram is accounted for by a line of the batch that made it.
SELECT format('spectrogram %s', s.spectrogram_id) AS what,
       format('batch %s has no line that says it loaded it', s.batch_id) AS breach
FROM spectralize.spectrograms AS s
WHERE NOT EXISTS (
    SELECT FROM spectralize.batch_objects AS b WHERE b.batch_id = s.batch_id AND b.spectrogram_id = s.spectrogram_id
)
