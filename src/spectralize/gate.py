"""The end of a batch: every object gets an outcome, the thresholds judge, and the sums are closed for good."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg

from spectralize import outbox
from spectralize.database import fetch_row
from spectralize.errors import GateError, LedgerError, as_one_line
from spectralize.ledger import Batch, read_batch
from spectralize.sources import Source
from spectralize.tables import UNCOUNTED_FAILURES, UNFINISHED, Counts

Connection = psycopg.Connection[Any]

_SETTLE_UNFINISHED = """
UPDATE spectralize.batch_objects
SET outcome = 'failed', reason_class = %(unfinished)s, reason = 'the job ended before this object was done',
    ended_at = clock_timestamp()
WHERE batch_id = %(batch_id)s AND outcome IS NULL
"""

_SETTLE_POISON = """
UPDATE spectralize.batch_objects AS here
SET outcome = 'rejected', reason_class = 'poison',
    reason = format('failed in %%s batches, the last time: %%s', history.failures, here.reason)
FROM (
    SELECT object_id, profile_id, count(*) AS failures FROM spectralize.batch_objects
    WHERE outcome = 'failed' AND reason_class <> ALL (%(uncounted)s)
      AND object_id IN (SELECT object_id FROM spectralize.batch_objects WHERE batch_id = %(batch_id)s AND outcome = 'failed')
    GROUP BY object_id, profile_id HAVING count(*) >= %(max_failures)s
) AS history
WHERE here.batch_id = %(batch_id)s AND here.outcome = 'failed' AND here.reason_class <> ALL (%(uncounted)s)
  AND history.object_id = here.object_id AND history.profile_id = here.profile_id
"""


def settle_batch(connection: Connection, batch_id: int, source: Source) -> Batch:
    """Give every planned object without an outcome one: `failed`, or `rejected` as poison after too many failures."""
    values = {
        "batch_id": batch_id,
        "unfinished": UNFINISHED,
        "uncounted": list(UNCOUNTED_FAILURES),
        "max_failures": source.max_failures,
    }
    with connection.transaction():
        closed_at = fetch_row(
            connection, "SELECT closed_at FROM spectralize.batches WHERE batch_id = %s FOR UPDATE", (batch_id,)
        )[0]
        if closed_at is None:
            connection.execute(_SETTLE_UNFINISHED, values)
            connection.execute(_SETTLE_POISON, values)
    return read_batch(connection, batch_id)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule that a batch is held against: what is allowed, what was found, and what to say if it does not hold."""

    rule: str
    holds: bool
    description: str
    expected: str
    actual: str
    failure: str


def _share(share: float, planned: int) -> Decimal:
    """Return that share of what was planned: 29 % of 100 is 29, which binary fractions fall just short of."""
    return Decimal(str(share)) * planned


def _percent(share: float) -> str:
    """Write a share as people do: half a percent is not 0 %."""
    return f"{share * 100:.3g}%"


def list_verdicts(counts: Counts, source: Source) -> list[Verdict]:
    """Return how the counts of a batch meet each rule of its source."""
    failed, rejected, planned = counts.outcomes["failed"], counts.outcomes["rejected"], counts.planned_spectrograms
    accounted_for = counts.unchanged + counts.planned + counts.unsettled + counts.ignored + counts.over_cap
    share = f", or {_percent(source.max_failed_share)}," if source.max_failed_share else ""
    return [
        Verdict(
            "sums_hold",
            counts.listing_holds() and counts.outcomes_hold(),
            "Every listed object is accounted for, and every planned one has an outcome",
            f"listed {counts.listed}, planned {planned}",
            f"accounted for {accounted_for}, outcomes {sum(counts.outcomes.values())}",
            f"the sums do not hold: {counts}",
        ),
        Verdict(
            "failed_within_threshold",
            failed <= source.max_failed or failed <= _share(source.max_failed_share, planned),
            "Objects that failed for our reasons",
            f"at most {source.max_failed}, or {_percent(source.max_failed_share)} of the planned",
            f"{failed} of {planned}",
            f"{failed} of {planned} failed, {source.max_failed}{share} are tolerated",
        ),
        Verdict(
            "rejected_within_threshold",
            rejected <= source.max_rejected or rejected <= _share(source.max_rejected_share, planned),
            "Objects that were rejected for reasons of their own",
            f"at most {source.max_rejected}, or {_percent(source.max_rejected_share)} of the planned",
            f"{rejected} of {planned}",
            f"{rejected} of {planned} were rejected, more than {source.max_rejected} "
            f"and more than {_percent(source.max_rejected_share)}",
        ),
    ]


def judge(counts: Counts, source: Source) -> str | None:
    """Return why a batch with these counts fails its source's thresholds, or None."""
    return next((verdict.failure for verdict in list_verdicts(counts, source) if not verdict.holds), None)


def gate_batch(connection: Connection, batch_id: int, source: Source, *, waited_s: float = 0.0) -> Batch:
    """Settle a batch and hold it against its source's thresholds; the verdict goes into the ledger either way.

    Parameters
    ----------
    waited_s
        If above 0, an empty batch fails: so many seconds were waited for something new.

    Raises
    ------
    GateError
        With the counts, and the first objects with their reasons.
    """
    batch = settle_batch(connection, batch_id, source)
    failure = "planning did not finish" if batch.state == "open" else judge(batch.counts, source)
    if not failure and waited_s and not batch.counts.planned:
        failure = f"nothing new in {source.address} within {waited_s:g} s"
    connection.execute(
        "UPDATE spectralize.batches SET gated_at = clock_timestamp(), failure = %s WHERE batch_id = %s AND closed_at IS NULL",
        (failure, batch_id),
    )
    connection.commit()
    if failure:
        examples = connection.execute(
            "SELECT o.bucket, o.key, b.reason "
            "FROM spectralize.batch_objects AS b JOIN spectralize.objects AS o USING (object_id) "
            "WHERE b.batch_id = %s AND b.outcome IN ('failed', 'rejected') ORDER BY b.outcome, o.key LIMIT 3",
            (batch_id,),
        ).fetchall()
        shown = "; ".join(f"s3://{bucket}/{as_one_line(key)}: {reason}" for bucket, key, reason in examples)
        raise GateError(f"batch {batch_id} of {source.name}: {failure}" + (f". First: {shown}" if shown else ""))
    return batch


def describe_errors(errors: Mapping[str, str | None]) -> str | None:
    """Return what failed steps said as one line, None if none failed."""
    return (
        "; ".join(f"{step}: {as_one_line(error or 'it ended without a word')}" for step, error in errors.items())
        or None
    )


def abandon_batch(
    connection: Connection, dag_id: str, run_id: str, errors: Mapping[str, str | None], *, owner: str
) -> None:
    """Close the batch of a run as failed if its planning did not finish; do nothing if there is none."""
    with connection.transaction():
        row = connection.execute(
            "UPDATE spectralize.batches SET state = 'failed', failure = %s, closed_at = clock_timestamp(), "
            "loaded = 0, partial = 0, rejected = 0, failed = 0 WHERE dag_id = %s AND run_id = %s AND state = 'open' "
            "RETURNING batch_id",
            (f"planning did not finish: {describe_errors(errors) or 'no step says why'}", dag_id, run_id),
        ).fetchone()
        if row:
            outbox.tell_batch_failed(connection, row[0], owner, errors)


_CLOSE = """
UPDATE spectralize.batches
SET state = %(state)s, failure = %(failure)s, closed_at = clock_timestamp(),
    loaded = %(loaded)s, partial = %(partial)s, rejected = %(rejected)s, failed = %(failed)s
WHERE batch_id = %(batch_id)s AND closed_at IS NULL
"""


def close_batch(
    connection: Connection, batch_id: int, source: Source, *, errors: Mapping[str, str | None] | None = None
) -> Batch:
    """Close a batch for good: after this, nothing may be added to it. Closing twice changes nothing.

    If it failed, the alert of that is in the outbox by the same transaction.

    Parameters
    ----------
    errors
        The steps that failed, each with what it said, or None: a batch with any has failed, whatever the gate found.

    Raises
    ------
    LedgerError
        If the sums do not hold; the batch is then closed as failed.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT state, gated_at IS NOT NULL, failure FROM spectralize.batches WHERE batch_id = %s FOR UPDATE",
            (batch_id,),
        ).fetchone()
        if row is None:
            raise LedgerError(f"batch {batch_id}: not in the ledger")
        state, gated, verdict = row
        failure = verdict or describe_errors(errors or {})
        if state not in {"success", "failed"}:
            batch = settle_batch(connection, batch_id, source)
            if not batch.counts.listing_holds() or not batch.counts.outcomes_hold():
                failure = f"the sums do not hold: {batch.counts}"
            elif not gated:
                failure = failure or "it ended before the gate"
            connection.execute(
                _CLOSE,
                {"batch_id": batch_id, "state": "failed" if failure else "success", "failure": failure}
                | batch.counts.outcomes,
            )
            if failure:
                outbox.tell_batch_failed(connection, batch_id, source.owner, errors)
    batch = read_batch(connection, batch_id)
    if batch.failure and batch.failure.startswith("the sums"):
        raise LedgerError(f"batch {batch_id} of {source.name}: {batch.failure}")
    return batch
