-- One row per computed (object, profile, generation). The unique constraint is the claim: whoever inserts the row, in
-- the same transaction as all its frames, owns the spectrogram; everyone else waits, sees it, and writes nothing.
-- spectrogram_id is a 4-byte integer because it stands in every frame row (docs/decisions/0002-frame-layout.md).
CREATE TABLE spectralize.spectrograms (
    spectrogram_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_id          bigint  NOT NULL REFERENCES spectralize.recordings,
    profile_id         integer NOT NULL REFERENCES spectralize.profiles,
    -- 0, or the batch that forced a recompute.
    generation         bigint  NOT NULL DEFAULT 0,
    batch_id           bigint  NOT NULL REFERENCES spectralize.batches,
    status             text    NOT NULL CHECK (status IN ('complete', 'partial', 'expired')),
    -- For a partial one: what is missing, and why.
    reason             text,
    sr                 integer NOT NULL CHECK (sr > 0),
    hop_length         integer NOT NULL CHECK (hop_length > 0),
    n_mels             integer NOT NULL CHECK (n_mels > 0),
    -- Samples at sr, Mel frames, waveform hops (0 where the profile keeps no waveform), seconds with a roll-up.
    n_samples          bigint  NOT NULL CHECK (n_samples > 0),
    n_frames           integer NOT NULL CHECK (n_frames > 0),
    n_hops             integer NOT NULL CHECK (n_hops >= 0),
    n_seconds          integer NOT NULL CHECK (n_seconds > 0),
    -- Highest cell in dB, before rounding to half precision: ref=max and top_db are derived from it on reading.
    peak_db            real    NOT NULL,
    recorded_at        timestamptz NOT NULL,
    recorded_at_origin text    NOT NULL CHECK (recorded_at_origin IN ('key', 'last_modified', 'given')),
    recorded_at_flag   text,
    core_version       text    NOT NULL,
    library_versions   jsonb   NOT NULL,
    loaded_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (object_id, profile_id, generation)
);
CREATE INDEX spectrograms_batch_idx ON spectralize.spectrograms (batch_id);
CREATE INDEX spectrograms_recorded_at_idx ON spectralize.spectrograms (recorded_at);
