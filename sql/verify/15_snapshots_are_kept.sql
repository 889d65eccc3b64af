-- Every spectrogram in a snapshot is living.
SELECT format('snapshot %s', n.name) AS what, format('its spectrogram %s has expired', s.spectrogram_id) AS breach
FROM spectralize.snapshot_spectrograms AS pin
JOIN spectralize.snapshots AS n USING (snapshot_id)
JOIN spectralize.spectrograms AS s USING (spectrogram_id)
WHERE s.status = 'expired'
