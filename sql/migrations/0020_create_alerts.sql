-- The outbox: what people are to be told, each thing once, and whom it has reached. A row is written in the transaction that
-- closes a batch as failed, so that nothing that dies afterwards can lose it; sending is retried until every receiver has it.
CREATE TABLE spectralize.alerts (
    alert_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('failed', 'late', 'away', 'recovered')),
    batch_id     bigint      REFERENCES spectralize.batches,
    -- A source, or the DAG of a run that belongs to none: what one alert is about, the next success of it ends.
    scope        text        NOT NULL,
    owner        text        NOT NULL,
    dag_id       text        NOT NULL,
    run_id       text        NOT NULL,
    -- How often the run had been cleared.
    run_number   integer     NOT NULL DEFAULT 0,
    -- What is said, as it stood then.
    facts        jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Receivers that have it, by a hash of their address: one that was away does not make the others hear it twice.
    reached      text[]      NOT NULL DEFAULT '{}',
    tries        integer     NOT NULL DEFAULT 0,
    next_try_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error   text,
    sent_at      timestamptz,
    -- The alert that said it was over.
    recovered_by bigint      REFERENCES spectralize.alerts
);

CREATE UNIQUE INDEX alerts_batch_kind_idx ON spectralize.alerts (batch_id, kind) WHERE batch_id IS NOT NULL;
-- Of a run that came to no batch; or of an outage of this database, which is told to each owner whom it concerns.
CREATE UNIQUE INDEX alerts_run_kind_idx ON spectralize.alerts (dag_id, run_id, run_number, kind, owner) WHERE batch_id IS NULL;
CREATE INDEX alerts_unsent_idx ON spectralize.alerts (next_try_at) WHERE sent_at IS NULL;
CREATE INDEX alerts_open_idx ON spectralize.alerts (scope) WHERE recovered_by IS NULL AND kind <> 'recovered';
-- What is late is looked for every few minutes.
CREATE INDEX batches_open_idx ON spectralize.batches (opened_at) WHERE closed_at IS NULL;
