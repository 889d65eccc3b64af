"""One profile of one recording: a stream of samples in, rows for the database out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from spectralize.binarycopy import RowBlock, encode_rows, frame_times_us
from spectralize.errors import RejectedObjectError
from spectralize.mel import MelStream, Spectrogram
from spectralize.profiles import MelProfile
from spectralize.resample import Samples
from spectralize.seconds import Seconds, SecondsStream
from spectralize.waveform import Hops, WaveformStream

#: Rows are encoded so many bytes of Mel vectors at a time: enough to make the cost per call small.
_FLUSH_BYTES = 1 << 18

Emit = Callable[[str, RowBlock], None]


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """What a spectrogram's row says of its frames. `sr` in Hz, `peak_db` the highest cell before rounding."""

    sr: int
    hop_length: int
    n_mels: int
    n_samples: int
    n_frames: int
    n_hops: int
    n_seconds: int
    peak_db: float


class FeatureStream:
    """Samples at the profile's rate in, encoded rows of `mel_frames`, `waveform_frames` and `mel_seconds` out.

    Parameters
    ----------
    profile
        What to compute.
    sr
        Sample rate in Hz of what will be pushed: the profile's, or the recording's own if that is "native".
    recorded_at
        Time of the first sample.
    emit
        Takes the profile's name and a block of rows; a block may hold a few rows or thousands.
    """

    def __init__(self, profile: MelProfile, sr: int, recorded_at: datetime, emit: Emit) -> None:
        self._profile, self._sr, self._recorded_at, self._emit = profile, sr, recorded_at, emit
        self._mel_stream = MelStream(profile, sr)
        self._seconds_stream = SecondsStream(sr, profile.hop_length, profile.n_mels)
        self._waveform_stream = (
            None
            if profile.waveform == "off"
            else WaveformStream(profile.hop_length, with_pcm=profile.waveform == "pcm")
        )
        self._mel: list[Spectrogram] = []
        self._hops: list[Hops] = []
        self._pending_bytes = 0
        self._n_samples = self._n_frames = self._n_hops = self._n_seconds = 0
        self._peak_db = -np.inf

    def push(self, y: Samples) -> None:
        """Take the next samples, shape (n,), float32.

        Raises
        ------
        RejectedObjectError
            `non_finite` if samples are so large that their power is no finite number.
        """
        if len(y):
            self._n_samples += len(y)
            self._take(y, self._mel_stream.push(y))
            if self._waveform_stream is not None:
                self._take_hops(self._waveform_stream.push(y))
            if self._pending_bytes >= _FLUSH_BYTES:
                self._flush(self._seconds_stream.flush())

    def finish(self) -> FeatureSummary:
        """Emit the rest.

        Raises
        ------
        RejectedObjectError
            `too_short` if there is not one frame, `non_finite` as in `push`.
        """
        self._take(np.empty(0, dtype=np.float32), self._mel_stream.finish())
        if not self._n_frames and not self._mel:
            name, n_fft = self._profile.name, self._profile.n_fft
            raise RejectedObjectError(
                "too_short",
                f"{self._n_samples} samples at {self._sr} Hz are fewer than one frame of profile {name} ({n_fft})",
            )
        if self._waveform_stream is not None:
            self._take_hops(self._waveform_stream.finish())
        self._flush(self._seconds_stream.finish())
        return FeatureSummary(
            sr=self._sr,
            hop_length=self._profile.hop_length,
            n_mels=self._profile.n_mels,
            n_samples=self._n_samples,
            n_frames=self._n_frames,
            n_hops=self._n_hops,
            n_seconds=self._n_seconds,
            peak_db=float(self._peak_db),
        )

    def _take(self, y: Samples, mel: Spectrogram) -> None:
        self._seconds_stream.push(y, mel)
        if len(mel):
            # NaN and infinity travel through max.
            self._peak_db = max(self._peak_db, _finite(mel.max()))
            self._mel.append(mel)
            self._pending_bytes += mel.nbytes // 2

    def _take_hops(self, hops: Hops) -> None:
        if len(hops.rms):
            _finite(hops.rms.max())
            self._hops.append(hops)
            self._pending_bytes += 0 if hops.pcm is None else hops.pcm.nbytes

    def _flush(self, seconds: Seconds) -> None:
        self._pending_bytes = 0
        if self._mel:
            mel = np.concatenate(self._mel)
            self._mel.clear()
            columns = self._frame_columns(self._n_frames, len(mel)) | {"mel": mel}
            self._emit(self._profile.name, encode_rows("mel_frames", columns))
            self._n_frames += len(mel)
        self._flush_hops()
        if len(seconds.rms):
            self._flush_seconds(seconds)

    def _flush_hops(self) -> None:
        # Rows of one width each: the last hop may hold fewer samples than the others.
        by_width: dict[int, list[Hops]] = {}
        for hops in self._hops:
            by_width.setdefault(0 if hops.pcm is None else hops.pcm.shape[1], []).append(hops)
        self._hops.clear()
        for parts in by_width.values():
            n_hops = sum(len(part.rms) for part in parts)
            columns = self._frame_columns(self._n_hops, n_hops) | {
                "min": np.concatenate([part.min for part in parts]),
                "max": np.concatenate([part.max for part in parts]),
                "rms": np.concatenate([part.rms for part in parts]),
            }
            pcm = [part.pcm for part in parts if part.pcm is not None]
            if pcm:
                columns["pcm"] = np.concatenate(pcm)
            self._emit(self._profile.name, encode_rows("waveform_frames", columns))
            self._n_hops += n_hops

    def _flush_seconds(self, seconds: Seconds) -> None:
        n_seconds = len(seconds.rms)
        _finite(seconds.rms.max())
        indices = np.arange(self._n_seconds, self._n_seconds + n_seconds, dtype=np.int64)
        columns: dict[str, npt.NDArray[Any]] = {
            "second_at": frame_times_us(self._recorded_at, indices, 1, 1),
            "spectrogram_id": np.zeros(n_seconds, dtype=np.int32),
            "second_index": indices.astype(np.int32),
            "n_frames": seconds.n_frames,
            "rms": seconds.rms,
            "peak": seconds.peak,
            "mel_mean": seconds.mel_mean,
            "mel_std": seconds.mel_std,
        }
        self._emit(self._profile.name, encode_rows("mel_seconds", columns))
        self._n_seconds += n_seconds

    def _frame_columns(self, first: int, n_rows: int) -> dict[str, Any]:
        indices = np.arange(first, first + n_rows, dtype=np.int64)
        return {
            "frame_time": frame_times_us(self._recorded_at, indices, self._profile.hop_length, self._sr),
            "spectrogram_id": np.zeros(n_rows, dtype=np.int32),
            "frame_index": indices.astype(np.int32),
        }


def _finite(value: np.floating[Any]) -> float:
    if not np.isfinite(value):
        raise RejectedObjectError("non_finite", "samples so far beyond full scale that their power is no finite number")
    return float(value)
