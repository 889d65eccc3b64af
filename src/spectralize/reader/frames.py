"""Rows of spectrograms as numpy arrays: binary COPY, parsed by its fixed stride."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psycopg

from spectralize.errors import ReadError
from spectralize.reader.spectrograms import Spectrogram

Connection = psycopg.Connection[Any]
Rows = npt.NDArray[np.void]
Mel = npt.NDArray[np.float32]
Kind = Literal["mel_frames", "waveform_frames", "mel_seconds"]

#: Signature, flags and the length of an empty extension: what every binary COPY starts with.
_HEADER_BYTES = 19

#: Most rows that one statement returns: what is on its way stays small beside the array that it goes into.
_BLOCK_ROWS = 1 << 16

#: Windows that share a statement. Each is planned by itself, with bounds that leave it its own chunks only; more of them
#: would save no time, and have the server plan for longer before the first row comes.
_UNITED = 64

#: With bounds of time that the planner knows, it opens only the chunks that hold them, and the index gives this order.
_WINDOW = {
    "mel_frames": (
        "SELECT frame_index, mel FROM spectralize.mel_frames "
        "WHERE spectrogram_id = %s AND frame_time >= %s AND frame_time < %s ORDER BY frame_time"
    ),
    "waveform_frames": (
        "SELECT frame_index, min, max, rms FROM spectralize.waveform_frames "
        "WHERE spectrogram_id = %s AND frame_time >= %s AND frame_time < %s ORDER BY frame_time"
    ),
    "mel_seconds": (
        "SELECT second_index, n_frames, rms, peak, mel_mean, mel_std FROM spectralize.mel_seconds "
        "WHERE spectrogram_id = %s AND second_at >= %s AND second_at < %s ORDER BY second_at"
    ),
}

_PCM = """
SELECT count(*), coalesce(string_agg(pcm, ''::bytea ORDER BY frame_time), ''::bytea) FROM spectralize.waveform_frames
WHERE spectrogram_id = %s AND frame_time >= %s AND frame_time < %s
"""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Window:
    """Rows [first, stop) of one spectrogram."""

    spectrogram: Spectrogram
    first: int
    stop: int

    @property
    def n_rows(self) -> int:
        """How many rows that is."""
        return self.stop - self.first


def statement(kind: Kind, windows: Sequence[Window]) -> tuple[str, list[object]]:
    """Return the statement that reads these windows, and the values to bind: for who wants to see its plan."""
    return _statement(kind, len(windows)), [value for window in windows for value in _bounds(kind, window)]


@lru_cache(maxsize=256)
def _statement(kind: Kind, n_windows: int) -> str:
    return f"COPY ({' UNION ALL '.join([f'({_WINDOW[kind]})'] * n_windows)}) TO STDOUT (FORMAT binary)"


@lru_cache(maxsize=64)
def _stride(kind: Kind, n_mels: int) -> np.dtype[np.void]:
    fields: list[Any] = [("n_fields", ">i2"), ("index.length", ">i4"), ("index", ">i4")]

    def add(name: str, dtype: str) -> None:
        fields.extend([(f"{name}.length", ">i4"), (name, dtype)])

    def add_vector(name: str) -> None:
        fields.append((f"{name}.length", ">i4"))
        fields.extend([(f"{name}.dim", ">i2"), (f"{name}.unused", ">i2"), (name, ">f2", (n_mels,))])

    if kind == "mel_frames":
        add_vector("mel")
    elif kind == "waveform_frames":
        for name in ("min", "max", "rms"):
            add(name, ">f4")
    else:
        add("n_frames", ">i4")
        add("rms", ">f4")
        add("peak", ">f4")
        add_vector("mel_mean")
        add_vector("mel_std")
    return np.dtype(fields)


def _bounds(kind: Kind, window: Window) -> tuple[int, datetime, datetime]:
    """Return the id, and the times of the first row and of the row behind the last."""
    spectrogram = window.spectrogram
    if kind == "mel_seconds":
        start = spectrogram.recorded_at + timedelta(seconds=window.first)
        stop = spectrogram.recorded_at + timedelta(seconds=window.stop)
    else:
        start, stop = spectrogram.frame_at(window.first), spectrogram.frame_at(window.stop)
    # Behind the last row there may be no time left in the calendar, nor a row.
    return spectrogram.spectrogram_id, start, max(stop, start + _MICROSECOND)


def read_rows(connection: Connection, kind: Kind, windows: Sequence[Window]) -> Iterator[Rows]:
    """Yield the rows of each window as a structured array with a field per column, and `index`.

    Windows of one statement must have one number of bands. What is yielded is valid until the next is asked for.

    Raises
    ------
    ReadError
        If rows are missing: the spectrogram has lost them since it was looked up.
    """
    for start in range(0, len(windows), _UNITED):
        group = windows[start : start + _UNITED]
        values = [value for window in group for value in _bounds(kind, window)]
        with connection.cursor() as cursor, cursor.copy(_statement(kind, len(group)), values) as copy:
            data = b"".join(copy)
        stride = _stride(kind, group[0].spectrogram.n_mels)
        # The last two bytes say that there is no more.
        n_rows = (len(data) - _HEADER_BYTES - 2) // stride.itemsize
        rows = np.frombuffer(data, dtype=stride, offset=_HEADER_BYTES, count=n_rows)
        position = 0
        for window in group:
            found = rows[position : position + window.n_rows]
            position += window.n_rows
            _check(kind, window, found)
            yield found


def _check(kind: Kind, window: Window, rows: Rows) -> None:
    """Nothing is read by halves: rows that are not there, or belong to another window, show in their indices."""
    if len(rows) == window.n_rows and np.array_equal(rows["index"], np.arange(window.first, window.stop)):
        return
    spectrogram = window.spectrogram
    raise ReadError(
        f"spectrogram {spectrogram.spectrogram_id} ({spectrogram.profile}): {kind} does not hold its rows {window.first} to "
        f"{window.stop - 1}: it was removed since this recording was looked up (look it up again), or spectralize verify "
        "has more to say"
    )


def _blocks(window: Window) -> Iterator[Window]:
    for first in range(window.first, window.stop, _BLOCK_ROWS):
        yield Window(window.spectrogram, first, min(first + _BLOCK_ROWS, window.stop))


def read_mel(connection: Connection, window: Window) -> Mel:
    """Return frames of one spectrogram: shape (n_rows, n_mels), float32, dB relative to 1.0."""
    mel = np.empty((window.n_rows, window.spectrogram.n_mels), dtype=np.float32)
    for block in _blocks(window):
        [rows] = read_rows(connection, "mel_frames", [block])
        mel[block.first - window.first : block.stop - window.first] = _native(rows["mel"])
    return mel


def read_many_mel(connection: Connection, windows: Sequence[Window], n_frames: int) -> Mel:
    """Return at most `n_frames` frames of each window: shape (n_windows, n_frames, n_mels), float32, dB relative to 1.0.

    What a window is shorter than that stays 0.
    """
    mel = np.zeros((len(windows), n_frames, windows[0].spectrogram.n_mels), dtype=np.float32)
    for number, rows in enumerate(read_rows(connection, "mel_frames", windows)):
        mel[number, : len(rows)] = _native(rows["mel"])
    return mel


def _native(values: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Bring big-endian halves, a stride apart, into this machine's order: numpy widens those by the vector."""
    return values.astype(np.float16)


def read_waveform(connection: Connection, window: Window) -> dict[str, Mel]:
    """Return lowest, highest and root mean square sample of each hop, shape (n_rows,), float32, full scale ±1."""
    parts = [read_rows(connection, "waveform_frames", [block]) for block in _blocks(window)]
    blocks = [rows for part in parts for rows in part]
    return {name: np.concatenate([rows[name] for rows in blocks]).astype(np.float32) for name in ("min", "max", "rms")}


def read_seconds(connection: Connection, window: Window) -> dict[str, npt.NDArray[Any]]:
    """Return n_frames, rms and peak, shape (n_rows,), and mel_mean and mel_std, shape (n_rows, n_mels), of each second."""
    blocks = [rows for block in _blocks(window) for rows in read_rows(connection, "mel_seconds", [block])]
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.concatenate([rows[name] for rows in blocks]).astype(np.float32)
        for name in ("rms", "peak", "mel_mean", "mel_std")
    }
    return columns | {"n_frames": np.concatenate([rows["n_frames"] for rows in blocks]).astype(np.int32)}


def read_pcm(connection: Connection, window: Window) -> npt.NDArray[np.int16]:
    """Return the samples of hops, one after the other: shape (n_samples,), int16."""
    parts = []
    for block in _blocks(window):
        row = connection.execute(_PCM, _bounds("waveform_frames", block), binary=True, prepare=False).fetchone()
        n_hops, data = row or (0, b"")
        if n_hops != block.n_rows:
            _check("waveform_frames", block, np.empty(0, dtype=_stride("waveform_frames", 0)))
        parts.append(np.frombuffer(data, dtype="<i2"))
    return np.concatenate(parts).astype(np.int16)
