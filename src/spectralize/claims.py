"""How long a file says it is, where its header counts samples: what decoding is held against."""

import io
import struct
from dataclasses import dataclass
from typing import Protocol

#: Containers whose header counts every sample of the stream.
_COUNTED = {"w64", "flac", "aiff", "caf", "au", "ape", "wv", "tta"}
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"

#: Codecs of which one sample takes a fixed number of bytes: PCM, float, A-law, µ-law, and EXTENSIBLE for any of them.
_WAV_FIXED = {1, 3, 6, 7, 0xFFFE}

#: Writers that cannot seek back leave 0, or a number from here on, as the size of what they are about to write.
_WAV_PLACEHOLDER = 0x7FFF_0000

#: Chunks before the data that are looked at.
_WAV_MAX_CHUNKS = 1_000

#: Where the first mp3 frame, with its Xing, Info or VBRI header, is looked for.
_MP3_HEAD_BYTES = 4096


class SeekableFile(Protocol):
    """What decoders and parsers need of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Read up to size bytes."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move, and return the position in bytes."""

    def tell(self) -> int:
        """Return the position in bytes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A length in seconds, and by how much a whole file of this format may fall short of it."""

    duration_s: float
    slack_s: float


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's own header counts: samples (wav) or frames (mp3); None where it counts nothing."""

    n_samples: int | None = None
    sr: int | None = None
    n_mp3_frames: int | None = None


def read_header(container: str, file: SeekableFile) -> Header:
    """Read the count that FFmpeg corrects or estimates, by FFmpeg's name of the format."""
    if container == "wav":
        return _read_wav_header(file)
    if container == "mp3":
        return _read_mp3_header(file)
    return Header()


def claimed_length(
    container: str, header: Header, sr: int, *, stream_s: float | None, container_s: float | None, is_only_stream: bool
) -> Claim | None:
    """Return what the header counts, or None where it only estimates, as FFmpeg does for a bare mp3, or says nothing.

    Parameters
    ----------
    sr
        Sample rate in Hz as decoded.
    stream_s, container_s
        FFmpeg's durations of the audio stream and of the whole file, in seconds.
    """
    if container == "wav":
        return Claim(header.n_samples / header.sr, 0.001) if header.n_samples is not None and header.sr else None
    if container == "mp3":
        samples_per_frame = 1152 if sr >= 32_000 else 576
        # Encoder delay and padding are counted too.
        return Claim(header.n_mp3_frames * samples_per_frame / sr, 4 * 1152 / sr) if header.n_mp3_frames else None
    if container == _MP4:
        # An edit list shows in the whole file's duration, a longer picture track does not show in the stream's.
        known = [seconds for seconds in (stream_s, container_s) if seconds is not None]
        return Claim(min(known), max(0.1, 3 * 1024 / sr)) if known else None
    if container == _MATROSKA:
        return Claim(container_s, 0.5) if container_s is not None and is_only_stream else None
    if container in _COUNTED and stream_s is not None:
        return Claim(stream_s, 0.001)
    return None


def _read_wav_header(file: SeekableFile) -> Header:
    """Read the data chunk's size: FFmpeg corrects it to what is there."""
    size_bytes = file.seek(0, io.SEEK_END)
    position, format_tag, rate, block_align = 12, 0, 0, 0
    for _ in range(_WAV_MAX_CHUNKS):
        file.seek(position)
        head = file.read(24)
        if len(head) < 8:
            break
        name, size = head[:4], struct.unpack_from("<I", head, 4)[0]
        if name == b"fmt " and len(head) == 24:
            format_tag, _, rate, _, block_align = struct.unpack_from("<HHIIH", head, 8)
        if name == b"data":
            is_placeholder = size == 0 or (size >= _WAV_PLACEHOLDER and position + 8 + size > size_bytes)
            if is_placeholder or format_tag not in _WAV_FIXED or not rate or not block_align:
                break
            return Header(n_samples=size // block_align, sr=rate)
        position += 8 + size + size % 2
    return Header()


def _read_mp3_header(file: SeekableFile) -> Header:
    """Read the frame count of a Xing, Info or VBRI header."""
    file.seek(0)
    start, tag = 0, file.read(10)
    if tag[:3] == b"ID3" and len(tag) == 10:
        # Four bytes of seven bits each.
        start = 10 + sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
    file.seek(start)
    head = file.read(_MP3_HEAD_BYTES)
    frames = 0
    for mark in (b"Xing", b"Info"):
        at = head.find(mark)
        if at >= 0 and at + 12 <= len(head) and struct.unpack_from(">I", head, at + 4)[0] & 1:
            frames = struct.unpack_from(">I", head, at + 8)[0]
    at = head.find(b"VBRI")
    if at >= 0 and at + 18 <= len(head):
        frames = struct.unpack_from(">I", head, at + 14)[0]
    return Header(n_mp3_frames=frames or None)


def lacks_ogg_end(file: SeekableFile) -> bool:
    """Tell whether the last page of an Ogg file is not marked as the end of its stream, which a cut-off file lacks."""
    size_bytes = file.seek(0, io.SEEK_END)
    # A page has at most 65 307 bytes.
    file.seek(max(0, size_bytes - (1 << 16)))
    tail = file.read(1 << 16)
    last = tail.rfind(b"OggS")
    return last < 0 or last + 6 > len(tail) or not tail[last + 5] & 0x04
