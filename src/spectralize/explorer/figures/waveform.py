"""A waveform as the area between its lowest and its highest samples, column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectralize.explorer.figures.typed import Part, typed

if TYPE_CHECKING:
    from spectralize.reader.overview import Columns

_COLOURS = {False: "#3b4cc0", True: "#91a7ff"}


def envelope(columns: Columns, *, is_dark: bool) -> Part:
    """Return the envelope as one closed line, with a step per column; x in seconds."""
    edges_s = columns.start_s + np.arange(len(columns.low) + 1) * columns.step_s
    # Each column twice: from its left edge to its right one.
    x = np.repeat(edges_s, 2)[1:-1]
    high, low = np.repeat(columns.high, 2), np.repeat(columns.low, 2)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": typed(np.concatenate((x, x[::-1]))),
        "y": typed(np.concatenate((high, low[::-1])).astype(np.float32)),
        "fill": "toself",
        "fillcolor": _COLOURS[is_dark],
        "line": {"width": 1, "color": _COLOURS[is_dark]},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def amplitude_axis(columns: Columns) -> Part:
    """Return the y axis of a waveform: as high as its samples, so that quiet recordings are seen too."""
    highest = max(float(np.abs(columns.low).max(initial=0)), float(np.abs(columns.high).max(initial=0)), 1e-4) * 1.05
    return {
        "range": [-highest, highest],
        "fixedrange": True,
        "nticks": 3,
        "zeroline": False,
        "tickformat": ".2~g",
    }
