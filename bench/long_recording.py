"""Recordings of any length for the memory test: one minute of music, encoded once, its packets repeated.

The packets get running timestamps, so it decodes as one whole recording. They are MP3 without bit reservoir: each stands
for itself, so that the first packet of a minute may follow the last.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream

from bench.corpus import AudioFile, Corpus, music_folder

SR = 48_000
#: Samples in one MP3 frame.
_FRAME = 1152
_MINUTE_FRAMES = 60 * SR // _FRAME
_ORIGINAL = "Media Threat.ogg"


def load_recording(home: Path, minutes: int) -> Corpus:
    """Return a corpus of one stereo recording at 48 kHz, built if it is not there."""
    path = home / "bench" / "long" / f"{minutes}min" / f"{minutes} min.mp3"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_suffix(".unfinished")
        repeat_minute(encode_minute(music_folder(home) / _ORIGINAL), building, minutes)
        building.rename(path)
    return Corpus(f"recording_of_{minutes}_min", (AudioFile(path, minutes * 60.0),))


def load_excerpt(home: Path, seconds: int) -> Corpus:
    """Return a corpus of the first seconds of the same music, at most a minute, built if it is not there."""
    path = home / "bench" / "long" / f"{seconds}s" / f"{seconds} s.mp3"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_suffix(".unfinished")
        repeat_minute(encode_minute(music_folder(home) / _ORIGINAL)[: seconds * SR // _FRAME], building, 1)
        building.rename(path)
    return Corpus(f"recording_of_{seconds}_s", (AudioFile(path, float(seconds)),))


def encode_minute(original: Path) -> list[bytes]:
    """Return the packets of the minute that begins after the first."""
    encoder = av.CodecContext.create("libmp3lame", "w")
    if not isinstance(encoder, av.AudioCodecContext):
        raise TypeError("libmp3lame: is no audio codec")
    encoder.sample_rate, encoder.layout, encoder.format = SR, "stereo", "fltp"
    encoder.options = {"b": "128k", "reservoir": "0"}
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SR, frame_size=_FRAME)
    packets: list[bytes] = []
    with av.open(str(original)) as container:
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                packets += [bytes(packet) for packet in encoder.encode(piece)]
            if len(packets) >= 2 * _MINUTE_FRAMES:
                break
    return packets[_MINUTE_FRAMES : 2 * _MINUTE_FRAMES]


def repeat_minute(minute: list[bytes], path: Path, minutes: int) -> None:
    """Write the packets of one minute again and again."""
    with av.open(str(path), "w", format="mp3") as output:
        stream = output.add_stream("libmp3lame", SR, options={"b": "128k"})
        if not isinstance(stream, AudioStream):
            raise TypeError("libmp3lame: is no audio codec")
        stream.layout = "stereo"
        for number in range(minutes * len(minute)):
            packet = av.Packet(minute[number % len(minute)])
            packet.stream, packet.time_base = stream, Fraction(1, SR)
            packet.pts = packet.dts = number * _FRAME
            packet.duration = _FRAME
            output.mux(packet)
