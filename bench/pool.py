"""Two processes that run the contenders, one file after another, with everything imported and compiled beforehand."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

from bench.corpus import Corpus
from bench.measurement import BenchError, Measurement, machine_cpu_s

N_PROCESSES = 2

#: Files handed to a process at a time where they are tiny: the hand-over would else be a part of the figure.
_CLIPS_AT_A_TIME = 20

#: The first use of librosa compiles for half a minute, where no cache has it yet.
_WARM_UP_TIMEOUT_S = 300.0

Contender = Callable[[Path], object]
T = TypeVar("T")


class ProcessPool:
    """The same processes for all contenders and rounds.

    Parameters
    ----------
    warm_up
        Called once in each process with `path`: imports, numba's and the filterbanks' caches are paid there.
    """

    def __init__(self, warm_up: Sequence[Contender], path: Path) -> None:
        # Forked, as Spark's Python workers are.
        context = multiprocessing.get_context("fork")
        ready = context.Barrier(N_PROCESSES + 1)
        self._pool = context.Pool(N_PROCESSES, initializer=_warm_up, initargs=(warm_up, path, ready))
        try:
            ready.wait(_WARM_UP_TIMEOUT_S)
        except BrokenBarrierError as error:
            # The pool would start new processes for ever.
            self._pool.terminate()
            raise BenchError(f"a contender fails on {path}, or takes {_WARM_UP_TIMEOUT_S:.0f} s and more") from error

    def measure(self, name: str, contender: Contender, corpus: Corpus, number: int) -> Measurement:
        """Run one contender over all files of a corpus."""
        at_a_time = _CLIPS_AT_A_TIME if corpus.name == "clips" else 1
        paths = [file.path for file in corpus.files]
        # What an earlier measurement has left unwritten is not for this one to pay.
        os.sync()
        busy_s, started = machine_cpu_s(), perf_counter()
        cpu_s = sum(self._pool.imap_unordered(partial(_cpu_s_of, contender), paths, chunksize=at_a_time))
        wall_s, busy_s = perf_counter() - started, machine_cpu_s() - busy_s
        return Measurement.of(name, corpus, number, wall_s=wall_s, cpu_s={"python": cpu_s}, busy_s=busy_s)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call something else in one of the processes, while the other rests."""
        return self._pool.apply(function, arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()
        self._pool.join()


def _warm_up(contenders: Sequence[Contender], path: Path, ready: Barrier) -> None:
    # Not the handler of the process that forked us: the pool ends its processes by this signal.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for contender in contenders:
            contender(path)
    except BaseException:
        ready.abort()
        raise
    ready.wait()


def _cpu_s_of(contender: Contender, path: Path) -> float:
    started = _cpu_s()
    contender(path)
    return _cpu_s() - started


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
