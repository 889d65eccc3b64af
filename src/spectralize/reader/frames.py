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
from spectralize.tables import TIME_COLUMNS

Connection = psycopg.Connection[Any]
Rows = npt.NDArray[np.void]
Mel = npt.NDArray[np.float32]
Column = npt.NDArray[Any]
Kind = Literal["mel_frames", "waveform_frames", "mel_seconds"]

#: Signature, flags and the length of an empty extension: what every binary COPY starts with.
_HEADER_BYTES = 19

#: Most rows and bytes that one statement returns: what is on its way stays small beside the array that it goes into.
_BLOCK_ROWS = 1 << 16
_BLOCK_BYTES = 1 << 25

#: Windows that share a statement. Each is planned by itself, with bounds that leave it its own chunks only; more of them
#: would save no time, and have the server plan for longer before the first row comes.
_UNITED = 64

#: A row of each table as bytes, in the order of `_stride`.
_ROW = {
    "mel_frames": "int4send(frame_index) || spectralize.send_halfvec(mel)",
    "waveform_frames": "int4send(frame_index) || float4send(min) || float4send(max) || float4send(rms)",
    "mel_seconds": (
        "int4send(second_index) || int4send(n_frames) || float4send(rms) || float4send(peak) "
        "|| spectralize.send_halfvec(mel_mean) || spectralize.send_halfvec(mel_std)"
    ),
}

#: With bounds of time that the planner knows, it opens only the chunks that hold them, and the index gives this order.
#: All rows of a window come as one value: a row by itself costs the client a microsecond, and a window has hundreds.
_WINDOW = {
    kind: (
        f"SELECT string_agg({row}, ''::bytea ORDER BY {TIME_COLUMNS[kind]}) FROM spectralize.{kind} "
        f"WHERE spectrogram_id = %s AND {TIME_COLUMNS[kind]} >= %s AND {TIME_COLUMNS[kind]} < %s"
    )
    for kind, row in _ROW.items()
}

#: Every hop is as long as the profile's, but for the last one of a recording.
_PCM = """
SELECT array_agg(frame_index ORDER BY frame_time), string_agg(pcm, ''::bytea ORDER BY frame_time),
       bool_and(coalesce(octet_length(pcm), 0) = 2 * least(%s, %s - frame_index::bigint * %s))
FROM spectralize.waveform_frames WHERE spectrogram_id = %s AND frame_time >= %s AND frame_time < %s
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
    return _statement(kind, len(windows)), [value for window in windows for value in bounds(kind, window)]


@lru_cache(maxsize=256)
def _statement(kind: Kind, n_windows: int) -> str:
    return f"COPY ({' UNION ALL '.join([f'({_WINDOW[kind]})'] * n_windows)}) TO STDOUT (FORMAT binary)"


@lru_cache(maxsize=64)
def _stride(kind: Kind, n_mels: int) -> np.dtype[np.void]:
    fields: list[Any] = [("index", ">i4")]

    def add(name: str, dtype: str) -> None:
        fields.append((name, dtype))

    def add_vector(name: str) -> None:
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


def bounds(kind: Kind, window: Window) -> tuple[int, datetime, datetime]:
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
    for group in _groups(kind, windows):
        with connection.cursor() as cursor, cursor.copy(*statement(kind, group)) as copy:
            data = b"".join(copy)
        stride = _stride(kind, group[0].spectrogram.n_mels)
        position = _HEADER_BYTES
        for window in group:
            # A row of one field: how many fields, the length of this one (-1 for NULL, where no row was found), its bytes.
            n_bytes = max(0, int.from_bytes(data[position + 2 : position + 6], "big", signed=True))
            # What does not come out even has rows of another number of bands.
            n_rows, rest = divmod(n_bytes, stride.itemsize)
            found = np.frombuffer(data, dtype=stride, offset=position + 6, count=0 if rest else n_rows)
            position += 6 + n_bytes
            _check(kind, window, found)
            yield found


def _groups(kind: Kind, windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
    """Part windows into those that share a statement: as many as fit, at least one."""
    start = n_rows = 0
    for number, window in enumerate(windows):
        n_rows += window.n_rows
        if number > start and (number - start == _UNITED or n_rows > _most_rows(kind, window.spectrogram)):
            yield windows[start:number]
            start, n_rows = number, window.n_rows
    yield windows[start:]


def _most_rows(kind: Kind, spectrogram: Spectrogram) -> int:
    return max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // _stride(kind, spectrogram.n_mels).itemsize))


def _check(kind: Kind, window: Window, rows: Rows) -> None:
    """Nothing is read by halves: rows that are not there, or belong to another window, show in their indices."""
    if (
        len(rows) == window.n_rows
        and np.array_equal(rows["index"], np.arange(window.first, window.stop))
        and all((rows[name] == window.spectrogram.n_mels).all() for name in _dims(kind))
    ):
        return
    raise lost(kind, window)


@lru_cache(maxsize=8)
def _dims(kind: Kind) -> list[str]:
    return [name for name in _stride(kind, 1).names or () if name.endswith(".dim")]


def lost(kind: Kind, window: Window) -> ReadError:
    """Return the error of a window whose rows are not there."""
    spectrogram = window.spectrogram
    return ReadError(
        f"spectrogram {spectrogram.spectrogram_id} ({spectrogram.profile}): {kind} does not hold its rows {window.first} to "
        f"{window.stop - 1}: it was removed since this recording was looked up (look it up again), or spectralize verify "
        "has more to say"
    )


def _blocks(window: Window, n_rows: int) -> Iterator[Window]:
    for first in range(window.first, window.stop, n_rows):
        yield Window(window.spectrogram, first, min(first + n_rows, window.stop))


def read_mel(connection: Connection, window: Window) -> Mel:
    """Return frames of one spectrogram: shape (n_rows, n_mels), float32, dB relative to 1.0."""
    mel: Mel = read_many_mel(connection, [window], window.n_rows)[0]
    return mel


def read_many_mel(connection: Connection, windows: Sequence[Window], n_frames: int) -> Mel:
    """Return at most `n_frames` frames of each window: shape (n_windows, n_frames, n_mels), float32, dB relative to 1.0.

    What a window is shorter than that stays 0.
    """
    shape = (len(windows), n_frames, windows[0].spectrogram.n_mels)
    try:
        mel = np.zeros(shape, dtype=np.float32)
    except (MemoryError, ValueError) as error:
        raise ReadError(f"an array of {' x '.join(map(str, shape))} float32 does not fit the memory") from error
    parts = [
        (mel[number, block.first - window.first : block.stop - window.first], block)
        for number, window in enumerate(windows)
        for block in _blocks(window, _most_rows("mel_frames", window.spectrogram))
    ]
    rows_of_parts = read_rows(connection, "mel_frames", [block for _, block in parts])
    for (part, _), rows in zip(parts, rows_of_parts, strict=True):
        part[:] = _native(rows["mel"])
    return mel


def _native(values: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Bring big-endian halves, a stride apart, into this machine's order: numpy widens those by the vector."""
    return values.astype(np.float16)


def _read_columns(connection: Connection, kind: Kind, window: Window, names: Sequence[str]) -> dict[str, Column]:
    """Read columns block by block: of what the wire adds to each row, only one block is kept at a time."""
    blocks = list(_blocks(window, _most_rows(kind, window.spectrogram)))
    parts = [
        {name: rows[name].astype(rows[name].dtype.newbyteorder("=")) for name in names}
        for rows in read_rows(connection, kind, blocks)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def read_waveform(connection: Connection, window: Window) -> dict[str, Column]:
    """Return lowest, highest and root mean square sample of each hop, shape (n_rows,), float32, full scale ±1."""
    return _read_columns(connection, "waveform_frames", window, ("min", "max", "rms"))


def read_seconds(connection: Connection, window: Window) -> dict[str, Column]:
    """Return n_frames, rms and peak, shape (n_rows,), and mel_mean and mel_std, shape (n_rows, n_mels), of each second."""
    columns = _read_columns(connection, "mel_seconds", window, ("rms", "peak", "mel_mean", "mel_std", "n_frames"))
    return {name: values if name == "n_frames" else values.astype(np.float32) for name, values in columns.items()}


def read_pcm(connection: Connection, window: Window) -> npt.NDArray[np.int16]:
    """Return the samples of hops, one after the other: shape (n_samples,), int16."""
    spectrogram, parts = window.spectrogram, []
    hop = spectrogram.hop_length
    for block in _blocks(window, max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (2 * hop)))):
        values = (hop, spectrogram.n_samples, hop, *bounds("waveform_frames", block))
        row = connection.execute(_PCM, values, binary=True, prepare=False).fetchone()
        indices, data, is_right = row or ([], b"", False)
        if not is_right or not np.array_equal(np.asarray(indices), np.arange(block.first, block.stop)):
            raise lost("waveform_frames", block)
        parts.append(np.frombuffer(data, dtype="<i2"))
    return np.concatenate(parts).astype(np.int16)
