"""Bytes of any container to mono samples, with FFmpeg's libraries through PyAV."""

import io
import logging
import math
import struct
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt
import soxr

from spectralize.errors import RejectedObjectError

logger = logging.getLogger(__name__)

Samples = npt.NDArray[np.float32]

#: Nested files and addresses are refused: a playlist in a bucket must not make a worker open anything.
_OPEN_OPTIONS = {"protocol_whitelist": "none"}

#: How far (seconds) a recording may end before its header says. Lossy codecs drop some of their padding; where every
#: sample is counted, none may be missing.
_SLACK_S = {"mp3": 0.1, "mov,mp4,m4a,3gp,3g2,mj2": 0.1}
_LOSSLESS_SLACK_S = 0.001
_LOSSLESS = {"wav", "w64", "flac", "aiff", "caf", "au", "ape", "wv", "tta"}


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """Mono samples at the recording's own rate, beside what the container's header declared.

    Attributes
    ----------
    y
        Shape (n_samples,), float32; full scale is ±1, as in librosa; channels are averaged.
    sr
        Sample rate in Hz.
    defect
        Why this is not the whole recording, or None.
    """

    y: Samples
    sr: int
    channels: int
    codec: str
    container: str
    declared_codec: str | None
    declared_duration_s: float | None
    declared_samplerate_hz: int | None
    declared_channels: int | None
    defect: str | None

    @property
    def duration_s(self) -> float:
        """Decoded length in seconds."""
        return len(self.y) / self.sr


def _declared_duration_s(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration is not None else None


def _wav_duration_s(data: bytes) -> float | None:
    """Read what the data chunk of a RIFF file claims to hold; FFmpeg corrects that claim to what is there."""
    byte_rate, position = 0, 12
    while position + 8 <= len(data):
        name, size = data[position : position + 4], struct.unpack_from("<I", data, position + 4)[0]
        if name == b"fmt " and position + 20 <= len(data):
            byte_rate = struct.unpack_from("<I", data, position + 16)[0]
        if name == b"data":
            # Recorders that stream leave 0 or the largest number: no claim.
            return size / byte_rate if byte_rate and 0 < size < 0xFFFF_FF00 else None
        position += 8 + size + size % 2
    return None


def _lacks_ogg_end(data: bytes) -> bool:
    """Tell whether the last page of an Ogg file is not marked as the end of its stream, which a cut-off file lacks."""
    last = data.rfind(b"OggS")
    return last < 0 or last + 6 > len(data) or not data[last + 5] & 0x04


def _is_duration_exact(container_name: str, data: bytes) -> bool:
    """Tell whether the header counts samples. An mp3 without a Xing or VBRI header is only estimated by bit rate."""
    if container_name == "mp3":
        start = 0
        if data[:3] == b"ID3" and len(data) > 10:
            # ID3v2: four bytes of seven bits each.
            start = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
        head = data[start : start + 4096]
        return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))
    return container_name in _LOSSLESS or container_name in _SLACK_S


@dataclass(slots=True)
class _Decoding:
    """What accumulates while packets are read."""

    blocks: list[Samples]
    n_samples: int = 0
    sr: int = 0
    channels: int = 0
    bad_packets: int = 0
    first_bad_s: float = 0.0
    ended_by: str | None = None


def _decode_packets(container: av.container.InputContainer, stream: av.AudioStream, max_duration_s: float) -> _Decoding:
    state = _Decoding(blocks=[])
    # To planar float without changing rate or layout: FFmpeg scales every integer format to ±1.
    resampler = av.AudioResampler(format="fltp")
    packets = container.demux(stream)
    while state.ended_by is None:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            state.ended_by = f"cannot be read on: {error.strerror}"
            break
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            if state.bad_packets == 0:
                state.first_bad_s = state.n_samples / (state.sr or 1)
            state.bad_packets += 1
            continue
        for frame in frames:
            if not state.sr:
                state.sr, state.channels = frame.sample_rate, frame.layout.nb_channels
            elif (frame.sample_rate, frame.layout.nb_channels) != (state.sr, state.channels):
                state.ended_by = (
                    f"changes from {state.sr} Hz × {state.channels} to "
                    f"{frame.sample_rate} Hz × {frame.layout.nb_channels}"
                )
                break
            frame.pts = None
            for planar in resampler.resample(frame):
                block = planar.to_ndarray()
                state.blocks.append(block.mean(axis=0) if len(block) > 1 else block[0].copy())
                state.n_samples += block.shape[1]
        if state.n_samples > max_duration_s * (state.sr or 1):
            raise RejectedObjectError("too_long", f"longer than {max_duration_s:g} s, the most this source allows")
    return state


def _find_defect(state: _Decoding, declared_s: float | None, slack_s: float) -> str | None:
    decoded_s = state.n_samples / state.sr
    parts = []
    if state.ended_by:
        parts.append(f"{state.ended_by} at {decoded_s:.2f} s")
    if state.bad_packets:
        packets = "1 packet" if state.bad_packets == 1 else f"{state.bad_packets} packets"
        parts.append(f"{packets} cannot be decoded, the first at {state.first_bad_s:.2f} s")
    if declared_s is not None and declared_s - decoded_s > slack_s:
        parts.append(f"{decoded_s:.2f} s of the declared {declared_s:.2f} s are there")
    return "; ".join(parts) or None


def decode_audio(data: bytes, *, max_duration_s: float) -> DecodedAudio:
    """Decode the first audio stream of a file to mono.

    Parameters
    ----------
    data
        The file, whole.
    max_duration_s
        Longer recordings are rejected as soon as that much has been decoded, whatever their header says.

    Raises
    ------
    RejectedObjectError
        `empty`, `not_audio`, `no_audio`, `too_long` or `non_finite`.
    """
    if not data:
        raise RejectedObjectError("empty", "the object has no bytes")
    try:
        container = av.open(io.BytesIO(data), mode="r", options=_OPEN_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise RejectedObjectError("not_audio", f"FFmpeg finds no audio container: {_text(error)}") from error
    with container:
        if not container.streams.audio:
            raise RejectedObjectError("no_audio", f"{container.format.name}: there is no audio stream in it")
        stream = container.streams.audio[0]
        try:
            declared_s = _declared_duration_s(container, stream)
            declared_codec = stream.codec_context.codec.canonical_name
            declared_rate, declared_channels = stream.codec_context.sample_rate, stream.codec_context.channels
            codec = stream.codec_context.name
        except (av.error.FFmpegError, AttributeError, ValueError) as error:
            raise RejectedObjectError(
                "no_audio", f"{container.format.name}: no decoder for its audio stream"
            ) from error
        state = _decode_packets(container, stream, max_duration_s)
        name = container.format.name
    if name == "wav" and (claimed_s := _wav_duration_s(data)) is not None:
        declared_s = claimed_s
    if name == "ogg" and state.n_samples and not state.ended_by and _lacks_ogg_end(data):
        state.ended_by = "has no end-of-stream page: cut off"
    if not state.n_samples:
        why = state.ended_by or (
            f"none of {state.bad_packets} packets can be decoded" if state.bad_packets else "no packets"
        )
        raise RejectedObjectError("not_audio" if name == "mp3" else "no_audio", f"{name}: no audio decodes: {why}")
    y = np.concatenate(state.blocks)
    if not np.isfinite(y).all():
        first = int(np.argmin(np.isfinite(y)))
        raise RejectedObjectError("non_finite", f"sample {first} is NaN or infinite")
    slack_s = _SLACK_S.get(name, _LOSSLESS_SLACK_S) if _is_duration_exact(name, data) else math.inf
    return DecodedAudio(
        y=y,
        sr=state.sr,
        channels=state.channels,
        codec=codec,
        container=name,
        declared_codec=declared_codec,
        declared_duration_s=declared_s,
        declared_samplerate_hz=declared_rate or None,
        declared_channels=declared_channels or None,
        defect=_find_defect(state, declared_s, slack_s),
    )


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def resample_audio(y: Samples, sr: int, target_sr: int) -> Samples:
    """Resample as `librosa.resample(y, orig_sr=sr, target_sr=target_sr)` does by default: soxr, high quality.

    The result has ceil(n_samples * (target_sr / sr)) samples, in floating point as there.
    """
    if sr == target_sr:
        return y
    n_samples = math.ceil(len(y) * (target_sr / sr))
    resampled = soxr.resample(y, sr, target_sr, quality="HQ")
    return np.ascontiguousarray(
        np.pad(resampled[:n_samples], (0, max(0, n_samples - len(resampled)))), dtype=np.float32
    )
