"""`spectralize plan`."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from spectralize.cli.common import AsJson, Dsn, app, complete_source, make_console, print_json, require_schema
from spectralize.database import connect
from spectralize.sources import load_sources


@app.command()
def plan(
    source: Annotated[str, typer.Argument(help="A source of config/sources.toml.", autocompletion=complete_source)],
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
        require_schema(connection)
        seen = preview_batch(
            connection, open_s3(), found, interval=interval, force=force, max_objects=max_objects, n_cores=cores,
            on_page=lambda n_keys: status_line.update(f"listing {escape(found.address)}: {n_keys:,} keys"),
        )  # fmt: skip
    if as_json:
        print_json(asdict(seen) | {"n_batches": seen.n_batches})
    else:
        make_console().print("\n".join(seen.lines()), markup=False, highlight=False, soft_wrap=True)
