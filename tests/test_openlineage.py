"""The events of whole runs, as a lineage server receives them: real Airflow, Spark and databases, in a stack of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.airflow_api import AirflowApi, DagRun
from local.paths import REPO
from local.stack import Stack
from local.waiting import NotReady, wait_until
from spectralize.database import connect
from spectralize.status import read_status
from tests.conftest import CLEAN
from tests.flow import describe
from tests.lineage import Event, Receiver, faults, receive
from tests.store import wav

DAG_ID = "ingest_audio"
STEPS = (
    "ensure_schema", "sense", "plan_batch", "mel_spectrogram", "gate", "require_valid_indexes", "analyze_tables", "close_batch",
)  # fmt: skip
OURS = ("plan_batch", "mel_spectrogram", "gate", "close_batch")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(slots=True)
class Told:
    """One DAG run, and everything that was received about it."""

    run: DagRun
    batch: dict[str, Any]
    events: list[Event]

    def of(self, task_id: str | None, kind: str) -> Event:
        """The only event of that kind about a task, or about the DAG run itself."""
        name = f"{DAG_ID}.{task_id}" if task_id else DAG_ID
        [event] = [event for event in self.events if (event["job"]["name"], event["eventType"]) == (name, kind)]
        return event

    def facet(self, task_id: str, kind: str) -> dict[str, Any]:
        facet: dict[str, Any] = self.of(task_id, kind)["run"]["facets"]["spectralize_batch"]
        return facet


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def lineage_stack(receiver: Receiver) -> Iterator[Stack]:
    """A stack as one has it who names a transport before `make up`."""
    # It gives up soon, so that a receiver that is away need not be waited for.
    transport = {"type": "http", "url": receiver.url, "timeout": 5, "retry": {"total": 1}}
    stack = Stack(name=f"test-{os.getpid()}-lineage", durable=False, ephemeral_ports=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
            stack.up()
        yield stack
    finally:
        cleaning = subprocess.Popen([sys.executable, "-c", CLEAN, stack.layout.name], cwd=REPO, start_new_session=True)
        assert cleaning.wait() == 0


@pytest.fixture(scope="module")
def api(lineage_stack: Stack) -> Iterator[AirflowApi]:
    stack = lineage_stack
    with AirflowApi(stack.airflow_url, stack.airflow_user, stack.airflow_password) as api:
        api.wait_for_dag(DAG_ID)
        yield api


def put(stack: Stack, objects: dict[str, bytes]) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=stack.s3_endpoint,
        aws_access_key_id=stack.s3_access_key,
        aws_secret_access_key=stack.s3_secret_key,
        region_name="us-east-1",
    )
    for key, data in objects.items():
        client.put_object(Bucket="audio", Key=key, Body=data)


def ingest(api: AirflowApi, stack: Stack, receiver: Receiver, *, first: bool = False) -> Told:
    """Run the DAG once and return what was received until the DAG run's own last event."""
    receiver.bodies.clear()
    due = api.next_run(DAG_ID) if first else None
    run = api.trigger(DAG_ID, logical_date=due.logical_date if due else None)
    if first:
        api.unpause(DAG_ID)
    run = api.wait_for_run(DAG_ID, run.run_id)

    def ended() -> None:
        if not any(
            event["job"]["name"] == DAG_ID and event["eventType"] in {"COMPLETE", "FAIL"} for event in receiver.events
        ):
            raise NotReady("the DAG run's last event has not come")

    wait_until(ended, what="the events of the run", timeout_s=60)
    return Told(run, batch_of(stack, run), receiver.events)


def batch_of(stack: Stack, run: DagRun) -> dict[str, Any]:
    with connect(stack.dsn) as connection:
        [batch] = [batch for batch in read_status(connection)["batches"] if batch["run_id"] == run.run_id]
    return batch


OBJECTS = {
    "20240601_120000.wav": wav(2.0, seed=1),
    "20240601_120100.wav": wav(3.0, seed=2),
    "20240602_120000.wav": wav(1.5, seed=3),
    "broken.mp3": b"no audio at all",
}


@pytest.fixture(scope="module")
def good(api: AirflowApi, lineage_stack: Stack, receiver: Receiver) -> Told:
    """Three recordings and a broken file: a success."""
    put(lineage_stack, OBJECTS)
    return ingest(api, lineage_stack, receiver, first=True)


@pytest.fixture(scope="module")
def bad(api: AirflowApi, good: Told, lineage_stack: Stack, receiver: Receiver) -> Told:
    """Too many broken files for the gate."""
    put(lineage_stack, {f"broken-{number:02}.mp3": b"no audio" * (number + 1) for number in range(11)})
    return ingest(api, lineage_stack, receiver)


def check_validity(told: Told, stack: Stack, receiver: Receiver) -> None:
    for event in told.events:
        assert faults(event) == [], event["job"]["name"]
        assert event["job"]["namespace"] == "spectralize"
    env = stack.env()
    text = json.dumps(told.events)
    secrets = {
        "S3's key": env["AWS_ACCESS_KEY_ID"],
        "S3's secret": env["AWS_SECRET_ACCESS_KEY"],
        "the database's password": urlsplit(stack.dsn).password or "",
        "Airflow's password": stack.airflow_password,
    }
    assert [name for name, secret in secrets.items() if not secret or secret in text] == []


def check_parents(told: Told) -> None:
    dag_run_id = told.of(None, "START")["run"]["runId"]
    # Other DAGs have a schedule of their own.
    tasks = [event for event in told.events if event["job"]["name"].startswith(f"{DAG_ID}.")]
    for event in tasks:
        parent = event["run"]["facets"]["parent"]
        assert (parent["job"]["namespace"], parent["job"]["name"]) == ("spectralize", DAG_ID), event["job"]["name"]
        assert parent["run"]["runId"] == dag_run_id
        assert event["run"]["runId"] != dag_run_id


def test_every_step_and_the_run_start_and_complete(good: Told, api: AirflowApi) -> None:
    assert good.run.state == "success", describe(api, good.run)
    for step in (*STEPS, None):
        start, end = good.of(step, "START"), good.of(step, "COMPLETE")
        assert start["run"]["runId"] == end["run"]["runId"], step
        assert start["eventTime"] <= end["eventTime"], step
    check_parents(good)


def test_no_step_has_failed_to_tell(good: Told, api: AirflowApi) -> None:
    for step in OURS:
        log = api.task_log(DAG_ID, good.run.run_id, step)
        assert "Successfully emitted OpenLineage `COMPLETE`" in log, step
        assert [line for line in log.splitlines() if "no lineage" in line or "OpenLineage method failed" in line] == []


def test_every_event_is_valid_and_holds_no_secret(good: Told, lineage_stack: Stack, receiver: Receiver) -> None:
    check_validity(good, lineage_stack, receiver)


def test_datasets_and_counts_are_those_of_the_batch(good: Told, lineage_stack: Stack) -> None:
    source = {"namespace": "s3://audio", "name": "/"}
    for step in OURS:
        for kind in ("START", "COMPLETE"):
            assert len(good.of(step, kind)["inputs"]) == 1, (step, kind)
            [read] = good.of(step, kind)["inputs"]
            assert {name: read[name] for name in source} == source, (step, kind)
    for step in OURS:
        statistics = good.of(step, "COMPLETE")["inputs"][0]["inputFacets"]["inputStatistics"]
        assert (statistics["fileCount"], statistics["size"]) == (4, sum(map(len, OBJECTS.values()))), step
        facet = good.facet(step, "COMPLETE")
        assert (facet["batchId"], facet["source"]) == (good.batch["batch_id"], "audio")
    assert good.facet("plan_batch", "COMPLETE")["state"] == "planned"
    last = good.facet("close_batch", "COMPLETE")
    assert (last["state"], last["runId"]) == ("success", good.run.run_id)
    assert last["outcomes"] == {"loaded": 3, "partial": 0, "rejected": 1, "failed": 0}
    assert last["codeZipSha256"] == good.batch["code_zip_sha256"]

    address = urlsplit(lineage_stack.dsn)
    with connect(lineage_stack.dsn) as connection:
        counts = {
            f"spectralize.spectralize.{table}": connection.execute(
                f"SELECT count(*) FROM spectralize.{table}"
            ).fetchone()[0]
            for table in ("mel_frames", "waveform_frames", "mel_seconds", "recordings")
        }
    for step in ("mel_spectrogram", "close_batch"):
        outputs = good.of(step, "COMPLETE")["outputs"]
        assert {output["namespace"] for output in outputs} == {f"postgres://{address.hostname}:{address.port}"}
        rows = {output["name"]: output["outputFacets"]["outputStatistics"]["rowCount"] for output in outputs}
        assert rows == counts, step
        assert all(output["facets"]["schema"]["fields"] for output in outputs)
    assert good.of("gate", "COMPLETE")["outputs"] == []
    assertions = good.of("gate", "COMPLETE")["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert {assertion["name"]: assertion["success"] for assertion in assertions}["gate_passed"]
    assert "20240601_120000.wav" not in json.dumps(good.events), "an event tells of prefixes, not of objects"


def test_a_run_that_fails_the_gate_says_so_in_gate_closing_and_run(
    bad: Told, lineage_stack: Stack, receiver: Receiver
) -> None:
    assert bad.run.state == "failed"
    for step in ("gate", "close_batch", None):
        assert bad.of(step, "START")["run"]["runId"] == bad.of(step, "FAIL")["run"]["runId"]
        assert "errorMessage" in bad.of(step, "FAIL")["run"]["facets"]
    for step in ("plan_batch", "mel_spectrogram"):
        bad.of(step, "COMPLETE")
    assert "11 of 11 were rejected" in bad.of("gate", "FAIL")["run"]["facets"]["errorMessage"]["message"]
    assertions = bad.of("gate", "FAIL")["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert {assertion["name"] for assertion in assertions if not assertion["success"]} == {
        "rejected_within_threshold",
        "gate_passed",
    }
    last = bad.facet("close_batch", "FAIL")
    assert (last["state"], last["outcomes"]["rejected"]) == ("failed", 11)
    assert {
        output["outputFacets"]["outputStatistics"]["rowCount"] for output in bad.of("close_batch", "FAIL")["outputs"]
    } == {0}
    check_parents(bad)
    check_validity(bad, lineage_stack, receiver)


def test_a_receiver_that_is_away_takes_no_run_down(
    bad: Told, api: AirflowApi, lineage_stack: Stack, receiver: Receiver
) -> None:
    receiver.stop()
    put(lineage_stack, {"20240603_120000.wav": wav(1.0, seed=4)})
    run = api.wait_for_run(DAG_ID, api.trigger(DAG_ID).run_id)
    assert run.state == "success", describe(api, run)
    assert batch_of(lineage_stack, run)["loaded"] == 1
    assert "Failed to emit OpenLineage" in api.task_log(DAG_ID, run.run_id, "close_batch")
