"""Waiting for new objects without a worker slot: the trigger behind the sensor of the ingest DAGs.

The triggerer does not import from the DAGs folder; it finds this file because Airflow puts plugins/ on the path.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from spectralize.sources import load_sources
from spectralize_connections import features_dsn, plain_errors, s3_client

#: Sources that are looked at at once in one triggerer; each holds one page of its listing in memory.
_LOOKS = ThreadPoolExecutor(max_workers=4, thread_name_prefix="spectralize-look")

#: Each wait is so much longer than the one before.
_BACK_OFF = 1.5


def look(source: str, stop: threading.Event | None = None) -> bool:
    """Tell whether a source holds something to do: its recent prefixes, page by page, against the ledger."""
    from spectralize.database import connect
    from spectralize.planner import has_work

    with plain_errors():
        found = load_sources().find(source)
        with connect(features_dsn(), application=f"spectralize sense {source}") as connection:
            return has_work(
                connection,
                s3_client(),
                found,
                prefixes=found.recent_prefixes(datetime.now(UTC)),
                stop=stop.is_set if stop else lambda: False,
            )


class NewObjectsTrigger(BaseTrigger):
    """Look until a source holds something to do, or its window ends.

    Its event says `{"found": bool}`, or `{"error": str}` for what waiting cannot mend. While S3 or the database is away it
    goes on looking; if they are still away when the window ends, that is the error.

    Parameters
    ----------
    until
        End of the window, ISO 8601 with its zone.
    poll_s
        Seconds until the second look, and the longest wait between two.
    """

    def __init__(self, source: str, until: str, poll_s: tuple[float, float]) -> None:
        super().__init__()
        self.source = source
        self.until = until
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer makes this trigger from again."""
        return "spectralize_triggers.NewObjectsTrigger", {
            "source": self.source,
            "until": self.until,
            "poll_s": list(self.poll_s),
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event."""
        until = datetime.fromisoformat(self.until)
        delay, longest = self.poll_s
        stop = threading.Event()
        try:
            while True:
                is_last = datetime.now(UTC) >= until
                event = await self._look(stop, is_last=is_last)
                if event is not None or is_last:
                    yield TriggerEvent(event or {"found": False})
                    return
                left = (until - datetime.now(UTC)).total_seconds()
                await asyncio.sleep(max(0.0, min(delay, left)))
                delay = min(delay * _BACK_OFF, longest)
        finally:
            # A thread cannot be cancelled: it ends after its page.
            stop.set()

    async def _look(self, stop: threading.Event, *, is_last: bool) -> dict[str, Any] | None:
        loop = asyncio.get_running_loop()
        try:
            is_found = await loop.run_in_executor(_LOOKS, look, self.source, stop)
        except AirflowFailException as error:
            return {"error": str(error), "may_pass": False}
        except AirflowException as error:
            self.log.warning("source %s: %s", self.source, error)
            return {"error": str(error), "may_pass": True} if is_last else None
        self.log.info("source %s: %s", self.source, "there is something to do" if is_found else "nothing new yet")
        return {"found": True} if is_found else None
