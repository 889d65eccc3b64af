"""The list of batches. That of one batch is in `layout.batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from spectralize.explorer.layout import parts
from spectralize.explorer.layout.parts import Column
from spectralize.explorer.visits import write_query
from spectralize.ledgerpages import STATES, BatchPage

PATH = "/batches"

COLUMNS = (
    Column("Batch"), Column("Source"), Column("Kind"), Column("State"), Column("Interval (UTC)"), Column("Opened (UTC)"),
    Column("Duration", True), Column("Planned", True), Column("Loaded", True), Column("Partial", True),
    Column("Rejected", True), Column("Failed", True), Column("Audio per s", True), Column("Objects per s", True),
)  # fmt: skip

_CAPTION = (
    "Planned and what follows count spectrograms, one per object and profile. Audio and objects per second are those of the "
    "time between plan and gate."
)


def make_filters(sources: Sequence[str], *, source: str, state: str) -> Component:
    """Return the filters. They stay while the list changes, or whoever goes by keyboard would lose their place."""
    return dmc.Group(
        [
            dmc.Select(
                id="batches-source", label="Source", data=sorted({*sources, *filter(None, [source])}), value=source or None,
                placeholder="Any", clearable=True, searchable=True, w=200, size="sm",
            ),
            dmc.Select(
                id="batches-state", label="State", data=list(STATES), value=state or None, placeholder="Any",
                clearable=True, w=160, size="sm",
            ),
        ],
        gap="md", mb="sm",
    )  # fmt: skip


def make_list(page: BatchPage, *, number: int, page_size: int, source: str, state: str) -> list[Component]:
    """Return what the filters let through: how many, the table, and links to the other pages."""
    n_pages = max(1, -(-page.total // page_size))

    def address(to: int) -> str:
        return PATH + write_query({"source": source, "state": state, "page": to if to > 1 else None})

    count = html.Div(_count(page.total), id="batches-count", role="status")
    if not page.batches:
        return [count, parts.notice(_nothing(source, state), color="gray", element_id="batches-none")]
    table = parts.rows_table(
        COLUMNS,
        [row for batch in page.batches for row in _rows(batch)],
        label="Batches, newest first",
        element_id="batches-table",
        min_width_px=1250,
    )
    return [
        count,
        table,
        parts.dim(_CAPTION, mt="xs"),
        parts.pager(number, n_pages, address, label="Pages of batches", element_id="batches-pages"),
    ]


def _count(total: int) -> str:
    return "1 batch" if total == 1 else f"{parts.count_text(total)} batches"


def _nothing(source: str, state: str) -> str:
    if source or state:
        return "No batch is like that."
    return "There are no batches yet: the first run of an ingest DAG makes one."


def _rows(batch: Mapping[str, Any]) -> Sequence[Sequence[parts.Content] | Component]:
    cells: list[parts.Content] = [
        parts.link(
            str(batch["batch_id"]), f"{PATH}/{batch['batch_id']}", **{"aria-label": f"Batch {batch['batch_id']}"}
        ),
        parts.plain(batch["source"]),
        parts.plain(batch["kind"]),
        parts.badge(batch["state"]),
        interval_text(batch),
        parts.time_text(batch["opened_at"]),
        parts.duration_text(duration_s(batch)),
        parts.count_text(batch["planned_spectrograms"]),
        *(count_cell(outcome, batch[outcome]) for outcome in ("loaded", "partial", "rejected", "failed")),
        *rate_texts(batch),
    ]
    if not batch["failure"]:
        return [cells]
    why = dmc.TableTr(
        dmc.TableTd(
            [html.Strong("Failed: "), parts.plain(batch["failure"])],
            tableProps={"colSpan": len(COLUMNS)}, pt=0, style={"overflowWrap": "anywhere"}, className="batch-failure",
        )
    )  # fmt: skip
    return [cells, why]


def interval_text(batch: Mapping[str, Any]) -> str:
    """Return the data interval as short as it can be said."""
    start, end = batch["interval_start"], batch["interval_end"]
    if start is None:
        return parts.NOTHING
    from_text, to_text = (parts.time_text(at).removesuffix(":00").removesuffix(" 00:00") for at in (start, end))
    return from_text if from_text == to_text else f"{from_text} – {to_text}"


def duration_s(batch: Mapping[str, Any]) -> float:
    """Return how long a batch took, or has taken so far."""
    return float(((batch["closed_at"] or batch["read_at"]) - batch["opened_at"]).total_seconds())


def rates(batch: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return seconds of audio and objects per second between plan and gate; None while there is nothing to tell."""
    if batch["planned_at"] is None or batch["gated_at"] is None or not batch["n_recordings"]:
        return None
    took_s = (batch["gated_at"] - batch["planned_at"]).total_seconds()
    return (batch["audio_s"] / took_s, batch["n_recordings"] / took_s) if took_s > 0 else None


def rate_texts(batch: Mapping[str, Any]) -> tuple[str, str]:
    """Return the two rates as they are shown."""
    found = rates(batch)
    if found is None:
        return parts.NOTHING, parts.NOTHING
    return parts.number_text(found[0], unit="×"), parts.number_text(found[1])


def count_cell(outcome: str, n: int | None) -> parts.Content:
    """Return a count that is dim if it is zero, and stands out if it is bad and is not."""
    if not n:
        return parts.dim(parts.count_text(n), span=True)
    if outcome in {"rejected", "failed"}:
        return parts.badge(outcome, text=parts.count_text(n))
    return parts.count_text(n)
