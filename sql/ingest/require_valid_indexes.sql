-- True while no index of the schema, or of a chunk of its hypertables, is invalid: an interrupted index build leaves one
-- that costs every load and serves no query.
SELECT count(*) = 0
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('spectralize', '_timescaledb_internal') AND NOT i.indisvalid;
