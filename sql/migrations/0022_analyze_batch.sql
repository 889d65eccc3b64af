-- Fresh statistics for what a batch has written, and no more: a hypertable of a thousand chunks takes most of a minute to analyse
-- as a whole, however few of them a batch has touched.
CREATE FUNCTION spectralize.analyze_batch(batch_id bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    written tstzmultirange;
    touched regclass;
    n_touched integer := 0;
BEGIN
    SELECT range_agg(tstzrange(s.recorded_at, s.recorded_at + INTERVAL '1 second' * (s.n_samples::double precision / s.sr), '[]'))
    INTO written FROM spectralize.spectrograms AS s WHERE s.batch_id = analyze_batch.batch_id;
    FOR touched IN
        SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass FROM timescaledb_information.chunks AS c
        WHERE c.hypertable_schema = 'spectralize' AND tstzrange(c.range_start, c.range_end) && written
    LOOP
        EXECUTE format('ANALYZE %s', touched);
        n_touched := n_touched + 1;
    END LOOP;
    RETURN n_touched;
END $$;
