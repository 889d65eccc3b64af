-- When and why a spectrogram lost its frames: its source's retention had run out, another one had taken its place, or its
-- recording was forgotten. The row stays: it says what was computed, and keeps the claim.
ALTER TABLE spectralize.spectrograms
    ADD COLUMN expired_at timestamptz,
    ADD COLUMN expired_because text CHECK (expired_because IN ('retention', 'superseded', 'forgotten'));
-- Nothing of ours has written this status so far; who did by hand meant the first of the three.
UPDATE spectralize.spectrograms SET expired_at = clock_timestamp(), expired_because = 'retention' WHERE status = 'expired';
ALTER TABLE spectralize.spectrograms
    ADD CONSTRAINT spectrograms_expired_check CHECK (
        (status = 'expired') = (expired_at IS NOT NULL) AND (status = 'expired') = (expired_because IS NOT NULL)
    );

-- As before, but what retention took is not replaced by what it had superseded: it keeps its rank and shows nothing.
CREATE OR REPLACE VIEW spectralize.current_spectrograms AS
SELECT * FROM (
    SELECT DISTINCT ON (o.bucket, o.key, s.profile_id)
        o.bucket, o.key, o.etag, o.size_bytes, o.last_modified, o.tombstoned_at, p.name AS profile, s.*
    FROM spectralize.spectrograms AS s
    JOIN spectralize.objects AS o USING (object_id)
    JOIN spectralize.profiles AS p USING (profile_id)
    WHERE s.status <> 'expired' OR s.expired_because = 'retention'
    ORDER BY o.bucket, o.key, s.profile_id,
             o.last_modified DESC, o.listed_since DESC, o.object_id DESC,
             (s.status = 'complete') DESC, s.generation DESC
) AS ranked
WHERE status <> 'expired';
