"""Any container and codec to blocks of mono samples, with FFmpeg's libraries through PyAV."""

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import av
import numpy as np

from spectralize.claims import SeekableFile, claimed_length, lacks_ogg_end, read_header
from spectralize.errors import RejectedObjectError
from spectralize.resample import Samples

#: Nested files and addresses are refused: a playlist in a bucket must not make a worker open anything.
_OPEN_OPTIONS = {"protocol_whitelist": "none"}

#: FFmpeg decodes a whole wav in search of other codecs that pose as PCM, which takes longer than all else for a short one.
#: One packet of 4096 bytes shows them too.
_WAV_OPTIONS = {"max_probe_packets": "1"}

#: Bytes that FFmpeg asks the file for at a time.
_READ_BYTES = 1 << 16

#: Samples of all channels that are queued before they are converted: as floats they stay in the processor's cache.
_QUEUE_SAMPLES = 1 << 17

#: Samples in a block: 6 s at 44.1 kHz. Smaller ones cost calls, larger ones memory.
_BLOCK_SAMPLES = 1 << 18

#: A step of a stream's own clock beyond this (seconds) is missing audio, not rounding.
_GAP_S = 0.1

#: Tags between the frames of joined mp3 files, which FFmpeg hands to the decoder as if they were audio.
_MP3_TAGS = (b"ID3", b"APETAGEX", b"LYRICSBEGIN")

#: Sample rates that something records at, from infrasound to radio.
_MIN_RATE_HZ, _MAX_RATE_HZ = 8, 16_000_000

#: Thirty years: a longer claim is a damaged field.
_MAX_DECLARED_S = 1e9

#: PyAV reads past the planes of a frame with more channels than that; such audio goes through a packed format.
_MAX_PLANES = 7


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What decoding found, beside what the container's header declared.

    Attributes
    ----------
    sr, n_samples
        Sample rate in Hz and samples per channel, as decoded.
    defect
        Why this is not the whole recording, or None.
    """

    sr: int
    channels: int
    n_samples: int
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
        return self.n_samples / self.sr


class AudioDecoder:
    """The first audio stream of a file; iterate it once for its samples, then ask for its `info`.

    Parameters
    ----------
    file
        Seekable, read in blocks and never whole.
    max_duration_s, max_channels
        A recording beyond these is rejected as soon as that much has been decoded, whatever its header says.

    Raises
    ------
    RejectedObjectError
        `not_audio` or `no_audio` at once; `no_audio`, `too_long`, `too_many_channels` or `non_finite` while iterating.
    """

    def __init__(self, file: SeekableFile, *, max_duration_s: float, max_channels: int = 64) -> None:
        self._file, self._max_duration_s, self._max_channels = file, max_duration_s, max_channels
        position = file.tell()
        head = file.read(12)
        file.seek(position)
        options = _OPEN_OPTIONS | (_WAV_OPTIONS if head[:4] == b"RIFF" and head[8:] == b"WAVE" else {})
        try:
            self._container = av.open(
                file, mode="r", options=options, metadata_errors="replace", buffer_size=_READ_BYTES
            )
        except (av.error.FFmpegError, ValueError) as error:
            raise RejectedObjectError("not_audio", f"FFmpeg finds no audio container: {_text(error)}") from error
        self._name = self._container.format.name
        try:
            self._open_stream()
        except BaseException:
            self._container.close()
            raise
        #: Samples per channel, sample rate in Hz and channels, as decoded so far.
        self.n_samples = self.sr = self.channels = 0
        #: Channels of what is queued: a stream may change them.
        self._n_mixed = 0
        # Bad packets before the first good one and after the last are apart: in mp3 they are junk, not lost audio.
        self._bad_outside = self._bad_inside = 0
        self._first_bad_s: float | None = None
        self._missing_s = 0.0
        self._first_gap_s: float | None = None
        self._clock_offset_s = math.nan
        self._ended_by: str | None = None
        self._ready: list[Samples] = []
        self._n_queued = self._n_ready = self._n_yielded = 0
        self._fifo = av.AudioFifo()
        self._resampler: av.AudioResampler | None = None

    def _open_stream(self) -> None:
        if not self._container.streams.audio:
            raise RejectedObjectError("no_audio", f"{self._name}: there is no audio stream in it")
        self._stream = self._container.streams.audio[0]
        try:
            context = self._stream.codec_context
            self._declared_codec = context.codec.canonical_name
            self._declared_rate, self._declared_channels = context.sample_rate, _read_channels(context)
            self._codec = context.name
            # The cores belong to other recordings.
            context.thread_count = 1
        except (av.error.FFmpegError, AttributeError, ValueError) as error:
            raise RejectedObjectError("no_audio", f"{self._name}: no decoder for its audio stream") from error
        duration, time_base = self._stream.duration, self._stream.time_base
        self._stream_s = None if duration is None or time_base is None else float(duration * time_base)
        whole = self._container.duration
        self._container_s = None if whole is None else whole / av.time_base
        self._is_only_stream = len(self._container.streams) == 1
        # FFmpeg does not notice that its file was read beside it.
        position = self._file.tell()
        self._header = read_header(self._name, self._file)
        self._file.seek(position)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Samples]:
        """Yield mono samples, shape (n,), float32, full scale ±1, at `sr` Hz; channels are averaged, as in librosa."""
        packets = self._container.demux(self._stream)
        while self._ended_by is None:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                self._ended_by = f"cannot be read on: {error.strerror}"
                break
            except IndexError:
                # PyAV flushes streams that turned up while reading, and knows none of them.
                break
            if packet is None:
                break
            try:
                frames = packet.decode()
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                if not self._is_no_audio(packet):
                    self._note_bad_packet()
                continue
            for frame in frames:
                if not self._take(frame) and not self._restart(frame):
                    break
            if self._n_queued * self._n_mixed >= _QUEUE_SAMPLES:
                self._drain()
                if self._n_ready >= _BLOCK_SAMPLES:
                    yield self._collect()
        self._drain()
        if self._n_ready:
            yield self._collect()
        if self._name == "ogg" and self.n_samples and not self._ended_by and lacks_ogg_end(self._file):
            self._ended_by = "has no end-of-stream page: cut off"
        # Also where frames were decoded, and none of them could be converted.
        if not self._n_yielded:
            bad = f"none of {self._bad_outside} packets can be decoded" if self._bad_outside else "no packets"
            raise RejectedObjectError(
                "not_audio" if self._name == "mp3" else "no_audio",
                f"{self._name}: no audio decodes: {self._ended_by or bad}",
            )

    def _is_no_audio(self, packet: "av.Packet[av.AudioStream]") -> bool:
        """Tell packets that no decoder takes and nobody misses: headers without audio, tags, padding."""
        if not packet.size:
            return True
        if self._name == "mp3":
            return any(mark in bytes(packet) for mark in _MP3_TAGS)
        return self._name == "w64" and packet.size < 8 and not any(bytes(packet))

    def _take(self, frame: av.AudioFrame) -> bool:
        """Queue a frame; refuse one that is not like those before it. Called for every frame: some 40 a second."""
        if not self.sr:
            self._begin(frame)
        # The queue would take other channels, and read what is not there.
        if frame.layout.nb_channels != self._n_mixed:
            return False
        at_s = frame.time
        frame.pts = None
        try:
            self._fifo.write(frame)
        except ValueError:
            return False
        # The stream's own clock against what has been decoded. The first time the offset is NaN, and beyond any bound.
        if at_s is not None and not -_GAP_S <= at_s - self.n_samples / self.sr - self._clock_offset_s <= _GAP_S:
            self._note_clock(at_s)
        if self._bad_outside and self.n_samples:
            self._bad_inside, self._bad_outside = self._bad_inside + self._bad_outside, 0
        n_samples = frame.samples
        self.n_samples += n_samples
        self._n_queued += n_samples
        return True

    def _begin(self, frame: av.AudioFrame) -> None:
        self.sr, self.channels = frame.sample_rate, frame.layout.nb_channels
        if not _MIN_RATE_HZ <= self.sr <= _MAX_RATE_HZ:
            raise RejectedObjectError(
                "odd_rate", f"{self.sr} Hz, a sample rate must be {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz"
            )
        self._mix_channels(self.channels)

    def _mix_channels(self, channels: int) -> None:
        if channels > self._max_channels:
            raise RejectedObjectError(
                "too_many_channels", f"{channels} channels, {self._max_channels} are the most this source allows"
            )
        self._n_mixed = channels

    def _restart(self, frame: av.AudioFrame) -> bool:
        """Go on with frames of another sample format or number of channels, as broadcasts have; end at another rate."""
        if frame.sample_rate != self.sr:
            self._ended_by = f"changes from {self.sr} Hz to {frame.sample_rate} Hz"
            return False
        # What is there must go first.
        self._drain()
        self._mix_channels(frame.layout.nb_channels)
        self._fifo, self._resampler = av.AudioFifo(), None
        if not self._take(frame):
            self._ended_by = "has a frame that cannot be queued"
            return False
        return True

    def _drain(self) -> None:
        """Convert what is queued. FFmpeg scales every integer format to ±1."""
        if self.n_samples > self._max_duration_s * (self.sr or 1):
            raise RejectedObjectError(
                "too_long", f"longer than {self._max_duration_s:g} s, the most this source allows"
            )
        self._n_queued = 0
        queued = self._fifo.read(0, partial=True) if self._fifo.samples else None
        if queued is None:
            return
        format_name = "fltp" if self._n_mixed <= _MAX_PLANES else "flt"
        if self._resampler is None:
            self._resampler = av.AudioResampler(format=format_name)
        try:
            frames = [queued] if queued.format.name == format_name else self._resampler.resample(queued)
            for frame in frames:
                y = self._mix(frame)
                self._ready.append(y)
                self._n_ready += len(y)
        except (av.error.FFmpegError, ValueError) as error:
            self._ended_by = f"has {self._n_mixed} channels that cannot be converted: {_text(error)}"

    def _collect(self) -> Samples:
        """Return what was converted, as one block."""
        y = np.concatenate(self._ready)
        if not np.isfinite(y).all():
            index = self._n_yielded + int(np.argmin(np.isfinite(y)))
            raise RejectedObjectError("non_finite", f"sample {index} is NaN or infinite")
        self._n_yielded += len(y)
        self._ready.clear()
        self._n_ready = 0
        return y

    def _mix(self, frame: av.AudioFrame) -> Samples:
        """Return the mean of the channels."""
        if self._n_mixed > _MAX_PLANES:
            mean: Samples = np.mean(frame.to_ndarray().reshape(-1, self._n_mixed), axis=1, dtype=np.float32)
            return mean
        # The planes themselves, without a copy of all channels; FFmpeg pads them beyond the samples.
        first, *others = (np.frombuffer(memoryview(plane), np.float32, frame.samples) for plane in frame.planes)
        if not others:
            return first.copy()
        y = np.add(first, others[0])
        for plane in others[1:]:
            y += plane
        y *= np.float32(1.0 / self._n_mixed)
        return y

    def _note_bad_packet(self) -> None:
        self._bad_outside += 1
        if self._first_bad_s is None:
            self._first_bad_s = self._position_s

    def _note_clock(self, at_s: float) -> None:
        """Take a step of the stream's own clock for missing audio if it is forward; a chained stream starts it anew."""
        offset_s = at_s - self.n_samples / self.sr
        # avi counts chunks, not time.
        if offset_s > self._clock_offset_s and self._name != "avi":
            self._missing_s += offset_s - self._clock_offset_s
            if self._first_gap_s is None:
                self._first_gap_s = self._position_s
        self._clock_offset_s = offset_s

    @property
    def _position_s(self) -> float:
        return self.n_samples / (self.sr or 1)

    @property
    def info(self) -> AudioInfo:
        """What there is to say once all has been decoded."""
        claim = claimed_length(
            self._name, self._header, self.sr,
            stream_s=self._stream_s, container_s=self._container_s, is_only_stream=self._is_only_stream,
        )  # fmt: skip
        parts = []
        is_all_there = claim is not None and claim.duration_s - self._position_s <= claim.slack_s
        if self._ended_by and not (is_all_there and self._ended_by.startswith("cannot be read on")):
            parts.append(f"{self._ended_by} at {self._position_s:.2f} s")
        bad = self._bad_inside + (0 if self._name == "mp3" else self._bad_outside)
        if bad:
            packets = "1 packet" if bad == 1 else f"{bad} packets"
            parts.append(f"{packets} cannot be decoded, the first at {self._first_bad_s or 0.0:.2f} s")
        if self._missing_s:
            parts.append(f"{self._missing_s:.2f} s are missing, the first at {self._first_gap_s or 0.0:.2f} s")
        if claim is not None and claim.duration_s - self._position_s > claim.slack_s:
            parts.append(f"{self._position_s:.2f} s of the declared {claim.duration_s:.2f} s are there")
        return AudioInfo(
            sr=self.sr,
            channels=self.channels,
            n_samples=self.n_samples,
            codec=self._codec,
            container=self._name,
            declared_codec=self._declared_codec,
            declared_duration_s=_sane(claim.duration_s if claim else self._stream_s or self._container_s),
            declared_samplerate_hz=self._declared_rate or None,
            declared_channels=self._declared_channels or None,
            defect="; ".join(parts) or None,
        )


def decode_audio(
    file: SeekableFile, *, max_duration_s: float = math.inf, max_channels: int = 64
) -> tuple[Samples, AudioInfo]:
    """Decode a whole recording into memory: mono samples, shape (n_samples,), float32, and what there is to say of it."""
    with AudioDecoder(file, max_duration_s=max_duration_s, max_channels=max_channels) as decoder:
        y = np.concatenate(list(decoder))
        return y, decoder.info


def _sane(duration_s: float | None) -> float | None:
    """Drop lengths that a header cannot mean."""
    return duration_s if duration_s is not None and 0 <= duration_s <= _MAX_DECLARED_S else None


def _read_channels(context: av.AudioCodecContext) -> int:
    layout = context.layout
    if " channels (" in layout.name:
        # A channel order of its own: PyAV 18 lets every object that shows it free its map. This one never goes, and the
        # decoder is told to forget the order.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
        context.options = {"ch_layout": f"{layout.nb_channels}C"}
    return layout.nb_channels


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
