"""Lineage as `spectralize status` shows it: what a batch ran with, and what touched a key."""

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from spectralize.cli.common import styled_outcome, utc
from spectralize.errors import as_one_line

#: Keys with the same bytes that are named; silence may have thousands. `--json` has all of them.
_SHOWN_SAME_BYTES = 20

#: Columns at the least of what folds: narrower, it would be a column of letters.
_FOLDED = 11

#: Digits of a zip's sha256 in a table: enough to tell zips apart, as `build_zip` shortens them in a name.
_SHORT = 12


def batch_facts(found: dict[str, Any]) -> Table:
    """Run, code, profiles, parameters and manifest of a batch, as `lineage.read_batch_lineage` has read it."""
    batch, tries = found["batch"], found["tries"]
    facts = _Facts()
    facts.add("run", f"{batch['dag_id']} {batch['run_id']}, try {batch['try']} of {len(tries)}, {batch['kind']}")
    if batch["interval_start"]:
        facts.add("interval", f"{utc(batch['interval_start'])}Z to {utc(batch['interval_end'])}Z")
    times = ((name, utc(batch[f"{name}_at"])) for name in ("opened", "planned", "gated", "closed"))
    facts.add("times", ", ".join(f"{name} {at}Z" for name, at in times if at))
    for row in found["read_from"]:
        where = f"s3://{row['bucket']}/{row['prefix']}{'*' if row['objects'] > 1 else ''}"
        facts.add("read from", f"{where}: {_number(row['objects'], 'object')}, {row['size_bytes']:,} bytes")
    wrote = (
        (name, found["wrote"][name])
        for name in ("recordings", "spectrograms", "mel_frames", "waveform_frames", "mel_seconds")
    )
    facts.add("wrote", ", ".join(f"{name} {count:,}" for name, count in wrote))
    if found["wrote"]["expired"]:
        facts.add("", f"of these spectrograms {found['wrote']['expired']} have expired since")
    # Before its first attempt a batch knows its code all the same.
    code = found["code"] or [{**batch, "code_from": "batch", "attempts": 0, "loaded": 0}]
    for row in code:
        sure = "" if row["code_from"] == "attempt" else ", as far as the batch knows"
        facts.add("code", f"{_code(row)}: {_number(row['attempts'], 'attempt')}, {row['loaded']} loaded{sure}")
    for row in found["profiles"]:
        facts.add("profile", f"{row['profile']}, fingerprint {row['fingerprint']}: {row['planned']} planned")
    for name, value in batch["parameters"].items():
        facts.add("parameter", f"{name} = {json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    if batch["manifest_uri"]:
        facts.add("manifest", f"{batch['manifest_uri']}, sha256 {batch['manifest_sha256']}")
    for alert in found["alerts"]:
        told = (
            f"sent {utc(alert['sent_at'])}Z"
            if alert["sent_at"]
            else f"not delivered in {_number(alert['tries'], 'try')}"
        )
        error = f": {alert['last_error']}" if alert["last_error"] else ""
        facts.add("alert", f"{alert['kind']}, {told}{error}")
    for other in tries:
        if other["batch_id"] != batch["batch_id"]:
            failure = f": {other['failure']}" if other["failure"] else ""
            facts.add("other try", f"{other['try']}: batch {other['batch_id']}, {other['state']}{failure}")
    return facts.table


def key_facts(found: dict[str, Any]) -> RenderableType:
    """Everything that touched a key, as `lineage.read_key_lineage` has read it."""
    parts: list[RenderableType] = [Text(as_one_line(f"s3://{found['bucket']}/{found['key']}"), style="bold")]
    parts += [_objects(found["objects"]), "", _runs(found["attempts"]), "", _attempts(found["attempts"])]
    if found["spectrograms"]:
        parts += ["", _spectrograms(found["spectrograms"])]
    if found["same_bytes"]:
        parts += ["", _same_bytes(found["same_bytes"])]
    return Group(*parts)


class _Facts:
    """Names and values in two columns; what is hostile in a value is made plain."""

    def __init__(self) -> None:
        self.table = Table(box=None, pad_edge=False, show_header=False)
        self.table.add_column(style="bold", no_wrap=True)
        self.table.add_column(overflow="fold")

    def add(self, name: str, value: str) -> None:
        if value:
            self.table.add_row(name, Text(as_one_line(value)))


def _table(*names: str, fold: tuple[str, ...] = (), right: tuple[str, ...] = ()) -> Table:
    """A table of which only the columns to fold give way where it is narrow."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(
            name, justify="right" if name in right else "left", overflow="fold", no_wrap=name not in fold,
            min_width=_FOLDED if name in fold else None,
        )  # fmt: skip
    return table


def _number(count: int, what: str) -> str:
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"


def _code(row: dict[str, Any]) -> str:
    sha256 = row["code_zip_sha256"]
    return f"{row['core_version']}, {'not shipped' if sha256 is None else f'zip {sha256}'}"


def _short_code(row: dict[str, Any]) -> str:
    return f"{row['core_version']} {(row['code_zip_sha256'] or 'not shipped')[:_SHORT]}"


def _objects(rows: list[dict[str, Any]]) -> Table:
    facts = _Facts()
    for row in rows:
        state = ", overwritten" if row is not rows[-1] else ""
        state = f", gone from the bucket since {utc(row['tombstoned_at'])}Z" if row["tombstoned_at"] else state
        state = ", forgotten" if row["forgotten_at"] else state
        modified = f"modified {utc(row['last_modified'])}Z"
        facts.add(f"object {row['object_id']}", f"{row['size_bytes']:,} bytes, {modified}, ETag {row['etag']}{state}")
        facts.add("", f"sha256 {row['sha256']}" if row["sha256"] else "no sha256: it is not among the recordings")
    return facts.table


def _runs(attempts: list[dict[str, Any]]) -> Table:
    """What ran, and with which parameters: those of the run, and the profiles'."""
    facts = _Facts()
    for batch_id, row in {row["batch_id"]: row for row in attempts}.items():
        parameters = row["run_parameters"]
        said = f", with {json.dumps(parameters, ensure_ascii=False, sort_keys=True)}" if parameters else ""
        facts.add(f"batch {batch_id}", f"{row['dag_id']} {row['run_id']}, try {row['try']}, {row['kind']}{said}")
    for profile, fingerprint in {row["profile"]: row["fingerprint"] for row in attempts}.items():
        facts.add("profile", f"{profile}, fingerprint {fingerprint}")
    return facts.table


def _attempts(rows: list[dict[str, Any]]) -> Table:
    table = _table(
        "batch", "object", "profile", "attempt", "outcome", "core, zip", "ended (UTC), worker", "reason",
        fold=("ended (UTC), worker", "reason"), right=("batch", "object", "attempt"),
    )  # fmt: skip
    for row in rows:
        # It found what another attempt, or an earlier batch, had written.
        is_late = row["outcome"] in {"loaded", "partial"} and not row["has_written"]
        table.add_row(
            str(row["batch_id"]), str(row["object_id"]), row["profile"], str(row["attempt"] or "none"),
            styled_outcome(row["outcome"] or "pending"), _short_code(row),
            Text(as_one_line(f"{utc(row['ended_at'])} {row['worker'] or ''}")),
            Text(as_one_line(row["reason"] or ("was there already" if is_late else ""))),
        )  # fmt: skip
    return table


def _spectrograms(rows: list[dict[str, Any]]) -> Table:
    numbers = ("spectrogram", "object", "frames", "batch")
    table = _table(*numbers[:2], "profile", "state", *numbers[2:], "core, zip", fold=("state",), right=numbers)
    for row in rows:
        state = f"expired ({row['expired_because']})" if row["status"] == "expired" else row["status"]
        table.add_row(
            str(row["spectrogram_id"]), str(row["object_id"]), row["profile"],
            state + (", current" if row["is_current"] else ""), str(row["n_frames"]), str(row["batch_id"]), _short_code(row),
        )  # fmt: skip
    return table


def _same_bytes(rows: list[dict[str, Any]]) -> Table:
    table = _table("the same bytes", "object", "sha256", "", fold=("the same bytes",), right=("object",))
    for row in rows[:_SHOWN_SAME_BYTES]:
        state = "current" if row["is_current"] else "gone from the bucket" if row["tombstoned_at"] else "not current"
        table.add_row(
            Text(as_one_line(f"s3://{row['bucket']}/{row['key']}")),
            str(row["object_id"]),
            row["sha256"][:_SHORT],
            state,
        )
    if len(rows) > _SHOWN_SAME_BYTES:
        table.add_row(f"and {len(rows) - _SHOWN_SAME_BYTES} more: --json has all of them")
    return table
