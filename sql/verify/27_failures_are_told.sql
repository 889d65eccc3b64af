-- Every batch that was closed as failed since there is an outbox has its alert there: nothing was forgotten.
SELECT format('batch %s of %s', b.batch_id, b.source) AS what, 'it failed, and nobody was to be told' AS breach
FROM spectralize.batches AS b
WHERE b.state = 'failed'
  AND b.closed_at > (SELECT m.applied_at FROM spectralize.schema_migrations AS m WHERE m.version = 20)
  AND NOT EXISTS (SELECT FROM spectralize.alerts AS a WHERE a.batch_id = b.batch_id AND a.kind = 'failed')
