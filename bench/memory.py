"""How much memory a recording of ten hours takes, beside one of ten minutes.

Each runs as a batch of the real job in a fresh driver with a single core, so that one Python worker does all the work.
What is counted is that worker and whatever it forks: twenty times a second, their proportional set sizes together (a page
that two of them share counts once), and the resident set of the larger one, shared libraries and all.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

from bench.job import Driver, Services
from bench.long_recording import load_recording
from bench.measurement import Measurement

SHORT_MIN, LONG_MIN = 10, 600
_EVERY_S = 0.05
_MB = 1e6


@dataclass(slots=True)
class Trace:
    """Memory over time, in MB (10⁶ bytes)."""

    at_s: list[float] = field(default_factory=list)
    pss_mb: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)

    @property
    def peak_mb(self) -> float:
        """Most that the worker and its children took together."""
        return max(self.pss_mb)

    @property
    def peak_rss_mb(self) -> float:
        """Most that one of them had resident, libraries that others share included."""
        return max(self.rss_mb)


class Sampler(Thread):
    """Watches the Python workers of a driver while a block runs."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(daemon=True)
        self.trace = Trace()
        self._driver, self._stop_asked, self._started_at = driver, Event(), perf_counter()

    def run(self) -> None:
        """Sample until the block is left."""
        while not self._stop_asked.wait(_EVERY_S):
            pss, rss = 0.0, 0.0
            with suppress(psutil.Error):
                for process in self._driver.workers():
                    with suppress(psutil.Error):
                        memory = process.memory_full_info()
                        pss, rss = pss + memory.pss, max(rss, memory.rss)
            if pss:
                self.trace.at_s.append(perf_counter() - self._started_at)
                self.trace.pss_mb.append(pss / _MB)
                self.trace.rss_mb.append(rss / _MB)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_asked.set()
        self.join()


def measure_memory(services: Services, home: Path, minutes: int) -> tuple[Measurement, Trace]:
    """Run one recording of that length through the job."""
    corpus = load_recording(home, minutes)
    services.upload(corpus)
    with (
        services.fresh_database() as dsn,
        Driver(services.stack, n_cores=1) as driver,
        Sampler(driver) as sampler,
    ):
        measurement = services.run_batch(driver, dsn, corpus, 0)
    return measurement, sampler.trace
