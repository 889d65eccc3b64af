-- Every constraint that the migrations made is there, and every constraint of the schema has been checked against all rows.
WITH expected (table_name, suffixes) AS (
    VALUES ('alerts', ARRAY['batch_id_fkey', 'kind_check', 'pkey', 'recovered_by_fkey']),
           ('batch_object_attempts', ARRAY['attempt_check', 'batch_id_object_id_profile_id_fkey', 'outcome_check', 'pkey']),
           ('batch_objects', ARRAY['batch_id_fkey', 'check', 'check1', 'object_id_fkey', 'outcome_check', 'pkey',
                                   'profile_id_fkey', 'spectrogram_id_fkey']),
           ('batches', ARRAY['check', 'check1', 'dag_id_run_id_try_key', 'kind_check', 'pkey', 'state_check', 'try_check']),
           ('catalogue', ARRAY['pkey']),
           ('objects', ARRAY['bucket_key_etag_size_bytes_key', 'partition_origin_check', 'pkey', 'size_bytes_check']),
           ('profiles', ARRAY['name_key', 'pkey']),
           ('recordings', ARRAY['batch_id_fkey', 'object_id_fkey', 'pkey', 'sha256_check']),
           ('schema_migrations', ARRAY['pkey']),
           ('snapshot_spectrograms', ARRAY['pkey', 'snapshot_id_fkey', 'spectrogram_id_fkey']),
           ('snapshots', ARRAY['name_key', 'pkey']),
           ('spectrograms', ARRAY['batch_id_fkey', 'expired_because_check', 'expired_check', 'hop_length_check',
                                  'n_frames_check', 'n_hops_check', 'n_mels_check', 'n_samples_check', 'n_seconds_check',
                                  'object_id_fkey', 'object_id_profile_id_generation_key', 'pkey', 'profile_id_fkey',
                                  'recorded_at_origin_check', 'sr_check', 'status_check'])
), present AS (
    SELECT t.relname AS table_name, c.conname AS name, c.convalidated
    FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = c.conrelid
    WHERE t.relnamespace = 'spectralize'::regnamespace
)
SELECT format('table %s', table_name) AS what, format('the constraint %s is missing', name) AS breach
FROM (
    SELECT table_name, table_name || '_' || suffix AS name FROM expected CROSS JOIN unnest(suffixes) AS suffix
    EXCEPT
    SELECT table_name, name FROM present
) AS missing
UNION ALL
SELECT format('table %s', table_name), format('the constraint %s is not valid: rows from before it may break it', name)
FROM present WHERE NOT convalidated
