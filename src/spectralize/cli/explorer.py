"""`spectralize explorer`."""

import os
from typing import Annotated

import typer

from spectralize.cli.common import AsJson, Dsn, app, print_json
from spectralize.database import resolve_dsn
from spectralize.errors import ConfigError
from spectralize.explorer.settings import read_settings

_EXTRA = ("dash", "dash_mantine_components", "flask", "plotly", "waitress")


@app.command()
def explorer(
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            envvar="SPECTRALIZE_EXPLORER_HOST",
            show_envvar=True,
            show_default="127.0.0.1",
            help="Address to listen on; elsewhere than on loopback it asks for a password or a proxy.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            envvar="SPECTRALIZE_EXPLORER_PORT",
            show_envvar=True,
            show_default="8050",
            min=0,
            max=65535,
            help="Port to listen on; 0 is any that is free.",
        ),
    ] = None,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Serve the web page that shows recordings, spectrograms and batches, until interrupted.

    Give it the address of a role that only reads. How people sign in, and every setting: docs/decisions/0013-explorer.md.
    """
    settings = read_settings(os.environ, host=host, port=port, dsn=dsn)
    resolve_dsn(settings.dsn)
    try:
        # Dash comes with an extra, and takes long to import.
        from spectralize.explorer.serve import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise ConfigError(
            f"the extra explorer is not installed ({error.name} is missing): pip install 'spectralize[explorer]'"
        ) from error
    serve(settings, lambda url: print_json({"url": url}) if as_json else typer.echo(f"explorer: {url}"))
