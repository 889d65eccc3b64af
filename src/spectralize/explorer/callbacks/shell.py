"""Addresses become pages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output
from dash.development.base_component import Component

from spectralize.errors import ReadError, SpectralizeError, as_one_line
from spectralize.explorer.context import Explorer
from spectralize.explorer.layout.shell import make_message
from spectralize.explorer.pages import NoSuchPageError, Page, render_page
from spectralize.explorer.visits import Visit

_LOG = logging.getLogger(__name__)


def register(app: Dash, explorer: Explorer, pages: tuple[Page, ...]) -> None:
    """Connect the shell."""
    app.clientside_callback(
        ClientsideFunction("explorer", "visit"),
        Output("visit", "data"),
        # Not the search: pages keep their own state in it, and must not be made anew for that.
        Input("url", "pathname"),
        Input("theme", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("explorer", "chooseTheme"),
        Output("theme", "data"),
        Input("theme-toggle", "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("explorer", "showTheme"),
        Output("provider", "forceColorScheme"),
        Output("theme-toggle", "children"),
        Input("theme", "data"),
    )

    @app.callback(Output("page", "children"), Input("visit", "data"), prevent_initial_call=True)
    def show_page(data: Mapping[str, Any] | None) -> Component:
        return answer(pages, explorer, Visit.of(data))


def answer(pages: tuple[Page, ...], explorer: Explorer, visit: Visit) -> Component:
    """Return the page that a visit asks for, or one that says why there is none."""
    try:
        return render_page(pages, explorer, visit)
    except NoSuchPageError as error:
        return make_message("Nothing here", str(error))
    except ReadError as error:
        return make_message("That cannot be shown", as_one_line(str(error)))
    except SpectralizeError as error:
        _LOG.warning("%s: %s", visit.path, as_one_line(str(error)))
        return make_message("The store cannot be read", as_one_line(str(error)))
