"""One spectrogram as it is stored beside what its object gives when it is decoded and computed again."""

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from spectralize.binarycopy import HEADER, RowBlock, frame_times_us
from spectralize.closeness import (
    BOUND_DB,
    FrameNorms,
    Judge,
    Mask,
    are_apart,
    are_apart_rounded,
    librosa_frames,
)
from spectralize.decode import AudioDecoder
from spectralize.errors import FailedObjectError, RejectedObjectError, as_one_line
from spectralize.extract import Extraction, extract, library_versions
from spectralize.features import FeatureSummary
from spectralize.mel import MelStream, Spectrogram
from spectralize.objectfile import ObjectFile
from spectralize.profiles import MelProfile
from spectralize.resample import ResampleStream, Samples
from spectralize.tables import PASSING_REJECT_CLASSES, SCHEMA, TIME_COLUMNS, Limits, PlannedObject, Timings
from spectralize.tags import no_tags
from spectralize.version import CORE_VERSION

Connection = psycopg.Connection[Any]
Rows = npt.NDArray[np.void]

#: librosa computes the beginning of a recording in one piece: so many seconds, samples, and samples in overlapping frames,
#: whichever comes first.
_LIBROSA_S = 60
_LIBROSA_SAMPLES = 1 << 23
_LIBROSA_CELLS = 1 << 24

#: Frames that are read at once.
_BLOCK_FRAMES = 1024

#: Samples that a resampler gives at a time, at most.
_PIECE_SAMPLES = 1 << 19

#: What was loaded was within its source's limits, and those may have changed since.
LIMITS = Limits(max_object_bytes=1 << 62, max_duration_s=math.inf)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

_TYPES = {
    "frame_time": ">i8", "second_at": ">i8", "spectrogram_id": ">i4", "frame_index": ">i4", "second_index": ">i4",
    "n_frames": ">i4", "min": ">f4", "max": ">f4", "rms": ">f4", "peak": ">f4",
}  # fmt: skip
_VECTORS = ("mel", "mel_mean", "mel_std")
_INDEX = {"mel_frames": "frame_index", "waveform_frames": "frame_index", "mel_seconds": "second_index"}
_FRAME_COLUMNS = ("frame_time", "spectrogram_id", "frame_index", "mel")

#: Bytes of a row before its content: the count of fields, and time, id and index with their lengths.
_CONTENT_AT = 2 + (4 + 8) + (4 + 4) + (4 + 4)

BYTES, DECODE, FRESH, LIBROSA = (
    "objects_are_unchanged",
    "recordings_equal_a_fresh_decode",
    "frames_equal_a_fresh_decode",
    "frames_equal_librosa",
)

STATEMENTS = {
    BYTES: "The bytes of a sampled object have the sha256 of its recording.",
    DECODE: "A sampled object decodes to the sample rate, the channels and the samples of its recording.",
    FRESH: "Frames, hops and seconds of a sampled spectrogram, their numbers and its peak_db are those of a fresh decode.",
    LIBROSA: "The frames of a sampled spectrogram are those that librosa makes of the first minute of a fresh decode.",
}


class UnreadableError(Exception):
    """The object cannot be fetched as it was listed, which is no fault of the store."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A spectrogram as the store has it."""

    spectrogram_id: int
    planned: PlannedObject
    profile: MelProfile
    sha256: bytes
    decoded: dict[str, int]
    summary: FeatureSummary
    versions: dict[str, str]

    @property
    def what(self) -> str:
        """Its id, and where it comes from."""
        planned = self.planned
        return (
            f"spectrogram {self.spectrogram_id} (s3://{planned.bucket}/{as_one_line(planned.key)}, {self.profile.name})"
        )

    @property
    def other_versions(self) -> str:
        """What computed it, where that is not what computes now."""
        then, now = self.versions, library_versions() | {"spectralize": CORE_VERSION}
        other = [
            f"{name} {then.get(name, 'none')}, now {now.get(name, 'none')}"
            for name in sorted(now.keys() | then.keys())
            if now.get(name) != then.get(name)
        ]
        return f" (computed by {'; '.join(other)})" if other else ""


class _StoredRows:
    """The rows of one spectrogram, read a block at a time."""

    def __init__(self, connection: Connection, item: Sampled) -> None:
        self._connection, self._item = connection, item

    def read(self, table: str, dtype: np.dtype[np.void], first_us: int, last_us: int, n_rows: int) -> Rows:
        """Return the rows of a table in [first_us, last_us], in the order of time; of rows told twice, not all.

        Rows of another size than `dtype` are left out: `verify` names them.
        """
        columns = [name for name in dtype.names or () if name in _TYPES or name in _VECTORS or name == "pcm"]
        # The time bounds let only the spectrogram's own chunks be opened.
        conditions = [
            sql.SQL("spectrogram_id = {}").format(self._item.spectrogram_id),
            sql.SQL("{} BETWEEN {} AND {}").format(
                sql.Identifier(TIME_COLUMNS[table]), _time(first_us), _time(last_us)
            ),
        ]
        for name in columns:
            if name in _VECTORS:
                conditions.append(sql.SQL("vector_dims({}) = {}").format(sql.Identifier(name), dtype[name].shape[0]))
            elif name == "pcm":
                conditions.append(sql.SQL("octet_length({}) = {}").format(sql.Identifier(name), dtype[name].itemsize))
        statement = sql.SQL(
            "COPY (SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {}) TO STDOUT (FORMAT binary)"
        ).format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(SCHEMA, table),
            sql.SQL(" AND ").join(conditions), sql.Identifier(TIME_COLUMNS[table]), 2 * n_rows,
        )  # fmt: skip
        with self._connection.transaction(), self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            data = b"".join(copy)
        return np.frombuffer(data, dtype, (len(data) - len(HEADER)) // dtype.itemsize, len(HEADER))

    def read_frames(self, sr: int, first: int, n_frames: int) -> Iterator[tuple[Rows, npt.NDArray[np.int64]]]:
        """Yield the Mel frames [first, first + n_frames), a block at a time, with their distances from the first."""
        item = self._item
        dtype = _row_dtype(_FRAME_COLUMNS, item.profile.n_mels)
        for start in range(first, first + n_frames, _BLOCK_FRAMES):
            stop = min(start + _BLOCK_FRAMES, first + n_frames)
            ends = np.array([start, stop - 1], dtype=np.int64)
            first_us, last_us = frame_times_us(item.planned.recorded_at, ends, item.profile.hop_length, sr)
            rows = self.read("mel_frames", dtype, int(first_us), int(last_us), stop - start)
            rows = rows[(rows["frame_index"] >= start) & (rows["frame_index"] < stop)]
            yield rows, rows["frame_index"].astype(np.int64) - first


class Comparison:
    """One spectrogram beside a fresh one."""

    def __init__(self, connection: Connection, item: Sampled) -> None:
        self._item, self._rows = item, _StoredRows(connection, item)
        #: What is wrong, by the names in `STATEMENTS`.
        self.breaches: dict[str, list[str]] = {name: [] for name in STATEMENTS}
        self.n_rows = self.n_equal_rows = self._n_unequal_frames = 0
        self._wrong = {table: _Wrong(table, "a fresh decode") for table in TIME_COLUMNS}
        self._wrong_by_librosa = _Wrong("mel_frames", "librosa")
        self._judge = Judge(item.profile, item.summary.sr)
        #: Per second, the lowest cell of each band.
        self._lowest: dict[int, Spectrogram] = {}

    def run(self, file: ObjectFile) -> None:
        """Fetch, decode and compute anew, and compare.

        Raises
        ------
        UnreadableError
            If the object cannot be fetched.
        """
        item, planned = self._item, self._item.planned
        try:
            extraction = extract(
                file, [item.profile], LIMITS, planned.recorded_at, self._take, Timings(), tags=no_tags(planned.size_bytes)
            )  # fmt: skip
            if file.failure is None:
                self._compare(file, extraction)
        except Exception as error:  # noqa: BLE001 (raised again unless it concerns the object)
            # Whatever a decoder or a library made of it, a file that could not be read comes first.
            self._refuse(file.failure or error)
            return
        if file.failure is not None:
            self._refuse(file.failure)

    def _refuse(self, error: Exception) -> None:
        match error:
            case RejectedObjectError() if error.reason_class not in PASSING_REJECT_CLASSES:
                self.breaches[FRESH].append(f"a fresh decode is rejected: {error.reason}")
            case RejectedObjectError() | FailedObjectError():
                raise UnreadableError(error.reason) from error
            case _:
                raise error

    def _compare(self, file: ObjectFile, extraction: Extraction) -> None:
        item = self._item
        if extraction.sha256 != item.sha256:
            # What other bytes give shows nothing.
            self.breaches[BYTES].append(
                f"its bytes have the sha256 {extraction.sha256.hex()}, its recording says {item.sha256.hex()}"
            )
            return
        audio = extraction.audio
        for (name, stored), fresh in zip(
            item.decoded.items(), (audio.sr, audio.channels, audio.n_samples), strict=True
        ):
            if stored != fresh:
                self.breaches[DECODE].append(f"{name} is {stored}, a fresh decode gives {fresh}")
        summary = extraction.features[item.profile.name]
        if isinstance(summary, RejectedObjectError):
            self._refuse(summary)
            return
        for field in fields(FeatureSummary):
            stored, fresh = getattr(item.summary, field.name), getattr(summary, field.name)
            if abs(stored - fresh) > (BOUND_DB if field.name == "peak_db" else 0):
                self.breaches[FRESH].append(f"{field.name} is {stored:.9g}, a fresh decode gives {fresh:.9g}")
        self._compare_frames(file, summary.sr)
        self.breaches[FRESH] += [str(wrong) for wrong in self._wrong.values() if wrong.n_rows]
        self.breaches[LIBROSA] += [str(self._wrong_by_librosa)] if self._wrong_by_librosa.n_rows else []

    def _take(self, _: str, block: RowBlock) -> None:
        """Compare a block of fresh rows with those that are stored. Whether any is missing is `verify`'s business."""
        table, index = block.table, _INDEX[block.table]
        dtype = _row_dtype(block.columns, self._item.profile.n_mels, len(block.data) // block.n_rows)
        fresh = np.frombuffer(block.data, dtype)
        times = fresh[TIME_COLUMNS[table]]
        stored = self._rows.read(table, dtype, int(times[0]), int(times[-1]), block.n_rows)
        positions = stored[index].astype(np.int64) - int(fresh[index][0])
        is_here = (positions >= 0) & (positions < block.n_rows)
        stored, positions = stored[is_here], positions[is_here]
        is_apart = (_content(stored) != _content(fresh[positions])).any(axis=1)
        self.n_rows += len(stored)
        self.n_equal_rows += len(stored) - int(is_apart.sum())
        stored, positions = stored[is_apart], positions[is_apart]
        match table:
            case "mel_frames":
                # Rows are rounded, too coarse to judge by: such frames are computed once more.
                self._n_unequal_frames += len(stored)
                self._note_lowest(fresh)
            case "waveform_frames":
                steps = {name: 1.0 if name == "pcm" else 0.0 for name in block.columns[3:]}
                are = {name: are_apart(stored[name], fresh[name][positions], step=steps[name]) for name in steps}
                self._wrong[table].note(stored, fresh[positions], are)
            case _:
                if len(stored):
                    self._compare_seconds(stored, fresh, positions)
                done = int(fresh[index][-1])
                self._lowest = {second: cells for second, cells in self._lowest.items() if second > done}

    def _note_lowest(self, fresh: Rows) -> None:
        summary = self._item.summary
        seconds = fresh["frame_index"].astype(np.int64) * summary.hop_length // summary.sr
        seconds, starts = np.unique(seconds, return_index=True)
        lowest = np.minimum.reduceat(fresh["mel"].astype(np.float32), starts, axis=0)
        for second, cells in zip(seconds.tolist(), lowest, strict=True):
            self._lowest[second] = np.minimum(cells, self._lowest.get(second, cells))

    def _compare_seconds(self, stored: Rows, all_fresh: Rows, positions: npt.NDArray[np.int64]) -> None:
        fresh, profile = all_fresh[positions], self._item.profile
        are = {name: are_apart(stored[name], fresh[name]) for name in ("rms", "peak")}
        are["n_frames"] = stored["n_frames"] != fresh["n_frames"]
        # A band that has only what the FFT gets wrong in some frame has a mean and a deviation of that.
        peaks = np.pad(all_fresh["peak"].astype(np.float64), 1, mode="edge")
        norms = np.maximum.reduce([peaks[positions], peaks[positions + 1], peaks[positions + 2]]) * math.sqrt(
            2 * profile.n_fft
        )
        none = np.zeros(profile.n_mels, dtype=np.float32)
        lowest = np.array([self._lowest.get(second, none) for second in fresh["second_index"].tolist()])
        is_vague = self._judge.are_vague(lowest, norms)
        for name in ("mel_mean", "mel_std"):
            are[name] = are_apart_rounded(stored[name], fresh[name]) & ~is_vague
        self._wrong["mel_seconds"].note(stored, fresh, are)

    def _compare_frames(self, file: ObjectFile, sr: int) -> None:
        """Compare the first frames with librosa's and, if some rows are not those of the fresh decode, all with its own."""
        profile = self._item.profile
        n_head = _count_head(profile, sr)
        head: list[Samples] = []
        n_samples = n_frames = 0
        stream = MelStream(profile, sr) if self._n_unequal_frames else None
        norms = FrameNorms(profile)
        with closing(_resample(file, sr)) as blocks:
            for y in blocks:
                if n_samples < n_head:
                    head.append(y[: n_head - n_samples].copy())
                n_samples += len(y)
                if stream is not None:
                    norms.push(y)
                    mel = stream.push(y)
                    self._judge_frames(FRESH, mel, n_frames, norms.take(n_frames, len(mel)), sr)
                    n_frames += len(mel)
                elif n_samples > n_head:
                    break
        if stream is not None:
            mel = stream.finish()
            self._judge_frames(FRESH, mel, n_frames, norms.take(n_frames, len(mel)), sr)
        beginning, norms = np.concatenate(head), FrameNorms(profile)
        norms.push(beginning)
        mel = librosa_frames(beginning, sr, profile, is_whole=n_samples <= n_head)
        self._judge_frames(LIBROSA, mel, 0, norms.take(0, len(mel)), sr)

    def _judge_frames(self, name: str, mel: Spectrogram, first: int, norms: npt.NDArray[np.float64], sr: int) -> None:
        wrong = self._wrong["mel_frames"] if name == FRESH else self._wrong_by_librosa
        for rows, positions in self._rows.read_frames(sr, first, len(mel)):
            fresh = mel[positions]
            is_apart = self._judge.are_apart(rows["mel"].astype(np.float32), fresh, norms[positions])
            wrong.note(rows, {"mel": fresh}, {"mel": is_apart})


class _Wrong:
    """The rows of one table that are not what they should be: how many, and the first."""

    def __init__(self, table: str, by: str) -> None:
        self._table, self._by = table, by
        self.n_rows = 0
        self._first = ""

    def note(self, stored: Rows, fresh: Rows | dict[str, Spectrogram], are_apart: dict[str, Mask]) -> None:
        """Take some rows, and per column where they are apart from the fresh ones."""
        is_wrong = np.zeros(len(stored), dtype=np.bool_)
        for mask in are_apart.values():
            is_wrong |= mask.any(axis=tuple(range(1, mask.ndim)))
        if is_wrong.any() and not self.n_rows:
            row = int(np.argmax(is_wrong))
            name = next(name for name, mask in are_apart.items() if mask[row].any())
            at = np.unravel_index(np.argmax(are_apart[name][row]), are_apart[name][row].shape)
            index = _INDEX[self._table]
            place = f"{name}[{at[0]}]" if at else name
            self._first = (
                f"the first at {index} {stored[index][row]}: {place} is {float(stored[name][row][at]):.6g}, "
                f"{self._by} gives {float(fresh[name][row][at]):.6g}"
            )
        self.n_rows += int(is_wrong.sum())

    def __str__(self) -> str:
        rows = "1 row differs" if self.n_rows == 1 else f"{self.n_rows} rows differ"
        return f"{self._table}: {rows}, {self._first}"


def _row_dtype(columns: tuple[str, ...], n_mels: int, row_bytes: int = 0) -> np.dtype[np.void]:
    """Return what a row of binary COPY is made of; `row_bytes` tells how many samples a pcm has, its last column."""
    parts: list[tuple[object, ...]] = [("n_fields", ">i2")]
    for name in columns:
        parts.append((f"{name}.length", ">i4"))
        if name in _VECTORS:
            parts += [(f"{name}.dim", ">i2"), (f"{name}.unused", ">i2"), (name, ">f2", (n_mels,))]
        elif name == "pcm":
            parts.append((name, "<i2", ((row_bytes - np.dtype(parts).itemsize) // 2,)))
        else:
            parts.append((name, _TYPES[name]))
    return np.dtype(parts)


def _content(rows: Rows) -> npt.NDArray[np.uint8]:
    """Return everything of some rows but time, id and index, as bytes."""
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)[:, _CONTENT_AT:]


def _time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _count_head(profile: MelProfile, sr: int) -> int:
    """Return how many samples librosa is given at most."""
    n_frames = max(1, _LIBROSA_CELLS // profile.n_fft)
    return min(_LIBROSA_S * sr, _LIBROSA_SAMPLES, profile.n_fft + (n_frames - 1) * profile.hop_length)


def _resample(file: ObjectFile, sr: int) -> Generator[Samples, None, None]:
    """Decode a file from its beginning, and yield its samples at a rate."""
    file.seek(0)
    with AudioDecoder(file, max_duration_s=math.inf) as decoder:
        resampler: ResampleStream | None = None
        for y in decoder:
            resampler = resampler or ResampleStream(decoder.sr, sr)
            # In pieces, where a low rate is blown up to a high one.
            step = max(1, _PIECE_SAMPLES * decoder.sr // sr)
            for start in range(0, len(y), step):
                yield resampler.push(y[start : start + step])
        if resampler is not None:
            yield resampler.finish()
