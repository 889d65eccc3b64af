-- An object's name for the world outside: made of what identifies it and of nothing else, so a store that is rebuilt from
-- the same bucket gives every object the uid it had before, whatever numbers its rows get. Each part comes behind its own
-- length, so that no two objects are written alike, whatever their keys hold.
-- convert_to is only "stable" because it asks for the encoding of the database; that one never changes.
CREATE FUNCTION spectralize.object_uid(bucket text, key text, etag text, size_bytes bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT AS $$
    SELECT left(encode(sha256(convert_to(concat_ws(
        ' ', length(bucket), bucket, length(key), key, length(etag), etag, size_bytes), 'UTF8')), 'hex'), 32)::uuid
$$;
ALTER TABLE spectralize.objects
    ADD COLUMN uid uuid GENERATED ALWAYS AS (spectralize.object_uid(bucket, key, etag, size_bytes)) STORED;
CREATE INDEX objects_uid_idx ON spectralize.objects (uid);
