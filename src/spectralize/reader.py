"""Reading frames back: binary COPY straight into numpy."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from spectralize.errors import LedgerError

#: Signature, flags and the length of an empty extension: what every binary COPY starts with.
_HEADER_BYTES = 19

_SPECTROGRAM = """
SELECT n_frames, n_mels, sr, hop_length, recorded_at FROM spectralize.spectrograms WHERE spectrogram_id = %s
"""

#: The time bounds come from the spectrogram, so that only its own chunks are opened.
_FRAMES = """
COPY (
    SELECT f.frame_index, f.mel FROM spectralize.mel_frames AS f
    WHERE f.spectrogram_id = %(id)s AND f.frame_time >= %(start)s AND f.frame_time < %(end)s
    ORDER BY f.frame_time
) TO STDOUT (FORMAT binary)
"""


@dataclass(frozen=True, slots=True)
class MelWindow:
    """Consecutive frames of one spectrogram.

    Attributes
    ----------
    mel
        Shape (n_frames, n_mels), float32 widened from half precision, dB relative to 1.0.
    frame_index
        Shape (n_frames,), position in the recording; a frame starts frame_index * hop_length / sr seconds into it.
    """

    mel: npt.NDArray[np.float32]
    frame_index: npt.NDArray[np.int32]
    sr: int
    hop_length: int
    recorded_at: datetime

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """Seconds from the start of the recording, shape (n_frames,)."""
        return self.frame_index.astype(np.float64) * (self.hop_length / self.sr)


def read_mel(
    connection: psycopg.Connection[Any], spectrogram_id: int, *, start_s: float = 0.0, end_s: float | None = None
) -> MelWindow:
    """Read the frames of a spectrogram that start in [start_s, end_s), seconds from the start of the recording.

    Raises
    ------
    LedgerError
        If there is no such spectrogram.
    """
    row = connection.execute(_SPECTROGRAM, (spectrogram_id,)).fetchone()
    if row is None:
        raise LedgerError(f"spectrogram {spectrogram_id}: not in the store")
    n_frames, n_mels, sr, hop_length, recorded_at = row
    end_s = n_frames * hop_length / sr if end_s is None else end_s
    stride = np.dtype(
        [
            ("n_fields", ">i2"), ("index.length", ">i4"), ("index", ">i4"), ("mel.length", ">i4"),
            ("dim", ">i2"), ("unused", ">i2"), ("mel", ">f2", (n_mels,)),
        ]
    )  # fmt: skip
    values = {"id": spectrogram_id, "start": _later(recorded_at, start_s), "end": _later(recorded_at, end_s)}
    with connection.cursor() as cursor, cursor.copy(_FRAMES, values) as copy:
        data = b"".join(copy)
    rows = np.frombuffer(data, dtype=stride, offset=_HEADER_BYTES, count=(len(data) - _HEADER_BYTES) // stride.itemsize)
    return MelWindow(
        mel=rows["mel"].astype(np.float32),
        frame_index=rows["index"].astype(np.int32),
        sr=sr,
        hop_length=hop_length,
        recorded_at=recorded_at,
    )


def _later(at: datetime, seconds: float) -> datetime:
    return at + timedelta(microseconds=round(seconds * 1e6))
