-- One spectrogram per object, profile and generation. The unique constraint makes doubles impossible, so it must be there.
SELECT format('object %s, profile %s, generation %s', object_id, profile_id, generation) AS what,
       format('%s spectrograms', count(*)) AS breach
FROM spectralize.spectrograms
GROUP BY object_id, profile_id, generation
HAVING count(*) > 1
UNION ALL
SELECT 'table spectrograms', 'the unique constraint on (object_id, profile_id, generation) is missing'
WHERE NOT EXISTS (
    SELECT FROM pg_constraint
    WHERE conrelid = 'spectralize.spectrograms'::regclass AND contype = 'u'
      AND pg_get_constraintdef(oid) = 'UNIQUE (object_id, profile_id, generation)'
)
