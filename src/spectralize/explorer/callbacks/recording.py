"""To be written."""

from dash import Dash, html
from dash.development.base_component import Component

from spectralize.explorer.context import Explorer
from spectralize.explorer.visits import Visit


def render(explorer: Explorer, visit: Visit, **groups: str) -> Component:
    """Make the page."""
    return html.H1("recording")


def register(app: Dash, explorer: Explorer) -> None:
    """Connect the page's callbacks."""
