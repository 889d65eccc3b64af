-- Rate, hop and bands of a spectrogram are its profile's, and it has as many frames, hops and seconds as its samples make.
WITH expected AS (
    SELECT s.spectrogram_id, s.sr, s.hop_length, s.n_mels, s.n_samples, s.n_frames, s.n_hops, s.n_seconds,
           p.name, p.parameters ->> 'sr' AS profile_sr, (p.parameters ->> 'hop_length')::integer AS profile_hop_length,
           (p.parameters ->> 'n_mels')::integer AS profile_n_mels,
           CASE WHEN (p.parameters ->> 'center')::boolean THEN s.n_samples + (p.parameters ->> 'n_fft')::bigint / 2 * 2
                ELSE s.n_samples END - (p.parameters ->> 'n_fft')::bigint AS beyond_first,
           CASE WHEN p.parameters ->> 'waveform' = 'off' THEN 0
                ELSE (s.n_samples + s.hop_length - 1) / s.hop_length END AS hops,
           greatest((s.n_frames - 1)::bigint * s.hop_length / s.sr + 1, (s.n_samples + s.sr - 1) / s.sr) AS seconds
    FROM spectralize.spectrograms AS s JOIN spectralize.profiles AS p USING (profile_id)
)
SELECT spectrogram_id,
       format('sr %s, hop_length %s, n_mels %s; profile %s says %s, %s, %s', sr, hop_length, n_mels,
              name, profile_sr, profile_hop_length, profile_n_mels) AS breach
FROM expected
WHERE (hop_length, n_mels) IS DISTINCT FROM (profile_hop_length, profile_n_mels)
   OR (profile_sr = 'native' OR profile_sr = sr::text) IS NOT TRUE
UNION ALL
SELECT spectrogram_id,
       format('%s frames, %s hops, %s seconds; %s samples make %s, %s, %s', n_frames, n_hops, n_seconds,
              n_samples, 1 + beyond_first / hop_length, hops, seconds)
FROM expected
WHERE (n_frames, n_hops, n_seconds) IS DISTINCT FROM (1 + beyond_first / hop_length, hops, seconds)
