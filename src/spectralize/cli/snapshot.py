"""`spectralize snapshot`: named sets of spectrograms that maintenance leaves."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from spectralize.cli.common import AsJson, Dsn, ProfileName, app, make_console, print_json, utc
from spectralize.errors import as_one_line
from spectralize.reader import Snapshot, open_store

commands = typer.Typer(no_args_is_help=True, help="Pin what is current under a name, so that it stays readable.")
app.add_typer(commands, name="snapshot")


@commands.command("ls")
def list_snapshots(dsn: Dsn = None, as_json: AsJson = False) -> None:
    """List the snapshots, the oldest first."""
    with open_store(dsn) as store:
        found = store.snapshots()
    if as_json:
        print_json({"snapshots": [asdict(item) for item in found]})
    elif not found:
        make_console().print("no snapshots")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("name", overflow="fold")
        table.add_column("spectrograms", justify="right")
        table.add_column("created (UTC)")
        table.add_column("note", overflow="fold")
        for item in found:
            table.add_row(
                Text(as_one_line(item.name)), str(item.n_spectrograms), utc(item.created_at),
                Text(as_one_line(item.note or "")),
            )  # fmt: skip
        make_console().print(table)


@commands.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called; one that exists stays as it is.")],
    key_prefix: Annotated[str | None, typer.Option("--prefix", help="Only keys that begin so.")] = None,
    bucket: Annotated[str | None, typer.Option(help="Only this bucket.")] = None,
    profile: ProfileName = None,
    note: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Pin what is current now."""
    with open_store(dsn, profile=profile) as store:
        before = {item.name for item in store.snapshots()}
        is_all = bucket is None and key_prefix is None and profile is None
        chosen = None if is_all else store.recordings(bucket=bucket, key_prefix=key_prefix)
        store.snapshot(name, recordings=chosen, note=note)
        [made] = [item for item in store.snapshots() if item.name == name]
    _report(made, "there already, as it is" if name in before else "created", as_json=as_json)


@commands.command()
def drop(
    name: Annotated[str, typer.Argument(help="Which one.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Delete a snapshot: what only it has kept goes with the next maintenance."""
    with open_store(dsn) as store:
        store.snapshot(name, create=False)
        [found] = [item for item in store.snapshots() if item.name == name]
        if not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("not a terminal, so it cannot ask: add --yes to drop it", param_hint="--yes")
            if not typer.confirm(
                f"Drop snapshot {as_one_line(name)!r} with {found.n_spectrograms} spectrograms?", err=True
            ):
                raise typer.Exit(1)
        store.drop_snapshot(name)
    _report(found, "dropped", as_json=as_json)


def _report(snapshot: Snapshot, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(snapshot) | {"done": what})
    else:
        typer.echo(f"snapshot {as_one_line(snapshot.name)!r}, {snapshot.n_spectrograms} spectrograms: {what}")
