-- A loaded line points to a complete spectrogram of its own object, profile and generation; a partial one to a partial one.
SELECT format('batch %s, object %s, profile %s', b.batch_id, b.object_id, b.profile_id) AS what,
       format('outcome %s, but spectrogram %s is %s of object %s, profile %s, generation %s', b.outcome, s.spectrogram_id,
              s.status, s.object_id, s.profile_id, s.generation) AS breach
FROM spectralize.batch_objects AS b
JOIN spectralize.spectrograms AS s USING (spectrogram_id)
WHERE (s.object_id, s.profile_id, s.generation) <> (b.object_id, b.profile_id, b.generation)
   OR (s.status <> 'expired' AND (b.outcome = 'partial') <> (s.status = 'partial'))
