"""What one executor does with its share of a batch: fetch, extract, load, object by object.

An object's own fault becomes a `rejected` row, ours a `failed` one; only S3 or the database being away ends the slice,
so that Spark's and Airflow's retries can do it again.
"""

import logging
import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg

from spectralize import ledger
from spectralize.database import connect, is_outage, service_errors
from spectralize.errors import (
    ConfigError,
    FailedObjectError,
    LedgerError,
    RejectedObjectError,
    ServiceError,
    as_one_line,
)
from spectralize.extract import extract
from spectralize.loader import Attempt, load_object
from spectralize.manifest import Limits
from spectralize.profiles import MelProfile
from spectralize.s3 import fetch, open_s3
from spectralize.tables import Outcome, PlannedObject, Timings
from spectralize.tags import clean_text

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

logger = logging.getLogger(__name__)

#: A progress line in the executor's log every so many objects.
_LOG_EVERY = 100


@dataclass(frozen=True, slots=True)
class Work:
    """What every slice of a batch shares; pickled to the executors, so secrets stay off command lines."""

    batch_id: int
    dsn: str
    profiles: dict[str, MelProfile]
    limits: Limits
    environment: dict[str, str]


def slice_objects(
    objects: Sequence[PlannedObject], n_cores: int, *, slice_bytes: int = 64 << 20, slice_objects: int = 200
) -> list[list[PlannedObject]]:
    """Cut a batch into slices of about equal bytes, the largest objects first, so that no straggler starts last.

    At least two slices per core while there are objects enough; no slice above `slice_objects` objects, none above
    `slice_bytes` unless it is a single object.
    """
    if not objects:
        return []
    total = sum(planned.size_bytes for planned in objects)
    wanted = max(-(-total // slice_bytes), -(-len(objects) // slice_objects), min(len(objects), 2 * n_cores))
    bound = max(1, total // wanted)
    slices: list[list[PlannedObject]] = []
    current: list[PlannedObject] = []
    size = 0
    for planned in sorted(objects, key=lambda item: (-item.size_bytes, item.object_id)):
        if current and (size + planned.size_bytes > bound or len(current) >= slice_objects):
            slices.append(current)
            current, size = [], 0
        current.append(planned)
        size += planned.size_bytes
    slices.append(current)
    return slices


def run_slice(work: Work, objects: Iterable[PlannedObject], *, worker: str = "") -> Counter[str]:
    """Process objects one after another and return how many pairs came to each outcome.

    Raises
    ------
    ServiceError, ConfigError
        If S3 or the database is away or refuses us.
    LedgerError
        If the batch was closed meanwhile.
    """
    os.environ.update(work.environment)
    worker = worker or f"{socket.gethostname()}:{os.getpid()}"
    client = open_s3()
    counts: Counter[str] = Counter()
    with connect(work.dsn, application=f"spectralize batch {work.batch_id}") as connection, service_errors(work.dsn):
        for done, planned in enumerate(objects, start=1):
            counts.update(process_object(connection, client, work, planned, worker))
            if done % _LOG_EVERY == 0:
                logger.warning("batch %d: %d objects of this slice done: %s", work.batch_id, done, dict(counts))
    return counts


def process_object(
    connection: psycopg.Connection[Any], client: "S3Client", work: Work, planned: PlannedObject, worker: str
) -> list[str]:
    """Bring one object to one outcome per profile, each with its ledger row."""
    if ledger.is_done(connection, work.batch_id, planned.object_id):
        connection.commit()
        return ["done before"] * len(planned.profiles)
    connection.commit()
    attempt = Attempt(work.batch_id, worker, datetime.now(UTC))
    timings = Timings()
    try:
        if planned.size_bytes > work.limits.max_object_bytes:
            raise RejectedObjectError(
                "too_large",
                f"{planned.size_bytes} bytes, {work.limits.max_object_bytes} are the most this source allows",
            )
        started = perf_counter()
        data = fetch(client, planned)
        timings.fetch_s = perf_counter() - started
        profiles = [work.profiles[profile.name] for profile in planned.profiles]
        extraction = extract(data, profiles, work.limits, timings)
        return list(load_object(connection, attempt, planned, extraction, timings).values())
    except RejectedObjectError as error:
        return _record(connection, attempt, planned, "rejected", error.reason_class, error.reason, timings)
    except FailedObjectError as error:
        return _record(connection, attempt, planned, "failed", error.reason_class, error.reason, timings)
    except (ServiceError, ConfigError, LedgerError):
        raise
    except Exception as error:
        if isinstance(error, psycopg.Error) and (connection.broken or is_outage(error)):
            raise
        # Whatever else a decoder, a library or we ourselves got wrong costs this object, not its neighbours.
        logger.warning("s3://%s/%s failed", planned.bucket, as_one_line(planned.key), exc_info=True)
        first_line = (str(error).splitlines() or [""])[0]
        return _record(connection, attempt, planned, "failed", type(error).__name__, first_line or repr(error), timings)


def _record(
    connection: psycopg.Connection[Any],
    attempt: Attempt,
    planned: PlannedObject,
    outcome: Outcome,
    reason_class: str,
    reason: str,
    timings: Timings,
) -> list[str]:
    connection.rollback()
    with connection.transaction():
        ledger.hold_batch_open(connection, attempt.batch_id)
        for profile in planned.profiles:
            ledger.record_outcome(
                connection, attempt.batch_id, planned.object_id, profile.profile_id, outcome,
                reason_class=reason_class, reason=clean_text(reason)[:1000], spectrogram_id=None,
                worker=attempt.worker, started_at=attempt.started_at, timings=timings,
            )  # fmt: skip
    return [outcome] * len(planned.profiles)
