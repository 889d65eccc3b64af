"""What the store says of one spectrogram, and which of its rows a window is."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from spectralize.errors import ReadError
from spectralize.reader.given import as_seconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: A start that is a frame's own offset, within what floating point makes of it, begins with that frame.
TOLERANCE_FRAMES = 1e-6


@dataclass(frozen=True, slots=True)
class Spectrogram:
    """One computed (recording, profile, generation). Immutable in the store, too.

    Attributes
    ----------
    status
        "complete" or "partial"; `reason` says what a partial one lacks.
    sr, hop_length
        Sample rate in Hz, and samples from one frame to the next.
    n_samples, n_frames, n_hops, n_seconds
        Samples at `sr`, Mel frames, hops of the waveform (0 where the profile keeps none), seconds with a roll-up.
    peak_db
        Highest cell, before rounding to half precision; the reference of ``ref="max"``.
    recorded_at
        Time of the first sample, from the key, from last_modified, or given: see `recorded_at_origin`.
    parameters
        The profile's parameters, in librosa's terms.
    """

    spectrogram_id: int
    profile: str
    fingerprint: str
    parameters: dict[str, Any]
    generation: int
    batch_id: int
    status: str
    reason: str | None
    sr: int
    hop_length: int
    n_mels: int
    n_samples: int
    n_frames: int
    n_hops: int
    n_seconds: int
    peak_db: float
    recorded_at: datetime
    recorded_at_origin: str
    recorded_at_flag: str | None
    core_version: str
    library_versions: dict[str, str]
    loaded_at: datetime

    @property
    def duration_s(self) -> float:
        """Length in seconds of what was computed."""
        return self.n_samples / self.sr

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop_length / self.sr

    @property
    def recorded_us(self) -> int:
        """Microseconds from 1970 to the first sample."""
        return (self.recorded_at - _EPOCH) // timedelta(microseconds=1)

    def frame_at(self, index: int) -> datetime:
        """When a frame, or a hop, starts, as its row says it: to the nearest microsecond."""
        return _EPOCH + timedelta(
            microseconds=self.recorded_us + (index * self.hop_length * 1_000_000 + self.sr // 2) // self.sr
        )

    def span(self, start_s: float | None, end_s: float | None, *, step_s: float, n_rows: int) -> tuple[int, int]:
        """Return the rows that start in [start_s, end_s) as (first, stop): frames, hops or seconds, `step_s` apart.

        Raises
        ------
        ReadError
            If the window is none, does not lie in the recording, or is so short that no row starts in it.
        """
        start = 0.0 if start_s is None else as_seconds("start_s", start_s)
        end = math.inf if end_s is None else as_seconds("end_s", end_s)
        length = max(self.duration_s, n_rows * step_s)
        if math.isnan(start) or math.isnan(end) or start < 0 or end <= start:
            raise ReadError(
                f"window {_seconds(start)} to {_seconds(end)}: must begin at 0 s or later, and end after it begins"
            )
        if start >= length or (end_s is not None and end > length + step_s * TOLERANCE_FRAMES):
            raise ReadError(f"window {_seconds(start)} to {_seconds(end)}: the recording lasts {self.duration_s:.3f} s")
        first = math.ceil(start / step_s - TOLERANCE_FRAMES)
        stop = n_rows if end_s is None else min(n_rows, math.ceil(end / step_s - TOLERANCE_FRAMES))
        if first >= stop:
            raise ReadError(
                f"window {_seconds(start)} to {_seconds(end)}: nothing starts in it; rows are {step_s:.6f} s apart"
            )
        return first, stop


def _seconds(value: float) -> str:
    return "the end" if math.isinf(value) else f"{value:g} s"
