"""What the tests of the whole flow share."""

from typing import Any

import psutil
import psycopg

from local.airflow_api import AirflowApi, DagRun
from local.stack import Stack
from spectralize.verify import verify_store


def describe(api: AirflowApi, run: DagRun) -> str:
    """What a run that went wrong has to say for itself."""
    parts = [run.run_id]
    for task in api.task_instances(run.dag_id, run.run_id):
        parts.append(f"{task.task_id}: {task.state}, try {task.try_number}")
        if task.state in {"failed", "up_for_retry"}:
            parts.append(api.task_log(run.dag_id, run.run_id, task.task_id, task.try_number)[-3000:])
    return "\n".join(parts)


def states(api: AirflowApi, run: DagRun) -> dict[str, str | None]:
    """State of each task of a run."""
    return {task.task_id: task.state for task in api.task_instances(run.dag_id, run.run_id)}


def breaches(connection: psycopg.Connection[Any]) -> list[str]:
    """What `verify` finds, a line each."""
    return [f"{found.name}: {breach}" for found in verify_store(connection) for breach in found.breaches]


def spark_processes(stack: Stack) -> list[psutil.Process]:
    """The JVM of the running Spark job, if there is one on this stack."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "java" and process.environ().get("SPECTRALIZE_STACK") == str(stack.layout.stack):
                found.append(process)
        except psutil.Error:
            continue
    return found
