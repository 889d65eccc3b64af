-- One row per second of a recording: mean and standard deviation of the Mel vectors of its frames, and rms and peak of
-- its samples. Written by the job rather than by a continuous aggregate, so that it exists on every TimescaleDB edition.
CREATE TABLE spectralize.mel_seconds (
    second_at      timestamptz NOT NULL,
    spectrogram_id integer     NOT NULL,
    second_index   integer     NOT NULL,
    n_frames       integer     NOT NULL,
    rms            real        NOT NULL,
    peak           real        NOT NULL,
    mel_mean       halfvec     NOT NULL,
    mel_std        halfvec     NOT NULL
);
SELECT create_hypertable('spectralize.mel_seconds', by_range('second_at', INTERVAL '30 days'),
                         create_default_indexes => false);
CREATE INDEX mel_seconds_spectrogram_time_idx ON spectralize.mel_seconds (spectrogram_id, second_at);
