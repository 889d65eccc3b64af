-- One row per Mel frame: dB by power_to_db(ref=1.0, top_db=None), half precision.
-- frame_time = recorded_at + frame_index * hop_length / sr. Column order, id width, index and chunk interval were
-- measured (docs/decisions/0002-frame-layout.md). Uniqueness is the claim's job, so the index need not be unique.
CREATE TABLE spectralize.mel_frames (
    frame_time     timestamptz NOT NULL,
    spectrogram_id integer     NOT NULL,
    frame_index    integer     NOT NULL,
    mel            halfvec     NOT NULL
);
SELECT create_hypertable('spectralize.mel_frames', by_range('frame_time', INTERVAL '7 days'),
                         create_default_indexes => false);
CREATE INDEX mel_frames_spectrogram_time_idx ON spectralize.mel_frames (spectrogram_id, frame_time);
