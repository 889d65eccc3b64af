"""The viewer: plots on one time axis, what moves and colours them, and what is under the pointer. viewer.js makes it move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from spectralize.explorer.figures.colours import DEFAULT_SCALE, SCALES, colour_scale
from spectralize.explorer.figures.spectrogram import UNITS_PER_DB
from spectralize.explorer.figures.typed import Part
from spectralize.explorer.figures.viewer import MARGIN_PX, NARROW_MARGIN_PX, TRACES_PER_STRIP, Look

#: Plotly's own buttons are for drawing figures; ours have names, and keys.
_CONFIG = {
    "displayModeBar": False, "displaylogo": False, "scrollZoom": False, "doubleClick": False, "showTips": False,
    "responsive": True,
}  # fmt: skip

#: Lowest and highest dB that colours can be set to: amin = 1e-10 is -100 dB, and full scale stays below +80 dB.
_RANGE_DB = (-100, 80)

_SOUND_KEYS = (
    ("space", "play or pause"),
    ("shift ← →", "one second back or on, while listening"),
    ("L", "loop the window, or stop looping"),
)
_KEYS = (
    ("← →", "a quarter of the window back or on"),
    ("+ −", "zoom in or out, around the cursor"),
    ("0, double click", "the whole recording"),
)


#: Strips of one viewer.
MOST_STRIPS = 8


@dataclass(frozen=True, slots=True)
class Source:
    """What one strip is read from: a recording and one of its profiles."""

    recording_id: int
    profile: str
    spectrogram_id: int


def make_viewer(figure: Part, look: Look, sources: Sequence[Source], *, label: str) -> Component:
    """Return the plots and what belongs to them; `label` is what a screen reader calls them."""
    margin = NARROW_MARGIN_PX if look.is_narrow else MARGIN_PX
    facts: Mapping[str, Any] = {
        "sources": [[source.recording_id, source.profile, source.spectrogram_id] for source in sources],
        "start": look.start_s,
        "end": look.end_s,
        "length": look.length_s,
        "margin": margin,
        "dark": look.is_dark,
        "tracesPerStrip": TRACES_PER_STRIP,
        "unitsPerDb": UNITS_PER_DB,
        "scale": DEFAULT_SCALE,
        "scales": {name: colour_scale(name) for name in SCALES},
    }
    graph = dcc.Graph(
        id="viewer-graph", figure=figure, config=_CONFIG, style={"height": f"{figure['layout']['height']}px"}
    )
    return html.Section(
        [
            # What viewer.js has to know, what it asks for, and what it is answered.
            dcc.Store(id="viewer-facts", data=facts),
            dcc.Store(id="viewer-view"),
            dcc.Store(id="viewer-columns"),
            _controls(look),
            html.Div(
                [graph, html.Div(id="viewer-cursor", className="viewer-cursor", hidden=True)],
                id="viewer",
                className="viewer",
                tabIndex=0,
                role="group",
                **{"aria-label": label, "aria-describedby": "viewer-keys"},
            ),
            dmc.Group(
                [
                    dmc.Text("Point at the picture for time, frequency and level.", id="viewer-readout", size="sm"),
                    dmc.Text("", id="viewer-window", size="sm"),
                ],
                justify="space-between",
                mih=24,
            ),
        ],
        **{"aria-label": "Waveform and spectrogram"},
    )


def _controls(look: Look) -> Component:
    def button(text: str, name: str, label: str) -> Component:
        return dmc.Button(text, id=f"viewer-{name}", variant="default", size="compact-md", **{"aria-label": label})

    move = dmc.Group(
        [
            button("◀", "back", "Back by a quarter of the window"),
            button("▶", "on", "On by a quarter of the window"),
            button("+", "in", "Zoom in"),
            button("−", "out", "Zoom out"),
            button("Whole", "whole", "Show the whole recording"),
        ],
        gap=4,
    )
    scale = dmc.Select(
        id="viewer-scale",
        label="Colours",
        data=[{"value": name, "label": label} for name, label in SCALES.items()],
        value=look.scale,
        allowDeselect=False,
        w=120,
        size="xs",
    )
    levels = dmc.Box(
        [
            dmc.Text("Level, dB", size="xs", fw=500, mb=6),
            dmc.RangeSlider(
                id="viewer-range",
                min=_RANGE_DB[0],
                max=_RANGE_DB[1],
                minRange=1,
                value=[round(look.low_db), round(look.high_db)],
                size="sm",
                thumbSize=20,
                thumbFromLabel="Lowest level, dB",
                thumbToLabel="Highest level, dB",
            ),
        ],
        flex=1,
        miw=160,
        maw=320,
    )
    return dmc.Group([move, scale, levels], gap="md", align="end", mb="xs")


def make_keys(*, is_heard: bool = True) -> Component:
    """Return the list of keys; those of the player only where there is one."""
    keys = [*(_SOUND_KEYS if is_heard else ()), *_KEYS]
    return html.Details(
        [
            html.Summary("Keys", style={"cursor": "pointer"}),
            dmc.Table(
                dmc.TableTbody(
                    [dmc.TableTr([dmc.TableTd(dmc.Kbd(key), w="8rem"), dmc.TableTd(what)]) for key, what in keys]
                ),
                verticalSpacing=2,
                maw=420,
                **{"aria-label": "Keys"},
            ),
            dmc.Text(
                "With a mouse: drag over the picture to zoom"
                + (", click it to listen from there. " if is_heard else ". ")
                + "With fingers: one moves the window, two zoom.",
                size="sm",
            ),
        ],
        id="viewer-keys",
    )
