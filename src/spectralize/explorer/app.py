"""The explorer as a web application: Dash for pages, Flask for the rest."""

from __future__ import annotations

import re
from pathlib import Path

from dash import Dash
from flask import Flask

from spectralize.explorer import media, security
from spectralize.explorer.callbacks import batches, compare, overview, recording, recordings, shell, viewer
from spectralize.explorer.context import Explorer
from spectralize.explorer.layout.shell import make_shell
from spectralize.explorer.pages import Page
from spectralize.explorer.settings import Settings
from spectralize.reader import Store

_ID = "[1-9][0-9]{0,18}"

PAGES = (
    Page(re.compile("/(recordings)?"), recordings.render, ("Recordings", "/")),
    Page(re.compile(f"/recordings/(?P<name>{_ID}|[0-9a-f-]{{36}})"), recording.render),
    Page(re.compile("/compare"), compare.render, ("Compare", "/compare")),
    Page(re.compile("/batches"), batches.render_list, ("Batches", "/batches")),
    Page(re.compile(f"/batches/(?P<batch_id>{_ID})"), batches.render_batch),
    Page(re.compile("/overview"), overview.render, ("Overview", "/overview")),
)


def make_app(settings: Settings, store: Store) -> Dash:
    """Build the application. Nothing is read before somebody asks for a page."""
    server = Flask("spectralize.explorer", static_folder=None)
    explorer = Explorer(settings, store)
    app = Dash(
        "spectralize.explorer",
        server=server,
        title="Spectralize",
        update_title=None,
        assets_folder=str(Path(__file__).with_name("assets")),
        serve_locally=True,
        # Pages come and go, and their components with them.
        suppress_callback_exceptions=True,
        use_pages=False,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        add_log_handler=False,
        on_error=security.show_trouble,
        enable_mcp=False,
        # With asgiref there, Dash would run each callback on a thread of its own, and each would connect to the database.
        use_async=False,
    )
    app.index_string = app.index_string.replace("<html>", '<html lang="en">')
    app.layout = make_shell(PAGES, signs_out=settings.password is not None)
    shell.register(app, explorer, PAGES)
    for module in (recordings, recording, viewer, compare, batches, overview):
        module.register(app, explorer)
    media.register(server, explorer)
    security.protect(app, explorer, PAGES)
    return app
