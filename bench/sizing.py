"""How many chunks are too many, and how large may one be? Not a part of `make bench`; see docs/performance.md, "Sizing".

The same recordings, a minute each, lie in one chunk (all uploaded within one day), in chunks of a week over twenty years, or
in chunks of a day. Each layout has a database of its own on a server of the bench, which is dropped before the next begins.

Example
-------
``python -m bench.sizing`` (about 15 GB of free disk and twenty minutes); what fails there for want of locks:
``python -m bench.sizing --chunk-days 1 --max-locks 256``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import Annotated, Any

# The addresses of a developer's own store are not for us; empty counts as not given.
os.environ |= dict.fromkeys(("SPECTRALIZE_DSN", "SPECTRALIZE_CONFIG"), "")

import psycopg
import typer
from rich.console import Console

from bench.job import Services, open_services, superuser_dsn
from bench.plans import require_few_chunks
from bench.reading import N_WINDOWS, Excerpt, by_reader, check_windows, choose_excerpts, time_windows
from bench.store import fill_with_progress
from bench.synthetic import FIRST_DAY, PROFILE, YEARS_S, Take, plan_bulk, plan_dated
from spectralize import open_store
from spectralize.database import connect, fetch_row
from spectralize.verify import verify_store

DAYS = round(YEARS_S / 86_400)
RECORDING_S = 60.0
#: Connections that are opened for the first window of each.
_N_FIRST = 15

_BY_ID = "SELECT count(mel) FROM spectralize.mel_frames WHERE spectrogram_id = %s"
#: Bounds of time that come from another table: the planner does not know them.
_BY_JOIN = """
SELECT count(f.mel) FROM spectralize.spectrograms AS s JOIN spectralize.mel_frames AS f USING (spectrogram_id)
WHERE s.spectrogram_id = %s AND f.frame_time >= s.recorded_at AND f.frame_time < s.recorded_at + INTERVAL '10 s'
"""
_BY_TIME = "SELECT count(mel) FROM spectralize.mel_frames WHERE frame_time >= %s AND frame_time < %s"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where recordings lie in time, and how long a chunk is."""

    title: str
    takes: list[Take]
    chunk_days: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What one layout costs; a text is the reason why there is no number."""

    title: str
    n_frames: int
    n_chunks: int
    frames_per_s: float
    disk_vs_half: float
    window_ms: float
    planning_ms: float
    first_window_ms: float
    by_id_ms: float | str
    locks: int | str
    memory_mb: float | str
    by_join_ms: float | str
    minute_ms: float | str
    analyze_s: float
    verify_s: float | str

    HEADER = (
        "| layout | M frames | chunks | load, frames/s | disk ÷ half | window, ms (planning) | first window of a connection, ms |"
        " by id alone, ms | … locks | … memory of the connection, MB | bounds from a join, ms | one minute of all, ms |"
        " ANALYZE, s | verify, s |\n" + "|---" * 14 + "|"
    )

    def __str__(self) -> str:
        cells = [
            self.title, f"{self.n_frames / 1e6:.1f}", f"{self.n_chunks:,}", f"{self.frames_per_s:,.0f}",
            f"{self.disk_vs_half:.3f}", f"{self.window_ms:.2f} ({self.planning_ms:.2f})", f"{self.first_window_ms:.1f}",
            _cell(self.by_id_ms), _cell(self.locks, 0), _cell(self.memory_mb), _cell(self.by_join_ms),
            _cell(self.minute_ms), f"{self.analyze_s:.1f}", _cell(self.verify_s),
        ]  # fmt: skip
        return "| " + " | ".join(cells) + " |"


def _cell(value: float | str, decimals: int = 1) -> str:
    return value if isinstance(value, str) else f"{value:,.{decimals}f}"


def main(
    recordings: Annotated[int, typer.Option(min=100, help="Recordings of each layout, a minute each.")] = DAYS,
    chunk_days: Annotated[
        list[int] | None, typer.Option(help="Only the layouts over twenty years, with these chunk intervals.")
    ] = None,
    max_locks: Annotated[
        int | None, typer.Option(help="Start the server with this max_locks_per_transaction (by default it has 64).")
    ] = None,
) -> None:
    """Measure each layout and print a Markdown table."""
    console = Console(stderr=True)
    spread = plan_dated(recordings, start=FIRST_DAY, span_s=YEARS_S, duration_s=RECORDING_S)
    layouts = [Layout(f"20 years, chunks of {days} d", spread, days) for days in chunk_days or (7, 1)]
    if not chunk_days:
        layouts.insert(0, Layout("all within one day", plan_bulk(recordings, duration_s=RECORDING_S), 7))
    typer.echo(Measured.HEADER)
    with open_services(console) as services:
        if max_locks:
            _set_max_locks(services, max_locks)
        for layout in layouts:
            with services.fresh_database() as dsn:
                typer.echo(str(measure_layout(services, dsn, layout, console)))
                sys.stdout.flush()


def _set_max_locks(services: Services, max_locks: int) -> None:
    with psycopg.connect(superuser_dsn(services.stack, "postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET max_locks_per_transaction = {max_locks}")
    services.stack.restart("timescale")


def measure_layout(services: Services, dsn: str, layout: Layout, console: Console) -> Measured:
    """Load one layout and ask it everything."""
    with connect(dsn) as connection:
        connection.execute(
            "SELECT set_chunk_time_interval('spectralize.mel_frames', %s::interval)", (timedelta(layout.chunk_days),)
        )
    frames_per_s = fill_with_progress(dsn, layout.takes, console, layout.title)
    services.settle_database(dsn)
    with open_store(dsn) as store:
        found = {recording.key: recording for recording in store.recordings()}
        excerpts = choose_excerpts([(found[take.key], take) for take in layout.takes], N_WINDOWS, 0)
        contenders = {"reader": (by_reader, excerpts)}
        check_windows(contenders)
        window_ms = median(time_windows(contenders)["reader"] for _ in range(3))
    one = excerpts[0].recording.spectrogram()
    with connect(dsn, autocommit=True) as connection:
        windows = [excerpt.window for excerpt in excerpts]
        require_few_chunks(connection, windows)
        planning_ms = median(plan.planning_ms for plan in require_few_chunks(connection, windows))
        n_chunks, n_bytes = fetch_row(
            connection,
            "SELECT count(*), hypertable_size('spectralize.mel_frames') FROM show_chunks('spectralize.mel_frames')",
        )
        minute = (one.recorded_at, one.recorded_at + timedelta(seconds=60))
        by_id_ms = _median_ms(lambda: connection.execute(_BY_ID, (one.spectrogram_id,), prepare=False))
        by_join_ms = _median_ms(lambda: connection.execute(_BY_JOIN, (one.spectrogram_id,), prepare=False))
        minute_ms = _median_ms(lambda: connection.execute(_BY_TIME, minute, prepare=False))
        started = perf_counter()
        connection.execute("ANALYZE spectralize.mel_frames")
        analyze_s = perf_counter() - started
    locks, memory_mb = _unbounded(superuser_dsn(services.stack, _name_of(dsn)), one.spectrogram_id)
    with connect(dsn) as connection:
        verify_s = _or_reason(lambda: _seconds(lambda: verify_store(connection)))
    n_frames = sum(take.n_frames for take in layout.takes)
    return Measured(
        layout.title, n_frames, n_chunks, frames_per_s, n_bytes / (2 * n_frames * PROFILE.n_mels), window_ms, planning_ms,
        _first_window_ms(dsn, excerpts), by_id_ms, locks, memory_mb, by_join_ms, minute_ms, analyze_s, verify_s,
    )  # fmt: skip


def _first_window_ms(dsn: str, excerpts: list[Excerpt]) -> float:
    """A connection learns of tables when it first opens them; a window right after connecting pays for that."""
    times_ms = []
    for excerpt in excerpts[:_N_FIRST]:
        with open_store(dsn) as store:
            recording = store.recording(excerpt.recording.id)
            started = perf_counter()
            recording.mel(excerpt.start_s, excerpt.end_s)
            times_ms.append((perf_counter() - started) * 1e3)
    return median(times_ms)


def _unbounded(dsn: str, spectrogram_id: int) -> tuple[int | str, float | str]:
    """Return the locks that a query without bounds of time holds, and what its connection has grown to."""
    with psycopg.connect(dsn) as connection:

        def ask() -> tuple[int, float]:
            connection.execute(_BY_ID, (spectrogram_id,))
            [locks] = fetch_row(
                connection, "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
            )
            [n_bytes] = fetch_row(connection, "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts")
            return locks, n_bytes / 1e6

        answer = _or_reason(ask)
        return (answer, answer) if isinstance(answer, str) else answer


def _median_ms(ask: Callable[[], Any]) -> float | str:
    """Median of five, after one that warms."""
    answer: float | str = _or_reason(lambda: median([_seconds(ask) * 1e3 for _ in range(6)][1:]))
    return answer


def _seconds(ask: Callable[[], Any]) -> float:
    started = perf_counter()
    ask()
    return perf_counter() - started


def _or_reason(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except psycopg.OperationalError as error:
        return str(error).splitlines()[0]


def _name_of(dsn: str) -> str:
    return dsn.rpartition("/")[2]


if __name__ == "__main__":
    typer.run(main)
