"""What the viewer is made of, and what it reads when somebody zooms."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, no_update

from spectralize.errors import ReadError, SpectralizeError, as_one_line
from spectralize.explorer.context import Explorer
from spectralize.explorer.figures.colours import DEFAULT_SCALE, SCALES
from spectralize.explorer.figures.spectrogram import RANGE_DB
from spectralize.explorer.figures.viewer import MARGIN_PX, NARROW_MARGIN_PX, NARROW_PX, Look, Strip, strip_traces
from spectralize.explorer.layout.viewer import MOST_STRIPS
from spectralize.explorer.visits import Visit
from spectralize.reader import Recording, Spectrogram
from spectralize.reader.overview import Columns, read_columns

_LOG = logging.getLogger(__name__)

#: Beside the plots, the page itself has so much at its sides.
_PADDING_PX = 32

#: Columns of a picture, whatever the screen says: so much is read and sent for a strip at most.
_MOST_COLUMNS = 1600
#: Numbers of columns are rounded up to these, so that screens that differ by a few pixels share what was read.
_COLUMN_STEP = 100

#: Shorter windows hold nothing to see: some frames have to lie in one.
_SHORTEST_S = 0.02

#: Of colours; no frame comes near.
_MOST_DB = 1000

#: Whole recordings that are kept: each a megabyte, at most. Spectrograms are immutable, so they are never out of date.
_MOST_KEPT = 48


class _Kept:
    """The overviews that were read last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: dict[tuple[int, int], Columns] = {}

    def get(self, key: tuple[int, int]) -> Columns | None:
        with self._lock:
            found = self._found.pop(key, None)
            if found is not None:
                self._found[key] = found
            return found

    def put(self, key: tuple[int, int], columns: Columns) -> None:
        with self._lock:
            self._found[key] = columns
            while len(self._found) > _MOST_KEPT:
                self._found.pop(next(iter(self._found)))


_KEPT = _Kept()


def read_strips(explorer: Explorer, spectrograms: Sequence[Spectrogram], look: Look) -> list[Strip]:
    """Read what the viewer shows first: all of each, and the window, if that is not all."""
    n_columns = count_columns(look.width_px)
    strips = []
    for spectrogram in spectrograms:
        whole = read_whole(explorer, spectrogram, n_columns)
        strips.append(
            Strip(spectrogram, whole, read_seen(explorer, spectrogram, whole, look.start_s, look.end_s, n_columns))
        )
    return strips


def count_columns(width_px: int) -> int:
    """Return how many columns a picture has in a window of that width: one per pixel, about."""
    margin = NARROW_MARGIN_PX if width_px < NARROW_PX else MARGIN_PX
    pixels = max(1, width_px - _PADDING_PX - margin["l"] - margin["r"])
    return min(_MOST_COLUMNS, math.ceil(pixels / _COLUMN_STEP) * _COLUMN_STEP)


def read_whole(explorer: Explorer, spectrogram: Spectrogram, n_columns: int) -> Columns:
    """Return all of a spectrogram in so many columns, from memory if it was read a short while ago."""
    key = spectrogram.spectrogram_id, n_columns
    found = _KEPT.get(key)
    if found is None:
        found = explorer.read(lambda connection: read_columns(connection, spectrogram, None, None, n_columns))
        _KEPT.put(key, found)
    return found


def read_seen(
    explorer: Explorer, spectrogram: Spectrogram, whole: Columns, start_s: float, end_s: float, n_columns: int
) -> Columns | None:
    """Return the window of a spectrogram, or None where nothing of it is there, or nothing finer than the whole."""
    end_s = min(end_s, spectrogram.duration_s)
    start_s = max(0.0, start_s)
    if end_s - start_s < spectrogram.frame_s or (end_s - start_s) >= 0.999 * spectrogram.duration_s:
        return None
    # A frame more at each side: their cells reach into the window.
    first_s = max(0.0, start_s - spectrogram.frame_s)
    stop_s = min(end_s + spectrogram.frame_s, spectrogram.duration_s)
    seen: Columns = explorer.read(partial(_read, spectrogram=spectrogram, first_s=first_s, stop_s=stop_s, n=n_columns))
    return seen if seen.step_s < whole.step_s else None


def _read(connection: Any, *, spectrogram: Spectrogram, first_s: float, stop_s: float, n: int) -> Columns:
    return read_columns(connection, spectrogram, first_s, stop_s, n)


def make_look(visit: Visit, spectrograms: Sequence[Spectrogram]) -> Look:
    """Return how the address wants it shown; what it says wrongly, or does not say, is the whole and the defaults."""
    length_s = max(found.duration_s for found in spectrograms)
    start_s, end_s = number(visit.first("start")), number(visit.first("end"))
    start_s = 0.0 if start_s is None or not 0 <= start_s < length_s else start_s
    end_s = length_s if end_s is None or not start_s < end_s <= length_s else end_s
    if end_s - start_s < _SHORTEST_S:
        start_s, end_s = 0.0, length_s
    low_db, high_db = number(visit.first("low")), number(visit.first("high"))
    if low_db is None or high_db is None or not low_db < high_db or max(-low_db, high_db) > _MOST_DB:
        high_db = math.ceil(max(found.peak_db for found in spectrograms))
        low_db = high_db - RANGE_DB
    scale = visit.first("colours", DEFAULT_SCALE)
    return Look(
        start_s=start_s, end_s=end_s, length_s=length_s, low_db=low_db, high_db=high_db,
        scale=scale if scale in SCALES else DEFAULT_SCALE, width_px=visit.width_px, is_dark=visit.is_dark,
        is_touch=visit.is_touch,
    )  # fmt: skip


def number(text: object) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and abs(value) < 1e9 else None


def chosen_profile(recording: Recording, name: str) -> Spectrogram | None:
    """Return the spectrogram of that profile, else the first one, or None if there is none at all."""
    return recording.spectrograms.get(name) or next(iter(recording.spectrograms.values()), None)


def register(app: Dash, explorer: Explorer) -> None:
    """Connect the viewer, on whichever page it is."""
    app.clientside_callback(
        ClientsideFunction("viewer", "attach"),
        Output("viewer-view", "data"),
        Input("viewer-facts", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("viewer", "draw"),
        Output("viewer-graph", "figure"),
        Input("viewer-columns", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("viewer", "colour"),
        Output("viewer-window", "className"),
        Input("viewer-scale", "value"),
        Input("viewer-range", "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("viewer", "loop"),
        Output("viewer-loop", "className"),
        Input("viewer-loop", "checked"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("viewer", "profile"),
        Output("visit", "data", allow_duplicate=True),
        Input("recording-profile", "value"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("viewer-columns", "data"),
        Input("viewer-view", "data"),
        State("viewer-facts", "data"),
        prevent_initial_call=True,
    )
    def read_window(view: Mapping[str, Any] | None, facts: Mapping[str, Any] | None) -> Any:
        # Without facts, the page with the viewer has been left meanwhile.
        if not view or not facts:
            return no_update
        try:
            return answer_view(explorer, view, facts)
        except (ReadError, SpectralizeError) as error:
            _LOG.warning("window: %s", as_one_line(str(error)))
            return {"number": number(view.get("number")), "error": as_one_line(str(error))}


def answer_view(explorer: Explorer, view: Mapping[str, Any], facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the traces of a window for viewer.js. Both arguments come from the browser.

    Raises
    ------
    ReadError
        If they ask for something that there is not.
    """
    start_s, end_s, width = number(view.get("start")), number(view.get("end")), number(view.get("width"))
    if start_s is None or end_s is None or not end_s > start_s:
        raise ReadError(f"window {start_s} to {end_s}: must be seconds, and end after it begins")
    n_columns = count_columns(round(min(max(width or 0.0, 200.0), 4000.0)))
    sources = facts.get("sources")
    if not isinstance(sources, list | tuple):
        raise ReadError("sources: must be a list of strips, as the page was given them")
    strips = []
    for source in sources[:MOST_STRIPS]:
        spectrogram = find_spectrogram(explorer, source)
        whole = read_whole(explorer, spectrogram, n_columns)
        seen = read_seen(explorer, spectrogram, whole, start_s, end_s, n_columns)
        wave, _, mel = strip_traces(Strip(spectrogram, whole, seen), is_dark=facts.get("dark") is True)
        strips.append({"wave": wave, "mel": mel})
    return {"number": number(view.get("number")), "start": start_s, "end": end_s, "strips": strips}


def find_spectrogram(explorer: Explorer, source: object) -> Spectrogram:
    """Look up what a strip is read from: [recording, profile, spectrogram], as the page was given them.

    Raises
    ------
    ReadError
        If it is not there, or another one is by now.
    """
    if not (isinstance(source, list | tuple) and len(source) == 3):
        raise ReadError("a strip is a recording, a profile and a spectrogram")
    recording_id, profile, spectrogram_id = source
    if not isinstance(recording_id, int) or not isinstance(profile, str):
        raise ReadError("a strip is a recording, a profile and a spectrogram")
    found = explorer.store.recording(recording_id).spectrogram(profile)
    if found.spectrogram_id != spectrogram_id:
        raise ReadError(f"recording {recording_id} was computed anew meanwhile: load the page again")
    return found
