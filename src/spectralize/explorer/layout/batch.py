"""The page of one batch: what happened, why it was judged so, and the objects, the worst first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from spectralize.airflowlinks import dag_address, page_address, run_address
from spectralize.explorer.layout import parts
from spectralize.explorer.layout.batches import PATH, duration_s, interval_text, rates
from spectralize.explorer.layout.parts import Column
from spectralize.explorer.visits import write_query
from spectralize.gate import Verdict
from spectralize.ledgerpages import ORDER, LineCounts
from spectralize.tables import LISTING, OUTCOMES, REJECT_CLASSES

REPROCESS_DAG = "reprocess_audio"

_LINE_COLUMNS = (
    Column("Object", width="24rem"), Column("Profile"), Column("Outcome"), Column("Class"), Column("Reason", width="20rem"),
    Column("Attempts", True), Column("Fetch s", True), Column("Decode s", True), Column("Mel s", True), Column("Load s", True),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What the page shows of a batch beside its lines.

    Attributes
    ----------
    batch
        As `status.read_batch_status` returns it, with `read_at`, `audio_s` and `n_recordings`.
    verdicts
        Of the gate, by the thresholds that the source has here now; empty if it is not known here.
    tries
        Every batch of the run, newest first.
    airflow_url
        Empty where nobody has said.
    """

    batch: Mapping[str, Any]
    counts: LineCounts
    verdicts: Sequence[Verdict]
    tries: Sequence[Mapping[str, Any]]
    airflow_url: str


def make_batch(facts: BatchFacts, lines: Component) -> Component:
    """Return the page; `lines` is what `make_lines` returns, in something that can be replaced."""
    batch = facts.batch
    return html.Div(
        [
            parts.heading(f"Batch {batch['batch_id']}", parts.badge(batch["state"])),
            _failure(batch),
            dmc.SimpleGrid(
                [_happened(facts), _sums(facts)], cols={"base": 1, "md": 2}, spacing="xl", verticalSpacing="xs"
            ),
            _gate(facts),
            _classes(facts),
            _reprocess(facts),
            parts.section("Objects", lines),
            _code(batch),
        ],
        id="batch",
    )


def _failure(batch: Mapping[str, Any]) -> Component | None:
    if not batch["failure"]:
        return None
    return parts.notice(parts.plain(batch["failure"]), title="This batch failed", element_id="batch-failure")


def _happened(facts: BatchFacts) -> Component:
    batch, found = facts.batch, rates(facts.batch)
    speed = parts.NOTHING
    if found is not None:
        audio, objects = (parts.number_text(rate) for rate in found)
        speed = f"{audio} s of audio and {objects} objects per second, from plan to gate"
    planning_s, working_s = (
        _between(batch, *ends) for ends in (("opened_at", "planned_at"), ("planned_at", "gated_at"))
    )
    rows: list[tuple[str, parts.Content]] = [
        ("Source", parts.plain(batch["source"])),
        ("Kind", parts.plain(batch["kind"])),
        ("Interval (UTC)", interval_text(batch)),
        ("Opened", parts.moment(batch["opened_at"])),
        ("Planned", _at(batch["planned_at"], planning_s)),
        ("Gate", _at(batch["gated_at"], working_s)),
        ("Closed", _at(batch["closed_at"], _between(batch, "gated_at", "closed_at"))),
        ("Duration" if batch["closed_at"] else "Running for", parts.duration_text(duration_s(batch))),
        ("Audio", f"{parts.duration_text(batch['audio_s'])} in {parts.count_text(batch['n_recordings'])} recordings"),
        ("Throughput", speed),
        ("Run", _run(facts)),
    ]
    return parts.section("What happened", parts.facts_table(rows, label="What happened", element_id="batch-facts"))


def _between(batch: Mapping[str, Any], start: str, end: str) -> float | None:
    if batch[start] is None or batch[end] is None:
        return None
    return float((batch[end] - batch[start]).total_seconds())


def _at(at: Any, after_s: float | None) -> parts.Content:
    return parts.moment(at) if after_s is None else [parts.moment(at), f" after {parts.duration_text(after_s)}"]


def _run(facts: BatchFacts) -> Component:
    batch = facts.batch
    dag_id, run_id = batch["dag_id"], batch["run_id"]
    lines: list[Component] = [html.Div([f"{parts.plain(dag_id)}, run {parts.plain(run_id)}"])]
    if facts.airflow_url:
        links = [
            parts.outside_link("Run in Airflow", run_address(facts.airflow_url, dag_id, run_id)),
            parts.outside_link("Batch and lineage in Airflow", page_address(facts.airflow_url, dag_id, run_id)),
        ]
        lines.append(dmc.Group(links, gap="md", id="batch-airflow"))
    tries: list[str | Component] = [f"Try {batch['try']}"]
    for other in facts.tries:
        if other["batch_id"] != batch["batch_id"]:
            tries += [", ", parts.link(f"try {other['try']} ({other['state']})", f"{PATH}/{other['batch_id']}")]
    lines.append(html.Div(tries))
    return html.Div(lines)


def _sums(facts: BatchFacts) -> Component:
    batch, counts = facts.batch, facts.counts
    listed: list[tuple[str, str, int | None]] = [
        ("= " if name == LISTING[0] else "+ ", name.replace("_", " "), batch[name]) for name in LISTING
    ]
    planned: list[tuple[str, str, int | None]] = [
        ("= " if name == OUTCOMES[0] else "+ ", name, batch[name]) for name in OUTCOMES
    ]
    if pending := counts.outcomes.get(None, 0):
        planned.append(("+ ", "pending", pending))
    rows: list[Sequence[parts.Content]] = [
        [html.Strong("Objects listed"), html.Strong(parts.count_text(batch["listed"]))],
        *([sign + name, parts.count_text(n)] for sign, name, n in listed),
        [html.Strong("Spectrograms planned"), html.Strong(parts.count_text(batch["planned_spectrograms"]))],
        *([[sign, parts.badge(name)] if n else sign + name, parts.count_text(n)] for sign, name, n in planned),
    ]
    table = parts.rows_table(
        (Column("What"), Column("How many", True)), rows, label="Sums", element_id="batch-sums", min_width_px=200
    )
    return parts.section("Sums", table)


def _gate(facts: BatchFacts) -> Component:
    if facts.batch["gated_at"] is None:
        return parts.section("Gate", parts.dim("This batch has not been held against its thresholds."))
    if not facts.verdicts:
        text = f"Its source, {parts.plain(facts.batch['source'])}, is not configured here, so its thresholds are not known."
        return parts.section("Gate", parts.dim(text))
    rows = [[verdict.description, verdict.expected, verdict.actual, _verdict(verdict)] for verdict in facts.verdicts]
    columns = Column("Rule"), Column("Allowed"), Column("Found"), Column("Verdict")
    return parts.section(
        "Gate",
        parts.rows_table(columns, rows, label="Verdicts of the gate", element_id="batch-gate", min_width_px=560),
        parts.dim(
            "By the thresholds that are configured here now; the batch was judged by those of its time.", mt="xs"
        ),
    )


def _verdict(verdict: Verdict) -> Component:
    return parts.badge("success", text="holds") if verdict.holds else parts.badge("failed", text="does not hold")


def _classes(facts: BatchFacts) -> Component | None:
    if not facts.counts.classes:
        return None
    rows = [
        [parts.badge(outcome), parts.plain(name), parts.count_text(n), REJECT_CLASSES.get(name, "")]
        for outcome, name, n in facts.counts.classes
    ]
    columns = Column("Outcome"), Column("Class"), Column("How many", True), Column("Meaning")
    table = parts.rows_table(
        columns, rows, label="Refused objects by class", element_id="batch-classes", min_width_px=480
    )
    return parts.section("Why objects were refused", table)


def reprocess_values(batch: Mapping[str, Any], counts: LineCounts) -> dict[str, Any]:
    """Return what to put into the form of `reprocess_audio` to have the refused objects of a batch computed again."""
    return {
        "source": batch["source"],
        "batch_id": batch["batch_id"],
        "outcomes": [outcome for outcome in ("rejected", "failed") if counts.of([outcome])],
        "dry_run": True,
    }


def _reprocess(facts: BatchFacts) -> Component | None:
    n = facts.counts.of(["rejected", "failed"])
    if not n:
        return None
    values = json.dumps(reprocess_values(facts.batch, facts.counts), ensure_ascii=True)
    if facts.airflow_url:
        way: Component = html.A(
            "Reprocess in Airflow …", href=dag_address(facts.airflow_url, REPROCESS_DAG), target="_blank",
            rel="noopener noreferrer", id="batch-reprocess", className="button-link",
        )  # fmt: skip
        how = "There, press Trigger, open Advanced Options, and put this into Configuration JSON:"
    else:
        way = parts.dim(
            "For a link to the form, tell the explorer where Airflow is: set SPECTRALIZE_AIRFLOW_URL to the address that you "
            "open it at, and start the explorer again.", id="batch-reprocess",
        )  # fmt: skip
        how = (
            f"In Airflow, trigger the DAG {REPROCESS_DAG}, open Advanced Options, and put this into Configuration JSON:"
        )
    copy = dmc.CopyButton(
        value=values, children="Copy", copiedChildren="Copied", variant="default", size="xs", id="batch-reprocess-copy"
    )
    return parts.section(
        "Compute again",
        dmc.Text(
            f"{parts.count_text(n)} rejected or failed, unless a later batch has loaded them.", size="sm", mb="xs"
        ),
        way,
        dmc.Text(how, size="sm", mt="xs"),
        dmc.Group(
            [dmc.Code(values, id="batch-reprocess-values", style={"overflowWrap": "anywhere"}), copy], gap="sm", my="xs"
        ),
        parts.dim(
            "A dry run first: the log of show_plan says what would be done. Then the same again with dry_run false."
        ),
    )


def line_address(batch_id: int, outcome: str | None, page: int = 1) -> str:
    """Return the address of a page of a batch's objects with an outcome."""
    return f"{PATH}/{batch_id}" + write_query({"outcome": outcome, "page": page if page > 1 else None})


def make_lines(
    batch_id: int, counts: LineCounts, lines: Sequence[Mapping[str, Any]], *, outcome: str, number: int, page_size: int
) -> list[Component]:
    """Return a page of a batch's objects with an outcome ("" for all), and links to the other outcomes and pages."""
    names = [word or "pending" for word in ORDER]
    total = counts.of([None if outcome == "pending" else outcome] if outcome else ORDER)
    options = [("all", counts.of(ORDER), line_address(batch_id, None), not outcome)]
    options += [
        (name, counts.of([word]), line_address(batch_id, name), outcome == name)
        for name, word in zip(names, ORDER, strict=True)
        if counts.of([word]) or outcome == name
    ]
    found: list[Component] = [parts.choices(options, label="Objects by outcome", element_id="batch-outcomes")]
    if not lines:
        return [*found, parts.notice("No object of this batch is like that.", color="gray")]
    table = parts.rows_table(
        _LINE_COLUMNS,
        [_line(line) for line in lines],
        label="Objects of the batch",
        element_id="batch-lines",
        min_width_px=1200,
    )
    pager = parts.pager(
        number, max(1, -(-total // page_size)), lambda to: line_address(batch_id, outcome or None, to),
        label="Pages of objects", element_id="batch-pages",
    )  # fmt: skip
    return [*found, table, pager]


def _line(line: Mapping[str, Any]) -> Sequence[parts.Content]:
    return [
        parts.link(line["key"], f"/recordings/{line['object_id']}"),
        parts.plain(line["profile"]),
        parts.badge(line["outcome"]),
        parts.plain(line["reason_class"]),
        parts.plain(line["reason"]),
        parts.count_text(line["attempts"]),
        *(_seconds(line[name]) for name in ("fetch_s", "decode_s", "mel_s", "load_s")),
    ]


def _seconds(value: float | None) -> str:
    return parts.NOTHING if value is None else f"{value:.2f}"


def _code(batch: Mapping[str, Any]) -> Component:
    rows: list[tuple[str, parts.Content]] = [
        ("Core version", parts.plain(batch["core_version"])),
        ("Code zip, SHA-256", dmc.Code(parts.plain(batch["code_zip_sha256"]))),
        ("Parameters", dmc.Code(parts.plain(json.dumps(batch["parameters"], ensure_ascii=False, sort_keys=True)))),
        ("Manifest", dmc.Code(parts.plain(batch["manifest_uri"]))),
        ("Manifest, SHA-256", dmc.Code(parts.plain(batch["manifest_sha256"]))),
    ]
    return parts.section(
        "Code and parameters", parts.facts_table(rows, label="Code and parameters", element_id="batch-code")
    )
