-- Everything a source ever listed. Identity is (bucket, key, etag, size_bytes): an overwritten key is a new object.
-- version_id is an attribute, because listings do not return it. Keys sort by bytes, as S3 sorts them.
-- The extensions may already be there, created by an administrator; then these two lines change nothing.
CREATE EXTENSION IF NOT EXISTS timescaledb;
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE spectralize.objects (
    object_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket           text        NOT NULL,
    key              text        COLLATE "C" NOT NULL,
    etag             text        NOT NULL,
    size_bytes       bigint      NOT NULL CHECK (size_bytes >= 0),
    version_id       text,
    last_modified    timestamptz NOT NULL,
    first_seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Since when this is the object that listings show for its key: orders A, B, A written within one second.
    listed_since     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Immutable: the day this object belongs to in backfills.
    partition_at     timestamptz NOT NULL,
    partition_origin text        NOT NULL CHECK (partition_origin IN ('key', 'last_modified')),
    -- Set while no object of this key is listed; an overwritten key is not gone.
    tombstoned_at    timestamptz,
    UNIQUE (bucket, key, etag, size_bytes)
);
CREATE INDEX objects_partition_at_idx ON spectralize.objects (bucket, partition_at);
