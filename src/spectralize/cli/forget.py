"""`spectralize forget`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from spectralize.cli.common import AsJson, Dsn, app, print_json, require_schema
from spectralize.database import connect
from spectralize.errors import SpectralizeError, as_one_line
from spectralize.forget import Place, find_bucket, plan_forget
from spectralize.forget import forget as run_forget
from spectralize.sources import load_sources


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
        require_schema(connection)
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
        print_json(asdict(erased) | {"s3": in_s3})
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
