"""Waveforms and Mel-spectrograms under each other, on one time axis."""

from __future__ import annotations

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

#: Labels of the time axis, by the distance of two in milliseconds: minutes and seconds from the start.
_FORMATS = (
    ([None, 10], "%M:%S.%3f"),
    ([10, 100], "%M:%S.%2f"),
    ([100, 1000], "%M:%S.%1f"),
    ([1000, 1_800_000], "%H:%M:%S"),
    ([1_800_000, None], "%H:%M"),
)
_DAY_S = 86_400.0


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
        "dragmode": "zoom",
        "coloraxis": colours(look.low_db, look.high_db, colour_scale(look.scale))
        | {"showscale": not look.is_narrow},
        "uirevision": "viewer",
        "xaxis": _time_axis(look, grid) | {"anchor": f"y{2 * len(strips)}"},
        "meta": {
            "strips": [
                {"frequency_hz": centres_hz(strip.spectrogram), "offset_s": frame_offset_s(strip.spectrogram)}
                for strip in strips
            ]
        },
    }
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
    days = "%-j d " if look.length_s > _DAY_S else ""
    return {
        "type": "date",
        "range": [look.start_s * 1000, look.end_s * 1000],
        "minallowed": 0,
        "maxallowed": look.length_s * 1000,
        "tickformatstops": [{"dtickrange": between, "value": days + text} for between, text in _FORMATS],
        "ticklabeloverflow": "hide past domain",
        "nticks": 4 if look.is_narrow else 10,
        "ticks": "outside",
        "tickcolor": grid,
        "gridcolor": grid,
        "zeroline": False,
        "showspikes": False,
    }


def _axis(number: int) -> str:
    return "yaxis" if number == 1 else f"yaxis{number}"


def _placed(top_px: float, height_px: float, of_px: float) -> Part:
    """Return where a plot is: Plotly counts from the bottom."""
    return {"domain": [max(0.0, 1 - (top_px + height_px) / of_px), 1 - top_px / of_px], "anchor": "x"}


_NOTHING = np.zeros((1, 1), dtype=np.int16)
