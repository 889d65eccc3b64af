-- Recordings whose consent was withdrawn. A key is forgotten for good: once one of its objects has this set, nothing is
-- loaded under the key again, whatever its bytes. The lines of the ledger stay, so spectrograms hang on objects from now
-- on, and the recording itself (tags, sha256) can go.
ALTER TABLE spectralize.objects ADD COLUMN forgotten_at timestamptz;
CREATE INDEX objects_forgotten_idx ON spectralize.objects (bucket, key) WHERE forgotten_at IS NOT NULL;

ALTER TABLE spectralize.spectrograms
    DROP CONSTRAINT spectrograms_object_id_fkey,
    ADD CONSTRAINT spectrograms_object_id_fkey FOREIGN KEY (object_id) REFERENCES spectralize.objects;

-- A load that was planned before the key was forgotten comes too late. All objects of the key are locked, in the order
-- in which `forget` locks them, so that a load waits for a forgetting under way, also one that began before this object
-- was listed; and without a condition on forgotten_at, which would be judged before the wait.
CREATE FUNCTION spectralize.refuse_forgotten() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_forgotten boolean;
BEGIN
    SELECT bool_or(of_key.forgotten_at IS NOT NULL) INTO is_forgotten
    FROM (
        SELECT o.forgotten_at FROM spectralize.objects AS own
        JOIN spectralize.objects AS o ON o.bucket = own.bucket AND o.key = own.key
        WHERE own.object_id = NEW.object_id
        ORDER BY o.object_id FOR KEY SHARE OF o
    ) AS of_key;
    IF is_forgotten THEN
        RAISE EXCEPTION 'object % belongs to a recording that was forgotten', NEW.object_id USING ERRCODE = 'SF001';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_forgotten BEFORE INSERT ON spectralize.recordings
    FOR EACH ROW EXECUTE FUNCTION spectralize.refuse_forgotten();
