"""How long a file says it is, where its header counts samples: what decoding is held against."""

import struct
from dataclasses import dataclass

#: Containers whose header counts every sample of the stream.
_COUNTED = {"w64", "flac", "aiff", "caf", "au", "ape", "wv", "tta"}
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"

#: Codecs of which one sample takes a fixed number of bytes: PCM, float, A-law, µ-law, and EXTENSIBLE for any of them.
_WAV_FIXED = {1, 3, 6, 7, 0xFFFE}

#: Writers that cannot seek back leave 0, or a number from here on, as the size of what they are about to write.
_WAV_PLACEHOLDER = 0x7FFF_0000

#: Where the first mp3 frame, with its Xing, Info or VBRI header, is looked for.
_MP3_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Claim:
    """A length in seconds, and by how much a whole file of this format may fall short of it."""

    duration_s: float
    slack_s: float


def claimed_length(
    container: str, data: bytes, sr: int, *, stream_s: float | None, container_s: float | None, is_only_stream: bool
) -> Claim | None:
    """Return what the header counts, or None where it only estimates, as FFmpeg does for a bare mp3, or says nothing.

    Parameters
    ----------
    container
        FFmpeg's name of the format.
    sr
        Sample rate in Hz as decoded.
    stream_s, container_s
        FFmpeg's durations of the audio stream and of the whole file, in seconds.
    """
    if container == "wav":
        return _wav_claim(data)
    if container == "mp3":
        return _mp3_claim(data, sr)
    if container == _MP4:
        # An edit list shows in the whole file's duration, a longer picture track does not show in the stream's.
        known = [seconds for seconds in (stream_s, container_s) if seconds is not None]
        return Claim(min(known), max(0.1, 3 * 1024 / sr)) if known else None
    if container == _MATROSKA:
        return Claim(container_s, 0.5) if container_s is not None and is_only_stream else None
    if container in _COUNTED and stream_s is not None:
        return Claim(stream_s, 0.001)
    return None


def _wav_claim(data: bytes) -> Claim | None:
    """Read the data chunk's size: FFmpeg corrects it to what is there."""
    position, format_tag, rate, block_align = 12, 0, 0, 0
    while position + 8 <= len(data):
        name, size = data[position : position + 4], struct.unpack_from("<I", data, position + 4)[0]
        if name == b"fmt " and position + 24 <= len(data):
            format_tag, _, rate, _, block_align = struct.unpack_from("<HHIIH", data, position + 8)
        if name == b"data":
            is_placeholder = size == 0 or (size >= _WAV_PLACEHOLDER and position + 8 + size > len(data))
            if is_placeholder or format_tag not in _WAV_FIXED or not rate or not block_align:
                return None
            return Claim(size // block_align / rate, 0.001)
        position += 8 + size + size % 2
    return None


def _mp3_claim(data: bytes, sr: int) -> Claim | None:
    """Read the frame count of a Xing, Info or VBRI header; encoder delay and padding are part of it."""
    start = 0
    if data[:3] == b"ID3" and len(data) > 10:
        # Four bytes of seven bits each.
        start = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    head = data[start : start + _MP3_HEAD_BYTES]
    frames = 0
    for mark in (b"Xing", b"Info"):
        at = head.find(mark)
        if at >= 0 and at + 12 <= len(head) and struct.unpack_from(">I", head, at + 4)[0] & 1:
            frames = struct.unpack_from(">I", head, at + 8)[0]
    at = head.find(b"VBRI")
    if at >= 0 and at + 18 <= len(head):
        frames = struct.unpack_from(">I", head, at + 14)[0]
    samples_per_frame = 1152 if sr >= 32_000 else 576
    return Claim(frames * samples_per_frame / sr, 4 * 1152 / sr) if frames else None
