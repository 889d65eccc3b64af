-- Fresh statistics after a load, so that the next plan, and the readers, get good query plans at once rather than when
-- autovacuum comes by.
ANALYZE spectralize.objects;
ANALYZE spectralize.batch_objects;
ANALYZE spectralize.recordings;
ANALYZE spectralize.spectrograms;
ANALYZE spectralize.mel_frames;
ANALYZE spectralize.waveform_frames;
ANALYZE spectralize.mel_seconds;
