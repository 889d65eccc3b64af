"""A window of an object's samples, decoded from ranged reads of S3."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from spectralize.errors import ObjectError, ReadError, RejectedObjectError, ServiceError, as_one_line
from spectralize.reader.given import as_seconds
from spectralize.s3 import fetch_range

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

    from spectralize.reader.recording import Recording

Samples = npt.NDArray[np.float32]

#: One GET: half a minute of mp3. Smaller ones wait for S3 more often, larger ones fetch what nobody wants.
_GET_BYTES = 1 << 19

#: Blocks kept after they were read: header and index are looked at again on the way to the window.
_KEPT_BLOCKS = 4

#: What FFmpeg asks the file for at a time. It reads so much at each place where it looks for the window.
_READ_BYTES = 1 << 15

#: Containers in which FFmpeg finds the packet of a time and says exactly which sample it begins with. In others, such as
#: Matroska with its milliseconds, a window is reached by decoding all before it. An mp3 has no index that is
#: exact: FFmpeg reads all before the window, but does not decode it.
_SEEKABLE = {"wav", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3", "mov,mp4,m4a,3gp,3g2,mj2"}

#: Decoding begins so much before the window, for codecs whose packets overlap with earlier ones.
_RUN_UP_S = 1.0

#: A file whose header and samples differ by more has been cut, joined or padded: its clock cannot be relied on.
_CLOCK_SLACK_S = 0.1


class _RangeFile(io.RawIOBase):
    """An object of S3 as a file: blocks of it by ranged GETs, bound to the ETag that was indexed; the last few are kept."""

    def __init__(self, client: S3Client, recording: Recording) -> None:
        super().__init__()
        self._client, self._recording = client, recording
        self._position = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        #: FFmpeg swallows what its file raises, an interrupt with the rest, and asks again.
        self.failure: BaseException | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._recording.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        if self._position >= self._recording.size_bytes:
            return 0
        index, start = divmod(self._position, _GET_BYTES)
        data = self._block(index)[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _block(self, index: int) -> bytes:
        if self.failure is None and index not in self._kept:
            stop = min((index + 1) * _GET_BYTES, self._recording.size_bytes)
            try:
                self._kept[index] = fetch_range(self._client, self._recording, index * _GET_BYTES, stop)
            except BaseException as error:  # noqa: BLE001 - it is raised again where FFmpeg is done
                self.failure = error
            if len(self._kept) > _KEPT_BLOCKS:
                self._kept.popitem(last=False)
        if self.failure is not None:
            raise OSError("S3 does not answer")
        return self._kept[index]


class _SeekError(Exception):
    """The container has no exact way to the window after all."""


def decode_window(
    recording: Recording, client: S3Client, start_s: float | None, end_s: float | None, *, mono: bool
) -> tuple[Samples, int]:
    """Return the samples of [start_s, end_s), shape (n_samples,) or (channels, n_samples), and the number of the first one.

    Raises
    ------
    ReadError
        If the window does not lie in the recording, or the object is gone or no longer what was indexed.
    """
    sr = recording.decoded_samplerate_hz or 0
    n_samples = round((recording.decoded_duration_s or 0.0) * sr)
    first, stop = _sample_span(recording, start_s, end_s, sr, n_samples)
    is_whole = all(item.status == "complete" for item in recording.spectrograms.values())
    declared_s = recording.declared_duration_s
    can_seek = (
        first > _RUN_UP_S * sr
        and recording.container in _SEEKABLE
        and is_whole
        and declared_s is not None
        and abs(declared_s - n_samples / sr) <= _CLOCK_SLACK_S
    )
    try:
        if can_seek:
            return _decode(recording, client, first, stop, is_seeking=True, mono=mono), first
    except _SeekError:
        pass
    return _decode(recording, client, first, stop, is_seeking=False, mono=mono), first


def _sample_span(
    recording: Recording, start_s: float | None, end_s: float | None, sr: int, n_samples: int
) -> tuple[int, int]:
    start = 0.0 if start_s is None else as_seconds("start_s", start_s)
    end = n_samples / sr if end_s is None else as_seconds("end_s", end_s)
    # Half a sample more rounds to the last one or beyond it; an infinite number of samples rounds to none.
    is_within = 0 <= start < end <= (n_samples + 0.5) / sr
    if not is_within or round(end * sr) > n_samples or round(start * sr) >= round(end * sr):
        raise ReadError(
            f"window {start:g} s to {end:g} s of {as_one_line(recording.url)}: must lie within its {n_samples / sr:.3f} s, and "
            "hold a sample"
        )
    return round(start * sr), round(end * sr)


def _decode(recording: Recording, client: S3Client, first: int, stop: int, *, is_seeking: bool, mono: bool) -> Samples:
    file = _RangeFile(client, recording)
    options = {"protocol_whitelist": "none"}
    try:
        with av.open(file, mode="r", options=options, metadata_errors="replace", buffer_size=_READ_BYTES) as container:
            stream = container.streams.audio[0]
            stream.codec_context.thread_count = 1
            y = _gather(_positions(container, stream, first, is_seeking=is_seeking), first, stop, mono=mono)
        if file.failure is not None:
            raise OSError("S3 does not answer")
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        failure = file.failure or error
        if isinstance(failure, RejectedObjectError):
            raise ReadError(
                f"{as_one_line(recording.url)}: {failure}: its audio is no longer what was indexed"
            ) from error
        if isinstance(failure, ObjectError):
            raise ServiceError(f"{as_one_line(recording.url)}: {as_one_line(str(failure))}") from error
        if file.failure is not None:
            raise file.failure from error
        if is_seeking:
            raise _SeekError from error
        raise ReadError(f"{as_one_line(recording.url)}: cannot be decoded: {as_one_line(str(error))}") from error
    if y.shape[-1] != stop - first:
        if is_seeking:
            raise _SeekError
        raise ReadError(
            f"{as_one_line(recording.url)}: decoding gives {y.shape[-1]} samples of the {stop - first} from sample {first} on"
        )
    return y


def _positions(
    container: av.container.InputContainer, stream: av.AudioStream, first: int, *, is_seeking: bool
) -> Iterator[tuple[int, av.AudioFrame]]:
    """Yield frames with the number of their first sample, from somewhat before `first`, or from 0."""
    if not is_seeking:
        position = 0
        for frame in _frames(container, stream):
            yield position, frame
            position += frame.samples
        return
    opening = next(_frames(container, stream), None)
    if opening is None or opening.time is None or stream.time_base is None:
        raise _SeekError
    sr, begin_s = opening.sample_rate, opening.time
    container.seek(int((begin_s + first / sr - _RUN_UP_S) / stream.time_base), stream=stream)
    expected: int | None = None
    for frame in _frames(container, stream):
        if expected is None:
            if frame.time is None:
                raise _SeekError
            expected = round((frame.time - begin_s) * sr)
            if expected > first:
                raise _SeekError
        yield expected, frame
        expected += frame.samples


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Decode packet by packet; what is broken is left out, as it was when the object was indexed, and so is what follows
    where the container itself cannot be read on.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, IndexError):
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError:
            continue


def _gather(positions: Iterator[tuple[int, av.AudioFrame]], first: int, stop: int, *, mono: bool) -> Samples:
    parts: list[Samples] = []
    resampler = av.AudioResampler(format="flt")
    kind: tuple[str, int] | None = None
    for position, frame in positions:
        if position >= stop:
            break
        if position + frame.samples <= first:
            continue
        frame.pts = None
        n_channels = frame.layout.nb_channels
        # Packed: PyAV reads past the planes of frames with many channels.
        if kind not in {None, (frame.format.name, n_channels)}:
            if not mono and kind is not None and kind[1] != n_channels:
                raise ValueError(
                    f"it has {kind[1]} channels, and {n_channels} from sample {position} on: only mono is one array"
                )
            resampler = av.AudioResampler(format="flt")
        kind = frame.format.name, n_channels
        converted = [frame] if frame.format.name == "flt" else resampler.resample(frame)
        y = np.concatenate([item.to_ndarray().reshape(-1, n_channels) for item in converted])
        y = y[max(0, first - position) : stop - position]
        parts.append(y.mean(axis=1, dtype=np.float32) if mono else y)
    if not parts:
        return np.empty(0, dtype=np.float32)
    together: Samples = np.concatenate(parts)
    return together if mono else np.ascontiguousarray(together.T)
