"""What people are told, and of which run: the vocabulary of outbox, notifiers and messages. Light: safe at DAG parse."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from spectralize.errors import as_one_line

Kind = Literal["failed", "late", "away", "recovered"]

#: What an outage of this database is about.
OUTAGE_SCOPE = "features database"

_MESSAGE_LENGTH = 2_000


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A DAG run, as its alerts name it.

    Attributes
    ----------
    scope, owner
        Its source, or its DAG where it has none, and who is told.
    number
        How often it was cleared.
    started_at
        When it began, or began again.
    errors
        What its failed tasks said last, by task; None where a task died without a word.
    """

    dag_id: str
    run_id: str
    scope: str
    owner: str
    number: int = 0
    started_at: datetime | None = None
    interval: tuple[datetime, datetime] | None = None
    errors: Mapping[str, str | None] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return it as an alert keeps it."""
        start, end = self.interval or (None, None)
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "source": self.scope,
            "interval_start": as_iso(start),
            "interval_end": as_iso(end),
            "errors": short_errors(self.errors),
        }


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the outbox: what is said (`facts`), to whom (`owner`), and who has it already (`reached`)."""

    alert_id: int
    kind: Kind
    batch_id: int | None
    scope: str
    owner: str
    dag_id: str
    run_id: str
    facts: dict[str, Any]
    created_at: datetime
    reached: tuple[str, ...]
    tries: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What a try to send came to: the receivers that have it now, and a line for each that has not."""

    reached: Collection[str] = ()
    errors: Sequence[str] = ()


def short_errors(errors: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what failed tasks said, each on a line of bounded length."""
    return {task: as_short_line(error) for task, error in errors.items()}


def as_iso(at: datetime | None) -> str | None:
    """Return a time as JSON keeps it."""
    return None if at is None else at.isoformat()


def as_short_line(text: str | None) -> str | None:
    """Return a line of bounded length: reasons quote files and libraries."""
    if text is None:
        return None
    line = as_one_line(text)
    return line if len(line) <= _MESSAGE_LENGTH else line[:_MESSAGE_LENGTH] + "…"
