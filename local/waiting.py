"""Waiting for a condition instead of for a while."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from local.errors import StackError

T = TypeVar("T")


class NotReady(Exception):
    """The condition does not hold yet; the message says what is missing."""


def wait_until(probe: Callable[[], T], *, what: str, timeout_s: float, log: Path | None = None) -> T:
    """Call ``probe`` until it no longer raises `NotReady`; its other exceptions end the waiting at once."""
    retrying = Retrying(
        retry=retry_if_exception_type(NotReady),
        stop=stop_after_delay(timeout_s),
        wait=wait_exponential(multiplier=0.02, exp_base=1.6, max=0.5),
    )
    try:
        return retrying(probe)
    except RetryError as error:
        reason = error.last_attempt.exception()
        raise StackError(f"{what}: not ready after {timeout_s:.0f} s ({reason})", log_tail=tail(log)) from reason


def tail(log: Path | None, lines: int = 15) -> str:
    """Return the last lines of a log file, or nothing when there is no such file."""
    if log is None or not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
