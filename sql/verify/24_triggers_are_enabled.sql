-- The triggers that refuse forgotten recordings and expired pins, and those that keep the catalogue, are there, and no trigger
-- of the schema is disabled.
SELECT format('table %s', expected.table_name) AS what,
       format('the trigger %s, %s, is missing', expected.name, expected.events) AS breach
FROM (
    VALUES ('recordings', 'refuse_forgotten', 'before each row on insert', 7),
           ('snapshot_spectrograms', 'refuse_expired_pin', 'before each row on insert or update', 23),
           ('batch_objects', 'refresh_settled', 'after each insert', 4),
           ('batch_objects', 'refresh_changed', 'after each update', 16),
           ('batch_objects', 'refresh_settled', 'after each delete', 8),
           ('spectrograms', 'refresh_changed', 'after each update', 16),
           ('spectrograms', 'refresh_changed', 'after each delete', 8),
           ('recordings', 'refresh_changed', 'after each update', 16),
           ('recordings', 'refresh_changed', 'after each delete', 8),
           ('objects', 'refresh_reordered', 'after each update', 16)
) AS expected (table_name, name, events, type)
WHERE NOT EXISTS (
    SELECT FROM pg_trigger AS g
    JOIN pg_class AS t ON t.oid = g.tgrelid
    JOIN pg_proc AS f ON f.oid = g.tgfoid
    WHERE t.relnamespace = 'spectralize'::regnamespace AND t.relname = expected.table_name
      AND f.pronamespace = 'spectralize'::regnamespace AND f.proname = expected.name
      AND g.tgtype = expected.type AND g.tgqual IS NULL
)
UNION ALL
    -- Foreign keys are triggers too: an interrupted restore may leave them disabled.
SELECT format('table %s', t.relname),
       format('its trigger %s, which calls %s, %s', g.tgname, f.proname,
              CASE g.tgenabled WHEN 'D' THEN 'is disabled' ELSE 'fires on replicas alone' END)
FROM pg_trigger AS g
JOIN pg_class AS t ON t.oid = g.tgrelid
JOIN pg_proc AS f ON f.oid = g.tgfoid
WHERE t.relnamespace = 'spectralize'::regnamespace AND g.tgenabled NOT IN ('O', 'A')
