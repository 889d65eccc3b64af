-- The counts of a closed batch are those of its lines, and no line is without an outcome.
SELECT format('batch %s', b.batch_id) AS what,
       format('the batch says planned %s, loaded %s, partial %s, rejected %s, failed %s; its lines say %s, %s, %s, %s, %s',
              coalesce(b.planned_spectrograms, 0), b.loaded, b.partial, b.rejected, b.failed,
              lines.planned, lines.loaded, lines.partial, lines.rejected, lines.failed) AS breach
FROM spectralize.batches AS b
CROSS JOIN LATERAL (
    SELECT count(*) AS planned,
           count(*) FILTER (WHERE outcome = 'loaded') AS loaded,
           count(*) FILTER (WHERE outcome = 'partial') AS partial,
           count(*) FILTER (WHERE outcome = 'rejected') AS rejected,
           count(*) FILTER (WHERE outcome = 'failed') AS failed
    FROM spectralize.batch_objects WHERE batch_id = b.batch_id
) AS lines
WHERE b.closed_at IS NOT NULL
  AND (coalesce(b.planned_spectrograms, 0), b.loaded, b.partial, b.rejected, b.failed)
      IS DISTINCT FROM (lines.planned, lines.loaded, lines.partial, lines.rejected, lines.failed)
