-- One row per hop of the waveform at the profile's rate: samples [i * hop_length, (i + 1) * hop_length).
-- pcm holds the hop's samples as little-endian int16 where the profile asks for them.
CREATE TABLE spectralize.waveform_frames (
    frame_time     timestamptz NOT NULL,
    spectrogram_id integer     NOT NULL,
    frame_index    integer     NOT NULL,
    min            real        NOT NULL,
    max            real        NOT NULL,
    rms            real        NOT NULL,
    pcm            bytea
);
SELECT create_hypertable('spectralize.waveform_frames', by_range('frame_time', INTERVAL '7 days'),
                         create_default_indexes => false);
CREATE INDEX waveform_frames_spectrogram_time_idx ON spectralize.waveform_frames (spectrogram_id, frame_time);
