"""`spectralize migrate` and `spectralize status`."""

import re
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from spectralize.cli.common import AsJson, Dsn, app, make_console, plain, print_json, require_schema, styled_outcome
from spectralize.cli.lineage import batch_facts, key_facts
from spectralize.database import connect, resolve_dsn
from spectralize.errors import as_one_line
from spectralize.lineage import find_place, read_batch_lineage, read_key_lineage
from spectralize.migrations import migrate as run_migrations
from spectralize.status import Status, read_status


@app.command()
def migrate(dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Bring the schema of the database up to this version."""
    done = run_migrations(resolve_dsn(dsn))
    if as_json:
        print_json({"applied": done})
    else:
        typer.echo(f"applied {', '.join(done)}" if done else "nothing to apply: the schema is up to date")


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[BATCH|KEY]",
            help="The number of a batch: its run, code, parameters and objects. Or s3://bucket/key, a uid, or the key alone: "
            "everything that touched it.",
        ),
    ] = None,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Count what the store holds and list its batches, or show the lineage of one batch or key."""
    with connect(dsn, application="spectralize status") as connection:
        require_schema(connection)
        if name is None:
            found = read_status(connection)
            print_json(found) if as_json else _show_status(found)
        # No more digits than an id can have; a key that looks like one is written s3://bucket/key.
        elif re.fullmatch("[0-9]{1,18}", name):
            batch = read_batch_lineage(connection, int(name))
            print_json(batch) if as_json else _show_batch(batch)
        else:
            key = read_key_lineage(connection, find_place(connection, name))
            print_json(key) if as_json else make_console().print(key_facts(key))


def _show_batch(found: dict[str, Any]) -> None:
    make_console().print(batch_table(found["objects"]), batch_sums(found["batch"]), "", batch_facts(found))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def batch_table(lines: list[dict[str, Any]]) -> Table:
    """One row per object of a batch: outcome, duration, frames, speed and reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("object", overflow="fold")
    table.add_column("outcome")
    for name in ("duration s", "frames", "× real time"):
        table.add_column(name, justify="right")
    table.add_column("reason", overflow="fold")
    for line in lines:
        spent = sum(line[name] or 0.0 for name in ("fetch_s", "decode_s", "mel_s", "load_s"))
        speed = f"{line['duration_s'] / spent:.0f}" if line["duration_s"] and spent else ""
        outcome = line["outcome"] or "pending"
        table.add_row(
            Text(as_one_line(line["key"])), styled_outcome(outcome), _seconds(line["duration_s"]),
            str(line["n_frames"] or ""), speed, Text(as_one_line(line["reason"] or "")),
        )  # fmt: skip
    return table


def batch_sums(batch: dict[str, Any]) -> str:
    """The sums of a batch in two lines."""
    return (
        f"batch {batch['batch_id']} of {batch['source']} ({batch['kind']}): {batch['state']}"
        + (f": {plain(batch['failure'])}" if batch["failure"] else "")
        + f"\nlisted {batch['listed']} = unchanged {batch['unchanged']} + planned {batch['planned']} + unsettled "
        f"{batch['unsettled']} + ignored {batch['ignored']} + over cap {batch['over_cap']}"
        f"\nplanned {batch['planned_spectrograms']} = loaded {batch['loaded']} + partial {batch['partial']} + rejected "
        f"{batch['rejected']} + failed {batch['failed']}"
    )


def _show_status(found: Status) -> None:
    console = make_console()
    console.print(
        f"{found['recordings']} recordings, {found['hours']:.2f} h; {found['spectrograms']} spectrograms with "
        f"{found['mel_frames']} Mel frames"
    )
    console.print(", ".join(f"{outcome} {count}" for outcome, count in found["outcomes"].items()))
    if not found["batches"]:
        console.print("no batches yet")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = (
        "batch_id",
        "source",
        "kind",
        "state",
        "listed",
        "unchanged",
        "planned",
        "loaded",
        "partial",
        "rejected",
        "failed",
    )
    for name in names:
        table.add_column(name.removesuffix("_id"), justify="left" if name in {"source", "kind", "state"} else "right")
    table.add_column("opened")
    for batch in found["batches"]:
        cells = ["" if batch[name] is None else str(batch[name]) for name in names]
        table.add_row(*cells, f"{batch['opened_at']:%Y-%m-%d %H:%M:%S}Z")
    console.print(table)
