"""Any samples of an object, by a decoder that goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, Self

import av
import numpy as np
import numpy.typing as npt

from spectralize.errors import ObjectError, ReadError, RejectedObjectError, ServiceError, as_one_line
from spectralize.reader.rangefile import LateError, RangeFile

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

    from spectralize.reader.recording import Recording

Samples = npt.NDArray[np.float32]

#: What FFmpeg asks the file for at a time. It reads so much at each place where it looks for the window.
_READ_BYTES = 1 << 15

#: Containers in which FFmpeg finds the packet of a time and says exactly which sample it begins with. In others, such as
#: Matroska with its milliseconds, a window is reached by decoding all before it. An mp3 has no index that is
#: exact: FFmpeg reads all before the window, but does not decode it.
_SEEKABLE = {"wav", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3", "mov,mp4,m4a,3gp,3g2,mj2"}

#: Of these, those in which the times of packets are made of the bytes before them: of codecs that code blocks, with an
#: error that grows.
_COUNTED_BY_BYTES = {"wav", "w64"}

#: Decoding begins so much before the window, for codecs whose packets overlap with earlier ones.
_RUN_UP_S = 1.0

#: Decoding goes on from where it is rather than from a place that is looked for, if that is not further than this.
_CLOSE_S = 10.0

#: Samples before that place which can be had again: bytes of a sample may be asked for one by one.
_OVERLAP = 1

#: A file whose header and samples differ by more has been cut, joined or padded: its clock cannot be relied on.
_CLOCK_SLACK_S = 0.1


class GoneError(ReadError):
    """The object is gone, or no longer what was indexed."""


class SlowError(ReadError):
    """A window was not reached within the time given."""


class _SeekError(Exception):
    """The container has no exact way to the window after all."""


class SampleReader:
    """Windows of one recording's samples; one that begins where the last one ended goes on decoding there.

    It keeps a decoder and some blocks of the object, a few MB, but no connection. One thread at a time may use it.
    """

    def __init__(self, recording: Recording, client: S3Client, *, mono: bool) -> None:
        self.recording, self._client, self.mono = recording, client, mono
        self._decoding: _Decoding | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the decoder."""
        if self._decoding is not None:
            self._decoding.close()
            self._decoding = None

    def is_near(self, first: int) -> bool:
        """Tell whether it is best to go on from where the last window ended."""
        if self._decoding is None or first < self._decoding.position - _OVERLAP:
            return False
        sr = self.recording.decoded_samplerate_hz or 0
        return first - self._decoding.position <= _CLOSE_S * sr or not _can_seek(self.recording, first)

    def read(self, first: int, stop: int, *, within_s: float = float("inf")) -> Samples:
        """Return the samples [first, stop): shape (n_samples,), or (channels, n_samples) unless mono.

        Raises
        ------
        GoneError, SlowError, ReadError
            If they cannot be had, or not in time.
        ServiceError, ConfigError
            If S3 is away or refuses us.
        """
        until = monotonic() + within_s
        try:
            if self._decoding is None or not self.is_near(first):
                self.close()
                self._decoding = _Decoding(self.recording, self._client, is_seeking=_can_seek(self.recording, first))
            try:
                return self._decoding.read(first, stop, until, mono=self.mono)
            except _SeekError:
                self.close()
                self._decoding = _Decoding(self.recording, self._client, is_seeking=False)
                return self._decoding.read(first, stop, until, mono=self.mono)
        except BaseException:
            self.close()
            raise


def _can_seek(recording: Recording, first: int) -> bool:
    sr = recording.decoded_samplerate_hz or 1
    is_whole = all(item.status == "complete" for item in recording.spectrograms.values())
    declared_s = recording.declared_duration_s
    return (
        first > _RUN_UP_S * sr
        and recording.container in _SEEKABLE
        and (recording.container not in _COUNTED_BY_BYTES or (recording.decoded_codec or "").startswith("pcm_"))
        and is_whole
        and declared_s is not None
        and abs(declared_s - (recording.decoded_duration_s or 0.0)) <= _CLOCK_SLACK_S
    )


class _Decoding:
    """A decoder at work: `position` is the sample that it can go on with."""

    def __init__(self, recording: Recording, client: S3Client, *, is_seeking: bool) -> None:
        self._recording, self._is_seeking = recording, is_seeking
        self._file = RangeFile(client, recording)
        self._container: av.container.InputContainer | None = None
        self._positions: Iterator[tuple[int, av.AudioFrame]] = iter(())
        #: Frames that were decoded and are not used up.
        self._kept: list[tuple[int, av.AudioFrame]] = []
        self.position = 0

    def close(self) -> None:
        self._positions = iter(())
        self._kept.clear()
        if self._container is not None:
            self._container.close()

    def read(self, first: int, stop: int, until: float, *, mono: bool) -> Samples:
        name = as_one_line(self._recording.url)
        self._file.until = until
        try:
            if self._container is None:
                self._open(first)
            y = _gather(self._replay(stop, until), first, stop, mono=mono)
            if self._file.failure is not None:
                raise OSError("S3 does not answer")
        except (av.error.FFmpegError, OSError, ValueError, IndexError, LateError) as error:
            failure = self._file.failure or error
            if isinstance(failure, LateError):
                at_s = first / (self._recording.decoded_samplerate_hz or 1)
                raise SlowError(
                    f"{name}: decoding does not reach {at_s:.0f} s in time: there is no faster way to a place in it"
                ) from error
            if isinstance(failure, RejectedObjectError):
                raise GoneError(f"{name}: {failure}: its audio is no longer what was indexed") from error
            if isinstance(failure, ObjectError):
                raise ServiceError(f"{name}: {as_one_line(str(failure))}") from error
            if self._file.failure is not None:
                raise self._file.failure from error
            if self._is_seeking:
                raise _SeekError from error
            raise ReadError(f"{name}: cannot be decoded: {as_one_line(str(error))}") from error
        if y.shape[-1] != stop - first:
            if self._is_seeking:
                raise _SeekError
            raise ReadError(
                f"{name}: decoding gives {y.shape[-1]} samples of the {stop - first} from sample {first} on"
            )
        self.position = stop
        return y

    def _open(self, first: int) -> None:
        options = {"protocol_whitelist": "none"}
        self._container = av.open(
            self._file, mode="r", options=options, metadata_errors="replace", buffer_size=_READ_BYTES
        )
        stream = self._container.streams.audio[0]
        stream.codec_context.thread_count = 1
        self._positions = _positions(self._container, stream, first, is_seeking=self._is_seeking)

    def _replay(self, stop: int, until: float) -> Iterator[tuple[int, av.AudioFrame]]:
        """Yield what is left of the last window, and what follows; keep what the next one may begin with."""
        kept, self._kept = self._kept, []
        for position, frame in chain(kept, self._positions):
            if monotonic() > until:
                raise LateError
            if position + frame.samples > stop - _OVERLAP:
                self._kept.append((position, frame))
            yield position, frame


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
