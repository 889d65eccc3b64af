-- No index of the schema or of its chunks is invalid.
SELECT i.indexrelid::regclass::text AS what, 'the index is invalid: an interrupted build left it' AS breach
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('spectralize', '_timescaledb_internal') AND NOT i.indisvalid
