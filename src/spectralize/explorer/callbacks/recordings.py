"""The table of recordings. What it shows is what its address says: fields write the address, and the address makes the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, no_update, set_props
from dash.development.base_component import Component

from spectralize.errors import ReadError, SpectralizeError, as_one_line
from spectralize.explorer.context import Explorer
from spectralize.explorer.layout.recordings import make_compare, make_error, make_page, make_results
from spectralize.explorer.layout.recordings_filters import make_chips
from spectralize.explorer.listing import Listing
from spectralize.explorer.visits import Visit, read_query
from spectralize.reader.table import read_choices, read_table

#: Where the table is.
_PATHS = ("/", "/recordings")

#: The fields by what they are called in the address: component, property.
_FIELDS = {
    "q": ("recordings-search", "value"),
    "outcome": ("recordings-outcome", "value"),
    "profile": ("recordings-profile", "value"),
    "format": ("recordings-format", "value"),
    "since": ("recordings-since", "value"),
    "until": ("recordings-until", "value"),
    "shortest": ("recordings-shortest", "value"),
    "longest": ("recordings-longest", "value"),
    "column": ("recordings-columns", "value"),
}


def render(explorer: Explorer, visit: Visit, **groups: str) -> Component:
    """Make the page."""
    listing = Listing.of(visit.query)
    choices = explorer.read(read_choices)
    chips, results = _look(explorer, listing, visit.path)
    return make_page(listing, choices, chips, results)


def _look(explorer: Explorer, listing: Listing, path: str) -> tuple[list[Component], Component]:
    """Return the outcomes with their counts, and what was found or why nothing could be."""
    try:
        question = listing.question()
        table = explorer.read(lambda connection: read_table(connection, question))
    except ReadError as error:
        return make_chips({}), make_error(as_one_line(str(error)), listing, path)
    return make_chips(table.counts), make_results(listing, table, path)


def listing_of(values: dict[str, Any], before: Listing) -> Listing:
    """Return what the fields say, with the order and the columns of before; other filters begin at the first page."""
    query: dict[str, tuple[str, ...]] = {}
    for name, value in values.items():
        items = value if isinstance(value, list | tuple) else [value]
        query[name] = tuple(str(item) for item in items if item not in (None, ""))
    said = Listing.of(query)
    found = replace(said, sort=before.sort, desc=before.desc, page=before.page, per=before.per)
    return found if replace(found, column=before.column) == before else replace(found, page=1)


def fields_of(listing: Listing) -> dict[str, Any]:
    """Return what the fields have to show for an address."""
    return {
        "q": listing.q,
        "outcome": list(listing.outcome),
        "profile": listing.profile or None,
        "format": list(listing.format),
        "since": listing.since or None,
        "until": listing.until or None,
        "shortest": "" if listing.shortest is None else listing.shortest,
        "longest": "" if listing.longest is None else listing.longest,
        "column": list(listing.column),
    }


def register(app: Dash, explorer: Explorer) -> None:
    """Connect the page's callbacks."""
    _write_address(app)
    _read_address(app, explorer)
    app.clientside_callback(ClientsideFunction("recordings", "keepFocus"), Input("recordings-results", "children"))

    @app.callback(
        Output("recordings-compare", "children"), Input("recordings-picked", "value"), prevent_initial_call=False
    )
    def offer(picked: Sequence[str] | None) -> list[Component]:
        return make_compare([item for item in picked or () if str(item).isdecimal()])


def _write_address(app: Dash) -> None:
    """Fields, heads of columns and numbers of pages lead to another address.

    Each of these is also called when the page appears, and by what going back has set: then nothing is new.
    """
    search = Output("url", "search", allow_duplicate=True)
    here = {"query": State("url", "search"), "path": State("url", "pathname")}

    @app.callback(
        search,
        inputs={"values": {name: Input(*field) for name, field in _FIELDS.items()}} | here,
        prevent_initial_call=True,
    )
    def filter_rows(values: dict[str, Any], query: str | None, path: str) -> Any:
        before = Listing.of(read_query(query or ""))
        after = listing_of(values, before)
        return no_update if path not in _PATHS or after == before else after.search

    @app.callback(
        search,
        inputs={"clicks": Input({"type": "recordings-sort", "column": ALL}, "n_clicks")} | here,
        prevent_initial_call=True,
    )
    def sort_rows(clicks: Sequence[int | None], query: str | None, path: str) -> Any:
        # A table that is made anew has heads that nobody has touched yet.
        if path not in _PATHS or not any(clicks) or not isinstance(ctx.triggered_id, dict):
            return no_update
        return Listing.of(read_query(query or "")).sorted_by(str(ctx.triggered_id["column"])).search

    @app.callback(
        search,
        inputs={
            "page": Input("recordings-pagination", "value"),
            "per": Input("recordings-per", "value"),
            "shown": State("recordings-shown", "data"),
        }
        | here,
        prevent_initial_call=True,
    )
    def turn_page(page: int, per: str, shown: Sequence[int], query: str | None, path: str) -> Any:
        said = Listing.of({"page": (str(page),), "per": (str(per),)})
        # By what is shown and not by the address, which may name a page beyond the end.
        if path not in _PATHS or [said.page, said.per] == shown:
            return no_update
        before = Listing.of(read_query(query or ""))
        return replace(before, page=said.page if said.per == before.per else 1, per=said.per).search


def _read_address(app: Dash, explorer: Explorer) -> None:
    """Another address, by a field or by going back, shows another table."""

    @app.callback(
        output=[Output("recordings-results", "children"), Output("recordings-chips", "children")],
        inputs={
            "query": Input("url", "search"),
            "path": State("url", "pathname"),
            "values": {name: State(*field) for name, field in _FIELDS.items()},
        },
        prevent_initial_call=True,
    )
    def show_rows(query: str | None, path: str, values: dict[str, Any]) -> Any:
        if path not in _PATHS:
            return no_update, no_update
        listing = Listing.of(read_query(query or ""))
        if listing_of(values, listing) != listing:
            # Not by outputs: fields and address would each be made of the other.
            for name, value in fields_of(listing).items():
                component, prop = _FIELDS[name]
                if value != values[name]:
                    set_props(component, {prop: value})
        try:
            chips, results = _look(explorer, listing, path)
        except SpectralizeError as error:
            chips, results = make_chips({}), make_error(as_one_line(str(error)), listing, path)
        return results, chips
