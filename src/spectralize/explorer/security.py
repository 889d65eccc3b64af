"""Who may ask, and what browsers may do with the answers."""

from dash import Dash

from spectralize.explorer.settings import Settings


def protect(app: Dash, settings: Settings) -> None:
    """Guard every route of the application."""
