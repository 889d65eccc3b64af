"""What one executor does with its share of a batch: have objects fetched and extracted, and load them.

An object's own fault becomes a `rejected` row, ours a `failed` one; only S3 or the database being away ends the slice,
so that Spark's and Airflow's retries can do it again.
"""

import heapq
import logging
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import psycopg

from spectralize import ledger
from spectralize.database import connect, is_outage, service_errors
from spectralize.errors import as_one_line
from spectralize.estimate import OTHER_BYTES_PER_S, OVERHEAD_S, USUAL_BYTES_PER_S
from spectralize.isolate import Done, Event, Job, Part, extract_isolated
from spectralize.loader import Attempt, Result, is_forgotten, load_group, load_stream, record_failure
from spectralize.mel import warm_up
from spectralize.profiles import MelProfile
from spectralize.s3 import open_s3
from spectralize.tables import Limits, PlannedObject

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

logger = logging.getLogger(__name__)

_SLICE_OBJECTS = 500
_SLICE_AUDIO_S = 7200.0

#: More slices leave less to wait for at the end, where cores run out of work; each costs a fork and a connection.
_SLICES_PER_CORE = 4

#: A progress line in the executor's log every so many objects, or seconds, whichever comes first.
_LOG_EVERY = 100
_LOG_EVERY_S = 30.0

#: Tiny objects share a transaction until it has so many objects or bytes, or the first of them has waited so long.
_GROUP_OBJECTS = 64
_GROUP_BYTES = 4 << 20
_GROUP_S = 5.0


@dataclass(frozen=True, slots=True)
class Work:
    """What every slice of a batch shares; pickled to the executors, so secrets stay off command lines."""

    batch_id: int
    dsn: str
    profiles: dict[str, MelProfile]
    limits: Limits
    environment: dict[str, str]
    #: Of the zip that this job was submitted with. Not read from the batch by the executors: a retry may have put another
    #: one there while they still work.
    code_zip_sha256: str | None = None


def estimate_audio_s(planned: PlannedObject) -> float:
    """Guess the seconds of audio in an object from its size and the usual rate of its format, for balance alone."""
    suffix = planned.key.rpartition(".")[2].lower()
    return planned.size_bytes / USUAL_BYTES_PER_S.get(suffix, OTHER_BYTES_PER_S) + OVERHEAD_S


def slice_objects(objects: Sequence[PlannedObject], n_cores: int) -> list[list[PlannedObject]]:
    """Cut a batch into slices of about equal work, each with its largest objects first, so that no straggler starts last.

    Bytes are weighed by what they take to decode: a minute of opus takes as long as a minute of wav, at a fifteenth of the
    bytes. At least four slices per core while there are objects enough; no slice above 500 objects, or far above two
    hours unless it is a single object.
    """
    if not objects:
        return []
    work = {planned.object_id: estimate_audio_s(planned) for planned in objects}
    wanted = max(
        math.ceil(sum(work.values()) / _SLICE_AUDIO_S),
        math.ceil(len(objects) / _SLICE_OBJECTS),
        min(len(objects), _SLICES_PER_CORE * n_cores),
    )
    # The heaviest first, each to the slice with the least work so far; a full slice takes no more.
    slices: list[list[PlannedObject]] = [[] for _ in range(wanted)]
    loads = [(0.0, number) for number in range(wanted)]
    for planned in sorted(objects, key=lambda item: (-work[item.object_id], item.object_id)):
        load_s, number = heapq.heappop(loads)
        slices[number].append(planned)
        if len(slices[number]) < _SLICE_OBJECTS:
            heapq.heappush(loads, (load_s + work[planned.object_id], number))
    filled = [part for part in slices if part]
    return sorted(filled, key=lambda part: -sum(work[planned.object_id] for planned in part))


def run_slice(work: Work, objects: Iterable[PlannedObject], *, worker: str = "") -> Counter[str]:
    """Process objects in turn and return how many (object, profile) pairs came to each outcome.

    Raises
    ------
    ServiceError, ConfigError
        If S3 or the database is away or refuses us.
    LedgerError
        If the batch was closed meanwhile.
    """
    os.environ.update(work.environment)
    attempt = Attempt(work.batch_id, worker or f"{socket.gethostname()}:{os.getpid()}", work.code_zip_sha256)
    # Here, so that every process that is forked has it, and none takes it out of an object's time.
    for profile in work.profiles.values():
        warm_up(profile)
    job = Job(_client(tuple(sorted(work.environment.items()))), work.profiles, work.limits)
    with connect(work.dsn, application=f"spectralize batch {work.batch_id}") as connection, service_errors(work.dsn):
        return _Slice(connection, attempt, job).run(list(objects))


@lru_cache(maxsize=1)
def _client(_environment: tuple[tuple[str, str], ...]) -> "S3Client":
    """Return a client for this environment. Making one takes longer than fetching an object, and workers are reused."""
    return open_s3()


class _Slice:
    """One executor's share of a batch while it is being worked on."""

    def __init__(self, connection: psycopg.Connection[Any], attempt: Attempt, job: Job) -> None:
        self._connection, self._attempt, self._job = connection, attempt, job
        self._counts: Counter[str] = Counter()
        self._group: list[Result] = []
        self._group_bytes = 0
        self._group_since = 0.0
        self._progress = _Progress(attempt.batch_id, self._counts)

    def run(self, objects: list[PlannedObject]) -> Counter[str]:
        undone = ledger.find_undone(self._connection, self._attempt.batch_id, [item.object_id for item in objects])
        self._connection.commit()
        self._counts["done before"] += sum(len(item.profiles) for item in objects if item.object_id not in undone)
        todo = [item for item in objects if item.object_id in undone]
        self._progress.n_objects = len(todo)
        self._process(todo)
        return +self._counts

    def _process(self, objects: Sequence[PlannedObject]) -> None:
        position = 0
        while position < len(objects):
            refused: Exception | None = None
            started_at = datetime.now(UTC)
            events = extract_isolated(objects[position:], self._job)
            with closing(events):
                for planned, event in events:
                    if isinstance(event, Part):
                        self._flush()
                        refused = self._stream(planned, event, events, started_at)
                    else:
                        self._gather(Result(planned, event, started_at))
                    position += 1
                    if refused is not None:
                        break
                    self._progress.step(planned, event)
                    started_at = datetime.now(UTC)
            if refused is not None:
                self._redo(objects[position - 1], refused, started_at)
        self._flush()

    def _gather(self, result: Result) -> None:
        if not self._group:
            self._group_since = time.monotonic()
        self._group.append(result)
        self._group_bytes += result.n_bytes
        if (
            len(self._group) >= _GROUP_OBJECTS
            or self._group_bytes >= _GROUP_BYTES
            or time.monotonic() - self._group_since > _GROUP_S
        ):
            self._flush()

    def _flush(self) -> None:
        """Load what was gathered: together, and if the database refuses that, one by one, and then profile by profile."""
        group, self._group, self._group_bytes = self._group, [], 0
        if group and self._load(group) is not None:
            for result in group:
                if self._load([result]) is not None:
                    for profile in result.planned.profiles:
                        single = result.only(profile)
                        error = self._load([single])
                        if error is not None:
                            self._fail(single.planned, error, result.started_at)

    def _load(self, group: Sequence[Result]) -> Exception | None:
        try:
            self._counts.update(load_group(self._connection, self._attempt, group))
        except psycopg.Error as error:
            return self._judge(error)
        return None

    def _stream(
        self,
        planned: PlannedObject,
        first: Part,
        events: Iterator[tuple[PlannedObject, Event]],
        started_at: datetime,
    ) -> Exception | None:
        own = self._progress.watch(planned, events)
        try:
            self._counts.update(load_stream(self._connection, self._attempt, planned, first, own, started_at))
        except psycopg.Error as error:
            return self._judge(error)
        return None

    def _redo(self, planned: PlannedObject, error: Exception, started_at: datetime) -> None:
        """Do an object that the database refused again, profile by profile, so that one does not cost the others."""
        if len(planned.profiles) == 1 or is_forgotten(error):
            self._fail(planned, error, started_at)
            return
        for profile in planned.profiles:
            self._process([replace(planned, profiles=(profile,))])

    def _fail(self, planned: PlannedObject, error: Exception, started_at: datetime) -> None:
        self._counts.update(record_failure(self._connection, self._attempt, planned, error, started_at))

    def _judge(self, error: psycopg.Error) -> Exception:
        """Return an error that concerns what was to be loaded; raise one that concerns the database."""
        if self._connection.broken or is_outage(error):
            raise error
        logger.warning("batch %d: the database refuses rows", self._attempt.batch_id, exc_info=error)
        return error


class _Progress:
    """Lines in the executor's log."""

    def __init__(self, batch_id: int, counts: Counter[str]) -> None:
        self._batch_id, self._counts = batch_id, counts
        self.n_objects = 0
        self._n_done = 0
        self._audio_s = 0.0
        self._started = self._logged = time.monotonic()

    def step(self, planned: PlannedObject, event: Event) -> None:
        self._n_done += 1
        if isinstance(event, Done):
            self._audio_s += event.extraction.audio.duration_s
        if self._n_done % _LOG_EVERY == 0 or time.monotonic() - self._logged > _LOG_EVERY_S:
            self._log(planned, "done")

    def watch(
        self, planned: PlannedObject, events: Iterator[tuple[PlannedObject, Event]]
    ) -> Iterator[tuple[PlannedObject, Event]]:
        """Pass the events of a long recording on."""
        for item in events:
            if isinstance(item[1], Done):
                self._audio_s += item[1].extraction.audio.duration_s
            elif time.monotonic() - self._logged > _LOG_EVERY_S:
                self._log(planned, "being streamed")
            yield item

    def _log(self, planned: PlannedObject, what: str) -> None:
        self._logged = time.monotonic()
        logger.warning(
            "batch %d: %d of %d objects of this slice after %.0f s, %.2f h of audio; %s %s",
            self._batch_id, self._n_done, self.n_objects, self._logged - self._started, self._audio_s / 3600,
            as_one_line(planned.key), what,
        )  # fmt: skip
