-- The three tables of features are hypertables, chunks of one do not overlap, and each has a valid constraint that keeps its
-- rows in its range.
WITH chunks AS (
    SELECT k.hypertable_name, k.chunk_name, k.primary_dimension, k.range_start, k.range_end, c.oid,
           lag(k.range_end) OVER (PARTITION BY k.hypertable_name ORDER BY k.range_start, k.range_end) AS last_end
    FROM timescaledb_information.chunks AS k
    LEFT JOIN pg_namespace AS n ON n.nspname = k.chunk_schema
    LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = k.chunk_name
    WHERE k.hypertable_schema = 'spectralize'
)
SELECT format('table %s', name) AS what, 'it is no hypertable' AS breach
FROM unnest(ARRAY['mel_frames', 'waveform_frames', 'mel_seconds']) AS name
WHERE NOT EXISTS (
    SELECT FROM timescaledb_information.hypertables WHERE hypertable_schema = 'spectralize' AND hypertable_name = name
)
UNION ALL
SELECT format('chunk %s of %s', chunk_name, hypertable_name),
       format('it begins at %s, before the one before it ends, %s', range_start, last_end)
FROM chunks WHERE range_start < last_end
UNION ALL
SELECT format('chunk %s of %s', chunk_name, hypertable_name),
       format('no valid constraint keeps %s in [%s, %s)', primary_dimension, range_start, range_end)
FROM chunks
WHERE NOT EXISTS (
    SELECT FROM pg_constraint AS c
    CROSS JOIN LATERAL pg_get_constraintdef(c.oid) AS definition
    WHERE c.conrelid = chunks.oid AND c.contype = 'c' AND c.convalidated
      AND strpos(definition, format('%I >= %L', primary_dimension, range_start)) > 0
      AND strpos(definition, format('%I < %L', primary_dimension, range_end)) > 0
)
