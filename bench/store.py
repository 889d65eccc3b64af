"""The store part of the bench: a small store and a large one, side by side on one server, and what reading from them takes.

Small: a hundred recordings of three minutes within one month. Large: as many as make 30 million frames, half of them spread
over twenty years of dated keys, half of them uploaded within one day.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter

import psycopg
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from bench.job import Services
from bench.measurement import Watch
from bench.plans import Plan, require_few_chunks
from bench.reading import (
    N_WHOLE,
    N_WINDOWS,
    ByHand,
    ByText,
    Contender,
    Excerpt,
    ReadingRound,
    by_reader,
    check_windows,
    choose_excerpts,
    time_whole,
    time_windows,
)
from bench.synthetic import BULK_DAY, FIRST_DAY, PROFILE, YEARS_S, Take, fill_store, plan_bulk, plan_dated
from bench.training import Readers, Shelf, write_npy
from spectralize import open_store
from spectralize.database import connect, fetch_row
from spectralize.reader import Recording

#: With fewer frames the figures of the large store are absent.
LARGE_FRAMES = 30_000_000
#: Free disk without which a store of that size is not begun: rows and indexes, write-ahead log and `.npy` files.
LARGE_BYTES = 20e9

RECORDING_S = 180.0
N_SMALL = 100
_SMALL_FROM, _SMALL_S = datetime(2024, 5, 1, tzinfo=UTC), 30 * 86_400.0

#: How long one contender reads random windows before it is the next one's turn.
_TURN_S = 2.0

#: Only for information, and slow: this share of the windows is enough.
_TEXT_SHARE = 6

_SIZES = """
SELECT c.range_end > %s AS is_bulk, count(*), sum(size.total_bytes)::bigint
FROM chunks_detailed_size('spectralize.mel_frames') AS size
JOIN timescaledb_information.chunks AS c USING (chunk_schema, chunk_name)
GROUP BY is_bulk
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A store, or half of one: the windows of a contender come from one part."""

    name: str
    dsn: str
    takes: list[Take]

    @property
    def n_frames(self) -> int:
        """How many frames it holds."""
        return sum(take.n_frames for take in self.takes)


@dataclass(frozen=True, slots=True)
class Extent:
    """What a part takes on disk, indexes included, by what its values alone would take in half precision."""

    n_frames: int
    n_chunks: int
    disk_vs_half: float


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What was measured.

    Attributes
    ----------
    extents, planning_ms
        By part: small, decades, bulk. The extent of large is that of the last two together. VACUUM, which a server does by
        itself within minutes, gives back the pages that loading has taken in advance.
    chunk_counts
        Windows of the large store by the number of chunks that their plan opens.
    is_large
        Whether the large store is as large as it has to be.
    """

    rounds: list[ReadingRound]
    extents: dict[str, Extent]
    planning_ms: dict[str, float]
    chunk_counts: dict[int, int]
    is_large: bool
    frames_per_s: float


def find_lack_of_disk(services: Services, n_frames: int) -> str | None:
    """Return why there is no room for a large store of that size, or None."""
    needed = LARGE_BYTES * n_frames / LARGE_FRAMES
    free = shutil.disk_usage(services.stack.layout.home).free
    if free >= needed:
        return None
    return f"it needs {needed / 1e9:.0f} GB of free disk, and there are {free / 1e9:.0f}"


def measure_store(services: Services, home: Path, console: Console, *, rounds: int, n_frames: int) -> StoreResult:
    """Make both stores, measure reading, and drop them.

    Raises
    ------
    BenchError
        If a window of the large store opens more than two chunks, or what is read is not what was stored.
    """
    [one] = plan_bulk(1, duration_s=RECORDING_S)
    n_half = -(-n_frames // (2 * one.n_frames))
    with services.fresh_database() as small_dsn, services.fresh_database() as large_dsn:
        small, decades, bulk = parts = (
            Part("small", small_dsn, plan_dated(N_SMALL, start=_SMALL_FROM, span_s=_SMALL_S, duration_s=RECORDING_S)),
            Part("decades", large_dsn, plan_dated(n_half, start=FIRST_DAY, span_s=YEARS_S, duration_s=RECORDING_S)),
            Part("bulk", large_dsn, plan_bulk(n_half, duration_s=RECORDING_S)),
        )
        fill_with_progress(small_dsn, small.takes, console, "small store")
        frames_per_s = fill_with_progress(large_dsn, decades.takes + bulk.takes, console, "large store")
        as_loaded = _extents(parts)["large"]
        with console.status("vacuum and checkpoint"):
            services.settle_database(small_dsn)
            services.settle_database(large_dsn)
        with console.status("opening recordings") as status, open_reading(services, home, parts) as reading:
            plans = {part.name: reading.plan(part) for part in (decades, bulk)}
            status.update("reading once, to warm")
            reading.warm()
            kept = []
            for number in range(rounds):
                status.update(f"reading, round {number + 1} of {rounds}")
                kept.append(reading.measure(number))
            plans["small"] = reading.plan(small)
        return StoreResult(
            rounds=kept,
            extents=_extents(parts) | {"large, before VACUUM": as_loaded},
            planning_ms={name: median(plan.planning_ms for plan in found) for name, found in plans.items()},
            chunk_counts=Counter(len(plan.chunks) for name in ("decades", "bulk") for plan in plans[name]),
            is_large=decades.n_frames + bulk.n_frames >= LARGE_FRAMES,
            frames_per_s=frames_per_s,
        )


def fill_with_progress(dsn: str, takes: Sequence[Take], console: Console, title: str) -> float:
    """Load recordings under a progress bar, and return frames per second."""
    n_frames = sum(take.n_frames for take in takes)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} frames"),
        TimeRemainingColumn(), console=console, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task(title, total=n_frames)
        started = perf_counter()
        fill_store(dsn, takes, advance=lambda loaded: progress.advance(task, loaded))
        return n_frames / (perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that a round needs, opened beforehand: stores, recordings, connections, `.npy` files, processes."""

    services: Services
    excerpts: dict[str, list[Excerpt]]
    windows: dict[str, Contender]
    whole: tuple[Sequence[Recording], Sequence[Path]]
    readers: Readers

    def plan(self, part: Part) -> list[Plan]:
        """Have the windows of a part planned; see `require_few_chunks`."""
        with connect(part.dsn, autocommit=True, read_only=True) as connection:
            windows = [excerpt.window for excerpt in self.excerpts[part.name]]
            # What planning reads of a chunk for the first time on a connection, it has at hand the second time.
            require_few_chunks(connection, windows)
            return require_few_chunks(connection, windows)

    def warm(self) -> None:
        """Read everything once, and see that it is what was stored."""
        check_windows(self.windows)
        time_whole(*self.whole)
        for name in self.readers.names:
            self.readers.turn(name, _TURN_S)

    def measure(self, number: int) -> ReadingRound:
        """Measure one round; each begins with another contender."""
        with Watch(self.services.stack.pid("timescale")) as watch:
            window_ms = time_windows(self.windows)
            whole_s = time_whole(*self.whole)
            names = self.readers.names
            turn = number % len(names)
            windows_per_s = {name: self.readers.turn(name, _TURN_S) for name in names[turn:] + names[:turn]}
        return ReadingRound(RECORDING_S, window_ms, whole_s, windows_per_s, watch.others_share)


@contextmanager
def open_reading(services: Services, home: Path, parts: Sequence[Part]) -> Iterator[Reading]:
    """Open both stores, look recordings up, choose windows, and start the processes."""
    small, large = parts[0], parts[-1]
    with ExitStack() as cleanup:
        found: dict[str, dict[str, Recording]] = {}
        for dsn in (small.dsn, large.dsn):
            store = cleanup.enter_context(open_store(dsn))
            found[dsn] = {recording.key: recording for recording in store.recordings()}
        excerpts = {
            part.name: choose_excerpts([(found[part.dsn][take.key], take) for take in part.takes], N_WINDOWS, seed)
            for seed, part in enumerate(parts)
        }
        by_hand = ByHand(cleanup.enter_context(psycopg.connect(small.dsn, autocommit=True)))
        by_text = ByText(cleanup.enter_context(psycopg.connect(small.dsn, autocommit=True)))
        for excerpt in excerpts["small"]:
            by_hand.prepare(excerpt)
        (home / "bench").mkdir(parents=True, exist_ok=True)
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="npy.", dir=home / "bench")))
        recordings = list(found[small.dsn].values())
        npy = write_npy(recordings, folder)
        os.sync()
        of_small = Shelf(small.dsn, tuple(found[small.dsn]), npy)
        of_large = Shelf(large.dsn, tuple(found[large.dsn]))
        readers = Readers({
            "reader": ("batches", of_small), "npy": ("npy", of_small), "singles": ("singles", of_small),
            "large": ("batches", of_large),
        })  # fmt: skip
        yield Reading(
            services,
            excerpts,
            {
                "reader": (by_reader, excerpts["small"]),
                "sql": (by_hand.read, excerpts["small"]),
                "text": (by_text.read, excerpts["small"][::_TEXT_SHARE]),
                "decades": (by_reader, excerpts["decades"]),
                "bulk": (by_reader, excerpts["bulk"]),
            },
            (recordings[:N_WHOLE], npy[:N_WHOLE]),
            cleanup.enter_context(readers),
        )


def _extents(parts: Sequence[Part]) -> dict[str, Extent]:
    small, decades, bulk = parts
    extents = {}
    for name, members in (("small", [small]), ("large", [decades, bulk])):
        with connect(members[0].dsn) as connection:
            [n_bytes] = fetch_row(connection, "SELECT hypertable_size('spectralize.mel_frames')")
            sizes = {is_bulk: rest for is_bulk, *rest in connection.execute(_SIZES, (BULK_DAY,))}
        extents[name] = _extent(members, sum(n_chunks for n_chunks, _ in sizes.values()), n_bytes)
    extents["decades"], extents["bulk"] = (_extent([part], *sizes[part is bulk]) for part in (decades, bulk))
    return extents


def _extent(parts: Sequence[Part], n_chunks: int, n_bytes: int) -> Extent:
    n_frames = sum(part.n_frames for part in parts)
    return Extent(n_frames, n_chunks, n_bytes / (2 * n_frames * PROFILE.n_mels))
