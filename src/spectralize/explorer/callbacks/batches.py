"""The list of batches, and the page of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg
from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from spectralize.errors import ConfigError, LedgerError, ReadError, SpectralizeError, as_one_line
from spectralize.explorer.context import Explorer
from spectralize.explorer.layout import parts
from spectralize.explorer.layout.batch import BatchFacts, make_batch, make_lines
from spectralize.explorer.layout.batches import PATH, make_filters, make_list
from spectralize.explorer.visits import Visit, write_query
from spectralize.gate import Verdict, list_verdicts
from spectralize.ledgerpages import (
    AUDIO_SUMS,
    ORDER,
    STATES,
    BatchPage,
    LineCounts,
    read_batch_page,
    read_line_counts,
    read_lines,
    read_tries,
)
from spectralize.sources import load_sources
from spectralize.status import read_batch_status
from spectralize.tables import LISTING, OUTCOMES, Counts

BATCHES_PER_PAGE = 50
LINES_PER_PAGE = 100

#: More pages than any ledger has: what is behind an offset is read all the same.
_MOST_PAGES = 100_000

Connection = psycopg.Connection[Any]


def render_list(explorer: Explorer, visit: Visit, **groups: str) -> Component:
    """Make the page."""
    page, number = _read_list(explorer, visit)
    return html.Div(
        [
            parts.heading("Batches"),
            make_filters(page.sources, source=visit.first("source"), state=_state(visit)),
            html.Div(_list(page, number, visit), id="batches-content"),
        ]
    )


def render_batch(explorer: Explorer, visit: Visit, batch_id: str) -> Component:
    """Make the page of one batch."""
    number = int(batch_id)

    def read(connection: Connection) -> Component:
        try:
            batch = read_batch_status(connection, number) | {"read_at": datetime.now(UTC)}
        except LedgerError as error:
            raise ReadError(f"There is no batch {number}.") from error
        audio_s, n_recordings = AUDIO_SUMS.read(connection, [batch]).get(number, (0.0, 0))
        counts = read_line_counts(connection, number)
        facts = BatchFacts(
            batch | {"audio_s": audio_s, "n_recordings": n_recordings},
            counts,
            _verdicts(batch),
            read_tries(connection, batch["dag_id"], batch["run_id"]),
            explorer.settings.airflow_url,
        )
        return make_batch(facts, html.Div(_lines(connection, number, counts, visit), id="batch-objects"))

    return explorer.read(read)


def register(app: Dash, explorer: Explorer) -> None:
    """Connect the page's callbacks: the address says what is shown, and the filters change the address."""

    @app.callback(
        Output("batches-content", "children"),
        Output("batches-source", "value"),
        Output("batches-state", "value"),
        Input("url", "search"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def follow_list(search: str | None, path: str | None) -> tuple[list[Component], str | None, str | None]:
        if _stripped(path) != PATH:
            raise PreventUpdate
        visit = Visit.of({"path": path, "search": search})
        found = _or_say(lambda: _list(*_read_list(explorer, visit), visit))
        return found, visit.first("source") or None, _state(visit) or None

    @app.callback(
        Output("batch-objects", "children"), Input("url", "search"), State("url", "pathname"), prevent_initial_call=True
    )
    def follow_batch(search: str | None, path: str | None) -> list[Component]:
        match = re.fullmatch(f"{PATH}/([1-9][0-9]{{0,18}})", _stripped(path))
        if match is None:
            raise PreventUpdate
        visit, number = Visit.of({"path": path, "search": search}), int(match[1])
        return _or_say(
            lambda: explorer.read(
                lambda connection: _lines(connection, number, read_line_counts(connection, number), visit)
            )
        )

    @app.callback(
        Output("url", "search", allow_duplicate=True),
        Input("batches-source", "value"),
        Input("batches-state", "value"),
        State("url", "search"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def filter_list(source: str | None, state: str | None, search: str | None, path: str | None) -> str:
        shown = Visit.of({"path": path, "search": search})
        # The filters are set to what the address asks for, and then ask for it again.
        if _stripped(path) != PATH or (source or "", state or "") == (shown.first("source"), _state(shown)):
            raise PreventUpdate
        return write_query({"source": source, "state": state})


def _read_list(explorer: Explorer, visit: Visit) -> tuple[BatchPage, int]:
    """Return the page that is asked for, or the last one, and its number: an address may be of when there were more."""
    values: dict[str, Any] = {
        "source": visit.first("source") or None,
        "state": _state(visit) or None,
        "limit": BATCHES_PER_PAGE,
    }

    def read(connection: Connection) -> tuple[BatchPage, int]:
        number = _page(visit)
        page = read_batch_page(connection, **values, offset=(number - 1) * BATCHES_PER_PAGE)
        if page.batches or number == 1:
            return page, number
        number = max(1, -(-page.total // BATCHES_PER_PAGE))
        return read_batch_page(connection, **values, offset=(number - 1) * BATCHES_PER_PAGE), number

    return explorer.read(read)


def _list(page: BatchPage, number: int, visit: Visit) -> list[Component]:
    return make_list(page, number=number, page_size=BATCHES_PER_PAGE, source=visit.first("source"), state=_state(visit))


def _lines(connection: Connection, batch_id: int, counts: LineCounts, visit: Visit) -> list[Component]:
    outcome = visit.first("outcome")
    if outcome not in {*OUTCOMES, "pending"}:
        outcome = ""
    outcomes = (None if outcome == "pending" else outcome,) if outcome else ORDER
    number = min(_page(visit), max(1, -(-counts.of(outcomes) // LINES_PER_PAGE)))
    lines = read_lines(
        connection, batch_id, counts, outcomes, limit=LINES_PER_PAGE, offset=(number - 1) * LINES_PER_PAGE
    )
    return make_lines(batch_id, counts, lines, outcome=outcome, number=number, page_size=LINES_PER_PAGE)


def _verdicts(batch: Mapping[str, Any]) -> list[Verdict]:
    """Return how the batch meets the rules of its source as they are here; nothing if they are not known or it is not counted."""
    if batch["gated_at"] is None or batch["listed"] is None:
        return []
    try:
        source = load_sources().sources.get(batch["source"])
    except ConfigError:
        return []
    counted = {name: batch[name] or 0 for name in ("listed", *LISTING, "planned_spectrograms")}
    counts = Counts(**counted, outcomes={outcome: batch[outcome] or 0 for outcome in OUTCOMES})
    return list_verdicts(counts, source) if source else []


def _state(visit: Visit) -> str:
    state = visit.first("state")
    return state if state in STATES else ""


def _page(visit: Visit) -> int:
    text = visit.first("page", "1")
    # int() takes other digits, too, and signs and underscores.
    number = int(text) if re.fullmatch("[0-9]{1,6}", text) else 1
    return min(max(number, 1), _MOST_PAGES)


def _stripped(path: str | None) -> str:
    return (path or "").rstrip("/")


def _or_say(make: Callable[[], list[Component]]) -> list[Component]:
    """Return what is made, or the one line that says why it could not be."""
    try:
        return make()
    except SpectralizeError as error:
        return [parts.notice(as_one_line(str(error)))]
