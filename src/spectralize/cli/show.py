"""`spectralize show`."""

import re
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from spectralize.cli.common import AsJson, Dsn, app, make_console, print_json, styled_outcome, utc
from spectralize.cli.ls import recording_as_dict
from spectralize.errors import as_one_line
from spectralize.reader import Recording, open_store
from spectralize.status import read_object_history, read_object_spectrograms


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="RECORDING", help="Its id, its uid, s3://bucket/key, or the key alone.")
    ],
    dsn: Dsn = None,
    as_json: AsJson = False,
) -> None:
    """Show one recording: tags, what it declares and what decoding found, its spectrograms, and its way through the ledger."""
    with open_store(dsn) as store:
        recording = store.recording(int(name) if re.fullmatch("[1-9][0-9]{0,18}", name) else name)
        spectrograms = store.session.run(lambda connection: read_object_spectrograms(connection, recording.id))
        history = store.session.run(lambda connection: read_object_history(connection, recording.id))
    if as_json:
        print_json({"recording": recording_as_dict(recording), "spectrograms": spectrograms, "ledger": history})
    else:
        make_console().print(Group(_facts(recording), "", _spectrograms(spectrograms), "", _history(history)))


def _facts(recording: Recording) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def add(name: str, value: object) -> None:
        if value is not None and value != "":
            table.add_row(name, Text(as_one_line(str(value))))

    add("recording", recording.id)
    add("uid", recording.uid)
    add("object", recording.url)
    modified = f"last modified {utc(recording.last_modified)}Z"
    add("size", f"{recording.size_bytes:,} bytes, ETag {recording.etag}, {modified}")
    if recording.tombstoned_at:
        add("gone", f"from the bucket since {utc(recording.tombstoned_at)}Z; its features are here")
    add("sha256", recording.sha256)
    table.add_row("outcome", styled_outcome(recording.outcome))
    for profile, (outcome, reason_class, reason) in recording.refusals.items():
        add("", f"{profile}: {outcome} ({reason_class}): {reason}")
    for how in ("decoded", "declared"):
        duration_s, rate, channels, codec = (
            getattr(recording, f"{how}_{name}") for name in ("duration_s", "samplerate_hz", "channels", "codec")
        )
        add(how, _audio(duration_s, rate, channels, codec))
    add("container", recording.container)
    for tag, value in recording.tags.items():
        add(f"tag {as_one_line(tag)}", value)
    return table


def _audio(duration_s: float | None, samplerate_hz: int | None, channels: int | None, codec: str | None) -> str:
    parts = [
        "" if duration_s is None else f"{duration_s:.3f} s",
        "" if samplerate_hz is None else f"{samplerate_hz} Hz",
        "" if channels is None else f"{channels} channel{'s' if channels != 1 else ''}",
        codec or "",
    ]
    return ", ".join(part for part in parts if part)


def _table(*names: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _spectrograms(rows: list[dict[str, Any]]) -> Table:
    numbers = ("spectrogram", "frames", "bands", "peak dB", "generation", "batch")
    table = _table(*numbers[:1], "profile", "state", *numbers[1:], "recorded (UTC)", "core", right=numbers)
    for row in rows:
        state = {"expired": f"expired ({row['expired_because']})"}.get(row["status"], row["status"])
        state += ", current" if row["is_current"] else ""
        snapshots = f", in {', '.join(row['snapshots'])}" if row["snapshots"] else ""
        table.add_row(
            str(row["spectrogram_id"]), row["profile"], Text(as_one_line(state + snapshots)), str(row["n_frames"]),
            str(row["n_mels"]), f"{row['peak_db']:.2f}", str(row["generation"]), str(row["batch_id"]), utc(row["recorded_at"]),
            row["core_version"],
        )  # fmt: skip
    return table


def _history(rows: list[dict[str, Any]]) -> Table:
    table = _table(
        "batch", "profile", "outcome", "attempts", "ended (UTC)", "run", "reason", right=("batch", "attempts")
    )
    for row in rows:
        table.add_row(
            str(row["batch_id"]), row["profile"], styled_outcome(row["outcome"] or "pending"), str(row["attempts"]),
            utc(row["ended_at"]), Text(as_one_line(f"{row['dag_id']} {row['run_id']}")), Text(as_one_line(row["reason"] or "")),
        )  # fmt: skip
    return table
