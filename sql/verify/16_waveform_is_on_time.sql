-- A hop starts at recorded_at + frame_index * hop_length / sr, to the microsecond, and holds its samples if, and only if, the
-- profile keeps them.
WITH kept AS MATERIALIZED (
    SELECT s.spectrogram_id, s.recorded_at, s.hop_length, s.sr, s.n_samples, p.parameters ->> 'waveform' = 'pcm' AS has_pcm
    FROM spectralize.spectrograms AS s JOIN spectralize.profiles AS p USING (profile_id)
)
SELECT s.spectrogram_id,
       format('%s hops at the wrong time or with the wrong samples, first frame_index %s', count(*), min(f.frame_index)) AS breach
FROM kept AS s
JOIN spectralize.waveform_frames AS f USING (spectrogram_id)
WHERE f.frame_time <> s.recorded_at
      + ((f.frame_index::bigint * s.hop_length * 1000000 + s.sr / 2) / s.sr) * INTERVAL '1 microsecond'
   OR octet_length(f.pcm) IS DISTINCT FROM
      CASE WHEN s.has_pcm THEN 2 * least(s.hop_length, s.n_samples - f.frame_index::bigint * s.hop_length) END
GROUP BY s.spectrogram_id
