"""What reading is measured by: windows of 10 s and whole recordings, each beside what one would write without the reader.

Contenders take turns window by window, each window begun by another one. The first pass warms, and compares what the
contenders return with the noise that was stored; only later passes count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from bench.measurement import BenchError
from bench.plans import window_of
from bench.synthetic import PROFILE, Take
from spectralize.reader import Recording
from spectralize.reader.frames import Window

N_WINDOWS = 300
WINDOW_S = 10.0
#: Whole recordings that a pass reads.
N_WHOLE = 30

Mel = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One window to be read, and what must come back."""

    recording: Recording
    take: Take
    start_s: float

    @property
    def end_s(self) -> float:
        """Where it ends, in seconds from the start of the recording."""
        return self.start_s + WINDOW_S

    @property
    def window(self) -> Window:
        """Its rows."""
        return window_of(self.recording, self.start_s, self.end_s)

    def expected(self) -> npt.NDArray[np.float16]:
        """Return the noise that was stored."""
        window = self.window
        return self.take.mel()[window.first : window.stop]


@dataclass(frozen=True, slots=True)
class ReadingRound:
    """Medians of one round, by contender.

    Attributes
    ----------
    window_ms
        Of a window of 10 s.
    whole_s
        Of a whole recording.
    windows_per_s
        Random windows of 2 s, two processes together.
    others_share
        Share of the machine that somebody else took meanwhile.
    """

    audio_s: float
    window_ms: dict[str, float] = field(default_factory=dict)
    whole_s: dict[str, float] = field(default_factory=dict)
    windows_per_s: dict[str, float] = field(default_factory=dict)
    others_share: float = 0.0


def choose_excerpts(recordings: Sequence[tuple[Recording, Take]], n: int, seed: int) -> list[Excerpt]:
    """Pick windows anywhere, each from another recording as far as there are so many."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(recordings)) for _ in range(-(-n // len(recordings)))])[:n].tolist()
    excerpts = []
    for number in order:
        recording, take = recordings[number]
        latest_s = recording.spectrogram().duration_s - WINDOW_S
        excerpts.append(Excerpt(recording, take, round(float(rng.uniform(0, latest_s)), 3)))
    return excerpts


def by_reader(excerpt: Excerpt) -> Mel:
    """Read as anybody would."""
    values: Mel = excerpt.recording.mel(excerpt.start_s, excerpt.end_s).values
    return values


class ByHand:
    """The best that one would write without the reader, who knows the id and the times already.

    One COPY with everything written into its text beforehand, and numpy on what comes back. It has no labels, and would
    not notice missing rows, a spectrogram that is gone, or a window outside of the recording.
    """

    _STRIDE = np.dtype(
        [("n_fields", ">i2"), ("length", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("mel", ">f2", (PROFILE.n_mels,))]
    )
    _HEADER_BYTES = 19

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._statements: dict[int, str] = {}

    def prepare(self, excerpt: Excerpt) -> None:
        """Write the statement: that is not measured."""
        found = excerpt.recording.spectrogram()
        start = found.recorded_at + timedelta(seconds=excerpt.start_s)
        end = found.recorded_at + timedelta(seconds=excerpt.end_s)
        self._statements[id(excerpt)] = (
            f"COPY (SELECT mel FROM spectralize.mel_frames WHERE spectrogram_id = {found.spectrogram_id} AND "
            f"frame_time >= '{start.isoformat()}' AND frame_time < '{end.isoformat()}' ORDER BY frame_time) "
            "TO STDOUT (FORMAT binary)"
        )

    def read(self, excerpt: Excerpt) -> Mel:
        """Read one window that was prepared."""
        with self._connection.cursor() as cursor, cursor.copy(self._statements[id(excerpt)]) as copy:
            data = b"".join(copy)
        n_rows = (len(data) - self._HEADER_BYTES - 2) // self._STRIDE.itemsize
        rows = np.frombuffer(data, dtype=self._STRIDE, offset=self._HEADER_BYTES, count=n_rows)
        values: Mel = rows["mel"].astype(np.float32)
        return values


class ByText:
    """What one writes first: an ordinary cursor, and each vector parsed from its text. For information only."""

    _QUERY = (
        "SELECT frame_index, mel FROM spectralize.mel_frames "
        "WHERE spectrogram_id = %s AND frame_time >= %s AND frame_time < %s ORDER BY frame_time"
    )

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def read(self, excerpt: Excerpt) -> Mel:
        """Read one window."""
        found = excerpt.recording.spectrogram()
        start = found.recorded_at + timedelta(seconds=excerpt.start_s)
        end = found.recorded_at + timedelta(seconds=excerpt.end_s)
        rows = self._connection.execute(self._QUERY, (found.spectrogram_id, start, end)).fetchall()
        return np.array([np.fromstring(mel[1:-1], dtype=np.float32, sep=",") for _, mel in rows])


Contender = tuple[Callable[[Excerpt], Mel], Sequence[Excerpt]]


def check_windows(contenders: Mapping[str, Contender]) -> None:
    """Read every window once: that warms caches, and what comes back must be what was stored.

    Raises
    ------
    BenchError
        If it is not.
    """
    for name, (read, excerpts) in contenders.items():
        for excerpt in excerpts:
            if not np.array_equal(read(excerpt), excerpt.expected().astype(np.float32)):
                raise BenchError(
                    f"{name}: {excerpt.start_s} s to {excerpt.end_s} s of {excerpt.recording.key} is not what was stored"
                )


def time_windows(contenders: Mapping[str, Contender]) -> dict[str, float]:
    """Read every window once per contender, by turns, and return the median in ms of each."""
    names = list(contenders)
    times_ms: dict[str, list[float]] = {name: [] for name in names}
    for number in range(max(len(excerpts) for _, excerpts in contenders.values())):
        # Another one begins each time, so that none always finds what the same one has left in the caches.
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            read, excerpts = contenders[name]
            if number < len(excerpts):
                started = perf_counter()
                read(excerpts[number])
                times_ms[name].append((perf_counter() - started) * 1e3)
    return {name: median(values) for name, values in times_ms.items()}


def time_whole(recordings: Sequence[Recording], npy: Sequence[Path]) -> dict[str, float]:
    """Read whole recordings into numpy, and their `.npy` files by turns, and return the median in seconds of each."""
    times_s: dict[str, list[float]] = {"reader": [], "npy": []}
    for number, (recording, path) in enumerate(zip(recordings, npy, strict=True)):
        calls: list[tuple[str, Callable[[], object]]] = [
            ("reader", recording.mel),
            ("npy", lambda path=path: np.load(path)),  # type: ignore[misc]
        ]
        for name, call in calls[number % 2 :] + calls[: number % 2]:
            started = perf_counter()
            call()
            times_s[name].append(perf_counter() - started)
    return {name: median(values) for name, values in times_s.items()}
