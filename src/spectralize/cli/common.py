"""What every command shares: the application, its options, and how it writes."""

import json
import os
import sys
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.markup import escape

from spectralize.errors import SpectralizeError, as_one_line

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="S3 audio in, indexed spectral features out."
)

Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        envvar="SPECTRALIZE_DSN",
        show_envvar=True,
        show_default=False,
        help="Database, as postgresql://user:password@host:port/database.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def make_console() -> Console:
    """A console that, written to a file or pipe, does not fold tables to 80 columns."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)


def print_json(value: object) -> None:
    """Write one line of JSON; times and the like as text."""
    typer.echo(json.dumps(value, default=str, ensure_ascii=False))


def require_schema(connection: psycopg.Connection[Any]) -> None:
    """Say what to do about a database that has no schema."""
    row = connection.execute("SELECT to_regclass('spectralize.batches')").fetchone()
    if row is None or row[0] is None:
        raise SpectralizeError("the database has no spectralize schema yet: run spectralize migrate")


def plain(text: str) -> str:
    """Show hostile text as text: no markup, no control characters."""
    return escape(as_one_line(text))
