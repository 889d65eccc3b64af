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
        facts.add(
            "read from", f"s3://{row['bucket']}/{row['prefix']}*: {row['objects']} objects, {row['size_bytes']:,} bytes"
        )
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
        facts.add("code", f"{_code(row, short=False)}: {row['attempts']} attempts, {row['loaded']} loaded{sure}")
    for row in found["profiles"]:
        facts.add("profile", f"{row['profile']}, fingerprint {row['fingerprint']}: {row['planned']} planned")
    for name, value in batch["parameters"].items():
        facts.add("parameter", f"{name} = {json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    if batch["manifest_uri"]:
        facts.add("manifest", f"{batch['manifest_uri']}, sha256 {batch['manifest_sha256']}")
    for other in tries:
        if other["batch_id"] != batch["batch_id"]:
            failure = f": {other['failure']}" if other["failure"] else ""
            facts.add("other try", f"{other['try']}: batch {other['batch_id']}, {other['state']}{failure}")
    return facts.table


def key_facts(found: dict[str, Any]) -> RenderableType:
    """Everything that touched a key, as `lineage.read_key_lineage` has read it."""
    parts: list[RenderableType] = [Text(as_one_line(f"s3://{found['bucket']}/{found['key']}"), style="bold"), ""]
    parts += [_objects(found["objects"]), "", _attempts(found["attempts"])]
    runs = {row["batch_id"]: row["run_parameters"] for row in found["attempts"]}
    for batch_id, parameters in runs.items():
        if parameters:
            text = json.dumps(parameters, ensure_ascii=False, sort_keys=True)
            parts.append(Text(as_one_line(f"batch {batch_id} ran with {text}")))
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


def _table(*names: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _code(row: dict[str, Any], *, short: bool = True) -> str:
    sha256 = row["code_zip_sha256"]
    if sha256 is None:
        return f"{row['core_version']}, not shipped"
    return f"{row['core_version']}, zip {sha256[:_SHORT] if short else sha256}"


def _objects(rows: list[dict[str, Any]]) -> Table:
    table = _table("object", "bytes", "modified (UTC)", "ETag", "sha256", "", right=("object", "bytes"))
    for row in rows:
        state = "overwritten" if row is not rows[-1] else ""
        state = "gone from the bucket" if row["tombstoned_at"] else state
        state = "forgotten" if row["forgotten_at"] else state
        table.add_row(
            str(row["object_id"]), f"{row['size_bytes']:,}", utc(row["last_modified"]), Text(as_one_line(row["etag"])),
            row["sha256"] or "not decoded", state,
        )  # fmt: skip
    return table


def _attempts(rows: list[dict[str, Any]]) -> Table:
    right = ("batch", "try", "object", "attempt")
    table = _table(
        "batch", "run", "try", "object", "profile", "attempt", "outcome", "core", "ended (UTC)", "worker", "reason",
        right=right,
    )  # fmt: skip
    for row in rows:
        outcome = styled_outcome(row["outcome"] or "pending")
        # It found what another attempt, or an earlier batch, had written.
        found = row["outcome"] in {"loaded", "partial"} and not row["has_written"]
        table.add_row(
            str(row["batch_id"]), Text(as_one_line(f"{row['dag_id']} {row['run_id']}")), str(row["try"]), str(row["object_id"]),
            row["profile"], str(row["attempt"] or "none"), outcome, _code(row), utc(row["ended_at"]),
            Text(as_one_line(row["worker"] or "")),
            Text(as_one_line(row["reason"] or ("was there already" if found else ""))),
        )  # fmt: skip
    return table


def _spectrograms(rows: list[dict[str, Any]]) -> Table:
    numbers = ("spectrogram", "object", "frames", "generation", "batch")
    table = _table(*numbers[:2], "profile", "fingerprint", "state", *numbers[2:], "core", "loaded (UTC)", right=numbers)
    for row in rows:
        state = f"expired ({row['expired_because']})" if row["status"] == "expired" else row["status"]
        table.add_row(
            str(row["spectrogram_id"]), str(row["object_id"]), row["profile"], row["fingerprint"][:_SHORT],
            state + (", current" if row["is_current"] else ""), str(row["n_frames"]), str(row["generation"]),
            str(row["batch_id"]), _code(row), utc(row["loaded_at"]),
        )  # fmt: skip
    return table


def _same_bytes(rows: list[dict[str, Any]]) -> Table:
    table = _table("the same bytes", "object", "sha256", "", right=("object",))
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
