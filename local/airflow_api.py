"""A small client of Airflow's REST API: what the demo and the tests ask of a running Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from local.errors import StackError
from local.waiting import NotReady, wait_until

Json = dict[str, Any]

#: States in which a DAG run does nothing any more.
FINAL = frozenset({"success", "failed"})


@dataclass(frozen=True, slots=True)
class DagRun:
    dag_id: str
    run_id: str
    state: str
    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    conf: Json

    @classmethod
    def of(cls, raw: Json) -> DagRun:
        return cls(
            dag_id=raw["dag_id"],
            run_id=raw["dag_run_id"],
            state=raw["state"],
            logical_date=_moment(raw["logical_date"]),
            data_interval_start=_moment(raw["data_interval_start"]),
            data_interval_end=_moment(raw["data_interval_end"]),
            conf=raw["conf"] or {},
        )


@dataclass(frozen=True, slots=True)
class NextRun:
    """The run that the scheduler will create next, once its DAG is not paused."""

    logical_date: datetime
    run_after: datetime


@dataclass(frozen=True, slots=True)
class TaskInstance:
    task_id: str
    state: str | None
    try_number: int
    map_index: int
    duration_s: float | None

    @classmethod
    def of(cls, raw: Json) -> TaskInstance:
        return cls(raw["task_id"], raw["state"], raw["try_number"], raw["map_index"], raw["duration"])


class AirflowApi:
    """Talks to one Airflow as one user. Use it as a context manager, or `close` it."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._user, self._password = user, password
        # trust_env would send requests for 127.0.0.1 to a proxy.
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # DAGs

    def wait_for_dag(self, dag_id: str, *, timeout_s: float = 90) -> None:
        """Wait until a DAG is known to the scheduler; an import error anywhere ends the waiting."""

        def probe() -> None:
            found = self._send("GET", f"dags/{dag_id}", may_miss=True)
            if found is not None and not found["is_stale"]:
                return
            # A source with an error in its table costs only its own DAG.
            for broken in (found for found in self.import_errors() if "check_sources" not in found["filename"]):
                reason = broken["stack_trace"].strip().splitlines()[-1]
                raise StackError(f"DAG {dag_id}: {broken['filename']} cannot be imported: {reason}")
            raise NotReady("the DAG processor has not found it")

        wait_until(probe, what=f"DAG {dag_id}", timeout_s=timeout_s)

    def import_errors(self) -> list[Json]:
        return list(self._request("GET", "importErrors")["import_errors"])

    def next_run(self, dag_id: str) -> NextRun | None:
        """Return what the scheduler will start next, None for a DAG without a schedule."""
        found = self._request("GET", f"dags/{dag_id}")
        logical_date, run_after = _moment(found["next_dagrun_logical_date"]), _moment(found["next_dagrun_run_after"])
        return NextRun(logical_date, run_after) if logical_date and run_after else None

    def unpause(self, dag_id: str) -> None:
        self._request("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        self._request("PATCH", f"dags/{dag_id}", json={"is_paused": True})

    # Runs

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        logical_date: datetime | None = None,
        run_id: str | None = None,
    ) -> DagRun:
        """Start a run. It stays queued as long as the DAG is paused."""
        body = {"conf": dict(conf or {}), "logical_date": _text(logical_date), "dag_run_id": run_id}
        return DagRun.of(self._request("POST", f"dags/{dag_id}/dagRuns", json=body))

    def run(self, dag_id: str, run_id: str) -> DagRun:
        return DagRun.of(self._request("GET", f"dags/{dag_id}/dagRuns/{run_id}"))

    def runs(self, dag_id: str) -> list[DagRun]:
        """Return the newest runs first, at most a hundred."""
        query = {"order_by": "-run_after", "limit": 100}
        return [DagRun.of(raw) for raw in self._request("GET", f"dags/{dag_id}/dagRuns", params=query)["dag_runs"]]

    def wait_for_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        timeout_s: float = 600,
        on_poll: Callable[[DagRun, list[TaskInstance]], None] | None = None,
    ) -> DagRun:
        """Wait until a run has succeeded or failed, and return it; the caller judges which."""

        def probe() -> DagRun:
            run = self.run(dag_id, run_id)
            if on_poll is not None:
                on_poll(run, self.task_instances(dag_id, run_id))
            if run.state not in FINAL:
                raise NotReady(f"it is {run.state}")
            return run

        return wait_until(probe, what=f"run {run_id} of {dag_id}", timeout_s=timeout_s)

    def add_connection(self, conn_id: str, conn_type: str, extra: Json) -> None:
        values = {"connection_id": conn_id, "conn_type": conn_type, "extra": json.dumps(extra)}
        self._request("POST", "connections", json=values)

    def set_run_state(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a run as success or failed, as one does by hand in the UI."""
        self._request("PATCH", f"dags/{dag_id}/dagRuns/{run_id}", json={"state": state})

    def clear(
        self, dag_id: str, run_id: str, task_ids: Collection[str] | None = None, *, only_failed: bool = False
    ) -> None:
        """Have tasks of a run done again, all of them by default; those downstream of a named task follow it."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": list(task_ids) if task_ids is not None else None,
            "only_failed": only_failed,
            "include_downstream": task_ids is not None,
        }
        self._request("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def backfill(
        self,
        dag_id: str,
        from_date: datetime,
        to_date: datetime,
        *,
        reprocess: str = "none",
        conf: Mapping[str, Any] | None = None,
        max_active_runs: int = 1,
    ) -> int:
        """Start a backfill and return its id. ``reprocess`` is none, failed or completed."""
        body = {
            "dag_id": dag_id,
            "from_date": _text(from_date),
            "to_date": _text(to_date),
            "reprocess_behavior": reprocess,
            "dag_run_conf": dict(conf or {}),
            "max_active_runs": max_active_runs,
        }
        return int(self._request("POST", "backfills", json=body)["id"])

    def wait_for_backfill(self, backfill_id: int, *, timeout_s: float = 600) -> None:
        """Wait until a backfill is complete; Airflow notes that some ten seconds after its last run."""

        def probe() -> None:
            if self._request("GET", f"backfills/{backfill_id}")["completed_at"] is None:
                raise NotReady("it is not completed")

        wait_until(probe, what=f"backfill {backfill_id}", timeout_s=timeout_s)

    # Tasks

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        found = self._request("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        return [TaskInstance.of(raw) for raw in found["task_instances"]]

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task as success, failed or skipped, as one does by hand in the UI."""
        self._request("PATCH", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", json={"new_state": state})

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try as text, a line per event; an exception adds a line with its type and message."""
        address = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        query: dict[str, Any] = {"map_index": map_index, "full_content": True}
        content = self._request("GET", address, params=query)["content"]
        return "\n".join(line for event in content for line in _lines_of(event))

    # Pools

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool unless there is one of that name: the number of slots that an operator has given it stays."""
        if self._send("GET", f"pools/{name}", may_miss=True) is None:
            self._request("POST", "pools", json={"name": name, "slots": slots, "description": description})

    # Inside

    def _request(self, method: str, path: str, **arguments: Any) -> Json:
        return self._send(method, path, **arguments) or {}

    def _send(self, method: str, path: str, *, may_miss: bool = False, **arguments: Any) -> Json | None:
        """Send a request and return the JSON answer; None for a missing thing that ``may_miss``."""
        try:
            if "Authorization" not in self._http.headers:
                self._log_in()
            response = self._http.request(method, f"/api/v2/{path}", **arguments)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                # Tokens last for a day.
                self._log_in()
                response = self._http.request(method, f"/api/v2/{path}", **arguments)
        except httpx.TransportError as error:
            raise StackError(f"Airflow at {self._http.base_url} does not answer: {error}") from error
        if may_miss and response.status_code == httpx.codes.NOT_FOUND:
            return None
        _raise_for(response)
        return dict(response.json()) if response.content else {}

    def _log_in(self) -> None:
        response = self._http.post("/auth/token", json={"username": self._user, "password": self._password})
        _raise_for(response)
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"


def _lines_of(event: str | Json) -> list[str]:
    if isinstance(event, str):
        return [event]
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in event.get("error_detail") or []]
    return [str(event.get("event", "")), *errors]


def _raise_for(response: httpx.Response) -> None:
    if response.is_error:
        request = response.request
        raise StackError(f"Airflow: {request.method} {request.url.path}: {response.status_code} {response.text[:500]}")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
