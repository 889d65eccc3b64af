-- Every spectrogram has exactly the Mel frames 0 … n_frames - 1, each once.
SELECT s.spectrogram_id,
       format('%s frames, %s distinct, from %s to %s; n_frames is %s',
              count(f.frame_index), count(DISTINCT f.frame_index), min(f.frame_index), max(f.frame_index), s.n_frames) AS breach
FROM spectralize.spectrograms AS s
LEFT JOIN spectralize.mel_frames AS f USING (spectrogram_id)
WHERE s.status <> 'expired'
GROUP BY s.spectrogram_id
HAVING count(f.frame_index) <> s.n_frames OR count(DISTINCT f.frame_index) <> s.n_frames
    OR min(f.frame_index) <> 0 OR max(f.frame_index) <> s.n_frames - 1
