-- Fresh statistics after a load, so that the next plan, and the readers, get good query plans at once rather than when
-- autovacuum comes by. Of the hypertables only the chunks that this batch has written into.
ANALYZE spectralize.objects;
ANALYZE spectralize.batch_objects;
ANALYZE spectralize.recordings;
ANALYZE spectralize.spectrograms;
ANALYZE spectralize.catalogue;
SELECT spectralize.analyze_batch({{ ti.xcom_pull(task_ids='plan_batch')['batch_id'] }});
