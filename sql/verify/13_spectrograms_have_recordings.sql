-- Every living spectrogram has its recording.
SELECT format('spectrogram %s', s.spectrogram_id) AS what,
       format('object %s has no recording', s.object_id) AS breach
FROM spectralize.spectrograms AS s
WHERE s.status <> 'expired'
  AND NOT EXISTS (SELECT FROM spectralize.recordings AS r WHERE r.object_id = s.object_id)
