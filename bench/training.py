"""Random windows of 2 s, as a training step wants them: two processes, by turns from the store and from `.npy` files.

The files are the shape that people export to: one per recording, float32, opened anew for each window by memory map. No
window is used again, so nothing but the system's own page cache helps either side.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np

from bench.measurement import BenchError
from spectralize import open_store
from spectralize.profiles import find_profile
from spectralize.reader import Recording, Store

N_READERS = 2
WINDOW_S = 2.0
_PROFILE = find_profile("mel128_22k")
WINDOW_FRAMES = round(WINDOW_S * float(_PROFILE.sr) / _PROFILE.hop_length)
#: Windows of one step.
BATCH = 64

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Recordings of one store, by key."""

    dsn: str
    keys: tuple[str, ...]
    #: Their `.npy` files, if there are any.
    npy: tuple[Path, ...] = ()


def open_shelf(shelf: Shelf) -> tuple[Store, list[Recording]]:
    """Look the recordings up; what is measured begins after that."""
    store = open_store(shelf.dsn)
    by_key = {recording.key: recording for recording in store.recordings()}
    return store, [by_key[key] for key in shelf.keys]


def write_npy(recordings: Sequence[Recording], folder: Path) -> tuple[Path, ...]:
    """Write each recording whole, float32, shape (n_frames, n_mels)."""
    paths = []
    for recording in recordings:
        path = folder / f"{recording.id}.npy"
        np.save(path, recording.mel().values)
        paths.append(path)
    return tuple(paths)


def _reader_step(shelf: Shelf, rng: np.random.Generator) -> Step:
    store, recordings = open_shelf(shelf)
    latest_s = [recording.spectrogram().duration_s - WINDOW_S - 0.1 for recording in recordings]

    def step() -> object:
        numbers = rng.integers(0, len(recordings), BATCH).tolist()
        starts_s = rng.random(BATCH) * [latest_s[number] for number in numbers]
        return store.mel_windows([recordings[number] for number in numbers], starts_s, WINDOW_S)

    return step


def _single_step(shelf: Shelf, rng: np.random.Generator) -> Step:
    _, recordings = open_shelf(shelf)
    latest_s = [recording.spectrogram().duration_s - WINDOW_S - 0.1 for recording in recordings]

    def step() -> object:
        windows = []
        for number in rng.integers(0, len(recordings), BATCH).tolist():
            start_s = rng.random() * latest_s[number]
            windows.append(recordings[number].mel(start_s, start_s + WINDOW_S))
        return windows

    return step


def _npy_step(shelf: Shelf, rng: np.random.Generator) -> Step:
    n_frames = [len(np.load(path, mmap_mode="r")) for path in shelf.npy]

    def step() -> object:
        windows = []
        for number in rng.integers(0, len(shelf.npy), BATCH).tolist():
            first = int(rng.integers(0, n_frames[number] - WINDOW_FRAMES))
            windows.append(np.array(np.load(shelf.npy[number], mmap_mode="r")[first : first + WINDOW_FRAMES]))
        return windows

    return step


#: What can be asked of the processes, by name.
STEPS: dict[str, Callable[[Shelf, np.random.Generator], Step]] = {
    "batches": _reader_step,
    "singles": _single_step,
    "npy": _npy_step,
}


class Readers:
    """Two processes that read windows when told so.

    Parameters
    ----------
    contenders
        By name: a step of `STEPS`, and the shelf that it takes windows from. All are prepared in both processes beforehand.
    """

    def __init__(self, contenders: dict[str, tuple[str, Shelf]]) -> None:
        # Started anew rather than forked: this process has clients with threads of their own.
        context = multiprocessing.get_context("spawn")
        self.names = list(contenders)
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(N_READERS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, contenders, number), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._receive()

    def turn(self, name: str, seconds: float) -> float:
        """Return windows per second of both together."""
        for pipe in self._pipes:
            pipe.send((name, seconds))
        return sum(self._receive())

    def _receive(self) -> list[float]:
        try:
            return [pipe.recv() for pipe in self._pipes]
        except EOFError as error:
            raise BenchError("a process that reads random windows has ended; its error is above") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


def _serve(pipe: Connection, contenders: dict[str, tuple[str, Shelf]], seed: int) -> None:
    # Ctrl-C is for the process that started us; it ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rng = np.random.default_rng(seed)
    steps = {name: STEPS[step](shelf, rng) for name, (step, shelf) in contenders.items()}
    pipe.send(0.0)
    while True:
        name, seconds = pipe.recv()
        started, n_steps = perf_counter(), 0
        while perf_counter() - started < seconds:
            steps[name]()
            n_steps += 1
        pipe.send(n_steps * BATCH / (perf_counter() - started))
