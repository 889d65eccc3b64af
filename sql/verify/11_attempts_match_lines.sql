-- A line has as many attempts as it counts.
SELECT format('batch %s, object %s, profile %s', b.batch_id, b.object_id, b.profile_id) AS what,
       format('attempts says %s, there are %s', b.attempts, count(a.attempt)) AS breach
FROM spectralize.batch_objects AS b
LEFT JOIN spectralize.batch_object_attempts AS a USING (batch_id, object_id, profile_id)
GROUP BY b.batch_id, b.object_id, b.profile_id, b.attempts
HAVING b.attempts <> count(a.attempt)
