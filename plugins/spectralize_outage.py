"""Alerts while the features database is away: kept in Airflow's own, as a Variable, until they can go to the outbox.

Each connection that alerts go to hears once of an outage, from whoever sees it first: the first run that fails by it, or the
DAG `watch_batches`. Further runs are only noted; the message that the database is back names them.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from spectralize.alerts import OUTAGE_SCOPE, Alert, Kind, RunFacts, Sent
from spectralize_apprise import connection_of, send_message
from spectralize_messages import render_alert

if TYPE_CHECKING:
    import psycopg

    from spectralize_messages import Addresses

logger = logging.getLogger(__name__)

VARIABLE = "spectralize_outage"


@dataclass(slots=True)
class Told:
    """What one connection is told, and who behind it has heard it."""

    owner: str
    kind: Kind
    facts: dict[str, Any]
    dag_id: str
    run_id: str
    reached: list[str] = field(default_factory=list)
    is_sent: bool = False


@dataclass(slots=True)
class Outage:
    """An outage, as the Variable keeps it."""

    since: str
    error: str
    runs: list[dict[str, Any]] = field(default_factory=list)
    told: dict[str, Told] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Outage | None:
        """Return what is kept, None while there is no outage.

        A Variable can be edited by hand. What nobody can read must not keep everybody from being told, and is passed over.
        """
        kept = Variable.get(VARIABLE, default=None)
        if not kept:
            return None
        try:
            values = json.loads(kept)
            outage = cls(**values | {"told": {conn_id: Told(**told) for conn_id, told in values["told"].items()}})
            datetime.fromisoformat(outage.since)
            for run in outage.runs:
                _from_json(run)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            logger.warning("Variable %s: not what was kept there, and passed over: %s", VARIABLE, error)
            return None
        return outage

    def save(self) -> None:
        """Keep it."""
        Variable.set(VARIABLE, json.dumps(asdict(self)), description="The features database is away: who knows it")


def tell_outage(error: str, owner: str, addresses: Addresses, run: RunFacts | None = None) -> None:
    """Tell an owner, unless told before, that the database is away, and by which run that came to light."""
    outage = Outage.load() or Outage(datetime.now(UTC).isoformat(), error)
    if run is not None:
        noted = _as_json(run)
        if noted not in outage.runs:
            outage.runs.append(noted)
    conn_id = connection_of(owner)
    if conn_id not in outage.told:
        if run is None:
            outage.told[conn_id] = Told(owner, "away", {"error": error}, "", "")
        else:
            outage.told[conn_id] = Told(owner, "failed", run.facts() | {"away": error}, run.dag_id, run.run_id)
    # Before sending: whoever comes meanwhile must find it told.
    outage.save()
    send_outage(outage, addresses)


def send_outage(outage: Outage, addresses: Addresses) -> None:
    """Send what has not reached everybody yet."""
    for told in outage.told.values():
        if told.is_sent:
            continue
        alert = Alert(
            alert_id=0, kind=told.kind, batch_id=None, scope=OUTAGE_SCOPE, owner=told.owner, dag_id=told.dag_id,
            run_id=told.run_id, facts=told.facts, created_at=datetime.now(UTC), reached=tuple(told.reached), tries=0,
        )  # fmt: skip
        sent = _send(alert, addresses)
        told.reached = sorted({*told.reached, *sent.reached})
        told.is_sent = not sent.errors
    outage.save()


def _send(alert: Alert, addresses: Addresses) -> Sent:
    """Send, and take an error for a receiver that is away: it must keep back neither the others nor the end of the outage."""
    try:
        return send_message(alert.owner, render_alert(alert, addresses), alert.reached)
    except Exception as error:
        logger.exception("%s could not be told that the features database is away", alert.owner)
        return Sent(errors=[f"{type(error).__name__}: {error}"])


def end_outage(connection: psycopg.Connection[Any], addresses: Addresses) -> None:
    """Bring an outage that is over to the outbox, which says so to all who were told of it; nothing if there was none."""
    from spectralize.outbox import record_outage

    outage = Outage.load()
    if outage is None:
        return
    # Who has not heard of it yet hears both.
    send_outage(outage, addresses)
    runs = [_from_json(run) for run in outage.runs]
    owners = sorted({told.owner for told in outage.told.values()})
    record_outage(connection, datetime.fromisoformat(outage.since), outage.error, owners, runs)
    connection.commit()
    Variable.delete(VARIABLE)
    logger.info("the features database was away since %s; %d runs failed meanwhile", outage.since, len(runs))


def _as_json(run: RunFacts) -> dict[str, Any]:
    start, end = run.interval or (None, None)
    return {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "scope": run.scope,
        "owner": run.owner,
        "number": run.number,
        "started_at": run.started_at and run.started_at.isoformat(),
        "interval": [start.isoformat(), end.isoformat()] if start and end else None,
        "errors": dict(run.errors),
    }


def _from_json(values: dict[str, Any]) -> RunFacts:
    interval = values["interval"] and tuple(datetime.fromisoformat(at) for at in values["interval"])
    started_at = values["started_at"] and datetime.fromisoformat(values["started_at"])
    return RunFacts(**values | {"interval": interval, "started_at": started_at})
