-- What the explorer's table of recordings is filtered, sorted and counted by: one row per object that Store.recordings() shows, also
-- of those that were rejected or failed. The views say which these are, but have to sort the whole store for it; see
-- docs/decisions/0014-recordings-table.md. Whoever changes what the views are made of changes this in the same transaction, by
-- the triggers below; `spectralize verify` compares the two.
CREATE TABLE spectralize.catalogue (
    -- What is looked at most comes first, and what has a fixed size before the rest: it is found faster in a row.
    object_id     bigint      NOT NULL,
    size_bytes    bigint      NOT NULL,
    last_modified timestamptz NOT NULL,
    -- Of the newest spectrogram; without one, the day that the object belongs to.
    recorded_at   timestamptz NOT NULL,
    -- The best of any profile.
    outcome       text        COLLATE "C" NOT NULL,
    bucket        text        NOT NULL,
    key           text        COLLATE "C" NOT NULL,
    -- Key and tags in lower case, as Store.recordings(text=...) looks for words in them.
    words         text        COLLATE "C" NOT NULL,
    -- Profiles by what became of them, by number.
    loaded_for    integer[]   NOT NULL,
    partial_for   integer[]   NOT NULL,
    rejected_for  integer[]   NOT NULL,
    failed_for    integer[]   NOT NULL,
    -- As decoded; the tags below are what the file declares.
    container     text,
    codec         text,
    duration_s    double precision,
    samplerate_hz integer,
    n_channels    integer,
    album         text,
    albumartist   text,
    artist        text,
    audio_offset  bigint,
    bitrate       double precision,
    channels      integer,
    comment       text,
    composer      text,
    disc          integer,
    disc_total    integer,
    duration      double precision,
    filesize      bigint,
    genre         text,
    samplerate    integer,
    title         text,
    track         integer,
    track_total   integer,
    year          text,
    PRIMARY KEY (bucket, key, object_id)
);
CREATE INDEX catalogue_outcome_idx ON spectralize.catalogue (outcome, bucket, key, object_id);

-- What the catalogue holds at any moment, from the views that say what is current.
CREATE VIEW spectralize.catalogue_now AS
SELECT o.object_id, o.size_bytes, o.last_modified, coalesce(found.recorded_at, o.partition_at) AS recorded_at,
       CASE WHEN found.loaded_for <> '{}' THEN 'loaded' WHEN found.partial_for <> '{}' THEN 'partial'
            WHEN found.rejected_for <> '{}' THEN 'rejected' ELSE 'failed' END COLLATE "C" AS outcome,
       found.bucket, found.key,
       lower(concat_ws(' ', o.key, r.title, r.artist, r.album, r.albumartist, r.composer, r.genre, r.comment, r.year,
                       r.tags::text)) AS words,
       found.loaded_for, found.partial_for, found.rejected_for, found.failed_for,
       r.container, r.decoded_codec AS codec, r.decoded_duration_s AS duration_s, r.decoded_samplerate_hz AS samplerate_hz,
       r.decoded_channels AS n_channels,
       r.album, r.albumartist, r.artist, r.audio_offset, r.bitrate, r.channels, r.comment, r.composer, r.disc, r.disc_total,
       r.duration, r.filesize, r.genre, r.samplerate, r.title, r.track, r.track_total, r.year
FROM (
    SELECT bucket, key, object_id,
           (array_agg(recorded_at ORDER BY generation DESC, loaded_at DESC, profile_id) FILTER (WHERE place < 3))[1] AS recorded_at,
           coalesce(array_agg(profile_id ORDER BY profile_id) FILTER (WHERE place = 1), '{}') AS loaded_for,
           coalesce(array_agg(profile_id ORDER BY profile_id) FILTER (WHERE place = 2), '{}') AS partial_for,
           coalesce(array_agg(profile_id ORDER BY profile_id) FILTER (WHERE place = 3), '{}') AS rejected_for,
           coalesce(array_agg(profile_id ORDER BY profile_id) FILTER (WHERE place = 4), '{}') AS failed_for
    FROM (
        -- What has a spectrogram was not refused, though a later batch may have failed to compute it again.
        SELECT DISTINCT ON (bucket, key, object_id, profile_id) *
        FROM (
            SELECT bucket, key, object_id, profile_id, recorded_at, generation, loaded_at,
                   CASE status WHEN 'complete' THEN 1 ELSE 2 END AS place
            FROM spectralize.current_spectrograms
            UNION ALL
            SELECT bucket, key, object_id, profile_id, NULL, NULL, NULL, CASE outcome WHEN 'rejected' THEN 3 ELSE 4 END
            FROM spectralize.current_outcomes WHERE outcome IN ('rejected', 'failed')
        ) AS standing
        ORDER BY bucket, key, object_id, profile_id, place
    ) AS best
    GROUP BY bucket, key, object_id
) AS found
JOIN spectralize.objects AS o USING (object_id)
LEFT JOIN spectralize.recordings AS r USING (object_id);

-- All objects of a key stand or fall together, and so do their profiles. So their rows are made anew, by one transaction at a time:
-- it holds the objects of the key, in the order in which `forget` locks them, and looks only then, when what others have done
-- to the key can be seen. Key shares, as foreign keys take, are not in its way.
-- A plan that was made for an empty store would read all of a large one.
CREATE FUNCTION spectralize.refresh_catalogue(object_ids bigint[]) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM spectralize.objects AS own
    JOIN spectralize.objects AS o ON o.bucket = own.bucket AND o.key = own.key
    WHERE own.object_id = ANY (object_ids)
    ORDER BY o.object_id FOR NO KEY UPDATE OF o;

    DELETE FROM spectralize.catalogue AS c
    USING (SELECT DISTINCT bucket, key FROM spectralize.objects WHERE object_id = ANY (object_ids)) AS touched
    WHERE c.bucket = touched.bucket AND c.key = touched.key;

    INSERT INTO spectralize.catalogue
    SELECT made.*
    FROM (SELECT DISTINCT bucket, key FROM spectralize.objects WHERE object_id = ANY (object_ids)) AS touched
    CROSS JOIN LATERAL (
        SELECT * FROM spectralize.catalogue_now AS n WHERE n.bucket = touched.bucket AND n.key = touched.key OFFSET 0
    ) AS made;
END $$;

CREATE FUNCTION spectralize.refresh_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    object_ids bigint[] := (SELECT array_agg(DISTINCT object_id) FROM changed);
BEGIN
    IF object_ids IS NOT NULL THEN
        PERFORM spectralize.refresh_catalogue(object_ids);
    END IF;
    RETURN NULL;
END $$;

-- Lines are planned, and planned anew, without an outcome: as yet they say nothing.
CREATE FUNCTION spectralize.refresh_settled() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    object_ids bigint[] := (SELECT array_agg(DISTINCT object_id) FROM changed WHERE outcome IS NOT NULL);
BEGIN
    IF object_ids IS NOT NULL THEN
        PERFORM spectralize.refresh_catalogue(object_ids);
    END IF;
    RETURN NULL;
END $$;

-- A listing touches objects for other reasons as well; what makes one the newest of its key are these two times.
CREATE FUNCTION spectralize.refresh_reordered() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    object_ids bigint[] := (
        SELECT array_agg(object_id) FROM changed JOIN before USING (object_id)
        WHERE (changed.last_modified, changed.listed_since, changed.partition_at)
              IS DISTINCT FROM (before.last_modified, before.listed_since, before.partition_at)
    );
BEGIN
    IF object_ids IS NOT NULL THEN
        PERFORM spectralize.refresh_catalogue(object_ids);
    END IF;
    RETURN NULL;
END $$;

-- None when a recording or a spectrogram is inserted: that transaction ends with the line of the ledger that says so, and keys
-- that were held from its beginning would keep others waiting while it writes frames.
CREATE TRIGGER refresh_on_insert AFTER INSERT ON spectralize.batch_objects
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_settled();
CREATE TRIGGER refresh_on_update AFTER UPDATE ON spectralize.batch_objects
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_changed();
CREATE TRIGGER refresh_on_delete AFTER DELETE ON spectralize.batch_objects
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_settled();
CREATE TRIGGER refresh_on_update AFTER UPDATE ON spectralize.spectrograms
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_changed();
CREATE TRIGGER refresh_on_delete AFTER DELETE ON spectralize.spectrograms
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_changed();
CREATE TRIGGER refresh_on_update AFTER UPDATE ON spectralize.recordings
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_changed();
CREATE TRIGGER refresh_on_delete AFTER DELETE ON spectralize.recordings
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_changed();
CREATE TRIGGER refresh_on_update AFTER UPDATE ON spectralize.objects
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION spectralize.refresh_reordered();

INSERT INTO spectralize.catalogue SELECT * FROM spectralize.catalogue_now;
