-- Where each key stands, per profile: the newest object of the key that has an outcome, and what became of it last. Beside
-- current_spectrograms, which says what can be read: the newest object of a key may be rejected while an older one is current.
CREATE VIEW spectralize.current_outcomes AS
SELECT DISTINCT ON (o.bucket, o.key, b.profile_id)
    o.bucket, o.key, o.object_id, o.etag, o.size_bytes, o.last_modified, o.partition_at, o.tombstoned_at,
    b.profile_id, p.name AS profile,
    b.outcome, b.reason_class, b.reason, b.batch_id, b.generation, b.attempts, b.spectrogram_id, b.ended_at
FROM spectralize.batch_objects AS b
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
WHERE b.outcome IS NOT NULL
ORDER BY o.bucket, o.key, b.profile_id, o.last_modified DESC, o.listed_since DESC, o.object_id DESC, b.batch_id DESC;
