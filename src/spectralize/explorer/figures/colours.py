"""Colour maps of spectrograms, by the names that matplotlib and Plotly share. All but grey keep their order of lightness."""

from __future__ import annotations

from functools import cache
from typing import Any

from plotly.colors import sequential

#: Name -> what people read.
SCALES = {"magma": "Magma", "viridis": "Viridis", "inferno": "Inferno", "cividis": "Cividis", "grey": "Grey"}
DEFAULT_SCALE = "magma"


@cache
def colour_scale(name: str) -> list[Any]:
    """Return a colour map as Plotly takes it: pairs of position and colour. An unknown name is the default."""
    if name == "grey":
        return [[0.0, "#ffffff"], [1.0, "#000000"]]
    stops = getattr(sequential, SCALES.get(name, SCALES[DEFAULT_SCALE]))
    return [[position / (len(stops) - 1), colour] for position, colour in enumerate(stops)]
