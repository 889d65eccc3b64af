"""Finding and ending the processes of a stack, also those that nobody manages any more."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from local.errors import StackError
from local.waiting import NotReady, wait_until

#: Every process of a stack inherits this variable, whoever started it: a Spark JVM of a task has it too.
MARKER = "SPECTRALIZE_STACK"

#: How long processes get to end by themselves before they are killed. A shorter time tears PostgreSQL out of its
#: shutdown checkpoint, which costs a recovery at the next start.
GRACE_S = 20.0


def of_stack(stack: Path) -> list[psutil.Process]:
    """Return the living processes that carry the marker of ``stack``, and their descendants.

    The descendants matter: PostgreSQL's children write their title over the memory that holds the environment.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARKER) == str(stack):
                for member in (process, *process.children(recursive=True)):
                    found[member.pid] = member
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for pid, process in found.items() if pid not in ours and _is_alive(process)]


def unmanaged(stack: Path, managed: Iterable[int]) -> list[psutil.Process]:
    """Return the processes of ``stack`` that are neither among ``managed`` nor their descendants."""
    known = set(managed)
    for pid in list(known):
        with suppress(psutil.Error):
            known.update(child.pid for child in psutil.Process(pid).children(recursive=True))
    return [process for process in of_stack(stack) if process.pid not in known]


def grandchildren(pid: int) -> list[psutil.Process]:
    """Return the descendants of a process without its children: what the workers of a scheduler are running."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        children = {child.pid for child in process.children()}
        return [member for member in process.children(recursive=True) if member.pid not in children]
    return []


def end(processes: Iterable[psutil.Process], *, grace_s: float = GRACE_S) -> None:
    """Ask processes to end, wait until they are gone, kill those that stay."""
    processes = list(processes)
    for process in processes:
        with suppress(psutil.Error):
            if process.name() != "postgres":
                process.terminate()
            elif process.parent() is None or process.parent().name() != "postgres":
                # SIGINT is PostgreSQL's fast shutdown; its children are the postmaster's business.
                process.send_signal(signal.SIGINT)
    for process in _outlasting(processes, grace_s):
        with suppress(psutil.Error):
            process.kill()
    left = _outlasting(processes, 5)
    if left:
        raise StackError("these processes do not end: " + ", ".join(f"{process.pid}" for process in left))


def _outlasting(processes: Iterable[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until all processes are gone; return those that still live after ``timeout_s``.

    Not psutil's own waiting: it takes a zombie for a living process when the parent is somebody else.
    """

    def none_left() -> None:
        if any(map(_is_alive, processes)):
            raise NotReady("processes are still running")

    with suppress(StackError):
        wait_until(none_left, what="stop", timeout_s=timeout_s)
    return [process for process in processes if _is_alive(process)]


def end_all(stack: Path, *, grace_s: float = GRACE_S) -> int:
    """End every process of ``stack``, also those started while the others were ending; return how many there were."""
    count = 0
    while processes := of_stack(stack):
        count += len(processes)
        end(processes, grace_s=grace_s)
    return count


def _is_alive(process: psutil.Process) -> bool:
    # A zombie is dead already; only its parent can remove it.
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
