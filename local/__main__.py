"""``python -m local``: the embedded stack from a shell."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated

import psycopg
import typer
from rich.console import Console
from rich.table import Table

from local.errors import StackError
from local.services import ORDER
from local.stack import Stack
from spectralize.errors import SpectralizeError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="S3, TimescaleDB, Airflow and the explorer on this machine.",
)
# Tables need more than the 80 columns that rich assumes where there is no terminal.
console = Console(width=None if sys.stdout.isatty() else 140)

Name = Annotated[str, typer.Option(help="Several stacks can run side by side, each under its own name.")]


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.log_tail:
            print("\n".join(f"  | {line}" for line in error.log_tail.splitlines()), file=sys.stderr)
        raise typer.Exit(1) from error
    except SpectralizeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except psycopg.Error as error:
        print(f"error: features database: {(str(error).splitlines() or [type(error).__name__])[0]}", file=sys.stderr)
        raise typer.Exit(1) from error
    except OSError as error:
        # A full disk, or a home that belongs to another user.
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@app.command()
def up(
    only: Annotated[str, typer.Option(help="Start these alone, separated by commas, for example s3,timescale.")] = "",
    name: Name = "main",
) -> None:
    """Start the stack, or what of it does not run yet."""
    begun = monotonic()
    with errors_in_one_line():
        stack = Stack(name=name, console=console)
        stack.up([service.strip() for service in only.split(",")] if only else None)
        console.print(f"[green]✓[/] {'up':<20} {monotonic() - begun:6.1f} s", highlight=False)


Audio = Annotated[Path | None, typer.Option(help="A folder of your own recordings.", file_okay=False, exists=True)]


@app.command()
def demo(audio: Audio = None, name: Name = "main") -> None:
    """Start the stack, ingest real recordings through Airflow and Spark, and show the result."""
    from local.demo import Demo

    with errors_in_one_line():
        stack = Stack(name=name, console=console)
        stack.up()
        Demo(stack, console).run(audio)


@app.command()
def seed(audio: Audio = None, name: Name = "main") -> None:
    """Start S3 and put the demo's recordings, or those of a folder, into the bucket."""
    from local.demo import Demo

    with errors_in_one_line():
        stack = Stack(name=name, console=console)
        stack.up(["s3"])
        Demo(stack, console).seed(audio)


@app.command()
def password(name: Name = "main") -> None:
    """Print the password of the Airflow user."""
    with errors_in_one_line():
        print(Stack(name=name).airflow_password)


@app.command()
def down(name: Name = "main") -> None:
    """Stop the stack and everything its tasks have started; the data stays."""
    with errors_in_one_line():
        Stack(name=name, console=console).down()


@app.command()
def clean(name: Name = "main") -> None:
    """Stop the stack and delete its data."""
    with errors_in_one_line():
        Stack(name=name, console=console).clean()


@app.command()
def status(name: Name = "main") -> None:
    """Show the services with state, address and process id."""
    with errors_in_one_line():
        stack = Stack(name=name)
        addresses, infos = stack.addresses(), stack.infos()
    table = Table("service", "state", "address", "pid")
    for service in ORDER:
        info = infos.get(service)
        state = info.state.lower() if info else "stopped"
        colour = {"running": "green", "starting": "yellow", "stopped": "dim"}.get(state, "red")
        pid = str(info.pid) if info and info.pid else ""
        table.add_row(service, f"[{colour}]{state}[/]", addresses.get(service, ""), pid)
    console.print(table)


@app.command()
def env(name: Name = "main") -> None:
    """Print what a shell has to export: eval "$(python -m local env)"."""
    with errors_in_one_line():
        for key, value in Stack(name=name).env().items():
            print(f"export {key}={shlex.quote(value)}")


if __name__ == "__main__":
    app(prog_name="python -m local")
