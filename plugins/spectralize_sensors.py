"""The first step of an ingest run: wait until the source holds something to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from spectralize.sources import load_sources
from spectralize_connections import plain_errors
from spectralize_operators import waiting_s
from spectralize_triggers import NewObjectsTrigger, look

if TYPE_CHECKING:
    from airflow.sdk import Context


class NewObjectsSensor(BaseSensorOperator):
    """Wait until the source holds a settled object without a final outcome. Deferred: it takes no worker slot meanwhile.

    Scheduled runs wait at most the source's `sense_window_s`, runs woken by an event until what woke them has settled;
    the param `wait_s` has manual runs wait too. Backfills never wait. When the window ends the run goes on, and planning
    lists the whole source once more: what is found then is not lost.
    """

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source

    def execute(self, context: Context) -> None:
        """Look once, and leave the rest to the trigger."""
        with plain_errors():
            source = load_sources().find(self.source)
        window_s = waiting_s(source, context)
        if window_s <= 0:
            self.log.info("a run of this kind does not wait")
            return
        if look(self.source):
            self.log.info("there is something to do in %s", source.address)
            return
        started = context["dag_run"].start_date or datetime.now(UTC)
        until = started + timedelta(seconds=window_s)
        self.log.info("nothing new in %s: waiting until %s", source.address, f"{until:%Y-%m-%d %H:%M:%S}Z")
        self.defer(
            trigger=NewObjectsTrigger(self.source, until.isoformat(), source.sense_poll_s),
            method_name=self.resume.__name__,
        )

    def resume(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002
        """Go on with the run, whether something was found or the window has ended."""
        if "error" in event:
            raise (AirflowException if event["may_pass"] else AirflowFailException)(event["error"])
        self.log.info("there is something to do" if event["found"] else "nothing new by the end of the window")
