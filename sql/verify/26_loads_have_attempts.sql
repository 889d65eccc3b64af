-- What the ledger says was loaded, an attempt of that batch loaded; and a spectrogram's core is that of the attempt that made it.
SELECT format('batch %s, object %s, profile %s', b.batch_id, b.object_id, b.profile_id) AS what,
       format('outcome %s, but no attempt came to it', b.outcome) AS breach
FROM spectralize.batch_objects AS b
WHERE b.outcome IN ('loaded', 'partial') AND NOT EXISTS (
    SELECT FROM spectralize.batch_object_attempts AS a
    WHERE a.batch_id = b.batch_id AND a.object_id = b.object_id AND a.profile_id = b.profile_id AND a.outcome = b.outcome
)
UNION ALL
    -- Attempts from before they said so have no version.
SELECT format('spectrogram %s', s.spectrogram_id),
       format('core_version is %s, the attempt that made it ran %s', s.core_version, a.core_version)
FROM spectralize.spectrograms AS s
CROSS JOIN LATERAL (
    SELECT t.core_version FROM spectralize.batch_object_attempts AS t
    WHERE t.batch_id = s.batch_id AND t.object_id = s.object_id AND t.profile_id = s.profile_id
      AND t.outcome IN ('loaded', 'partial')
    ORDER BY t.attempt LIMIT 1
) AS a
WHERE a.core_version <> s.core_version
