-- The view current_spectrograms shows, for each key and profile, the newest spectrogram that nothing has replaced, once, and
-- none where retention has taken the newest.
WITH ranked AS (
    SELECT o.bucket, o.key, s.profile_id, s.spectrogram_id, s.status,
           row_number() OVER (
               PARTITION BY o.bucket, o.key, s.profile_id
               ORDER BY o.last_modified DESC, o.listed_since DESC, o.object_id DESC,
                        (s.status = 'complete') DESC, s.generation DESC
           ) AS place
    FROM spectralize.spectrograms AS s JOIN spectralize.objects AS o USING (object_id)
    WHERE s.status <> 'expired' OR s.expired_because = 'retention'
), newest AS (
    SELECT bucket, key, profile_id, ARRAY[spectrogram_id] AS ids FROM ranked WHERE place = 1 AND status <> 'expired'
), shown AS (
    SELECT bucket, key, profile_id, array_agg(spectrogram_id ORDER BY spectrogram_id) AS ids
    FROM spectralize.current_spectrograms GROUP BY bucket, key, profile_id
)
SELECT format('s3://%s/%s, profile %s', bucket, key, profile_id) AS what,
       format('the newest spectrogram is %s, the view shows %s', coalesce(newest.ids::text, 'none'),
              coalesce(shown.ids::text, 'none')) AS breach
FROM newest FULL JOIN shown USING (bucket, key, profile_id)
WHERE newest.ids IS DISTINCT FROM shown.ids
