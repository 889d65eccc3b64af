"""What every command shares: the application, its options, and how it writes."""

import json
import math
import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from spectralize.errors import SpectralizeError, as_one_line
from spectralize.profiles import load_profiles
from spectralize.sources import load_sources

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="S3 audio in, indexed spectral features out."
)


def _complete_profile() -> list[str]:
    return sorted(load_profiles())


def complete_source() -> list[str]:
    """Return the names of the sources, for completion in a shell."""
    return sorted(load_sources().sources)


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
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="A Mel profile, such as mel128_22k.", autocompletion=_complete_profile)
]
SnapshotName = Annotated[str | None, typer.Option("--snapshot", help="As pinned in this snapshot.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def make_console() -> Console:
    """A console that, written to a file or pipe, does not fold tables to 80 columns."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(width=None if is_terminal or "COLUMNS" in os.environ else 140)


def print_json(value: object) -> None:
    """Write one line of JSON; times and the like as text, and what JSON has no number for as null."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    is_unicode = encoding.lower().replace("_", "-") in {"utf-8", "utf8"}
    typer.echo(json.dumps(_finite(value), default=str, ensure_ascii=not is_unicode, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def require_schema(connection: psycopg.Connection[Any]) -> None:
    """Say what to do about a database that has no schema."""
    row = connection.execute("SELECT to_regclass('spectralize.batches')").fetchone()
    if row is None or row[0] is None:
        raise SpectralizeError("the database has no spectralize schema yet: run spectralize migrate")


def utc(at: datetime | None) -> str:
    """Return a time to the second, in UTC; nothing for None."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def plain(text: str) -> str:
    """Show hostile text as text: no markup, no control characters."""
    return escape(as_one_line(text))


#: How outcomes look everywhere; what is not here is dim.
_STYLES = {"loaded": "green", "partial": "yellow", "rejected": "red", "failed": "bold red"}


def styled_outcome(outcome: str) -> Text:
    """Return an outcome in its colour."""
    return Text(outcome, style=_STYLES.get(outcome, "dim"))
