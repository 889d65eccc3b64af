"""A Mel-spectrogram as a Plotly heatmap: band by band, which is evenly on the Mel scale, with the axis labelled in Hz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spectralize.explorer.figures.typed import Part, typed
from spectralize.melscale import band_centres_hz, hz_to_mel

if TYPE_CHECKING:
    from spectralize.reader.overview import Columns
    from spectralize.reader.spectrograms import Spectrogram

#: Cells travel as whole hundredths of a dB, in half the bytes of a float: finer than the store's half precision above 32 dB.
UNITS_PER_DB = 100

#: What is shown below the highest cell of a recording unless asked otherwise, in dB; as librosa's `top_db`.
RANGE_DB = 80.0

#: Where the frequency axis has labels, if they fit, in Hz.
_TICKS_HZ = (
    20,
    50,
    100,
    200,
    500,
    1000,
    2000,
    3000,
    5000,
    8000,
    10_000,
    15_000,
    20_000,
    30_000,
    50_000,
    100_000,
    200_000,
)
#: Labels are at least so far apart, as a share of the axis.
_CLOSEST = 0.06


def band_positions(frequencies_hz: npt.ArrayLike, spectrogram: Spectrogram) -> npt.NDArray[np.float64]:
    """Return where frequencies lie among the bands: 0 is the centre of the lowest, n_mels - 1 that of the highest."""
    parameters = spectrogram.parameters
    htk = parameters["htk"]
    fmax = parameters["fmax"] if parameters["fmax"] is not None else spectrogram.sr / 2
    low, high = hz_to_mel([parameters["fmin"], fmax], htk=htk)
    positions: npt.NDArray[np.float64] = (hz_to_mel(frequencies_hz, htk=htk) - low) / (high - low) * (
        spectrogram.n_mels + 1
    ) - 1
    return positions


def frequency_axis(spectrogram: Spectrogram) -> Part:
    """Return the y axis: a cell per band, ticks at round frequencies that lie within the bands."""
    n_mels = spectrogram.n_mels
    ticks: list[tuple[float, str]] = []
    for hz, position in zip(_TICKS_HZ, band_positions(_TICKS_HZ, spectrogram), strict=True):
        is_within = -0.5 <= position <= n_mels - 0.5
        if is_within and (not ticks or position - ticks[-1][0] >= _CLOSEST * n_mels):
            ticks.append((round(float(position), 3), f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz"))
    return {
        "range": [-0.5, n_mels - 0.5],
        "fixedrange": True,
        "tickmode": "array",
        "tickvals": [position for position, _ in ticks],
        "ticktext": [label for _, label in ticks],
        "zeroline": False,
        "showgrid": False,
    }


def frame_offset_s(spectrogram: Spectrogram) -> float:
    """Return how far the edge of a frame's cell lies from the time in its row, in seconds.

    A cell is drawn around the middle of what its frame was computed of: the frame's own time for centred frames, half a
    window later for others.
    """
    parameters = spectrogram.parameters
    middle = 0 if parameters["center"] else parameters["n_fft"] / 2
    return float((middle - spectrogram.hop_length / 2) / spectrogram.sr)


def heatmap(columns: Columns, spectrogram: Spectrogram) -> Part:
    """Return the cells of some columns as a trace; its x is in seconds from the start of the recording."""
    offset_s = frame_offset_s(spectrogram) if columns.level == "frames" else 0.0
    first_s = columns.start_s + columns.step_s / 2 + offset_s
    # Seconds without a frame have no dB.
    mel = np.nan_to_num(columns.mel.T, nan=-300.0)
    cells = np.rint(np.clip(mel, -300, 300) * UNITS_PER_DB).astype(np.int16)
    return {
        "type": "heatmap",
        "x0": first_s,
        "dx": columns.step_s,
        "y0": 0,
        "dy": 1,
        "z": typed(cells),
        # What the pointer is at, viewer.js says: in dB.
        "hoverinfo": "none",
    }


def colours(low_db: float, high_db: float, scale: list[Any]) -> Part:
    """Return a colour axis that heatmaps share: what the lowest and the highest colour stand for, and its legend in dB."""
    # Every ten, for whatever range is chosen later: those outside are not shown.
    ticks = range(-300, 301, 10)
    return {
        "cmin": round(low_db * UNITS_PER_DB),
        "cmax": round(high_db * UNITS_PER_DB),
        "colorscale": scale,
        "colorbar": {
            "tickmode": "array",
            "tickvals": [tick * UNITS_PER_DB for tick in ticks],
            "ticktext": [f"{tick} dB".replace("-", "−") for tick in ticks],
            "thickness": 10,
            "x": 1.0,
            "xpad": 8,
            "outlinewidth": 0,
        },
    }


def centres_hz(spectrogram: Spectrogram) -> list[float]:
    """Return the centre of each band in Hz."""
    return [round(float(hz), 2) for hz in band_centres_hz(spectrogram.parameters, spectrogram.sr)]
