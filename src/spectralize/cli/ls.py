"""`spectralize ls`."""

from dataclasses import fields
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from spectralize.cli.common import (
    AsJson,
    Dsn,
    ProfileName,
    SnapshotName,
    app,
    make_console,
    print_json,
    styled_outcome,
    utc,
)
from spectralize.errors import as_one_line
from spectralize.reader import Recording, open_store

#: Columns of a terminal from which on the table has more columns: times and outcomes, titles and profiles.
_WIDE, _WIDEST = 70, 100


class OutcomeName(StrEnum):
    """`tables.OUTCOMES`, as a shell completes them."""

    LOADED = "loaded"
    PARTIAL = "partial"
    REJECTED = "rejected"
    FAILED = "failed"


@app.command()
def ls(
    key_prefix: Annotated[
        str | None, typer.Argument(metavar="[PREFIX]", help="What the key begins with, or s3://bucket/prefix.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Words that must occur in key or tags.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="May be given several times.")
    ] = None,
    recorded_from: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Recorded at or after: 2024-05-01.")
    ] = None,
    recorded_to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Recorded before.")] = None,
    min_duration_s: Annotated[float | None, typer.Option("--min-s", min=0, help="Shortest, in seconds.")] = None,
    max_duration_s: Annotated[float | None, typer.Option("--max-s", min=0, help="Longest, in seconds.")] = None,
    outcome: Annotated[
        list[OutcomeName] | None, typer.Option(help="loaded and partial, unless given; may be given several times.")
    ] = None,
    profile: ProfileName = None,
    snapshot: SnapshotName = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 for all.")] = 50,
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """List recordings, in the order of their keys."""
    bucket = None
    if key_prefix and key_prefix.startswith("s3://"):
        bucket, _, key_prefix = key_prefix.removeprefix("s3://").partition("/")
    with open_store(dsn) as store:
        chosen = store if snapshot is None else store.snapshot(snapshot, create=False)
        found = chosen.recordings(
            text=text, bucket=bucket, key_prefix=key_prefix or None, tags=_tags(tag or []), recorded_from=recorded_from,
            recorded_to=recorded_to, min_duration_s=min_duration_s, max_duration_s=max_duration_s, profile=profile,
            outcome=[item.value for item in outcome] if outcome else ("loaded", "partial"),
        )  # fmt: skip
        recordings = found.head(limit) if limit else list(found)
        total = len(found) if limit and len(recordings) == limit else len(recordings)
    if as_json:
        print_json({"total": total, "recordings": [recording_as_dict(recording) for recording in recordings]})
    else:
        _show(recordings, total)


def _tags(pairs: list[str]) -> dict[str, list[str]]:
    tags: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r}: must be NAME=VALUE, as in genre=jazz", param_hint="--tag")
        tags.setdefault(name, []).append(value)
    return tags


def recording_as_dict(recording: Recording) -> dict[str, Any]:
    """Return a recording for JSON: everything that is known of it, with a summary of each spectrogram."""
    names = [item.name for item in fields(Recording) if item.name not in {"_store", "spectrograms", "refusals"}]
    return {
        **{name: getattr(recording, name) for name in names},
        "outcome": recording.outcome,
        "recorded_at": recording.recorded_at.isoformat() if recording.recorded_at else None,
        "spectrograms": {
            name: {
                "spectrogram_id": found.spectrogram_id,
                "status": found.status,
                "reason": found.reason,
                "generation": found.generation,
                "batch_id": found.batch_id,
                "sr": found.sr,
                "n_frames": found.n_frames,
                "n_mels": found.n_mels,
                "peak_db": found.peak_db,
            }
            for name, found in recording.spectrograms.items()
        },
        "refusals": {
            name: {"outcome": outcome, "reason_class": reason_class, "reason": reason}
            for name, (outcome, reason_class, reason) in recording.refusals.items()
        },
    }


def _show(recordings: list[Recording], total: int) -> None:
    console = make_console()
    if not recordings:
        console.print("no recordings: nothing in the store is like that")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("object", overflow="fold")
    # Where all do not fit, rich would leave out the object.
    is_wide, is_widest = console.width >= _WIDE, console.width >= _WIDEST
    if is_wide:
        table.add_column("recorded (UTC)", no_wrap=True)
        table.add_column("duration s", justify="right", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
    if is_widest:
        table.add_column("title", overflow="ellipsis", no_wrap=True)
        table.add_column("profiles, or why not", overflow="fold")
    for recording in recordings:
        title = " – ".join(str(recording.tags[name]) for name in ("artist", "title") if name in recording.tags)
        why = next((reason for _, _, reason in recording.refusals.values()), "")
        cells: list[str | Text] = [str(recording.id), Text(as_one_line(recording.url))]
        if is_wide:
            cells += [
                utc(recording.recorded_at),
                "" if recording.duration_s is None else f"{recording.duration_s:.2f}",
                styled_outcome(recording.outcome),
            ]
        if is_widest:
            cells += [Text(as_one_line(title)), Text(", ".join(recording.spectrograms) or as_one_line(why))]
        table.add_row(*cells)
    console.print(table)
    if total > len(recordings):
        console.print(f"{len(recordings)} of {total}; --limit 0 lists all")
