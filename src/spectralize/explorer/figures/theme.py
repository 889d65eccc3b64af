"""How every figure looks on a light and on a dark page."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative

#: Of a page: see `layout.shell`. Without a colour of its own a figure takes that of the page.
_CLEAR = "rgba(0,0,0,0)"

_TEXT = {False: "#212529", True: "#dee2e6"}
_GRID = {False: "rgba(33,37,41,0.13)", True: "rgba(222,226,230,0.16)"}
_LINE = {False: "#868e96", True: "#868e96"}
_HOVER = {False: "#ffffff", True: "#2e2e2e"}

#: Bars and lines: three to one and more against the page in either theme.
ACCENT = {False: "#3b5bdb", True: "#91a7ff"}
OUTCOME_COLORS = {"loaded": "#2f9e44", "partial": "#f08c00", "rejected": "#e8590c", "failed": "#c92a2a"}

#: For `dcc.Graph`: nothing in it leads to somebody else's server.
GRAPH_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendDataToCloud", "lasso2d", "select2d"],
    "showEditInChartStudio": False,
    "plotlyServerURL": "",
}


def apply_theme(figure: go.Figure, is_dark: bool) -> go.Figure:
    """Give a figure readable text, a subtle grid and no background, and return it.

    Plotly's own template is taken out: it is large, and would travel with every figure.
    """
    text, grid = _TEXT[is_dark], _GRID[is_dark]
    axis = {
        "gridcolor": grid,
        "zerolinecolor": grid,
        "linecolor": _LINE[is_dark],
        "tickcolor": _LINE[is_dark],
        "automargin": True,
    }
    figure.layout.template = go.layout.Template(layout={"colorway": [ACCENT[is_dark], *qualitative.Safe]})
    figure.update_layout(
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        font={
            "color": text,
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
            "size": 13,
        },
        hoverlabel={"bgcolor": _HOVER[is_dark], "bordercolor": _LINE[is_dark], "font": {"color": text}},
        modebar={"bgcolor": _CLEAR, "color": text, "activecolor": ACCENT[is_dark]},
        legend={"bgcolor": _CLEAR},
        # A figure is part of a page that grows and shrinks.
        autosize=True,
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_coloraxes(colorbar={"outlinewidth": 0, "tickcolor": _LINE[is_dark], "tickfont": {"color": text}})
    return figure
