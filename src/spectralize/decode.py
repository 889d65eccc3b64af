"""Bytes of any container to mono samples, with FFmpeg's libraries through PyAV."""

import io
import math
from dataclasses import dataclass, field

import av
import numpy as np
import numpy.typing as npt
import soxr

from spectralize.claims import Claim, claimed_length
from spectralize.errors import RejectedObjectError

Samples = npt.NDArray[np.float32]

#: Nested files and addresses are refused: a playlist in a bucket must not make a worker open anything.
_OPEN_OPTIONS = {"protocol_whitelist": "none"}

#: A step of a stream's own clock beyond this (seconds) is missing audio, not rounding.
_GAP_S = 0.1

#: Tags between the frames of joined mp3 files, which FFmpeg hands to the decoder as if they were audio.
_MP3_TAGS = (b"ID3", b"APETAGEX", b"LYRICSBEGIN")

#: Sample rate that the limit of duration is meant for: a tiny file at a huge rate must not take a worker's memory.
_USUAL_RATE_HZ = 48_000


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


def _stream_duration_s(stream: av.AudioStream) -> float | None:
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def _lacks_ogg_end(data: bytes) -> bool:
    """Tell whether the last page of an Ogg file is not marked as the end of its stream, which a cut-off file lacks."""
    last = data.rfind(b"OggS")
    return last < 0 or last + 6 > len(data) or not data[last + 5] & 0x04


@dataclass(slots=True)
class _Decoding:
    """What accumulates while packets are read.

    Bad packets before the first good one and after the last are apart: in mp3 they are junk, not lost audio.
    """

    blocks: list[Samples] = field(default_factory=list)
    n_samples: int = 0
    sr: int = 0
    channels: int = 0
    bad_outside: int = 0
    bad_inside: int = 0
    first_bad_s: float | None = None
    missing_s: float = 0.0
    first_gap_s: float | None = None
    clock_offset_s: float | None = None
    ended_by: str | None = None

    @property
    def position_s(self) -> float:
        return self.n_samples / (self.sr or 1)

    def note_bad_packet(self) -> None:
        self.bad_outside += 1
        if self.first_bad_s is None:
            self.first_bad_s = self.position_s

    def note_clock(self, at_s: float) -> None:
        """Compare the stream's own clock with what has been decoded; a chained stream starts it anew."""
        offset_s = at_s - self.position_s
        step_s = 0.0 if self.clock_offset_s is None else offset_s - self.clock_offset_s
        if step_s > _GAP_S:
            self.missing_s += step_s
            if self.first_gap_s is None:
                self.first_gap_s = self.position_s
        if self.clock_offset_s is None or abs(step_s) > _GAP_S:
            self.clock_offset_s = offset_s


def _decode_packets(container: av.container.InputContainer, stream: av.AudioStream, max_duration_s: float) -> _Decoding:
    state = _Decoding()
    # To float without changing rate or layout: FFmpeg scales every integer format to ±1. Packed, because PyAV reads past
    # the planes of a frame with eight channels or more.
    resampler = av.AudioResampler(format="flt")
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
            if not (container.format.name == "mp3" and any(mark in bytes(packet) for mark in _MP3_TAGS)):
                state.note_bad_packet()
            continue
        for frame in frames:
            _take_frame(state, resampler, frame)
            if state.ended_by is not None:
                break
        if state.position_s > max_duration_s or state.n_samples > max_duration_s * _USUAL_RATE_HZ:
            raise RejectedObjectError("too_long", f"longer than {max_duration_s:g} s, the most this source allows")
    return state


def _take_frame(state: _Decoding, resampler: av.AudioResampler, frame: av.AudioFrame) -> None:
    rate, channels = frame.sample_rate, frame.layout.nb_channels
    if not state.sr:
        state.sr, state.channels = rate, channels
    elif (rate, channels) != (state.sr, state.channels):
        state.ended_by = f"changes from {state.sr} Hz × {state.channels} to {rate} Hz × {channels}"
        return
    if state.n_samples and state.bad_outside:
        state.bad_inside, state.bad_outside = state.bad_inside + state.bad_outside, 0
    if frame.pts is not None and frame.time_base is not None:
        state.note_clock(float(frame.pts * frame.time_base))
    frame.pts = None
    try:
        packed = [piece.to_ndarray().reshape(-1, channels) for piece in resampler.resample(frame)]
    except (av.error.FFmpegError, ValueError) as error:
        state.ended_by = f"has {channels} channels that cannot be converted: {_text(error)}"
        return
    weights = np.full(channels, 1.0 / channels, dtype=np.float32)
    for block in packed:
        mono: Samples = block.astype(np.float32, copy=False) @ weights
        state.blocks.append(mono)
        state.n_samples += len(block)


def _find_defect(state: _Decoding, claim: Claim | None, *, is_mp3: bool) -> str | None:
    bad = state.bad_inside + (0 if is_mp3 else state.bad_outside)
    parts = []
    if state.ended_by:
        parts.append(f"{state.ended_by} at {state.position_s:.2f} s")
    if bad:
        packets = "1 packet" if bad == 1 else f"{bad} packets"
        parts.append(f"{packets} cannot be decoded, the first at {state.first_bad_s or 0.0:.2f} s")
    if state.missing_s:
        parts.append(f"{state.missing_s:.2f} s are missing, the first at {state.first_gap_s or 0.0:.2f} s")
    if claim is not None and claim.duration_s - state.position_s > claim.slack_s:
        parts.append(f"{state.position_s:.2f} s of the declared {claim.duration_s:.2f} s are there")
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
            declared_s = _stream_duration_s(stream)
            declared_codec = stream.codec_context.codec.canonical_name
            declared_rate, declared_channels = stream.codec_context.sample_rate, stream.codec_context.channels
            codec = stream.codec_context.name
        except (av.error.FFmpegError, AttributeError, ValueError) as error:
            raise RejectedObjectError(
                "no_audio", f"{container.format.name}: no decoder for its audio stream"
            ) from error
        name = container.format.name
        container_s = container.duration / av.time_base if container.duration is not None else None
        is_only_stream = len(container.streams) == 1
        state = _decode_packets(container, stream, max_duration_s)
    if name == "ogg" and state.n_samples and not state.ended_by and _lacks_ogg_end(data):
        state.ended_by = "has no end-of-stream page: cut off"
    if not state.n_samples:
        why = state.ended_by or (
            f"none of {state.bad_outside} packets can be decoded" if state.bad_outside else "no packets"
        )
        raise RejectedObjectError("not_audio" if name == "mp3" else "no_audio", f"{name}: no audio decodes: {why}")
    y = np.concatenate(state.blocks)
    state.blocks.clear()
    if not np.isfinite(y).all():
        first = int(np.argmin(np.isfinite(y)))
        raise RejectedObjectError("non_finite", f"sample {first} is NaN or infinite")
    claim = claimed_length(
        name, data, state.sr, stream_s=declared_s, container_s=container_s, is_only_stream=is_only_stream
    )
    return DecodedAudio(
        y=y,
        sr=state.sr,
        channels=state.channels,
        codec=codec,
        container=name,
        declared_codec=declared_codec,
        declared_duration_s=claim.duration_s if claim else declared_s or container_s,
        declared_samplerate_hz=declared_rate or None,
        declared_channels=declared_channels or None,
        defect=_find_defect(state, claim, is_mp3=name == "mp3"),
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
