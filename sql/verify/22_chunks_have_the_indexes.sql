-- Every chunk has each index of its hypertable; where one is missing, readers go through the chunk from end to end.
WITH indexes AS (
    SELECT t.relname, n.nspname, split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2) AS definition
    FROM pg_index AS i
    JOIN pg_class AS t ON t.oid = i.indrelid
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
)
SELECT format('chunk %s of %s', k.chunk_name, k.hypertable_name) AS what, format('it has no index %s', h.definition) AS breach
FROM timescaledb_information.chunks AS k
JOIN indexes AS h ON h.nspname = k.hypertable_schema AND h.relname = k.hypertable_name
WHERE k.hypertable_schema = 'spectralize'
  AND NOT EXISTS (
      SELECT FROM indexes AS c
      WHERE c.nspname = k.chunk_schema AND c.relname = k.chunk_name AND c.definition = h.definition
  )
