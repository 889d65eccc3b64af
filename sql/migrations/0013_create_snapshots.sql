-- Named sets of spectrograms, such as what a model was trained on. While a spectrogram is in one, maintenance leaves it.
CREATE TABLE spectralize.snapshots (
    snapshot_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text        NOT NULL UNIQUE,
    note        text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE spectralize.snapshot_spectrograms (
    snapshot_id    integer NOT NULL REFERENCES spectralize.snapshots ON DELETE CASCADE,
    spectrogram_id integer NOT NULL REFERENCES spectralize.spectrograms,
    PRIMARY KEY (snapshot_id, spectrogram_id)
);
CREATE INDEX snapshot_spectrograms_spectrogram_idx ON spectralize.snapshot_spectrograms (spectrogram_id);

-- The lock makes a pin wait for an expiry under way, and an expiry for a pin: neither misses the other.
CREATE FUNCTION spectralize.refuse_expired_pin() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found_status text;
BEGIN
    SELECT status INTO found_status FROM spectralize.spectrograms
    WHERE spectrogram_id = NEW.spectrogram_id FOR KEY SHARE;
    IF found_status = 'expired' THEN
        RAISE EXCEPTION 'spectrogram % has expired: it cannot be kept in a snapshot', NEW.spectrogram_id
            USING ERRCODE = 'SF002';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_expired_pin BEFORE INSERT OR UPDATE ON spectralize.snapshot_spectrograms
    FOR EACH ROW EXECUTE FUNCTION spectralize.refuse_expired_pin();
