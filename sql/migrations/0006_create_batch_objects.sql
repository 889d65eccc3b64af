-- The ledger's lines: one per planned (object, profile), with its outcome, and one per attempt to get there.
CREATE TABLE spectralize.batch_objects (
    batch_id       bigint  NOT NULL REFERENCES spectralize.batches,
    object_id      bigint  NOT NULL REFERENCES spectralize.objects,
    profile_id     integer NOT NULL REFERENCES spectralize.profiles,
    generation     bigint  NOT NULL,
    outcome        text    CHECK (outcome IN ('loaded', 'partial', 'rejected', 'failed')),
    reason_class   text,
    reason         text,
    spectrogram_id integer REFERENCES spectralize.spectrograms,
    attempts       integer NOT NULL DEFAULT 0,
    fetch_s        real,
    decode_s       real,
    mel_s          real,
    load_s         real,
    ended_at       timestamptz,
    PRIMARY KEY (batch_id, object_id, profile_id),
    -- COALESCE, or a row without an outcome would make the check unknown and pass.
    CHECK ((COALESCE(outcome, '') IN ('loaded', 'partial')) = (spectrogram_id IS NOT NULL)),
    CHECK ((COALESCE(outcome, '') IN ('rejected', 'failed')) <= (reason_class IS NOT NULL AND reason IS NOT NULL))
);
CREATE INDEX batch_objects_object_idx ON spectralize.batch_objects (object_id, profile_id);

CREATE TABLE spectralize.batch_object_attempts (
    batch_id     bigint  NOT NULL,
    object_id    bigint  NOT NULL,
    profile_id   integer NOT NULL,
    attempt      integer NOT NULL CHECK (attempt >= 1),
    outcome      text    NOT NULL CHECK (outcome IN ('loaded', 'partial', 'rejected', 'failed')),
    reason_class text,
    reason       text,
    worker       text    NOT NULL,
    started_at   timestamptz NOT NULL,
    ended_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (batch_id, object_id, profile_id, attempt),
    FOREIGN KEY (batch_id, object_id, profile_id) REFERENCES spectralize.batch_objects
);
