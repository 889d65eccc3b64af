"""The command `spectralize`. Errors are one line on stderr: exit code 1, or 2 for a wrong call."""

import io
import sys

import psycopg
import typer

from spectralize.cli.common import app
from spectralize.errors import SpectralizeError, as_one_line

# isort: off
# In the order in which the help shows them.
from spectralize.cli import status, ls, show, plan, verify, snapshot, forget, explorer  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; the entry point of `spectralize`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Keys in a terminal that cannot show them.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SpectralizeError as error:
        typer.echo(f"error: {as_one_line(str(error))}", err=True)
        sys.exit(1)
    except OSError as error:
        typer.echo(f"error: {as_one_line(str(error))}", err=True)
        sys.exit(1)
    except psycopg.Error as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        typer.echo(f"error: database: {line}", err=True)
        sys.exit(1)
