-- The ledger. A batch is one DAG run of one source; `try` counts how often that run was planned anew (cleared in
-- Airflow after its batch had been closed). It lives here and not in Airflow's metadata, because re-running an Airflow
-- run replaces its history in place.
CREATE TABLE spectralize.batches (
    batch_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          text        NOT NULL,
    dag_id          text        NOT NULL,
    run_id          text        NOT NULL,
    try             integer     NOT NULL CHECK (try >= 1),
    kind            text        NOT NULL CHECK (kind IN ('scheduled', 'manual', 'event', 'backfill', 'reprocess')),
    interval_start  timestamptz,
    interval_end    timestamptz,
    state           text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'planned', 'success', 'failed')),
    failure         text,
    core_version    text        NOT NULL,
    code_zip_sha256 text,
    parameters      jsonb       NOT NULL DEFAULT '{}',
    manifest_uri    text,
    manifest_sha256 text,
    -- Objects, counted once per listing: listed = unchanged + planned + unsettled + ignored + over_cap.
    listed          bigint,
    unchanged       bigint,
    planned         bigint,
    unsettled       bigint,
    ignored         bigint,
    over_cap        bigint,
    -- (object, profile) pairs: planned_spectrograms = loaded + partial + rejected + failed once closed.
    planned_spectrograms bigint,
    loaded          bigint,
    partial         bigint,
    rejected        bigint,
    failed          bigint,
    opened_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    planned_at      timestamptz,
    gated_at        timestamptz,
    closed_at       timestamptz,
    UNIQUE (dag_id, run_id, try),
    CHECK ((interval_start IS NULL) = (interval_end IS NULL)),
    CHECK ((state IN ('success', 'failed')) = (closed_at IS NOT NULL))
);
CREATE INDEX batches_source_idx ON spectralize.batches (source, batch_id DESC);
