-- What people ask of frames in SQL: a window of one spectrogram, a band of a vector, which band is which in Hz, and the
-- frames of all that is current beside their keys.

-- frame_time of a frame: recorded_at + frame_index * hop_length / sr, to the nearest microsecond.
CREATE FUNCTION spectralize.frame_time(recorded_at timestamptz, frame_index bigint, hop_length integer, sr integer)
RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT AS $$
    SELECT recorded_at + ((frame_index * hop_length * 1000000 + sr / 2) / sr) * INTERVAL '1 microsecond'
$$;

-- Mel frames of one spectrogram that start in [start_s, end_s), seconds from the start of the recording; NULL is the start
-- or the end of the recording. A function and not a view: only bounds of time that the planner knows leave it with the one
-- or two chunks that hold them. What has no frames any more is an error, as in the reader, and not an empty answer.
CREATE FUNCTION spectralize.mel_window(
    spectrogram_id integer, start_s double precision DEFAULT 0, end_s double precision DEFAULT 'Infinity'
) RETURNS TABLE (frame_index integer, offset_s double precision, frame_time timestamptz, mel halfvec)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 500 AS $$
DECLARE
    s record;
    first_frame bigint;
    stop_frame bigint;
BEGIN
    SELECT t.n_frames, t.hop_length, t.sr, t.recorded_at, t.expired_because INTO s
    FROM spectralize.spectrograms AS t WHERE t.spectrogram_id = mel_window.spectrogram_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'spectrogram %: not in the store', mel_window.spectrogram_id USING ERRCODE = 'no_data_found';
    END IF;
    IF s.expired_because IS NOT NULL THEN
        RAISE EXCEPTION 'spectrogram % has expired (%): its frames are gone', mel_window.spectrogram_id, s.expired_because
            USING ERRCODE = 'no_data_found';
    END IF;
    start_s := coalesce(start_s, 0);
    end_s := coalesce(end_s, 'Infinity');
    IF start_s = 'NaN' OR end_s = 'NaN' THEN
        RAISE EXCEPTION 'window % to %: must be seconds', start_s, end_s USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A millionth of a frame forgives what floating point makes of a frame's own offset.
    first_frame := ceil(least(greatest(start_s, 0) * s.sr / s.hop_length, s.n_frames) - 1e-6);
    stop_frame := ceil(least(greatest(end_s, 0) * s.sr / s.hop_length, s.n_frames) - 1e-6);
    RETURN QUERY EXECUTE
        'SELECT f.frame_index, f.frame_index * $4, f.frame_time, f.mel FROM spectralize.mel_frames AS f '
        'WHERE f.spectrogram_id = $1 AND f.frame_time >= $2 AND f.frame_time < $3 ORDER BY f.frame_time'
        USING mel_window.spectrogram_id, spectralize.frame_time(s.recorded_at, first_frame, s.hop_length, s.sr),
              spectralize.frame_time(s.recorded_at, stop_frame, s.hop_length, s.sr),
              s.hop_length::double precision / s.sr;
END $$;

-- A vector as it travels: the reader asks for all rows of a window as one value. Bound to the extension's own function here,
-- once, so that a search_path without the extension's schema does not matter.
CREATE FUNCTION spectralize.send_halfvec(vector halfvec) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT RETURN halfvec_send(vector);

-- Band k of a frame, from 0, in dB; NULL beyond the last.
CREATE FUNCTION spectralize.band(mel halfvec, k integer) RETURNS real
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT AS $$
    SELECT (mel::real[])[k + 1]
$$;

-- Mel <-> Hz, as librosa defines them: by the formula of HTK, or by Slaney's, linear up to 1 kHz and logarithmic above.
CREATE FUNCTION spectralize.hz_to_mel(hz double precision, htk boolean) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT AS $$
    SELECT CASE WHEN htk THEN 2595 * log(1 + hz / 700)
                WHEN hz < 1000 THEN hz * 3 / 200
                ELSE 15 + ln(hz / 1000) / (ln(6.4::double precision) / 27) END
$$;
CREATE FUNCTION spectralize.mel_to_hz(mel double precision, htk boolean) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURNS NULL ON NULL INPUT AS $$
    SELECT CASE WHEN htk THEN 700 * (power(10::double precision, mel / 2595) - 1)
                WHEN mel < 15 THEN mel * 200 / 3
                ELSE 1000 * exp((mel - 15) * (ln(6.4::double precision) / 27)) END
$$;

-- The bands of a profile in Hz: each rises from low_hz to its peak at centre_hz and falls to high_hz. A profile at the
-- recordings' own rate and without fmax needs the rate.
CREATE FUNCTION spectralize.mel_bands(profile text, sr integer DEFAULT NULL)
RETURNS TABLE (k integer, low_hz double precision, centre_hz double precision, high_hz double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 128 AS $$
DECLARE
    of_profile jsonb;
    is_htk boolean;
    n_mels integer;
    fmax double precision;
    low double precision;
    step double precision;
BEGIN
    SELECT p.parameters INTO of_profile FROM spectralize.profiles AS p WHERE p.name = mel_bands.profile;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'profile %: nothing in the store has it', quote_nullable(mel_bands.profile)
            USING ERRCODE = 'no_data_found';
    END IF;
    is_htk := of_profile ->> 'htk';
    n_mels := of_profile ->> 'n_mels';
    fmax := coalesce((of_profile ->> 'fmax')::double precision,
                     coalesce(nullif(of_profile ->> 'sr', 'native')::double precision, mel_bands.sr) / 2);
    IF coalesce(fmax, 0) <= 0 THEN
        RAISE EXCEPTION 'profile % keeps each recording''s own rate: mel_bands needs it, as in mel_bands(%, 44100)',
            mel_bands.profile, quote_literal(mel_bands.profile) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    low := spectralize.hz_to_mel((of_profile ->> 'fmin')::double precision, is_htk);
    step := (spectralize.hz_to_mel(fmax, is_htk) - low) / (n_mels + 1);
    RETURN QUERY
        SELECT band, spectralize.mel_to_hz(low + band * step, is_htk),
               spectralize.mel_to_hz(low + (band + 1) * step, is_htk), spectralize.mel_to_hz(low + (band + 2) * step, is_htk)
        FROM generate_series(0, n_mels - 1) AS band;
END $$;

-- Frames of what is current, beside their keys: made for questions about some keys, each of which opens the chunks of its
-- own frames only. A plain join would read the whole table for one key. Questions about a time of day across recordings
-- are for mel_frames itself, or mel_seconds.
CREATE VIEW spectralize.current_frames AS
SELECT s.bucket, s.key, s.profile, s.object_id, s.spectrogram_id, f.frame_index, f.offset_s, f.frame_time, f.mel
FROM spectralize.current_spectrograms AS s
CROSS JOIN LATERAL spectralize.mel_window(s.spectrogram_id) AS f;
