"""Who is told when a run fails, is late, or works again: a notifier for DAGs, and the watch that sees what no run can tell.

    DAG(…, on_failure_callback=AlertNotifier(source="audio"), on_success_callback=AlertNotifier(source="audio"))

At the level of the DAG, because callbacks of a task are not called when its process is killed. Both write to the outbox and send
what is due there; what cannot be sent is sent later by the watch.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

from spectralize.alerts import Alert, RunFacts, Sent
from spectralize.errors import LedgerError, SpectralizeError
from spectralize.sources import Source, load_sources
from spectralize_connections import features_dsn
from spectralize_errors import task_errors

if TYPE_CHECKING:
    import psycopg
    from airflow.sdk import Context

    from spectralize.outbox import OpenBatch
    from spectralize_messages import Addresses

logger = logging.getLogger(__name__)

DEFAULT_OWNER = "spectralize"

#: Alerts that a run sends at its end: a callback has less than a minute. The watch sends the rest.
_AT_MOST = 5

#: And after so long it begins none: the last one may take its time, too.
_WITHIN_S = 20.0

#: A run that ended so long ago has had the time to close its batch.
_GRACE_S = 120.0

#: States in which a run does nothing any more about a batch that is still open.
_ENDED = {"failed"}


class AlertNotifier(BaseNotifier):
    """Tells the owner of a source, or of a DAG, that a run has failed, or that it works again after one had.

    Parameters
    ----------
    source
        Name of the source; None for DAGs that belong to none, or whose form names it.
    """

    def __init__(self, source: str | None = None) -> None:
        super().__init__()
        self.source = source

    def notify(self, context: Context) -> None:
        """Tell what there is to tell about a run that has ended."""
        run, state = self._describe(context)
        try:
            self._tell(run, has_failed=state == "failed")
        except (SpectralizeError, AirflowException, AirflowRuntimeError, _database_error()) as error:
            line = _first_line(error)
            self.log.warning("alerts of %s %s: %s", run.dag_id, run.run_id, line)
            if state == "failed":
                from spectralize_outage import tell_outage

                tell_outage(line, run.owner, make_addresses(), run)

    def _tell(self, run: RunFacts, *, has_failed: bool) -> None:
        from spectralize import outbox
        from spectralize.database import connect

        with connect(features_dsn(), autocommit=True, application="spectralize alerts") as connection:
            if has_failed:
                outbox.tell_run_failed(connection, run)
            else:
                outbox.tell_recovery(connection, run)
            outbox.deliver(connection, send_alert, scope=run.scope, at_most=_AT_MOST, within_s=_WITHIN_S)

    def _describe(self, context: Context) -> tuple[RunFacts, str]:
        """Return the run as far as Airflow tells: a callback may know little more than its name."""
        dag, run, ti = context["dag"], context.get("dag_run"), context.get("ti")
        run_id = str(context["run_id"])
        errors: dict[str, str | None] = {}
        if ti:
            try:
                errors = task_errors(ti, ti.get_task_states(dag_id=dag.dag_id, run_ids=[run_id]).get(run_id, {}))
            except Exception:
                # What its tasks said is worth less than that it failed.
                self.log.exception("of %s %s is not known what its tasks said", dag.dag_id, run_id)
        source = self.source or _source_of_form(context)
        start, end = (run.data_interval_start, run.data_interval_end) if run else (None, None)
        facts = RunFacts(
            dag_id=dag.dag_id,
            run_id=run_id,
            scope=source or dag.dag_id,
            owner=owner_of(source),
            number=(run.clear_number or 0) if run else 0,
            started_at=run.start_date if run else None,
            interval=(start, end) if start and end else None,
            errors=errors,
        )
        return facts, str(getattr(run.state, "value", run.state)) if run else "failed"


def _source_of_form(context: Context) -> str | None:
    params = context.get("params") or {}
    return str(params["source"]) if "source" in params else None


def owner_of(source: str | None) -> str:
    """Return who is told about a source; about what is no source, or none any more, the owner of all."""
    found = _sources().get(source or "")
    return found.owner if found else DEFAULT_OWNER


def _sources() -> dict[str, Source]:
    """Return the sources that can be read: a slip in their file must not keep anybody from being told."""
    try:
        return load_sources().sources
    except SpectralizeError as error:
        logger.warning("%s", error)
        return {}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def make_addresses() -> Addresses:
    """Return where the links of an alert lead."""
    from airflow.configuration import conf

    from spectralize_messages import Addresses

    return Addresses(
        airflow=str(conf.get("api", "base_url", fallback="") or ""),
        explorer=os.environ.get("SPECTRALIZE_EXPLORER_URL", ""),
    )


def send_alert(alert: Alert) -> Sent:
    """Send an alert to those receivers of its owner that do not have it."""
    from spectralize_apprise import send_message
    from spectralize_messages import render_alert

    return send_message(alert.owner, render_alert(alert, make_addresses()), alert.reached)


def watch(*, ti: Any, **_: object) -> dict[str, int]:
    """See what no run can tell: that the database is away or back, that a batch is late or was left open; send what is due."""
    import psycopg

    from spectralize import outbox
    from spectralize.database import connect
    from spectralize_outage import end_outage, tell_outage

    try:
        with connect(features_dsn(), autocommit=True, application="spectralize watch") as connection:
            if not outbox.is_there(connection):
                logger.info("the schema is not there, or older than alerts: nothing to watch yet")
                return {}
            end_outage(connection, make_addresses())
            n_closed, n_late = _judge_open_batches(connection, ti)
            delivered = outbox.deliver(connection, send_alert)
            done = {
                "closed": n_closed,
                "late": n_late,
                "sent": len(delivered),
                "unsent": outbox.count_unsent(connection),
            }
    except (SpectralizeError, AirflowException, psycopg.Error) as error:
        # Away, or there and of no use: its password, its schema, what our role may do. A moment's absence is nobody's business.
        line = _first_line(error)
        if ti.try_number > ti.max_tries:
            tell_outage(line, DEFAULT_OWNER, make_addresses())
        raise AirflowException(line) from None
    logger.info("%s", ", ".join(f"{count} {what}" for what, count in done.items()))
    return done


def _judge_open_batches(connection: psycopg.Connection[Any], ti: Any) -> tuple[int, int]:
    """Close what a run that has failed left open, and note what is late; return how many of each.

    A source that is there no more has nobody to judge its batch, but that is late like any other.
    """
    from spectralize import gate, outbox

    sources = _sources()
    n_closed = n_late = 0
    for batch in outbox.open_batches(connection):
        source = sources.get(batch.source)
        owner = source.owner if source else DEFAULT_OWNER
        late_after_s = source.late_after_s if source else float(Source.model_fields["late_after_s"].default)
        if source and batch.open_s > _GRACE_S and _run_state(ti, batch) in _ENDED:
            errors = {"close_batch": "it could not close the batch; watch_batches did"}
            gate.abandon_batch(connection, batch.dag_id, batch.run_id, errors, owner=owner)
            try:
                gate.close_batch(connection, batch.batch_id, source, errors=errors)
            except LedgerError as error:
                # It is closed, and its alert is written: the others are not to wait for that.
                logger.warning("%s", error)
            logger.warning(
                "batch %d of %s: its run %s failed and left it open: closed", batch.batch_id, batch.source, batch.run_id
            )
            n_closed += 1
        elif batch.open_s > late_after_s and not batch.is_told_late:
            outbox.tell_late(connection, batch.batch_id, owner, late_after_s)
            n_late += 1
    return n_closed, n_late


def _run_state(ti: Any, batch: OpenBatch) -> str | None:
    """Return the state of a batch's run; None if Airflow does not know it, such as one planned by hand."""
    try:
        state = ti.get_dagrun_state(batch.dag_id, batch.run_id)
    except AirflowRuntimeError:
        return None
    return None if state is None else str(getattr(state, "value", state))


def _database_error() -> type[Exception]:
    import psycopg

    return psycopg.Error
