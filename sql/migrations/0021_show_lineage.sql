-- Lineage, both ways: from a spectrogram (and so from a frame) back to bytes, code and run, and from a key to everything
-- that ever touched it. It is all in the ledger; these views spare people the joins.
--
-- A batch whose job is retried may be computed by two zips of the core, and the batch has room for the last one only. So each
-- attempt says what it ran: its core's version, and the sha256 of the zip that the executors were given. A version without a
-- zip is a core that was not shipped. Attempts from before have neither.
ALTER TABLE spectralize.batch_object_attempts
    ADD COLUMN core_version text,
    ADD COLUMN code_zip_sha256 text;

-- One row per spectrogram: which bytes it was made of, by which attempt of which batch of which run, with which code, libraries
-- and parameters. The attempt is the first of its batch and pair that loaded something: it wrote the frames, in one
-- transaction with its own row; a later one found them there. Where an attempt does not know its code, `code_from` says
-- `batch`, and the zip is the last one that its batch was given.
-- A frame's lineage is that of its spectrogram_id: ask mel_frames with bounds of time that are constants, then this.
CREATE VIEW spectralize.spectrogram_lineage AS
SELECT s.spectrogram_id, o.bucket, o.key, o.object_id, o.uid, o.etag, o.size_bytes, o.last_modified, o.tombstoned_at,
       o.forgotten_at, r.sha256,
       p.profile_id, p.name AS profile, p.fingerprint, p.parameters AS profile_parameters,
       s.generation, s.status, s.reason, s.expired_at, s.expired_because, s.n_frames, s.recorded_at, s.recorded_at_origin,
       EXISTS (
           SELECT FROM spectralize.current_spectrograms AS c
           WHERE c.bucket = o.bucket AND c.key = o.key AND c.profile_id = s.profile_id AND c.spectrogram_id = s.spectrogram_id
       ) AS is_current,
       s.batch_id, b.source, b.dag_id, b.run_id, b.try, b.kind, b.interval_start, b.interval_end,
       b.parameters AS run_parameters, b.manifest_uri, b.manifest_sha256,
       a.attempt, a.worker, a.started_at, s.loaded_at, s.core_version,
       CASE WHEN a.core_version IS NULL THEN b.code_zip_sha256 ELSE a.code_zip_sha256 END AS code_zip_sha256,
       CASE WHEN a.core_version IS NULL THEN 'batch' ELSE 'attempt' END AS code_from,
       s.library_versions
FROM spectralize.spectrograms AS s
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
JOIN spectralize.batches AS b USING (batch_id)
LEFT JOIN spectralize.recordings AS r USING (object_id)
LEFT JOIN LATERAL (
    SELECT t.attempt, t.worker, t.started_at, t.core_version, t.code_zip_sha256
    FROM spectralize.batch_object_attempts AS t
    WHERE t.batch_id = s.batch_id AND t.object_id = s.object_id AND t.profile_id = s.profile_id
      AND t.outcome IN ('loaded', 'partial')
    ORDER BY t.attempt LIMIT 1
) AS a ON true;

-- One row per attempt on an (object, profile), in whichever batch; and one, without an attempt, for what a batch planned and
-- nobody came to. `outcome` and `reason` are those of the attempt, `batch_outcome` is what its batch came to in the end.
-- `has_written` marks the attempt that wrote the spectrogram's frames; any other that says `loaded` found them there.
CREATE VIEW spectralize.object_lineage AS
SELECT o.bucket, o.key, l.object_id, o.uid, o.etag, o.size_bytes, o.last_modified, r.sha256,
       l.batch_id, b.source, b.dag_id, b.run_id, b.try, b.kind, b.interval_start, b.interval_end,
       b.parameters AS run_parameters,
       l.profile_id, p.name AS profile, p.fingerprint, p.parameters AS profile_parameters, l.generation,
       a.attempt,
       CASE WHEN a.attempt IS NULL THEN l.outcome ELSE a.outcome END AS outcome,
       CASE WHEN a.attempt IS NULL THEN l.reason_class ELSE a.reason_class END AS reason_class,
       CASE WHEN a.attempt IS NULL THEN l.reason ELSE a.reason END AS reason,
       l.outcome AS batch_outcome, l.spectrogram_id,
       coalesce(a.outcome IN ('loaded', 'partial') AND s.batch_id = l.batch_id AND NOT EXISTS (
           SELECT FROM spectralize.batch_object_attempts AS t
           WHERE t.batch_id = a.batch_id AND t.object_id = a.object_id AND t.profile_id = a.profile_id
             AND t.attempt < a.attempt AND t.outcome IN ('loaded', 'partial')
       ), false) AS has_written,
       a.worker, a.started_at, coalesce(a.ended_at, l.ended_at) AS ended_at,
       coalesce(a.core_version, b.core_version) AS core_version,
       CASE WHEN a.core_version IS NULL THEN b.code_zip_sha256 ELSE a.code_zip_sha256 END AS code_zip_sha256,
       CASE WHEN a.core_version IS NULL THEN 'batch' ELSE 'attempt' END AS code_from
FROM spectralize.batch_objects AS l
JOIN spectralize.batches AS b USING (batch_id)
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
LEFT JOIN spectralize.recordings AS r USING (object_id)
LEFT JOIN spectralize.spectrograms AS s ON s.spectrogram_id = l.spectrogram_id
LEFT JOIN spectralize.batch_object_attempts AS a
    ON a.batch_id = l.batch_id AND a.object_id = l.object_id AND a.profile_id = l.profile_id;

-- Objects whose bytes are also those of another object: of another key, in whichever bucket, or of the same key at another
-- time (a multipart upload gives the same bytes another etag). Only what decoded has been read to its end, and so has a sha256.
CREATE VIEW spectralize.duplicates AS
SELECT r.sha256, o.bucket, o.key, o.object_id, o.uid, o.etag, o.size_bytes, o.last_modified, o.tombstoned_at,
       r.decoded_duration_s AS duration_s,
       (SELECT count(*) FROM spectralize.recordings AS n WHERE n.sha256 = r.sha256) AS n_objects,
       (SELECT count(DISTINCT (m.bucket, m.key)) FROM spectralize.recordings AS n
        JOIN spectralize.objects AS m USING (object_id) WHERE n.sha256 = r.sha256) AS n_keys,
       EXISTS (
           SELECT FROM spectralize.current_spectrograms AS c
           WHERE c.bucket = o.bucket AND c.key = o.key AND c.object_id = o.object_id
       ) AS is_current
FROM spectralize.recordings AS r
JOIN spectralize.objects AS o USING (object_id)
WHERE EXISTS (SELECT FROM spectralize.recordings AS n WHERE n.sha256 = r.sha256 AND n.object_id <> r.object_id);
