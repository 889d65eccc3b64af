"""A recording, or any window of it, in as many columns as a picture has."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from spectralize.errors import ReadError
from spectralize.reader import frames
from spectralize.reader.frames import Connection, Window
from spectralize.reader.spectrograms import Spectrogram

Array = npt.NDArray[np.float32]

#: A window with more frames is read by the second: so many frames are 4 MB of 128 bands, and take some 50 ms.
MAX_FRAMES = 1 << 14

#: Seconds are summed up where they are: of ten hours a thousand vectors come, and not 36,000. The sum is that of single
#: precision vectors: twice as fast as the average of halves, which makes an array of doubles of each row.
_MEL = """
, {schema}.sum(mel_mean::{schema}.vector) FILTER (WHERE n_frames > 0),
count(*) FILTER (WHERE n_frames > 0)
"""
_SECONDS = """
SELECT ((second_index - %(first)s)::bigint * %(n_columns)s / %(n_rows)s)::integer AS number, count(*), max(peak),
       sqrt(avg(rms * rms)){mel}
FROM spectralize.mel_seconds
WHERE spectrogram_id = %(spectrogram)s AND second_at >= %(start)s AND second_at < %(stop)s
GROUP BY number ORDER BY number
"""

_SCHEMA = """
SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
"""


@dataclass(frozen=True, slots=True)
class Columns:
    """Consecutive columns of equal duration.

    Attributes
    ----------
    start_s, step_s
        Where the first one begins, in seconds from the start of the recording, and how long each is.
    level
        What they were made of: "frames", or "seconds" for long windows.
    mel
        Shape (n, n_mels), float32: mean of the dB of the frames that start in the column; NaN where none does.
    low, high, rms
        Shape (n,), float32, full scale ±1: lowest and highest sample, and root mean square of all. Of seconds, and where the
        profile keeps no waveform, `low` is minus the largest sample without its sign.
    """

    start_s: float
    step_s: float
    level: Literal["frames", "seconds"]
    mel: Array
    low: Array
    high: Array
    rms: Array


def read_columns(
    connection: Connection, spectrogram: Spectrogram, first_s: float | None, stop_s: float | None, n_columns: int
) -> Columns:
    """Read the window [first_s, stop_s) of one spectrogram as at most `n_columns` columns: fewer, if it has fewer rows.

    What it costs has a bound, whatever the length of the recording: at most `MAX_FRAMES` frames, or of seconds one statement
    that returns a row per column.

    Parameters
    ----------
    first_s, stop_s
        Seconds; None is the start, or the end, of the recording. A window that is read by the second begins with the second
        that `first_s` lies in.

    Raises
    ------
    ReadError
        If there is no such window, or its rows were removed meanwhile.
    """
    if n_columns < 1:
        raise ReadError(f"n_columns = {n_columns}: must be 1 or more")
    first, stop = spectrogram.span(first_s, stop_s, step_s=spectrogram.frame_s, n_rows=spectrogram.n_frames)
    if stop - first <= MAX_FRAMES:
        return _of_frames(connection, Window(spectrogram, first, stop), n_columns)
    first, stop = spectrogram.span(math.floor(first_s or 0.0), stop_s, step_s=1.0, n_rows=spectrogram.n_seconds)
    return _of_seconds(connection, Window(spectrogram, first, stop), n_columns)


def _of_frames(connection: Connection, window: Window, n_columns: int) -> Columns:
    spectrogram = window.spectrogram
    n = min(n_columns, window.n_rows)
    edges = -(-np.arange(n + 1, dtype=np.int64) * window.n_rows // n)
    sums = np.add.reduceat(frames.read_mel(connection, window), edges[:-1], axis=0)
    mel: Array = (sums / np.diff(edges)[:, None]).astype(np.float32)
    step_s = window.n_rows * spectrogram.frame_s / n
    start_s = window.first * spectrogram.frame_s
    stop = min(window.stop, spectrogram.n_hops)
    if stop > window.first:
        hops = frames.read_waveform(connection, Window(spectrogram, window.first, stop))
        low, high, rms = _pool(hops, edges)
    else:
        low, high, rms = _envelope_of_seconds(
            connection, spectrogram, start_s + np.arange(n + 1, dtype=np.float64) * step_s
        )
    return Columns(start_s, step_s, "frames", mel, low, high, rms)


def _pool(hops: dict[str, npt.NDArray[Any]], edges: npt.NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Pool hops over columns. There may be a frame more than hops, at the very end: the rest of its column is silence."""
    missing = int(edges[-1]) - len(hops["rms"])
    low, high, rms = (np.pad(hops[name], (0, missing)) for name in ("min", "max", "rms"))
    starts, counts = edges[:-1], np.diff(edges)
    power = np.add.reduceat(np.square(rms, dtype=np.float64), starts) / counts
    return np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts), np.sqrt(power).astype(np.float32)


def _envelope_of_seconds(
    connection: Connection, spectrogram: Spectrogram, edges_s: npt.NDArray[np.float64]
) -> tuple[Array, Array, Array]:
    """Return the envelope of columns of which each is as loud as the seconds that it touches."""
    n_seconds = spectrogram.n_seconds
    starts = np.minimum(np.floor(edges_s[:-1]).astype(np.int64), n_seconds - 1)
    # What floating point adds to a whole second is not the next one.
    stops = np.clip(np.ceil(edges_s[1:] - 1e-9).astype(np.int64), starts + 1, n_seconds)
    first = int(starts[0])
    window = Window(spectrogram, first, int(stops[-1]))
    rows = _sum_seconds(connection, window, window.n_rows, has_mel=False)
    # One more, for reduceat knows no end beyond the last.
    peak = np.append(np.array([row[2] for row in rows], dtype=np.float32), np.float32(0))
    power = np.append(np.array([row[3] for row in rows], dtype=np.float64) ** 2, 0.0)
    pairs = np.stack([starts, stops], axis=1).ravel() - first
    high = np.maximum.reduceat(peak, pairs)[::2]
    rms = np.sqrt(np.add.reduceat(power, pairs)[::2] / (stops - starts)).astype(np.float32)
    return -high, high, rms


def _of_seconds(connection: Connection, window: Window, n_columns: int) -> Columns:
    n = min(n_columns, window.n_rows)
    rows = _sum_seconds(connection, window, n, has_mel=True)
    mel = np.full((n, window.spectrogram.n_mels), np.nan, dtype=np.float32)
    for number, (*_, data, count) in enumerate(rows):
        if data is not None:
            mel[number] = np.frombuffer(data, dtype=">f4", offset=4) / np.float32(count)
    high = np.array([row[2] for row in rows], dtype=np.float32)
    rms = np.array([row[3] for row in rows], dtype=np.float32)
    return Columns(float(window.first), window.n_rows / n, "seconds", mel, -high, high, rms)


def _sum_seconds(connection: Connection, window: Window, n_columns: int, *, has_mel: bool) -> list[tuple[Any, ...]]:
    """Return number, count of seconds, peak and rms of each column, and the sum of its Mel vectors as it travels."""
    spectrogram, start, stop = frames.bounds("mel_seconds", window)
    values = {
        "first": window.first, "n_columns": n_columns, "n_rows": window.n_rows, "spectrogram": spectrogram, "start": start,
        "stop": stop,
    }  # fmt: skip
    query = sql.SQL(_SECONDS).format(mel=_mel_sum(connection) if has_mel else sql.SQL(""))
    rows = connection.execute(query, values, binary=True, prepare=False).fetchall()
    if [row[0] for row in rows] != list(range(n_columns)) or sum(row[1] for row in rows) != window.n_rows:
        raise frames.lost("mel_seconds", window)
    return rows


def _mel_sum(connection: Connection) -> sql.Composed:
    """Return the sum of Mel vectors, by names that hold whatever schemas the role has in its search_path."""
    row = connection.execute(_SCHEMA).fetchone()
    if row is None:
        raise psycopg.errors.UndefinedFunction("no extension vector")
    return sql.SQL(_MEL).format(schema=sql.Identifier(row[0]))
