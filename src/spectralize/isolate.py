"""Extraction in a process of its own, so that a decoder that crashes, hangs or eats memory costs one object.

The child is forked from the executor's process: what was imported there is paid once. It goes through its objects in
turn and sends rows and results over a pipe; it never sees the database. It is killed by the kernel when it computes too
long, when it wants too much memory, and when its parent dies.
"""

import ctypes
import fcntl
import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, cast

from spectralize.binarycopy import RowBlock
from spectralize.errors import (
    ConfigError,
    FailedObjectError,
    RejectedObjectError,
    ServiceError,
    SpectralizeError,
    as_one_line,
)
from spectralize.extract import Extraction, extract
from spectralize.objectfile import ObjectFile, open_objects
from spectralize.profiles import MelProfile
from spectralize.tables import Limits, PlannedObject, Timings
from spectralize.tags import Tags, no_tags, read_tags

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

logger = logging.getLogger(__name__)

#: Rows that a child gathers before it sends them. What ends within that many bytes is a tiny object, and may share a
#: transaction with others.
PART_BYTES = 1 << 20

#: Memory that a child may take beyond what it has when it starts. A block of a recording takes some tens of megabytes.
_MEMORY_BYTES = 1 << 30

#: Tags are claims: reading them may take so long, then the recording has none.
_TAGS_S = 10.0

#: Deaths that are the doing of the bytes being decoded.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}

#: Deaths that may be owed to what an earlier object left behind.
_WORTH_A_RETRY = ("crashed", "killed")

#: How long a child may say nothing beyond the time that an object may take: retries of S3 fit into it.
_SILENCE_S = 1200.0

#: Zero would stop the kernel's timer instead of ending it.
_SHORTEST_S = 1e-3

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

Row = tuple[str, RowBlock]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of an object that is not done yet, each block with the name of its profile."""

    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Done:
    """An object that was computed, with the rows not sent before."""

    rows: list[Row]
    extraction: Extraction
    timings: Timings


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that was not: rejected if that is its own fault, else failed."""

    is_rejected: bool
    reason_class: str
    reason: str
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True)
class _Outage:
    """S3 is away or refuses us: no object's fault."""

    kind: type[SpectralizeError]
    message: str


Event = Part | Done | Refused


@dataclass(frozen=True, slots=True)
class Job:
    """What the child needs to know beside the objects."""

    client: "S3Client"
    profiles: dict[str, MelProfile]
    limits: Limits


def extract_isolated(objects: Sequence[PlannedObject], job: Job) -> Generator[tuple[PlannedObject, Event], None, None]:
    """Extract objects in turn: for each any number of `Part`, then one `Done` or `Refused`.

    A child that dies is replaced. The object it died of is tried once more if none of its rows had been given away, since
    a decoder may trip over what an earlier object left behind; then its death is its outcome.

    Raises
    ------
    ServiceError, ConfigError
        If S3 is away or refuses us.
    """
    position, retried = 0, -1
    while position < len(objects):
        child = _Child(objects[position:], job)
        try:
            is_begun = False
            while position < len(objects):
                planned = objects[position]
                try:
                    event = child.receive()
                except EOFError:
                    death = child.judge_death()
                    if death.reason_class in _WORTH_A_RETRY and retried < position and not is_begun:
                        logger.warning("%s: %s; trying once more", as_one_line(planned.key), death.reason)
                        retried = position
                    else:
                        yield planned, death
                        position += 1
                    break
                if isinstance(event, _Outage):
                    raise event.kind(event.message)
                is_begun = isinstance(event, Part)
                if not is_begun:
                    position += 1
                yield planned, event
        finally:
            child.kill()


class _Child:
    """One forked process and our end of its pipe."""

    def __init__(self, objects: Sequence[PlannedObject], job: Job) -> None:
        context = multiprocessing.get_context("fork")
        self._limits = job.limits
        self._receiver, sender = context.Pipe(duplex=False)
        with suppress(OSError):
            # So that it can go on while its last part is being written to the database; Linux allows as much to anyone.
            fcntl.fcntl(sender.fileno(), fcntl.F_SETPIPE_SZ, PART_BYTES)
        self._process = context.Process(
            target=_run,
            args=(objects, job, self._receiver, sender, os.getpid()),
            name="spectralize-extract",
            daemon=True,
        )
        self._process.start()
        # Ours must be the only receiver and the child's the only sender, or neither sees the other die.
        sender.close()

    def receive(self) -> Event | _Outage:
        # Whatever the child does is limited there: computing by its timer, reading by the S3 client. If all of that fails,
        # somebody must still go on.
        if not self._receiver.poll(self._limits.max_decode_s + _SILENCE_S):
            self._process.kill()
            raise EOFError
        try:
            return cast(Event | _Outage, self._receiver.recv())
        except OSError as error:
            # It was killed in the middle of a message.
            raise EOFError from error

    def judge_death(self) -> Refused:
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGALRM:
            limit = f"{self._limits.max_decode_s:g} s"
            return Refused(True, "timed_out", f"not decoded within {limit}, the most this source allows")
        if -code in _CRASHES:
            return Refused(True, "crashed", f"the decoder crashed: {signal.Signals(-code).name}")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Refused(False, "killed", f"the extracting process was ended from outside or by the kernel: {how}")

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self._receiver.close()


class _Stopwatch:
    """Wall time that one object has left, counted by the kernel: it ends the process even inside a library that hangs.

    Waiting for S3, or for the database to take rows, does not count.
    """

    def __init__(self) -> None:
        self._is_running = False

    def start(self, seconds: float, on_end: Callable[[int, FrameType | None], None] | None = None) -> None:
        """Run from now on; at the end call a function between two lines of Python, or else end the process."""
        signal.signal(signal.SIGALRM, on_end or signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, _SHORTEST_S))
        self._is_running = True

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        self._is_running = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        if not self._is_running:
            yield
            return
        left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, max(left_s, _SHORTEST_S))


class _TagsTookTooLong(BaseException):
    """No library may catch it as an error of its own."""


def _run(objects: Sequence[PlannedObject], job: Job, receiver: Connection, sender: Connection, parent: int) -> None:
    """Be the child."""
    receiver.close()
    _die_with(parent)
    _limit_memory()
    keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Extractor(job, sender).run(objects)
    sender.close()
    # Nothing that was inherited, such as the parent's connection to the database, may be tidied up here.
    os._exit(0)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _limit_memory() -> None:
    status = Path("/proc/self/status").read_text()
    data_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    limit = data_kb * 1024 + _MEMORY_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    # A crash here is an outcome, not something to keep an image of.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_memory() -> None:
    """Keep the buffers of one block for the next, where malloc would give them back and have the kernel clear new ones."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)


class _Extractor:
    """What the child does, object after object."""

    def __init__(self, job: Job, sender: Connection) -> None:
        self._job, self._sender = job, sender
        self._watch = _Stopwatch()
        self._waited_s = 0.0
        self._rows: list[Row] = []
        self._rows_bytes = 0

    def run(self, objects: Sequence[PlannedObject]) -> None:
        limits = self._job.limits
        for planned, file in open_objects(
            self._job.client, objects, max_object_bytes=limits.max_object_bytes, wait=self._waiting
        ):
            event = self._extract(planned, file)
            self._watch.stop()
            self._rows, self._rows_bytes = [], 0
            self._sender.send(event)
            if isinstance(event, _Outage):
                return

    def _extract(self, planned: PlannedObject, file: ObjectFile) -> Event | _Outage:
        limits, timings = self._job.limits, Timings()
        self._waited_s = 0.0
        if planned.size_bytes > limits.max_object_bytes:
            return Refused(
                True, "too_large",
                f"{planned.size_bytes} bytes, {limits.max_object_bytes} are the most this source allows",
            )  # fmt: skip
        if not planned.size_bytes:
            return Refused(True, "empty", "the object has no bytes")
        profiles = [self._job.profiles[profile.name] for profile in planned.profiles]
        try:
            tags = self._read_tags(file)
            if file.failure is not None:
                raise file.failure
            file.seek(0)
            self._watch.start(limits.max_decode_s)
            extraction = extract(file, profiles, limits, planned.recorded_at, self._emit, timings, tags=tags)
        except Exception as error:  # noqa: BLE001 (it becomes the object's outcome)
            # Whatever a decoder or a library raised, a file that could not be read comes first.
            cause = file.failure or error
            timings.fetch_s = self._waited_s
            return _judge(planned, cause, timings)
        if file.failure is not None:
            return _judge(planned, file.failure, timings)
        timings.fetch_s = self._waited_s
        timings.decode_s = max(0.0, timings.decode_s - self._waited_s)
        return Done(self._rows, extraction, timings)

    def _read_tags(self, file: ObjectFile) -> Tags:
        def interrupt(_: int, __: FrameType | None) -> None:
            raise _TagsTookTooLong

        # tinytag is Python, so an exception can stop it; a decoder could not be stopped like that.
        try:
            self._watch.start(_TAGS_S, interrupt)
            tags = read_tags(file)
            self._watch.stop()
        except _TagsTookTooLong:
            self._watch.stop()
            # It may have come between any two lines.
            file.start_again()
            return no_tags(file.size_bytes)
        return tags

    def _emit(self, profile: str, block: RowBlock) -> None:
        self._rows.append((profile, block))
        self._rows_bytes += len(block.data)
        if self._rows_bytes >= PART_BYTES:
            with self._waiting():
                self._sender.send(Part(self._rows))
            self._rows, self._rows_bytes = [], 0

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        with self._watch.paused():
            yield
        self._waited_s += time.perf_counter() - started


def _judge(planned: PlannedObject, error: Exception, timings: Timings) -> Refused | _Outage:
    match error:
        case RejectedObjectError():
            return Refused(True, error.reason_class, error.reason, timings)
        case FailedObjectError():
            return Refused(False, error.reason_class, error.reason, timings)
        case ServiceError() | ConfigError():
            return _Outage(type(error), str(error))
        case MemoryError():
            # The process holds nothing but this object.
            limit = f"{_MEMORY_BYTES >> 20} MB"
            return Refused(True, "too_much_memory", f"needs more than {limit} of memory", timings)
    # Whatever else a decoder, a library or we ourselves got wrong costs this object, not its neighbours.
    logger.warning("s3://%s/%s failed", planned.bucket, as_one_line(planned.key), exc_info=error)
    first_line = (str(error).splitlines() or [""])[0]
    return Refused(False, type(error).__name__, first_line or repr(error), timings)
