"""What the table of recordings is filtered by, and which columns it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from spectralize.explorer.layout import parts
from spectralize.explorer.listing import COLUMNS, Listing
from spectralize.reader.question import LONGEST_TEXT
from spectralize.reader.table import Choices
from spectralize.tables import OUTCOMES

#: Who types a word should not be shown the answer to each of its letters.
_DEBOUNCE_MS = 300

_FOLD = {"cursor": "pointer", "fontSize": "var(--mantine-font-size-sm)"}


def make_chips(counts: Mapping[str, int]) -> list[Component]:
    """Return the outcomes, each with the number of recordings that have it under the other filters."""
    return [
        dmc.Chip(f"{outcome} {parts.count_text(counts.get(outcome))}", value=outcome, size="sm", variant="outline")
        for outcome in OUTCOMES
    ]


def make_filters(
    listing: Listing, choices: Choices, chips: Sequence[Component], labels: Mapping[str, str]
) -> Component:
    """Return the fields, set as the address says."""
    search = dmc.TextInput(
        id="recordings-search", label="Search", placeholder="Words in keys and tags", value=listing.q,
        debounce=_DEBOUNCE_MS, inputProps={"type": "search", "maxLength": LONGEST_TEXT, "autoComplete": "off"},
        style={"flex": "1 1 16rem"},
    )  # fmt: skip
    outcomes = html.Div(
        dmc.ChipGroup(
            dmc.Group(list(chips), gap=6, id="recordings-chips"),
            id="recordings-outcome", multiple=True, value=list(listing.outcome),
        ),
        role="group", **{"aria-label": "Outcome"},
    )  # fmt: skip
    more = dmc.SimpleGrid(
        [
            _several("recordings-format", "Format", "Any", choices.formats, listing.format),
            _day("recordings-since", "Recorded from", listing.since),
            _day("recordings-until", "Recorded until", listing.until),
            _seconds("recordings-shortest", "Shortest, s", listing.shortest),
            _seconds("recordings-longest", "Longest, s", listing.longest),
        ],
        cols={"base": 2, "sm": 3, "md": 5}, spacing="sm", mt="xs",
    )  # fmt: skip
    columns = dmc.MultiSelect(
        id="recordings-columns", label="Columns", placeholder="Key and picture only" if not listing.column else "",
        data=[{"value": name, "label": labels[name]} for name in COLUMNS], value=list(listing.column),
        searchable=True, clearable=True, selectFirstOptionOnChange=True, mt="xs", clearButtonProps={"aria-label": "No columns"},
    )  # fmt: skip
    is_open = bool(listing.format or listing.since or listing.until or listing.shortest or listing.longest)
    return html.Div(
        [
            dmc.Group(
                [search, _profile(choices.profiles, listing.profile)], align="flex-end", gap="sm",
            ),
            dmc.Group([outcomes], mt="sm"),
            html.Details(
                [html.Summary("More filters, and columns", style=_FOLD), more, columns],
                open=is_open, style={"marginTop": "0.75rem"}, id="recordings-more",
            ),
        ],
        role="search", **{"aria-label": "Recordings"},
    )  # fmt: skip


def _profile(names: Sequence[str], chosen: str) -> Component:
    # One that the address has and the store has not is said to be wrong below, and can be seen here.
    data = [*names, *([chosen] if chosen and chosen not in names else [])]
    return dmc.Select(
        id="recordings-profile", label="Profile", placeholder="Any", data=data, value=chosen or None, clearable=True,
        clearButtonProps={"aria-label": "Any profile"}, style={"flex": "0 1 14rem"},
    )  # fmt: skip


def _several(element_id: str, label: str, placeholder: str, names: Sequence[str], chosen: Sequence[str]) -> Component:
    data = list(dict.fromkeys([*names, *chosen]))
    return dmc.MultiSelect(
        id=element_id, label=label, placeholder="" if chosen else placeholder, data=data, value=list(chosen), clearable=True,
        searchable=True, selectFirstOptionOnChange=True, clearButtonProps={"aria-label": f"{placeholder} {label.lower()}"},
    )  # fmt: skip


def _day(element_id: str, label: str, day: str) -> Component:
    return dmc.DateInput(
        id=element_id, label=label, value=day or None, valueFormat="YYYY-MM-DD", placeholder="YYYY-MM-DD", clearable=True,
        clearButtonProps={"aria-label": f"{label}: any day"},
    )  # fmt: skip


def _seconds(element_id: str, label: str, seconds: float | None) -> Component:
    return dmc.NumberInput(
        id=element_id, label=label, value="" if seconds is None else seconds, min=0, placeholder="Any", hideControls=True,
        debounce=_DEBOUNCE_MS,
    )  # fmt: skip
