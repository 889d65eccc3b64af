"""What the server plans for the reader's own statements: which chunks a window opens, and how long planning takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from bench.measurement import BenchError
from spectralize.reader import Recording
from spectralize.reader.frames import Window, statement

#: A window that begins in one chunk and ends in the next opens two; no window opens more.
MOST_CHUNKS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement as EXPLAIN shows it."""

    chunks: tuple[str, ...]
    planning_ms: float


def window_of(recording: Recording, start_s: float, end_s: float) -> Window:
    """Return the rows that `recording.mel(start_s, end_s)` reads."""
    found = recording.spectrogram()
    return Window(found, *found.span(start_s, end_s, step_s=found.frame_s, n_rows=found.n_frames))


def query_of(windows: Sequence[Window]) -> tuple[str, list[object]]:
    """Return the query inside the reader's COPY, which EXPLAIN does not take, and the values to write into it."""
    copy, values = statement("mel_frames", windows)
    return copy.removeprefix("COPY ").removesuffix(" TO STDOUT (FORMAT binary)"), values


def explain_windows(connection: psycopg.Connection[Any], windows: Sequence[Window]) -> Plan:
    """Have the server plan the statement that the reader sends for these windows, with the values written into it."""
    query, values = query_of(windows)
    with psycopg.ClientCursor(connection) as cursor:
        row = cursor.execute(f"EXPLAIN (SUMMARY, FORMAT JSON) {query}", values).fetchone()
    if row is None:
        raise BenchError("EXPLAIN returned nothing")
    [plan] = row[0]
    return Plan(tuple(sorted(_relations(plan["Plan"]))), plan["Planning Time"])


def require_few_chunks(connection: psycopg.Connection[Any], windows: Sequence[Window]) -> list[Plan]:
    """Return the plan of each window.

    Raises
    ------
    BenchError
        If one of them opens no chunk, or more than two.
    """
    plans = [explain_windows(connection, [window]) for window in windows]
    for window, plan in zip(windows, plans, strict=True):
        if not 1 <= len(plan.chunks) <= MOST_CHUNKS:
            raise BenchError(
                f"frames {window.first} to {window.stop - 1} of spectrogram {window.spectrogram.spectrogram_id}: the plan opens "
                f"{len(plan.chunks)} chunks, not one or two: {', '.join(plan.chunks) or 'none'}"
            )
    return plans


def _relations(node: dict[str, Any]) -> set[str]:
    # TimescaleDB's own node over several chunks goes by the name of the hypertable, and reads nothing itself.
    is_scan = "Relation Name" in node and node["Node Type"] != "Custom Scan"
    found = {node["Relation Name"]} if is_scan else set()
    return found.union(*(_relations(child) for child in node.get("Plans", ())))
