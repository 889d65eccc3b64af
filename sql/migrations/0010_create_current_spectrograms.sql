-- What readers see: per key and profile, the spectrogram of the newest object that has one; of that object, complete
-- before partial, then the newest generation. "Newest" is by the object's own times, never by when a batch finished.
CREATE VIEW spectralize.current_spectrograms AS
SELECT DISTINCT ON (o.bucket, o.key, s.profile_id)
    o.bucket, o.key, o.etag, o.size_bytes, o.last_modified, o.tombstoned_at, p.name AS profile, s.*
FROM spectralize.spectrograms AS s
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
WHERE s.status <> 'expired'
ORDER BY o.bucket, o.key, s.profile_id,
         o.last_modified DESC, o.listed_since DESC, o.object_id DESC,
         (s.status = 'complete') DESC, s.generation DESC;
