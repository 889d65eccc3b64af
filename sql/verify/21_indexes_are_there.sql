-- The indexes that the migrations made are there, under whatever name. Others may stand beside them.
WITH expected (table_name, definition) AS (
    VALUES ('alerts', 'btree (batch_id, kind) WHERE (batch_id IS NOT NULL)'),
           ('alerts', 'btree (dag_id, run_id, run_number, kind, owner) WHERE (batch_id IS NULL)'),
           ('alerts', 'btree (next_try_at) WHERE (sent_at IS NULL)'),
           ('alerts', 'btree (scope) WHERE ((recovered_by IS NULL) AND (kind <> ''recovered''::text))'),
           ('batch_objects', 'btree (object_id, profile_id)'),
           ('batches', 'btree (opened_at) WHERE (closed_at IS NULL)'),
           ('batches', 'btree (source, batch_id DESC)'),
           ('catalogue', 'btree (outcome, bucket, key, object_id)'),
           ('mel_frames', 'btree (spectrogram_id, frame_time)'),
           ('mel_seconds', 'btree (spectrogram_id, second_at)'),
           ('objects', 'btree (bucket, key) WHERE (forgotten_at IS NOT NULL)'),
           ('objects', 'btree (partition_at)'),
           ('objects', 'btree (uid)'),
           ('recordings', 'btree (sha256)'),
           ('snapshot_spectrograms', 'btree (spectrogram_id)'),
           ('spectrograms', 'btree (batch_id)'),
           ('spectrograms', 'btree (recorded_at)'),
           ('waveform_frames', 'btree (spectrogram_id, frame_time)')
), present AS (
    SELECT t.relname AS table_name, split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2) AS definition
    FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid
    WHERE t.relnamespace = 'spectralize'::regnamespace
)
SELECT format('table %s', table_name) AS what, format('it has no index %s', definition) AS breach
FROM (TABLE expected EXCEPT TABLE present) AS missing
