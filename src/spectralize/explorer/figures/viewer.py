"""Waveforms and Mel-spectrograms under each other, on one time axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spectralize.explorer.figures.colours import colour_scale
from spectralize.explorer.figures.spectrogram import centres_hz, colours, frame_offset_s, frequency_axis, heatmap
from spectralize.explorer.figures.typed import Part, typed
from spectralize.explorer.figures.waveform import amplitude_axis, envelope

if TYPE_CHECKING:
    from spectralize.reader.overview import Columns
    from spectralize.reader.spectrograms import Spectrogram

#: Around the plots, in CSS pixels. Fixed, so that viewer.js knows which time is under the pointer.
MARGIN_PX = {"l": 64, "r": 76, "t": 8, "b": 36}
#: Without a legend of the colours, where there is no room for one.
NARROW_MARGIN_PX = MARGIN_PX | {"l": 56, "r": 8}
#: Narrower windows are phones.
NARROW_PX = 640

#: Heights of a waveform, of a spectrogram and of what is between them, alone and among others.
_HEIGHTS_PX = {True: (104, 340, 10), False: (56, 190, 10)}
_BETWEEN_PX = 22

#: Of each strip, in this order: viewer.js exchanges the first and the last.
TRACES_PER_STRIP = 3

#: Distances of two labels of the time axis, in seconds. viewer.js has the same.
_STEPS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Strip:
    """One recording in one profile.

    Attributes
    ----------
    whole
        All of it, as coarse as it may be: what is seen at once while something finer is on its way.
    seen
        The window, as fine as the screen; None where the window is the whole.
    """

    spectrogram: Spectrogram
    whole: Columns
    seen: Columns | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How the strips are shown: the window in seconds, the length of the time axis, the range of colours, the screen."""

    start_s: float
    end_s: float
    length_s: float
    low_db: float
    high_db: float
    scale: str
    width_px: int
    is_dark: bool
    is_touch: bool = False

    @property
    def is_narrow(self) -> bool:
        """Whether there is no room beside the plots."""
        return self.width_px < NARROW_PX


def make_viewer(strips: Sequence[Strip], look: Look) -> Part:
    """Return the figure: for each strip its waveform and, below, its spectrogram.

    What its ``meta`` holds is for viewer.js: per strip the centres of the bands in Hz.
    """
    wave_px, mel_px, gap_px = _HEIGHTS_PX[len(strips) == 1]
    strip_px = wave_px + gap_px + mel_px
    plots_px = len(strips) * strip_px + (len(strips) - 1) * _BETWEEN_PX
    margin = NARROW_MARGIN_PX if look.is_narrow else MARGIN_PX
    ink, grid = ("#e0e0e0", "#3a3a3a") if look.is_dark else ("#333333", "#dddddd")
    data: list[Part] = []
    layout: Part = {
        "height": plots_px + margin["t"] + margin["b"],
        "margin": margin | {"pad": 0},
        "autosize": True,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": ink, "size": 12},
        "showlegend": False,
        "hovermode": "closest",
        # With fingers, it would keep the page from being scrolled.
        "dragmode": False if look.is_touch else "zoom",
        "coloraxis": colours(look.low_db, look.high_db, colour_scale(look.scale)) | {"showscale": not look.is_narrow},
        "uirevision": "viewer",
        "xaxis": _time_axis(look, grid) | {"anchor": f"y{2 * len(strips)}"},
        "meta": {
            "strips": [
                {"frequency_hz": centres_hz(strip.spectrogram), "offset_s": frame_offset_s(strip.spectrogram)}
                for strip in strips
            ]
        },
    }
    if len(strips) > 1:
        layout["annotations"] = [_number(number) for number in range(1, len(strips) + 1)]
    for number, strip in enumerate(strips):
        top_px = number * (strip_px + _BETWEEN_PX)
        wave, mel = 2 * number + 1, 2 * number + 2
        layout[_axis(wave)] = _placed(top_px, wave_px, plots_px) | amplitude_axis(strip.whole) | {"gridcolor": grid}
        layout[_axis(mel)] = _placed(top_px + wave_px + gap_px, mel_px, plots_px) | frequency_axis(strip.spectrogram)
        data += [
            {**part, "xaxis": "x", "yaxis": f"y{axis}" if axis > 1 else "y"}
            for part, axis in zip(strip_traces(strip, is_dark=look.is_dark), (wave, mel, mel), strict=True)
        ]
    return {"data": data, "layout": layout}


def strip_traces(strip: Strip, *, is_dark: bool) -> tuple[Part, Part, Part]:
    """Return the traces of a strip, without their axes: envelope, whole spectrogram, and the window's own before it."""
    seen = heatmap(strip.seen, strip.spectrogram) if strip.seen else {"type": "heatmap", "z": typed(_NOTHING)}
    return (
        envelope(strip.seen or strip.whole, is_dark=is_dark),
        heatmap(strip.whole, strip.spectrogram) | {"coloraxis": "coloraxis"},
        seen | {"coloraxis": "coloraxis", "visible": strip.seen is not None, "hoverinfo": "none"},
    )


def _time_axis(look: Look, grid: str) -> Part:
    ticks = time_ticks(look.start_s, look.end_s, 4 if look.is_narrow else 10)
    return {
        "range": [look.start_s, look.end_s],
        "minallowed": 0,
        "maxallowed": look.length_s,
        "tickmode": "array",
        "tickvals": [at for at, _ in ticks],
        "ticktext": [text for _, text in ticks],
        "ticks": "outside",
        "tickcolor": grid,
        "gridcolor": grid,
        "zeroline": False,
    }


def time_ticks(start_s: float, end_s: float, most: int) -> list[tuple[float, str]]:
    """Return where a time axis has labels, at most so many in the window, and what they say, as hours, minutes and seconds.

    There are as many again at both sides: they come into sight when somebody drags the picture.
    """
    span_s = end_s - start_s
    step_s = next(
        (step for step in _STEPS_S if span_s / step <= most), math.ceil(span_s / most / _STEPS_S[-1]) * _STEPS_S[-1]
    )
    first, last = math.ceil((start_s - span_s) / step_s), math.floor((end_s + span_s) / step_s)
    return [(number * step_s, clock(number * step_s, step_s)) for number in range(max(0, first), last + 1)]


def clock(at_s: float, step_s: float) -> str:
    """Return 75.5 as 1:15.5, with as many decimals as labels so far apart need."""
    decimals = 0 if step_s >= 1 else math.ceil(-math.log10(step_s) - 1e-9)
    minutes, seconds = divmod(round(at_s, decimals), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{seconds:0{3 + decimals if decimals else 2}.{decimals}f}"
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


def _axis(number: int) -> str:
    return "yaxis" if number == 1 else f"yaxis{number}"


def _number(number: int) -> Part:
    """Return what tells strips apart, at the top left of each: their number, and no text of somebody else."""
    return {
        "text": str(number), "xref": "paper", "x": 0, "xanchor": "left", "xshift": 4,
        "yref": f"{'y' if number == 1 else f'y{2 * number - 1}'} domain", "y": 1, "yanchor": "top",
        "showarrow": False, "font": {"size": 13, "color": "#ffffff"}, "bgcolor": "#495057", "borderpad": 3,
    }  # fmt: skip


def _placed(top_px: float, height_px: float, of_px: float) -> Part:
    """Return where a plot is: Plotly counts from the bottom."""
    return {"domain": [max(0.0, 1 - (top_px + height_px) / of_px), 1 - top_px / of_px], "anchor": "x"}


_NOTHING = np.zeros((1, 1), dtype=np.int16)
