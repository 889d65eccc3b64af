"""One measurement, and the processor time of whole trees of processes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

from bench.corpus import Corpus


class BenchError(Exception):
    """Something could not be measured; one line for a person."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one contender took for one corpus in one round.

    Attributes
    ----------
    cpu_s
        Processor time, user and system, by part: one part for a contender of our own processes, several for the job.
    busy_s
        Processor time of the whole machine meanwhile, in seconds as well.
    """

    contender: str
    corpus: str
    round: int
    wall_s: float
    cpu_s: dict[str, float]
    audio_s: float
    n_files: int
    busy_s: float

    @classmethod
    def of(
        cls, contender: str, corpus: Corpus, number: int, *, wall_s: float, cpu_s: dict[str, float], busy_s: float
    ) -> Measurement:
        """Take size and name from the corpus."""
        return cls(contender, corpus.name, number, wall_s, cpu_s, corpus.duration_s, len(corpus.files), busy_s)

    @property
    def all_cpu_s(self) -> float:
        """Processor time of all parts."""
        return sum(self.cpu_s.values())

    @property
    def others_share(self) -> float:
        """Share of the machine that somebody else took, the kernel's own work for us included."""
        return max(0.0, self.busy_s - self.all_cpu_s) / (self.wall_s * (psutil.cpu_count() or 1))

    @property
    def x_realtime(self) -> float:
        """Seconds of audio per second."""
        return self.audio_s / self.wall_s

    @property
    def files_per_s(self) -> float:
        """Files per second."""
        return self.n_files / self.wall_s


def machine_cpu_s() -> float:
    """Processor time of everything on this machine since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def own_cpu_s(process: psutil.Process) -> float:
    """Processor time of one process and of those children that it has seen end; 0 for one that is gone."""
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def tree_cpu_s(pid: int, *, with_root: bool = True) -> float:
    """Processor time of a process and of all that it has started, living or ended.

    What has ended is in its parent's account, so the sum over the living is whole as long as no parent dies in between.
    """
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        members = root.children(recursive=True)
        return sum(map(own_cpu_s, [root, *members] if with_root else members))
    return 0.0


class Watch:
    """How much of the machine others took while a block ran: neither this process, nor a server, nor what they started."""

    def __init__(self, server_pid: int | None) -> None:
        self._roots = [pid for pid in (os.getpid(), server_pid) if pid]
        self.others_share = 0.0

    def __enter__(self) -> Self:
        self._own_s, self._busy_s, self._started = self._own_cpu_s(), machine_cpu_s(), perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall_s, busy_s = perf_counter() - self._started, machine_cpu_s() - self._busy_s
        own_s = self._own_cpu_s() - self._own_s
        self.others_share = max(0.0, busy_s - own_s) / (wall_s * (psutil.cpu_count() or 1))

    def _own_cpu_s(self) -> float:
        # By number: the server may be one of those that this process has started.
        processes: dict[int, psutil.Process] = {}
        for pid in self._roots:
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                processes |= {process.pid: process for process in (root, *root.children(recursive=True))}
        return sum(map(own_cpu_s, processes.values()))
