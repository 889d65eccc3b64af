-- Mel profiles as they were when first used. Immutable: a changed number is a new name, and the ledger refuses
-- a name that comes back with another fingerprint.
CREATE TABLE spectralize.profiles (
    profile_id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text        NOT NULL UNIQUE,
    fingerprint   text        NOT NULL,
    parameters    jsonb       NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
