"""The page that compares. What is compared stands in the address: ``?r=17:mel128_22k&r=18``."""

from __future__ import annotations

from dash import ClientsideFunction, Dash, Input, Output, State
from dash.development.base_component import Component

from spectralize.errors import ReadError, as_one_line
from spectralize.explorer.callbacks.viewer import chosen_profile, make_look, read_strips
from spectralize.explorer.context import Explorer
from spectralize.explorer.figures.viewer import make_viewer as make_figure
from spectralize.explorer.layout.compare import Pair, make_page
from spectralize.explorer.layout.viewer import MOST_STRIPS, Source, make_viewer
from spectralize.explorer.visits import Visit


def render(explorer: Explorer, visit: Visit) -> Component:
    """Make the page. What cannot be shown is said, and keeps nothing else from being shown."""
    pairs: list[Pair] = []
    troubles: list[str] = []
    for text in visit.query.get("r", ())[:MOST_STRIPS]:
        try:
            pairs.append(_find(explorer, text))
        except ReadError as error:
            troubles.append(as_one_line(str(error)))
    viewer = _viewer(explorer, visit, pairs) if pairs else None
    return make_page(pairs, troubles, viewer, MOST_STRIPS)


def _find(explorer: Explorer, text: str) -> Pair:
    name, _, profile = text.strip().partition(":")
    if not name.isdecimal() or len(name) > 18:
        raise ReadError(f"{name[:40]!r}: must be the id of a recording, or id:profile")
    recording = explorer.store.recording(int(name))
    found = recording.spectrogram(profile) if profile else chosen_profile(recording, "")
    if found is None:
        # Says why there is none.
        found = recording.spectrogram()
    return recording, found


def _viewer(explorer: Explorer, visit: Visit, pairs: list[Pair]) -> Component:
    spectrograms = [found for _, found in pairs]
    look = make_look(visit, spectrograms)
    figure = make_figure(read_strips(explorer, spectrograms, look), look)
    sources = [Source(recording.id, found.profile, found.spectrogram_id) for recording, found in pairs]
    return make_viewer(figure, look, sources, label=f"Waveforms and Mel-spectrograms of {len(pairs)} recordings")


def register(app: Dash, explorer: Explorer) -> None:
    """Connect what the viewer's own callbacks do not: links to the same page with others on it."""
    app.clientside_callback(
        ClientsideFunction("explorer", "compareOthers"),
        Output("visit", "data", allow_duplicate=True),
        Input("url", "search"),
        State("visit", "data"),
        prevent_initial_call=True,
    )
