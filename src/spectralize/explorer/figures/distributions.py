"""Bars: how many of what. Pure: numbers in, figures out."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from spectralize.explorer.figures.theme import ACCENT, apply_theme

HEIGHT_PX = 260


def draw_bars(
    labels: Sequence[str], counts: Sequence[int], *, is_dark: bool, x_title: str, y_title: str, unit: str
) -> go.Figure:
    """Draw counts of named bins from left to right.

    Parameters
    ----------
    labels
        Of each bar, in order. They are names, even where they look like numbers.
    unit
        Of what is counted, for the text that a pointer shows.
    """
    figure = go.Figure(
        go.Bar(
            x=list(range(len(labels))),
            y=list(counts),
            customdata=list(labels),
            hovertemplate=f"%{{customdata}}: %{{y:,}} {unit}<extra></extra>",
            marker_color=ACCENT[is_dark],
        )
    )
    # By position: Plotly would take "2024-03" for a day, and leave out what repeats.
    step = max(1, -(-len(labels) // 9))
    ticks = range(0, len(labels), step)
    apply_theme(figure, is_dark)
    figure.update_layout(
        height=HEIGHT_PX, bargap=0.15, showlegend=False, margin={"l": 8, "r": 8, "t": 8, "b": 8}, dragmode=False
    )
    figure.update_xaxes(
        title=x_title, tickvals=list(ticks), ticktext=[labels[tick] for tick in ticks], showgrid=False, zeroline=False,
        range=[-0.6, max(len(labels), 4) - 0.4], fixedrange=True,
    )  # fmt: skip
    figure.update_yaxes(title=y_title, rangemode="tozero", tickformat="~s", fixedrange=True)
    # Half a recording is nothing to put a number at.
    if max(counts, default=0) <= 5:
        figure.update_yaxes(dtick=1, tickformat="d")
    return figure


def draw_parts(labels: Sequence[str], counts: Sequence[int], *, is_dark: bool, x_title: str, unit: str) -> go.Figure:
    """Draw counts of named things from top to bottom, where names are longer than bars are wide."""
    figure = go.Figure(
        go.Bar(
            x=list(counts),
            y=list(range(len(labels))),
            orientation="h",
            customdata=list(labels),
            hovertemplate=f"%{{customdata}}: %{{x:,}} {unit}<extra></extra>",
            marker_color=ACCENT[is_dark],
        )
    )
    apply_theme(figure, is_dark)
    figure.update_layout(
        height=HEIGHT_PX, bargap=0.25, showlegend=False, margin={"l": 8, "r": 8, "t": 8, "b": 8}, dragmode=False
    )
    figure.update_xaxes(title=x_title, rangemode="tozero", tickformat="~s", fixedrange=True)
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=list(labels), showgrid=False, zeroline=False, fixedrange=True,
        range=[max(len(labels), 3) - 0.4, -0.6],
    )  # fmt: skip
    return figure
