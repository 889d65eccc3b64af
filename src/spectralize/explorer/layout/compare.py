"""Several recordings, or profiles of one, under each other on one time axis."""

from __future__ import annotations

from collections.abc import Sequence

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from spectralize.explorer.layout.parts import Column, badge, dim, duration_text, heading, link, plain, rows_table
from spectralize.explorer.layout.recording import name_of
from spectralize.explorer.layout.viewer import make_keys
from spectralize.explorer.media import choose_stream
from spectralize.explorer.visits import write_query
from spectralize.reader import Recording, Spectrogram

#: What is compared: a recording, and which of its spectrograms.
Pair = tuple[Recording, Spectrogram]


def make_page(pairs: Sequence[Pair], troubles: Sequence[str], viewer: Component | None, most: int) -> Component:
    """Return the page; `viewer` is None while there is nothing to show."""
    parts: list[Component] = [
        heading("Compare"),
        *[dmc.Alert(plain(trouble), color="orange", variant="light", my="xs", p="xs") for trouble in troubles],
        _form(pairs, most),
    ]
    if viewer is not None:
        parts += [_list(pairs), viewer, make_keys(is_heard=False)]
    else:
        parts.append(
            dmc.Text(["Tick recordings in the ", link("list of recordings", "/"), " and compare them here."], my="md")
        )
    return html.Div(parts)


def address(pairs: Sequence[Pair]) -> str:
    """Return the address that compares these."""
    return f"/compare{write_query({'r': [_text(pair) for pair in pairs]})}"


def _text(pair: Pair) -> str:
    recording, found = pair
    return f"{recording.id}:{found.profile}"


def _form(pairs: Sequence[Pair], most: int) -> Component:
    if len(pairs) >= most:
        return dmc.Text(f"These are {most}, the most that one page shows.", size="sm", my="xs")
    # A form of plain HTML: the address is all there is to say.
    fields = [
        dmc.TextInput(
            label="Add a recording: its id, or id:profile",
            name="r",
            id="compare-add",
            w=260,
            required=True,
            withAsterisk=False,
        ),
        dmc.Button("Add", buttonProps={"type": "submit"}, variant="default"),
    ]
    hidden = [dcc.Input(type="hidden", name="r", value=_text(pair)) for pair in pairs]
    return html.Form(
        [dmc.Group([*hidden, *fields], align="end", mb="md")], method="GET", action="/compare", id="compare-form"
    )


def _list(pairs: Sequence[Pair]) -> Component:
    columns = [Column("No.", is_number=True), Column("Recording", width="22rem"), Column("Profile"), Column("Outcome"),
               Column("Duration", is_number=True), Column("Listen"), Column("")]  # fmt: skip
    rows = []
    for number, (recording, found) in enumerate(pairs):
        others = [pair for place, pair in enumerate(pairs) if place != number]
        path = f"/recordings/{recording.id}/audio" + ("" if choose_stream(recording) == "object" else "?as=wav")
        rows.append(
            (
                str(number + 1),
                [
                    link(name_of(recording), f"/recordings/{recording.id}{write_query({'profile': found.profile})}"),
                    # Titles may be the same.
                    dim(plain(recording.key, longest=120), size="xs"),
                ],
                plain(found.profile),
                badge("partial" if found.status == "partial" else "loaded"),
                duration_text(found.duration_s),
                html.Audio(
                    controls=True, preload="none", src=path, className="small-player",
                    **{"aria-label": f"Listen to {name_of(recording)}"},
                ),
                # viewer.js adds the window and the colours: another page, which the form leads to as well.
                html.A(
                    "Remove", href=address(others), className="download",
                    **{"aria-label": f"Remove {name_of(recording)}", "data-keeps": "true"},
                ),
            )
        )  # fmt: skip
    return rows_table(columns, rows, label="What is compared, from top to bottom", element_id="compare-table")
