-- Every spectrogram has exactly the waveform hops 0 … n_hops - 1, each once; none if the profile keeps no waveform.
SELECT s.spectrogram_id,
       format('%s hops, %s distinct, from %s to %s; n_hops is %s',
              count(f.frame_index), count(DISTINCT f.frame_index), min(f.frame_index), max(f.frame_index), s.n_hops) AS breach
FROM spectralize.spectrograms AS s
LEFT JOIN spectralize.waveform_frames AS f USING (spectrogram_id)
WHERE s.status <> 'expired'
GROUP BY s.spectrogram_id
HAVING count(f.frame_index) <> s.n_hops OR count(DISTINCT f.frame_index) <> s.n_hops
    OR (s.n_hops > 0 AND (min(f.frame_index) <> 0 OR max(f.frame_index) <> s.n_hops - 1))
