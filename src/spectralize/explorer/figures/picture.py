"""Spectrograms as PNG, where a figure would be too much: a pixel or more per column and band, low frequencies at the bottom."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image
from plotly.colors import hex_to_rgb

from spectralize.explorer.figures.colours import colour_scale
from spectralize.explorer.figures.spectrogram import RANGE_DB

#: Silence is dark, also where nothing is louder.
_LOWEST_HIGH_DB = -60.0


@cache
def colour_table(name: str) -> npt.NDArray[np.uint8]:
    """Return the colours of a map from lowest to highest: shape (256, 3)."""
    places, stops = zip(*((place, hex_to_rgb(colour)) for place, colour in colour_scale(name)), strict=True)
    at = np.linspace(0, 1, 256)
    columns = [np.interp(at, places, channel) for channel in np.array(stops, dtype=np.float64).T]
    table: npt.NDArray[np.uint8] = np.rint(np.stack(columns, axis=1)).astype(np.uint8)
    return table


def choose_levels(mel: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the dB of the lowest and the highest colour for cells of which nothing else is known."""
    high_db = max(float(np.nanmax(mel, initial=_LOWEST_HIGH_DB)), _LOWEST_HIGH_DB)
    return high_db - RANGE_DB, high_db


def draw(
    mel: npt.NDArray[np.float32], *, low_db: float, high_db: float, colour_map: str, size: tuple[int, int] | None = None
) -> bytes:
    """Return a PNG of columns, shape (n, n_mels) in dB: one pixel per cell, or as wide and high as `size`.

    Cells that hold nothing have the lowest colour.
    """
    shares = (np.nan_to_num(mel.T[::-1], nan=-np.inf) - low_db) / (high_db - low_db)
    picture = Image.fromarray(np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8))
    if size is not None:
        # The mean of the cells under a pixel, or the cell that it lies in.
        picture = picture.resize(size, Image.Resampling.BOX)
    coloured = Image.frombytes("P", picture.size, picture.tobytes())
    coloured.putpalette(colour_table(colour_map).tobytes())
    buffer = io.BytesIO()
    coloured.save(buffer, "PNG")
    return buffer.getvalue()
