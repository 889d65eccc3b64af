-- Every spectrogram has exactly the seconds 0 … n_seconds - 1, each once, and they account for all its frames.
SELECT s.spectrogram_id,
       format('%s seconds, %s distinct, holding %s frames; n_seconds is %s, n_frames %s', count(m.second_index),
              count(DISTINCT m.second_index), coalesce(sum(m.n_frames), 0), s.n_seconds, s.n_frames) AS breach
FROM spectralize.spectrograms AS s
LEFT JOIN spectralize.mel_seconds AS m USING (spectrogram_id)
WHERE s.status <> 'expired'
GROUP BY s.spectrogram_id
HAVING count(m.second_index) <> s.n_seconds OR count(DISTINCT m.second_index) <> s.n_seconds
    OR coalesce(sum(m.n_frames), 0) <> s.n_frames OR min(m.second_index) <> 0 OR max(m.second_index) <> s.n_seconds - 1
