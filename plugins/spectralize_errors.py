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
#: The password in an address, which libraries quote in their errors.
_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):[^\s/]+@")
_CHECK = re.compile(r"^\s*Check: (\w+)", re.MULTILINE)


def keep_error(context: Context) -> None:
    """Keep the last line of a task that fails for good: for `on_failure_callback` in the default_args of a DAG.

    A task that is killed keeps nothing.
    """
    error = context.get("exception")
    # For a task that was killed, the callback is called elsewhere, and knows nothing.
    if error is None:
        return
    context["ti"].xcom_push(key=_KEY, value=_without_secrets(as_one_line(_last_line(error)[: 2 * _LENGTH]))[:_LENGTH])


def _without_secrets(line: str) -> str:
    """Mask what Airflow knows to be secret, as its logs do, and passwords in addresses: this leaves the house as an alert."""
    from airflow.sdk.log import redact

    return _PASSWORD.sub(r"\1:***@", str(redact(line)))


def _last_line(error: object) -> str:
    try:
        text = str(error).strip()
    except Exception as unspeakable:  # noqa: BLE001
        # It is not ours, and that the task has failed is to be told all the same.
        return f"{type(error).__name__}, which cannot be shown: {type(unspeakable).__name__}"
    # The check operators of common.sql quote their whole query; what counts is which of the checks it was.
    if text.startswith("Test failed."):
        return f"failed checks: {', '.join(_CHECK.findall(text)) or text.splitlines()[-1]}"
    # Python's own errors end with what matters, ours are one line.
    return (text.splitlines() or [type(error).__name__])[-1]


def task_errors(ti: Any, states: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return what the failed tasks of a run said, by task; None where one died without a word."""
    return {task_id: ti.xcom_pull(task_ids=task_id, key=_KEY) for task_id, state in states.items() if state == "failed"}
