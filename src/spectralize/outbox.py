"""The outbox: what people are to be told, each thing once, and whom it has reached.

A row is written in the transaction that closes a batch as failed. So whatever dies afterwards, the failure is told: by whoever
delivers next. A row is unique per batch and kind; without a batch, per run.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from spectralize.alerts import OUTAGE_SCOPE, Alert, Kind, RunFacts, Sent, as_iso, as_short_line, short_errors
from spectralize.errors import LedgerError, as_one_line
from spectralize.tables import LISTING, OUTCOMES

logger = logging.getLogger(__name__)

Connection = psycopg.Connection[Any]

#: Objects that an alert names.
N_EXAMPLES = 5

#: What could not be delivered for so long is old news, and is given up.
GIVE_UP_AFTER = timedelta(days=7)

#: Seconds until the next try, doubled with each, and the longest wait.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 30, 3_600

Send = Callable[[Alert], Sent]

_BATCH = """
SELECT batch_id, source, dag_id, run_id, try, kind, interval_start, interval_end, opened_at, planned_at, closed_at, state,
       failure, core_version, code_zip_sha256, listed, unchanged, planned, unsettled, ignored, over_cap, planned_spectrograms
FROM spectralize.batches WHERE batch_id = %s
"""

_CLASSES = """
SELECT coalesce(outcome, 'waiting') AS outcome, reason_class, count(*)
FROM spectralize.batch_objects WHERE batch_id = %s GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2
"""

_EXAMPLES = """
SELECT o.bucket, o.key, p.name AS profile, b.outcome, b.reason_class, b.reason
FROM spectralize.batch_objects AS b
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
WHERE b.batch_id = %s AND b.outcome IN ('failed', 'rejected') ORDER BY b.outcome, o.key, p.name LIMIT %s
"""

_INSERT = """
INSERT INTO spectralize.alerts (kind, batch_id, scope, owner, dag_id, run_id, run_number, facts, sent_at)
VALUES (%(kind)s, %(batch_id)s, %(scope)s, %(owner)s, %(dag_id)s, %(run_id)s, %(run_number)s, %(facts)s,
        CASE WHEN %(is_told)s THEN clock_timestamp() END)
ON CONFLICT DO NOTHING RETURNING alert_id
"""


def batch_facts(connection: Connection, batch_id: int) -> dict[str, Any]:
    """Return what an alert says about a batch: sums, counts by outcome and class, and the first objects with their reasons.

    Raises
    ------
    LedgerError
        If there is none of that number.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        batch = cursor.execute(_BATCH, (batch_id,)).fetchone()
        if batch is None:
            raise LedgerError(f"batch {batch_id}: not in the ledger")
        classes = cursor.execute(_CLASSES, (batch_id,)).fetchall()
        examples = cursor.execute(_EXAMPLES, (batch_id, N_EXAMPLES)).fetchall()
    outcomes = dict.fromkeys((*OUTCOMES, "waiting"), 0)
    for line in classes:
        outcomes[line["outcome"]] += line["count"]
    facts = {name: as_iso(value) if isinstance(value, datetime) else value for name, value in batch.items()}
    return facts | {
        "failure": as_short_line(batch["failure"]),
        "listing": {name: facts.pop(name) for name in ("listed", *LISTING)},
        "outcomes": outcomes,
        "classes": [line for line in classes if line["reason_class"]],
        "examples": [
            example | {"reason": as_short_line(example["reason"]), "key": as_one_line(example["key"])}
            for example in examples
        ],
    }


def tell_batch_failed(
    connection: Connection, batch_id: int, owner: str, errors: Mapping[str, str | None] | None = None
) -> None:
    """Note that a batch has failed, and what its failed tasks said; in the transaction that closes it."""
    _tell_batch(connection, "failed", batch_id, owner, more={"errors": short_errors(errors or {})})


def tell_run_failed(connection: Connection, run: RunFacts, *, is_told: bool = False) -> None:
    """Note that a run has failed: as the failure of its batch or, if this try of it came to none, as its own.

    With `is_told` only for the record: somebody has been told already, by another way.
    """
    # A batch that was closed before the run began (again) belongs to an earlier try, which has been told.
    row = connection.execute(
        "SELECT batch_id FROM spectralize.batches WHERE dag_id = %s AND run_id = %s "
        "AND (closed_at IS NULL OR closed_at >= coalesce(%s, '-infinity'::timestamptz)) ORDER BY try DESC LIMIT 1",
        (run.dag_id, run.run_id, run.started_at),
    ).fetchone()
    if row is None:
        _insert(connection, "failed", run, run.facts(), is_told=is_told)
    else:
        errors = short_errors(run.errors)
        _tell_batch(connection, "failed", row[0], run.owner, more={"errors": errors}, is_told=is_told)


def tell_late(connection: Connection, batch_id: int, owner: str, late_after_s: float) -> None:
    """Note that a batch is still not closed, `late_after_s` seconds after it was opened."""
    _tell_batch(connection, "late", batch_id, owner, more={"late_after_s": late_after_s})


_END = """
UPDATE spectralize.alerts AS a SET recovered_by = %(alert_id)s WHERE alert_id = ANY (%(ended)s)
"""

#: What a success ends: alerts of its own run, and, as it takes up whatever has no outcome, those before it began; a backfill or
#: a reprocessing takes up its own objects only, and a run that came to no batch (a dry run, say) takes up none.
_OPEN = """
SELECT alert_id, kind, batch_id, run_id, created_at FROM spectralize.alerts
WHERE scope = %(scope)s AND recovered_by IS NULL AND kind <> 'recovered'
  AND (kind <> 'late' OR sent_at IS NOT NULL OR reached <> '{}')
  AND ((dag_id = %(dag_id)s AND run_id = %(run_id)s) OR (%(ends_all)s AND created_at < %(since)s::timestamptz
       AND (%(has_batch)s OR (dag_id = %(dag_id)s AND batch_id IS NULL))))
ORDER BY alert_id FOR UPDATE
"""


def tell_recovery(connection: Connection, run: RunFacts) -> None:
    """Note that a run has succeeded where others had failed or were late; nothing if nobody was told of any."""
    row = connection.execute(
        "SELECT batch_id FROM spectralize.batches WHERE dag_id = %s AND run_id = %s AND state = 'success' "
        "ORDER BY try DESC LIMIT 1",
        (run.dag_id, run.run_id),
    ).fetchone()
    batch_id = row[0] if row else None
    facts = run.facts() if batch_id is None else batch_facts(connection, batch_id)
    values = {
        "scope": run.scope,
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "ends_all": facts.get("kind") not in {"backfill", "reprocess"},
        "has_batch": batch_id is not None,
        "since": facts.get("opened_at") or run.started_at,
    }
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        ended = cursor.execute(_OPEN, values).fetchall()
        if not ended:
            return
        facts["ended"] = [alert | {"created_at": as_iso(alert["created_at"])} for alert in ended]
        alert_id = _insert(connection, "recovered", run, facts, batch_id=batch_id)
        if alert_id is not None:
            connection.execute(_END, {"alert_id": alert_id, "ended": [alert["alert_id"] for alert in ended]})


_END_OUTAGE = """
UPDATE spectralize.alerts SET recovered_by = %(alert_id)s
WHERE recovered_by IS NULL AND (
    (kind = 'away' AND owner = %(owner)s AND run_id = %(outage)s)
    -- Whoever owns them: an outage is told once to each connection, which may serve several owners.
    OR (kind = 'failed' AND (dag_id, run_id) IN (SELECT * FROM unnest(%(dags)s::text[], %(runs)s::text[])))
)
"""


def record_outage(
    connection: Connection, since: datetime, error: str, owners: Sequence[str], runs: Sequence[RunFacts]
) -> None:
    """Keep what was told while the database was away, and note that it is back.

    The runs that failed meanwhile count as told: they were named when they failed, or are named now.
    """
    facts = {
        "since": as_iso(since),
        "error": as_short_line(error),
        "runs": [{"dag_id": run.dag_id, "run_id": run.run_id, "source": run.scope} for run in runs],
    }
    with connection.transaction():
        for run in runs:
            tell_run_failed(connection, run, is_told=True)
        for owner in owners:
            outage = RunFacts(dag_id="", run_id=since.isoformat(), scope=OUTAGE_SCOPE, owner=owner)
            _insert(connection, "away", outage, facts, is_told=True)
            alert_id = _insert(connection, "recovered", outage, facts)
            if alert_id is not None:
                values = {
                    "alert_id": alert_id, "owner": owner, "outage": outage.run_id,
                    "dags": [run.dag_id for run in runs], "runs": [run.run_id for run in runs],
                }  # fmt: skip
                connection.execute(_END_OUTAGE, values)


def _tell_batch(
    connection: Connection,
    kind: Kind,
    batch_id: int,
    owner: str,
    *,
    more: Mapping[str, Any],
    is_told: bool = False,
) -> None:
    facts = batch_facts(connection, batch_id) | dict(more)
    of_batch = RunFacts(facts["dag_id"], facts["run_id"], facts["source"], owner)
    _insert(connection, kind, of_batch, facts, batch_id=batch_id, is_told=is_told)


def _insert(
    connection: Connection,
    kind: Kind,
    run: RunFacts,
    facts: Mapping[str, Any],
    *,
    batch_id: int | None = None,
    is_told: bool = False,
) -> int | None:
    """Write a row unless it is there; return its number if it is new."""
    row = connection.execute(
        _INSERT,
        {
            "kind": kind, "batch_id": batch_id, "scope": run.scope, "owner": run.owner, "dag_id": run.dag_id,
            "run_id": run.run_id, "run_number": run.number, "facts": Jsonb(facts), "is_told": is_told,
        },
    ).fetchone()  # fmt: skip
    return None if row is None else int(row[0])


#: That a batch is late is no news when it is closed; nor need it be said that this is over.
_OVERTAKEN = """
UPDATE spectralize.alerts AS a
SET sent_at = clock_timestamp(), last_error = 'overtaken: the batch is closed', recovered_by = alert_id
FROM spectralize.batches AS b
WHERE a.kind = 'late' AND a.sent_at IS NULL AND a.reached = '{}' AND b.batch_id = a.batch_id AND b.closed_at IS NOT NULL
"""

_NEXT = """
SELECT alert_id, kind, batch_id, scope, owner, dag_id, run_id, facts, created_at, reached, tries
FROM spectralize.alerts
WHERE sent_at IS NULL AND next_try_at <= clock_timestamp() AND created_at > clock_timestamp() - %(give_up_after)s
  AND (%(scope)s::text IS NULL OR scope = %(scope)s) AND alert_id <> ALL (%(seen)s)
ORDER BY alert_id LIMIT 1 FOR UPDATE SKIP LOCKED
"""

_MARK = """
UPDATE spectralize.alerts
SET tries = tries + 1, reached = %(reached)s, last_error = %(error)s,
    sent_at = CASE WHEN %(error)s::text IS NULL THEN clock_timestamp() END,
    next_try_at = clock_timestamp() + %(wait)s
WHERE alert_id = %(alert_id)s
"""


def deliver(
    connection: Connection, send: Send, *, scope: str | None = None, at_most: int = 20, within_s: float = 120.0
) -> list[Alert]:
    """Send what is due, oldest first, and return what has reached everybody.

    Each is sent within the transaction that marks it: of two who deliver at once, one passes over what the other is sending.
    Only if this process dies between the two is something sent twice. After `within_s` seconds none is begun: receivers that hang
    must not use up the time of whoever delivers.
    """
    ends_at = time.monotonic() + within_s
    connection.execute(_OVERTAKEN)
    # What came before must not share a fate with the marks, nor make them wait.
    connection.commit()
    delivered, seen = [], list[int]()
    for _ in range(at_most):
        if time.monotonic() > ends_at:
            break
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(_NEXT, {"give_up_after": GIVE_UP_AFTER, "scope": scope, "seen": seen}).fetchone()
            if row is None:
                break
            alert = Alert(**row | {"reached": tuple(row["reached"])})
            seen.append(alert.alert_id)
            sent = _send(alert, send)
            error = "; ".join(as_short_line(line) or "" for line in sent.errors) or None
            wait_s = min(_FIRST_WAIT_S * 2 ** min(alert.tries, 20), _LONGEST_WAIT_S)
            cursor.execute(
                _MARK,
                {
                    "alert_id": alert.alert_id,
                    "reached": sorted({*alert.reached, *sent.reached}),
                    "error": error,
                    "wait": timedelta(seconds=wait_s),
                },
            )
        if error is None:
            delivered.append(alert)
    return delivered


def _send(alert: Alert, send: Send) -> Sent:
    """Send, and take an error for a receiver that is away: one alert that cannot be sent must not keep back the others."""
    try:
        return send(alert)
    except Exception as error:
        logger.exception("alert %d could not be sent", alert.alert_id)
        return Sent(errors=[f"{type(error).__name__}: {error}"])


def is_there(connection: Connection) -> bool:
    """Tell whether this database has an outbox: an older schema, or none, has not."""
    row = connection.execute("SELECT to_regclass('spectralize.alerts') IS NOT NULL").fetchone()
    return bool(row and row[0])


def count_unsent(connection: Connection) -> int:
    """Return how many alerts have not reached everybody yet, and are still tried."""
    row = connection.execute(
        "SELECT count(*) FROM spectralize.alerts WHERE sent_at IS NULL AND created_at > clock_timestamp() - %s",
        (GIVE_UP_AFTER,),
    ).fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that nobody has closed."""

    batch_id: int
    source: str
    dag_id: str
    run_id: str
    open_s: float
    is_told_late: bool


def open_batches(connection: Connection) -> list[OpenBatch]:
    """Return the batches that are not closed, the oldest first."""
    rows = connection.execute(
        "SELECT b.batch_id, b.source, b.dag_id, b.run_id, extract(epoch FROM clock_timestamp() - b.opened_at)::float8, "
        "EXISTS (SELECT FROM spectralize.alerts AS a WHERE a.batch_id = b.batch_id AND a.kind = 'late') "
        "FROM spectralize.batches AS b WHERE b.closed_at IS NULL ORDER BY b.opened_at"
    )
    return [OpenBatch(*row) for row in rows]
