"""The page of a recording."""

from __future__ import annotations

from dash import Dash
from dash.development.base_component import Component

from spectralize.explorer.callbacks.viewer import chosen_profile, make_look, read_strips
from spectralize.explorer.context import Explorer
from spectralize.explorer.figures.viewer import make_viewer as make_figure
from spectralize.explorer.layout.recording import make_page, name_of
from spectralize.explorer.layout.viewer import Source, make_viewer
from spectralize.explorer.visits import Visit
from spectralize.reader import Recording, Spectrogram
from spectralize.status import read_object_history, read_object_spectrograms


def render(explorer: Explorer, visit: Visit, name: str) -> Component:
    """Make the page of a recording, by its id or uid."""
    recording = explorer.store.recording(int(name) if name.isdecimal() else name)
    spectrograms = explorer.read(lambda connection: read_object_spectrograms(connection, recording.id))
    history = explorer.read(lambda connection: read_object_history(connection, recording.id))
    shown = chosen_profile(recording, visit.first("profile"))
    viewer = None if shown is None else _viewer(explorer, visit, recording, shown)
    return make_page(recording, shown, viewer, spectrograms, history)


def _viewer(explorer: Explorer, visit: Visit, recording: Recording, shown: Spectrogram) -> Component:
    look = make_look(visit, [shown])
    figure = make_figure(read_strips(explorer, [shown], look), look)
    source = Source(recording.id, shown.profile, shown.spectrogram_id)
    return make_viewer(figure, look, [source], label=f"Waveform and Mel-spectrogram of {name_of(recording)}")


def register(app: Dash, explorer: Explorer) -> None:
    """Nothing beyond the viewer's own callbacks."""
