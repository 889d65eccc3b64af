"""What an alert says, as title, plain text and HTML: a pure function of the facts in the outbox. Knows no Airflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectralize.airflowlinks import page_address, run_address
from spectralize.errors import as_one_line
from spectralize.tables import LISTING, OUTCOMES

if TYPE_CHECKING:
    from jinja2 import Environment

    from spectralize.alerts import Alert

_FOLDER = Path(__file__).with_name("templates")

#: Mail cuts longer subjects, and so does Slack.
_TITLE_LENGTH = 180

#: What chats take for a call to everybody, or to somebody: `<!channel>`, `<@U123>`, `@everyone`.
_MENTION = re.compile(r"<(?=[ \t]*[!@#])|[!@](?=(?i:everyone|here|channel|all)\b|[^\s|]+[ \t]*[|>])")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where links lead: Airflow as people reach it, and the explorer; empty where nobody has said."""

    airflow: str = ""
    explorer: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """An alert, ready to be sent."""

    kind: str
    title: str
    text: str
    html: str


def render_alert(alert: Alert, addresses: Addresses) -> Message:
    """Return what is sent for an alert."""
    facts = dict(alert.facts)
    values = {
        "alert": alert,
        "facts": facts,
        "title": _title(alert),
        "interval": _interval(facts),
        "errors": _errors(facts),
        # JSON in the database keeps no order.
        "listing": _ordered(facts.get("listing"), LISTING),
        "outcomes": _ordered(facts.get("outcomes"), (*OUTCOMES, "waiting")),
        "advice": _advice(alert),
        "links": _links(alert, addresses),
    }
    return Message(
        kind=alert.kind,
        title=_cut(_without_mentions(_title(alert))),
        text=_without_mentions(_environment().get_template("alert.txt").render(values).strip() + "\n"),
        html=_environment().get_template("alert.html").render(values),
    )


def _without_mentions(text: str) -> str:
    """Break what a chat would take for a mention by a space of no width: whoever names a file must not wake everybody."""
    return _MENTION.sub("\\g<0>\u200b", text)


def _title(alert: Alert) -> str:
    # Names of runs are not ours, either, and a title of two lines is a forged header.
    return as_one_line(_headline(alert))


def _headline(alert: Alert) -> str:
    facts = alert.facts
    where = f"batch {alert.batch_id} of {alert.scope}" if alert.batch_id else f"run {alert.run_id} of {alert.dag_id}"
    match alert.kind:
        case "failed":
            return f"{where} failed: {_failure(facts)}"
        case "late":
            return f"{where} is late: not closed {_duration(facts['late_after_s'])} after it was opened"
        case "away":
            return f"the features database cannot be used: {facts['error']}"
        case "recovered" if "since" in facts:
            return f"the features database is back; it was away since {_moment(facts['since'])}"
        case _:
            return f"{alert.scope} works again: {where} succeeded"


def _failure(facts: Mapping[str, Any]) -> str:
    if facts.get("failure"):
        return str(facts["failure"])
    errors = facts.get("errors") or {}
    return "; ".join(f"{task}: {error or _WORDLESS}" for task, error in errors.items()) or str(
        facts.get("away") or "no task says why"
    )


_WORDLESS = "it died without a word (killed, or its machine was lost)"


def _advice(alert: Alert) -> list[str]:
    """Return what to do, by what is wrong."""
    facts = alert.facts
    outcomes, failure = facts.get("outcomes") or {}, facts.get("failure") or ""
    if alert.kind == "recovered" and "since" in facts:
        return ["The runs named here were cut off. Nothing is lost: the next run of each source takes up what they left. To have "
                "a day's backfill done, clear its run."]  # fmt: skip
    if alert.kind == "recovered":
        return []
    if alert.kind == "away" or facts.get("away"):
        return ["Bring the database back, or mend what it says: runs fail until it serves us, and nothing is lost. You will be "
                "told when it does, and need not clear anything: the next run of each source takes up what is left."]  # fmt: skip
    if alert.kind == "late":
        return ["See in Airflow which task it hangs in: waiting for a slot of the pool, or computing. The bounds of a batch are "
                "max_batch_objects and late_after_s of the source. Marking the run failed closes the batch; what it loaded "
                "stays."]  # fmt: skip
    advice = []
    if outcomes.get("rejected") and "rejected" in failure:
        advice.append(
            "Look at the rejected objects. They stay rejected and are not tried again, so the next run will pass. If files of "
            "that kind are expected here, raise max_rejected or max_rejected_share of the source, or exclude them; once the "
            "cause is mended, the DAG reprocess_audio computes them again."
        )
    if outcomes.get("failed"):
        advice.append(
            "Failed objects are planned again by the next run. If it is urgent, clear this run; if the same ones fail again, the "
            "log of mel_spectrogram says more."
        )
    if not advice:
        advice.append(
            "Read the log of the failed task, mend the cause, and clear the run, or leave it to the next one: it takes up "
            "whatever has no outcome."
        )
    return advice


def _links(alert: Alert, addresses: Addresses) -> list[tuple[str, str]]:
    links = []
    if addresses.airflow and alert.dag_id:
        links = [
            ("Run in Airflow", run_address(addresses.airflow, alert.dag_id, alert.run_id)),
            ("Batch, objects and lineage", page_address(addresses.airflow, alert.dag_id, alert.run_id)),
        ]
    if addresses.explorer and alert.batch_id:
        links.append(("Explorer", f"{addresses.explorer.rstrip('/')}/batches/{alert.batch_id}"))
    return links


def _ordered(counts: Mapping[str, int] | None, names: Sequence[str]) -> dict[str, int]:
    """Return counts in the order in which people read them; nobody waits in a batch that is closed."""
    return {name: counts[name] for name in names if counts[name] or name != "waiting"} if counts else {}


def _errors(facts: Mapping[str, Any]) -> dict[str, str | None]:
    """Return what failed tasks said; of a batch, the last two steps only say again what its failure is."""
    errors = dict(facts.get("errors") or {})
    if "batch_id" in facts:
        for task in ("gate", "close_batch"):
            errors.pop(task, None)
    return errors


def _interval(facts: Mapping[str, Any]) -> str:
    start, end = facts.get("interval_start"), facts.get("interval_end")
    return f"{_moment(start)} to {_moment(end)}" if start and end else "none"


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE_LENGTH else title[: _TITLE_LENGTH - 1] + "…"


def _moment(at: str | None) -> str:
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M} UTC" if at else "–"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        # Plain text escapes nothing: it holds no markup, and every hostile value goes through `plain`.
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": lambda text: as_one_line(str(text)), "moment": _moment, "duration": _duration}
    environment.globals["wordless"] = _WORDLESS
    return environment
