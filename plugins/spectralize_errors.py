"""What a failed task said last, kept for those who tell of it: Airflow itself keeps it in a log only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spectralize.errors import as_one_line

if TYPE_CHECKING:
    from airflow.sdk import Context

_KEY = "error"
_LENGTH = 1_000
_CHECK = re.compile(r"^\s*Check: (\w+)", re.MULTILINE)


def keep_error(context: Context) -> None:
    """Keep the last line of a task that fails for good: for `on_failure_callback` in the default_args of a DAG.

    A task that is killed keeps nothing.
    """
    error = context.get("exception")
    # For a task that was killed, the callback is called elsewhere, and knows nothing.
    if error is None:
        return
    context["ti"].xcom_push(key=_KEY, value=as_one_line(_last_line(error))[:_LENGTH])


def _last_line(error: object) -> str:
    text = str(error).strip()
    # The check operators of common.sql quote their whole query; what counts is which of the checks it was.
    if text.startswith("Test failed."):
        return f"failed checks: {', '.join(_CHECK.findall(text)) or text.splitlines()[-1]}"
    # Python's own errors end with what matters, ours are one line.
    return (text.splitlines() or [type(error).__name__])[-1]


def task_errors(ti: Any, states: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what the failed tasks of a run said, by task; None where one died without a word."""
    return {task_id: ti.xcom_pull(task_ids=task_id, key=_KEY) for task_id, state in states.items() if state == "failed"}
