"""The command `spectralize`. Errors are one line on stderr: exit code 1, or 2 for a wrong call."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spectralize.database import connect, resolve_dsn
from spectralize.errors import LedgerError, SpectralizeError, as_one_line
from spectralize.forget import Place, find_bucket, plan_forget
from spectralize.forget import forget as run_forget
from spectralize.migrations import migrate as run_migrations
from spectralize.sources import load_sources
from spectralize.status import Status, read_batch_lines, read_status
from spectralize.verify import Finding, verify_store

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


def _console() -> Console:
    """A console that, written to a file or pipe, does not fold tables to 80 columns."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, default=str, ensure_ascii=False))


@app.command()
def migrate(dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Bring the schema of the database up to this version."""
    done = run_migrations(resolve_dsn(dsn))
    if as_json:
        _print_json({"applied": done})
    else:
        typer.echo(f"applied {', '.join(done)}" if done else "nothing to apply: the schema is up to date")


@app.command()
def status(
    batch_id: Annotated[int | None, typer.Argument(metavar="[BATCH]", help="Show the objects of this batch.")] = None,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Count what the store holds, list its batches, or show the objects of one batch."""
    with connect(dsn, application="spectralize status") as connection:
        _require_schema(connection)
        if batch_id is None:
            found = read_status(connection)
            _print_json(found) if as_json else _show_status(found)
            return
        lines = read_batch_lines(connection, batch_id)
        batches = [
            batch for batch in read_status(connection, n_batches=1_000_000)["batches"] if batch["batch_id"] == batch_id
        ]
    if not batches:
        raise LedgerError(f"batch {batch_id}: not in the ledger; spectralize status lists the batches")
    if as_json:
        _print_json({"batch": batches[0], "objects": lines})
    else:
        _console().print(batch_table(lines), batch_sums(batches[0]))


@app.command()
def plan(
    source: Annotated[str, typer.Argument(help="A source of config/sources.toml.")],
    first_day: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day (UTC) of a backfill.")
    ] = None,
    last_day: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Its last day; left out, the first one alone.")
    ] = None,
    force: Annotated[bool, typer.Option(help="As a run with the param force: what is computed already, too.")] = False,
    max_objects: Annotated[int | None, typer.Option(min=1, help="Cap of the batch, below the source's own.")] = None,
    cores: Annotated[
        int | None,
        typer.Option(min=1, help="Cores that Spark has. Left out: as in earlier batches, or this machine's."),
    ] = None,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Look at what the next run of a source would do, and what it would take. Changes nothing.

    S3 is reached by AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for a server of one's own, AWS_ENDPOINT_URL_S3.
    """
    from spectralize.preview import preview_batch
    from spectralize.s3 import open_s3

    if last_day and not first_day:
        raise typer.BadParameter("needs --from", param_hint="--to")
    interval = None
    if first_day:
        first, last = (day.replace(tzinfo=UTC) for day in (first_day, last_day or first_day))
        if last < first:
            raise typer.BadParameter("is before --from", param_hint="--to")
        try:
            interval = (first, last + timedelta(days=1))
        except OverflowError as error:
            raise typer.BadParameter("is the end of time", param_hint="--to") from error
    found = load_sources().find(source)
    progress = Console(stderr=True)
    with (
        connect(dsn, application="spectralize plan") as connection,
        progress.status(f"listing {escape(found.address)}") as status_line,
    ):
        _require_schema(connection)
        seen = preview_batch(
            connection, open_s3(), found, interval=interval, force=force, max_objects=max_objects, n_cores=cores,
            on_page=lambda n_keys: status_line.update(f"listing {escape(found.address)}: {n_keys:,} keys"),
        )  # fmt: skip
    if as_json:
        _print_json(asdict(seen) | {"n_batches": seen.n_batches})
    else:
        _console().print("\n".join(seen.lines()), markup=False, highlight=False, soft_wrap=True)


@app.command()
def verify(dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Check every invariant of ledger and frames; exit code 1 if one is broken."""
    with connect(dsn, application="spectralize verify") as connection:
        _require_schema(connection)
        findings = verify_store(connection)
    if as_json:
        _print_json(
            {
                "breaches": sum(finding.n_breaches for finding in findings),
                "invariants": {
                    finding.name: [{"what": breach.what, "breach": breach.breach} for breach in finding.breaches]
                    for finding in findings
                },
            }
        )
    else:
        _show_findings(findings)
    if any(finding.n_breaches for finding in findings):
        raise typer.Exit(1)


@app.command()
def forget(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The object's key, whole and as S3 has it.")],
    bucket: Annotated[
        str | None, typer.Option("--bucket", help="Its bucket; may be left out if only one has held the key.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Take the bucket of this source instead.")] = None,
    copies: Annotated[bool, typer.Option("--copies", help="Also forget other keys with the same bytes.")] = False,
    delete_object: Annotated[
        bool, typer.Option("--delete-object", help="Also delete the object from S3, with all its versions.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Erase a recording whose consent was withdrawn: frames, tags and all; nothing is loaded under its key again.

    The ledger keeps its lines, and the key. Backups and exports are out of reach.
    """
    if bucket and source:
        raise typer.BadParameter("say --bucket or --source, not both")
    if not key.isprintable():
        key = key.encode(errors="surrogateescape").decode(errors="replace")
    if source:
        bucket = load_sources().find(source).bucket
    with connect(dsn, application="spectralize forget") as connection:
        _require_schema(connection)
        bucket = bucket or find_bucket(connection, key)
        planned = plan_forget(connection, bucket, key, copies=copies)
        # Nothing is locked, or held from being vacuumed, while a person thinks.
        connection.commit()
        if not yes and not (planned.is_forgotten and not delete_object):
            if not sys.stdin.isatty():
                raise typer.BadParameter("not a terminal, so it cannot ask: add --yes to erase", param_hint="--yes")
            also = ", and the objects in S3" if delete_object else ""
            if not typer.confirm(f"Erase {planned}{also}, for good?", err=True):
                typer.echo("nothing was erased", err=True)
                raise typer.Exit(1)
        erased = run_forget(connection, bucket, key, copies=copies)
    if not as_json:
        typer.echo(f"{'was forgotten before' if erased.is_forgotten else 'erased'}: {erased}")
    in_s3 = _delete_from_s3(erased.places) if delete_object else _look_into_s3(erased.places)
    if as_json:
        _print_json(asdict(erased) | {"s3": in_s3})
    else:
        for place, what in in_s3.items():
            typer.echo(f"{place}: {what}")


def _delete_from_s3(places: Sequence[Place]) -> dict[str, str]:
    # boto3 comes with an extra, and takes long to import.
    from spectralize.s3 import delete_versions, open_s3

    client = open_s3()
    numbers = {str(place): delete_versions(client, place.bucket, place.key) for place in places}
    return {place: f"deleted from S3, {n} versions" if n else "not in S3" for place, n in numbers.items()}


def _look_into_s3(places: Sequence[Place]) -> dict[str, str]:
    try:
        from spectralize.s3 import find_versions, open_s3

        client = open_s3()
        return {
            str(place): "still in S3: --delete-object deletes it"
            if find_versions(client, place.bucket, place.key)
            else "not in S3"
            for place in places
        }
    except (ImportError, ValueError, SpectralizeError) as error:
        # What was asked for is done; whether S3 can be read is another matter.
        return {str(place): f"may still be in S3, which was not read: {as_one_line(str(error))}" for place in places}


def _require_schema(connection: psycopg.Connection[Any]) -> None:
    row = connection.execute("SELECT to_regclass('spectralize.batches')").fetchone()
    if row is None or row[0] is None:
        raise SpectralizeError("the database has no spectralize schema yet: run spectralize migrate")


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
    styles = {"loaded": "green", "partial": "yellow", "rejected": "red", "failed": "bold red"}
    for line in lines:
        spent = sum(line[name] or 0.0 for name in ("fetch_s", "decode_s", "mel_s", "load_s"))
        speed = f"{line['duration_s'] / spent:.0f}" if line["duration_s"] and spent else ""
        outcome = line["outcome"] or "pending"
        table.add_row(
            Text(as_one_line(line["key"])), f"[{styles.get(outcome, 'dim')}]{outcome}[/]", _seconds(line["duration_s"]),
            str(line["n_frames"] or ""), speed, Text(as_one_line(line["reason"] or "")),
        )  # fmt: skip
    return table


def _plain(text: str) -> str:
    """Show hostile text as text: no markup, no control characters."""
    return escape(as_one_line(text))


def batch_sums(batch: dict[str, Any]) -> str:
    """The sums of a batch in two lines."""
    return (
        f"batch {batch['batch_id']} of {batch['source']} ({batch['kind']}): {batch['state']}"
        + (f": {_plain(batch['failure'])}" if batch["failure"] else "")
        + f"\nlisted {batch['listed']} = unchanged {batch['unchanged']} + planned {batch['planned']} + unsettled "
        f"{batch['unsettled']} + ignored {batch['ignored']} + over cap {batch['over_cap']}"
        f"\nplanned {batch['planned_spectrograms']} = loaded {batch['loaded']} + partial {batch['partial']} + rejected "
        f"{batch['rejected']} + failed {batch['failed']}"
    )


def _show_status(found: Status) -> None:
    console = _console()
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


def _show_findings(findings: list[Finding]) -> None:
    console = _console()
    for finding in findings:
        if not finding.n_breaches:
            console.print(f"[green]holds[/]   {finding.statement}")
            continue
        console.print(f"[bold red]broken[/]  {finding.statement} ({finding.n_breaches} times)")
        for breach in finding.breaches:
            console.print(f"          {_plain(breach.what)}: {_plain(breach.breach)}")


def main() -> None:
    """Run the command line; the entry point of `spectralize`."""
    try:
        app()
    except SpectralizeError as error:
        typer.echo(f"error: {as_one_line(str(error))}", err=True)
        sys.exit(1)
    except psycopg.Error as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        typer.echo(f"error: database: {line}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
