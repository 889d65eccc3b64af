"""The table of recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from spectralize.explorer.layout import parts
from spectralize.explorer.layout.recordings_filters import make_filters
from spectralize.explorer.layout.viewer import MOST_STRIPS
from spectralize.explorer.listing import PER_PAGE, Listing
from spectralize.reader.table import Choices, Row, Table
from spectralize.tables import TAG_COLUMNS

#: Longer ones are cut in the table; the page of the recording has them whole.
_LONGEST_CELL = 120

_LABELS = {
    "key": "Key",
    "outcome": "Outcome",
    "recorded_at": "Recorded, UTC",
    "duration_s": "Length",
    "size_bytes": "Size",
    "samplerate_hz": "Sample rate",
    "n_channels": "Channels",
    "container": "Container",
    "codec": "Codec",
    "last_modified": "Modified, UTC",
}
#: As the file says; beside it stands what decoding found.
_DECLARED = ("samplerate", "channels", "duration", "filesize")

_NUMBERS = {"duration_s", "size_bytes", "samplerate_hz", "n_channels"} | {
    name for name, kind in TAG_COLUMNS.items() if kind != "text"
}

#: The key stays where it is while the rest of a row is moved under a narrow screen.
_STAYS = {
    "position": "sticky", "left": 0, "zIndex": 1, "background": "var(--mantine-color-body)",
    "minWidth": "min(15rem, 48vw)", "maxWidth": "min(24rem, 48vw)", "overflowWrap": "anywhere",
}  # fmt: skip
_TEXT_CELL = {"minWidth": "6rem", "maxWidth": "18rem", "overflowWrap": "anywhere"}
#: Some hold whole sentences.
_LONG_CELL = _TEXT_CELL | {"minWidth": "14rem"}
_NUMBER_CELL = {"fontVariantNumeric": "tabular-nums", "whiteSpace": "nowrap"}


def label_of(column: str) -> str:
    """Return what people call a column."""
    if column in _LABELS:
        return _LABELS[column]
    words = column.replace("_", " ").capitalize()
    return f"{words}, declared" if column in _DECLARED else words


def make_page(listing: Listing, choices: Choices, chips: Sequence[Component], results: Component) -> Component:
    """Return the page: what to look for, and below it what was found."""
    return html.Div(
        [
            parts.heading("Recordings"),
            make_filters(listing, choices, chips, {name: label_of(name) for name in _LABELS | TAG_COLUMNS}),
            # Outside of what is made anew: what is chosen stays chosen on the next page.
            dmc.CheckboxGroup(
                html.Div(results, id="recordings-results"), id="recordings-picked", value=[],
                **{"aria-label": "Recordings to compare"},
            ),
        ]
    )  # fmt: skip


def make_results(listing: Listing, table: Table, path: str) -> Component:
    """Return what was found: how many, a page of them, and the way to the others."""
    if not table.total:
        return _make_empty(listing, path)
    n_pages = -(-table.total // listing.per)
    page = table.offset // listing.per + 1
    noun = "recording" if table.total == 1 else "recordings"
    total = html.Span(
        f"{parts.count_text(table.total)} {noun}", id="recordings-total", role="status", style={"fontWeight": 600}
    )
    beside = [_clear(listing, path)] if listing.is_filtered else []
    return html.Div(
        [
            dcc.Store(id="recordings-shown", data=[page, listing.per]),
            dmc.Group(
                [total, *beside, html.Div(make_compare([]), id="recordings-compare")], gap="md", mt="md", mb="xs"
            ),
            _make_table(listing, table.rows),
            _make_pages(listing, page, n_pages, path),
        ]
    )


def make_error(text: str, listing: Listing, path: str) -> Component:
    """Return why there is no table."""
    said: list[str | Component] = [html.Div(parts.plain(text)), _clear(listing, path)]
    return parts.notice(said, title="That cannot be looked for", element_id="recordings-error")


def make_compare(picked: Sequence[str]) -> list[Component]:
    """Return the way to compare what is picked, or how to get there."""
    if not picked:
        return []
    if len(picked) < 2:
        return [parts.dim("Choose another one to compare")]
    if len(picked) > MOST_STRIPS:
        return [parts.dim(f"{MOST_STRIPS} can be compared at a time")]
    query = urlencode([("r", item) for item in picked])
    return [parts.link(f"Compare ({len(picked)})", f"/compare?{query}", fw=600)]


def _clear(listing: Listing, path: str) -> Component:
    return dmc.Anchor("Clear all filters", href=path + listing.unfiltered.search, size="sm", underline="always")


def _make_empty(listing: Listing, path: str) -> Component:
    if listing.is_filtered:
        title = "Nothing matches"
        said: list[str | Component] = ["No recording is like that. Ask for less: ", _clear(listing, path), "."]
    else:
        title = "No recordings yet"
        said = [
            "Put audio into the bucket of a source and run its DAG, ingest_ and the name of the source, in Airflow; what "
            "becomes of it is then seen here and under ", parts.link("Batches", "/batches"), ".",
        ]  # fmt: skip
    total = html.Span("0 recordings", id="recordings-total", role="status", style={"fontWeight": 600})
    return html.Div(
        [total, parts.notice(said, title=title, color="gray", element_id="recordings-empty")],
        style={"marginTop": "1rem"},
    )


def _make_table(listing: Listing, rows: Sequence[Row]) -> Component:
    heads = [_head("key", listing, _STAYS | {"zIndex": 2}), dmc.TableTh("Picture", w=176)]
    heads += [_head(name, listing, {}) for name in listing.column]
    lines = [
        dmc.TableTr([_key(row), dmc.TableTd(_picture(row)), *(_cell(row, name) for name in listing.column)])
        for row in rows
    ]
    table = dmc.Table(
        [
            dmc.TableThead(dmc.TableTr(heads)), dmc.TableTbody(lines),
        ],
        id="recordings-table", highlightOnHover=True, verticalSpacing=6, horizontalSpacing=10, **{"aria-label": "Recordings"},
    )  # fmt: skip
    return parts.scrolling(table, label="Recordings", min_width_px=500)


def _head(column: str, listing: Listing, style: Mapping[str, Any]) -> Component:
    is_sorted = listing.sort == column
    order = ("descending" if listing.desc else "ascending") if is_sorted else "none"
    arrow = (" ↓" if listing.desc else " ↑") if is_sorted else ""
    # A column that somebody has put where there is none before stays as wide as its longest cell.
    button = dmc.UnstyledButton(
        [label_of(column), html.Span(arrow, **{"aria-hidden": "true"})],
        id={"type": "recordings-sort", "column": column}, fw=700, fz="sm", style={"whiteSpace": "nowrap"},
    )  # fmt: skip
    return dmc.TableTh(button, ta="right" if column in _NUMBERS else "left", style=dict(style), **{"aria-sort": order})


def _key(row: Row) -> Component:
    key = parts.plain(row.key, longest=_LONGEST_CELL)
    # What has no picture cannot be put beside another one.
    pick = dmc.Checkbox(value=str(row.id), size="xs", mt=3, **{"aria-label": f"Compare {key}"})
    said: list[Component] = [
        pick if row.spectrogram_id is not None else dmc.Space(w=16),
        html.Div(
            [
                dmc.Anchor(_folded(key), href=f"/recordings/{row.id}", size="sm", underline="hover", fw=500),
                # On a phone the outcome's own column is out of sight.
                *([dmc.Box(parts.badge(row.outcome), hiddenFrom="sm", mt=2)] if row.outcome != "loaded" else []),
                *([parts.dim("No longer in the bucket", size="xs")] if row.is_gone else []),
            ]
        ),
    ]
    return dmc.TableTd(dmc.Group(said, gap="xs", wrap="nowrap", align="flex-start"), style=_STAYS)


def _folded(key: str) -> str | list[str | Component]:
    """Return a key that breaks behind its slashes rather than within words."""
    first, *others = key.split("/")
    if not others:
        return key
    found: list[str | Component] = [first]
    for part in others:
        found += ["/", html.Wbr(), part]
    return found


def _picture(row: Row) -> Component | str:
    if row.spectrogram_id is None:
        return parts.NOTHING
    query = urlencode({"profile": row.profile, "v": row.spectrogram_id})
    # Dash's own image cannot be told to wait until it is seen.
    return dmc.Image(
        src=f"/recordings/{row.id}/thumbnail.png?{query}", alt="", w=160, h=40, radius=3, fit="fill",
        attributes={"root": {"loading": "lazy", "width": 160, "height": 40}},
    )  # fmt: skip


def _cell(row: Row, column: str) -> Component:
    if column == "outcome":
        said: list[Component] = [parts.badge(row.outcome)]
        if row.reason:
            why = f"{row.reason_class}: {row.reason}" if row.reason_class else row.reason
            said.append(dmc.Text(parts.plain(why, longest=_LONGEST_CELL), size="xs", mt=2))
        return dmc.TableTd(said, style={"minWidth": "12rem", "maxWidth": "18rem", "overflowWrap": "anywhere"})
    if column in _NUMBERS:
        return dmc.TableTd(_text(column, row.values[column]), ta="right", style=_NUMBER_CELL)
    value = row.values[column]
    if isinstance(value, datetime):
        return dmc.TableTd(html.Time(parts.time_text(value), dateTime=value.isoformat()), style=_NUMBER_CELL)
    style = _LONG_CELL if column == "comment" else _TEXT_CELL
    return dmc.TableTd(parts.plain(value, longest=_LONGEST_CELL), style=style)


def _text(column: str, value: Any) -> str:
    if value is None:
        return parts.NOTHING
    if column in ("duration_s", "duration"):
        return parts.duration_text(value)
    if column in ("size_bytes", "filesize"):
        return parts.bytes_text(value)
    if column in ("samplerate_hz", "samplerate"):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") + "\N{NO-BREAK SPACE}Hz"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _make_pages(listing: Listing, page: int, n_pages: int, path: str) -> Component:
    def step(text: str, to: int) -> Component:
        if not 1 <= to <= n_pages:
            return parts.dim(text, **{"aria-disabled": "true"})
        return dmc.Anchor(text, href=path + replace(listing, page=to).search, size="sm")

    per = dmc.Select(
        id="recordings-per", data=[{"value": str(n), "label": f"{n} per page"} for n in PER_PAGE], value=str(listing.per),
        w=130, size="xs", allowDeselect=False, **{"aria-label": "Rows per page"},
    )  # fmt: skip
    numbers = dmc.Pagination(
        id="recordings-pagination", total=n_pages, value=page, size="sm", siblings=1, boundaries=1,
        # Its arrows have no names: ours do.
        withControls=False,
    )  # fmt: skip
    steps = dmc.Group([step("Previous", page - 1), numbers, step("Next", page + 1)], gap="sm")
    return dmc.Group(
        [html.Nav(steps, **{"aria-label": "Pages of the table"}), per], justify="space-between", mt="md", mb="xl"
    )
