"""To be written."""

from dash import Dash, html
from dash.development.base_component import Component

from spectralize.explorer.context import Explorer
from spectralize.explorer.visits import Visit


def render_list(explorer: Explorer, visit: Visit, **groups: str) -> Component:
    """Make the page."""
    return html.H1("batches")


def register(app: Dash, explorer: Explorer) -> None:
    """Connect the page's callbacks."""


def render_batch(explorer: Explorer, visit: Visit, batch_id: str) -> Component:
    """Make the page of one batch."""
    return html.H1(f"Batch {batch_id}")
