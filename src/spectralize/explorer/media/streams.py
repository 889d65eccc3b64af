"""How a recording is heard: as the object that it is, or as a wav that is made while it is played."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from spectralize.reader.recording import Recording

Stream = Literal["object", "wav"]

HEADER_BYTES = 44
#: Sizes in a wav are of 32 bits.
_MAX_WAV_BYTES = (1 << 32) - 1

#: Browsers seek in mp3 by estimate, and people are to hear what is under the cursor. To reach a place exactly, all bytes
#: before it are read; a larger file is left to the browser.
_MAX_MP3_BYTES = 64 << 20

_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"

#: Container -> codecs that Chromium, Firefox and Safari play and find any place in.
_PLAYABLE = {
    "wav": {"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"},
    "flac": {"flac"},
    "ogg": {"vorbis", "opus"},
    _MP4: {"aac"},
}

#: What else browsers, and those who save it, may take the object for. Never sniffed: who uploads it does not choose this.
_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    _MP4: "audio/mp4",
    "mp3": "audio/mpeg",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
}

#: Browsers play no more.
_MAX_CHANNELS = 8

#: A header and samples that differ by more: the browser's clock would not be ours.
_CLOCK_SLACK_S = 0.1


@dataclass(frozen=True, slots=True)
class Wav:
    """A 16-bit wav of a whole recording that nobody has written: its size is known, and any part of it can be made."""

    sr: int
    channels: int
    n_samples: int

    @property
    def block_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return 2 * self.channels

    @property
    def size_bytes(self) -> int:
        """Bytes of it all."""
        return HEADER_BYTES + self.n_samples * self.block_bytes

    @property
    def is_mono(self) -> bool:
        """Tell whether channels are averaged, or there is one only."""
        return self.channels == 1

    def header(self) -> bytes:
        """Return the bytes before the samples."""
        n_bytes = self.n_samples * self.block_bytes
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", HEADER_BYTES - 8 + n_bytes, b"WAVE", b"fmt ", 16, 1, self.channels, self.sr,
            self.sr * self.block_bytes, self.block_bytes, 16, b"data", n_bytes,
        )  # fmt: skip

    def samples_of(self, start: int, stop: int) -> tuple[int, int]:
        """Return the samples [first, stop) that bytes [start, stop) of the file lie in; none for bytes of the header only."""
        first = max(0, start - HEADER_BYTES) // self.block_bytes
        return first, max(first, -(-(stop - HEADER_BYTES) // self.block_bytes))


def plan_wav(recording: Recording, *, mono: bool = False) -> Wav | None:
    """Return the wav of what was decoded of a recording, or None if nothing was, or it would be too large for a wav.

    It has the recording's channels up to two; it is mono if there are more, or if so it fits.
    """
    sr, n_samples = recording.decoded_samplerate_hz, count_samples(recording)
    if not sr or not n_samples:
        return None
    channels = 1 if mono or recording.decoded_channels != 2 else 2
    for wav in (Wav(sr, channels, n_samples), Wav(sr, 1, n_samples)):
        # The first field counts all but itself and its name.
        if wav.size_bytes <= _MAX_WAV_BYTES and sr * wav.block_bytes < 1 << 32:
            return wav
    return None


def count_samples(recording: Recording) -> int:
    """Return the samples per channel of what was decoded, as `Recording.audio` counts them."""
    return round((recording.decoded_duration_s or 0.0) * (recording.decoded_samplerate_hz or 0))


def to_pcm(y: npt.NDArray[np.float32]) -> bytes:
    """Return samples, shape (n_samples,) or (channels, n_samples), as 16-bit numbers: those of 16-bit files as they were."""
    steps = np.clip(np.rint(y * np.float32(32_768)), -32_768, 32_767)
    return np.ascontiguousarray(steps.T, dtype="<i2").tobytes()


def choose_stream(recording: Recording) -> Stream:
    """Say what an audio element is to play: the object where every browser plays it and finds its way in it, else a wav."""
    is_large_mp3 = recording.container == "mp3" and recording.size_bytes > _MAX_MP3_BYTES
    if is_large_mp3 or plan_wav(recording) is None:
        return "object"
    declared_s, decoded_s = recording.declared_duration_s, recording.decoded_duration_s
    is_sound = (
        declared_s is not None
        and decoded_s is not None
        and abs(declared_s - decoded_s) <= _CLOCK_SLACK_S
        and all(item.status == "complete" for item in recording.spectrograms.values())
    )
    is_playable = (
        recording.decoded_codec in _PLAYABLE.get(recording.container or "", ())
        and (recording.decoded_channels or 0) <= _MAX_CHANNELS
        # Beyond this a wav is another format, RF64, which browsers do not know.
        and (recording.container != "wav" or recording.size_bytes <= _MAX_WAV_BYTES)
    )
    return "object" if is_sound and is_playable else "wav"


def content_type(recording: Recording, stream: Stream) -> str:
    """Return the type of what is sent: that of the container which decoded it, whatever key and bucket say."""
    return "audio/wav" if stream == "wav" else _TYPES.get(recording.container or "", "application/octet-stream")
