-- Of a forgotten key there is no recording, no living spectrogram and no frame, hop or second.
WITH forgotten AS (
    SELECT o.object_id, format('s3://%s/%s', o.bucket, o.key) AS what
    FROM spectralize.objects AS o
    WHERE EXISTS (
        SELECT FROM spectralize.objects AS f WHERE f.bucket = o.bucket AND f.key = o.key AND f.forgotten_at IS NOT NULL
    )
), computed AS (
    SELECT s.spectrogram_id, s.status, forgotten.what FROM spectralize.spectrograms AS s JOIN forgotten USING (object_id)
)
SELECT what, format('its recording %s is there', object_id) AS breach
FROM forgotten JOIN spectralize.recordings USING (object_id)
UNION ALL
SELECT what, format('its spectrogram %s is %s', spectrogram_id, status) FROM computed WHERE status <> 'expired'
UNION ALL
SELECT DISTINCT what, format('mel_frames has rows of its spectrogram %s', spectrogram_id)
FROM computed JOIN spectralize.mel_frames USING (spectrogram_id)
UNION ALL
SELECT DISTINCT what, format('waveform_frames has rows of its spectrogram %s', spectrogram_id)
FROM computed JOIN spectralize.waveform_frames USING (spectrogram_id)
UNION ALL
SELECT DISTINCT what, format('mel_seconds has rows of its spectrogram %s', spectrogram_id)
FROM computed JOIN spectralize.mel_seconds USING (spectrogram_id)
