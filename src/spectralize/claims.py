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
_WAV_FIXED = {1, 3, 6, 7}

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
        head = file.read(34)
        if len(head) < 8:
            break
        name, size = head[:4], struct.unpack_from("<I", head, 4)[0]
        if name == b"fmt " and len(head) == 34:
            format_tag, _, rate, _, block_align = struct.unpack_from("<HHIIH", head, 8)
            if format_tag == 0xFFFE:
                format_tag = struct.unpack_from("<H", head, 32)[0]
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
    # In the first frame, behind its header, perhaps a checksum, and the side information.
    for at in (start_of_frame + 4 + side for start_of_frame in _find_syncs(head) for side in (9, 11, 17, 19, 32, 34)):
        if head[at : at + 4] in (b"Xing", b"Info") and len(head) >= at + 12 and head[at + 7] & 1:
            frames = struct.unpack_from(">I", head, at + 8)[0]
        if head[at : at + 4] == b"VBRI" and len(head) >= at + 18:
            frames = struct.unpack_from(">I", head, at + 14)[0]
    return Header(n_mp3_frames=frames or None)


def _find_syncs(head: bytes) -> list[int]:
    at = next((i for i in range(len(head) - 1) if head[i] == 0xFF and head[i + 1] & 0xE0 == 0xE0), None)
    return [] if at is None else [at]


def lacks_ogg_end(file: SeekableFile) -> bool:
    """Tell whether the last page of an Ogg file is not marked as the end of its stream, which a cut-off file lacks."""
    size_bytes = file.seek(0, io.SEEK_END)
    # A page has at most 65 307 bytes.
    file.seek(max(0, size_bytes - (1 << 17)))
    tail = file.read(1 << 17)
    last = tail.rfind(b"OggS")
    if last < 0 or last + 27 > len(tail) or not tail[last + 5] & 0x04:
        return True
    table = tail[last + 27 : last + 27 + tail[last + 26]]
    return len(table) < tail[last + 26] or last + 27 + len(table) + sum(table) > len(tail)
