"""Events about real batches, sent by OpenLineage's own client to a real receiver: are they valid, and are they true?"""

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import parent_run
from openlineage.client.transport.http import HttpConfig, HttpTransport

from local.paths import REPO
from spectralize import gate, lineagefacts
from spectralize.database import connect
from spectralize.errors import GateError
from spectralize.ledger import Batch, open_batch
from spectralize.lineagefacts import BatchFacts, read_batch_facts, read_open_batch_facts
from spectralize_openlineage import FACET_NAME, Lineage, describe_batch, source_dataset
from tests.lineage import Event, Receiver, faults, receive
from tests.store import Store, encode, make_samples, wav


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receive() as receiver:
        yield receiver


def send(receiver: Receiver, lineage: Lineage, state: RunState = RunState.COMPLETE) -> Event:
    """Send an event by HTTP as Airflow's provider would, and return what arrived."""
    transport = HttpTransport(HttpConfig.from_dict({"url": receiver.url, "timeout": 5}))
    run_id, dag_run_id = str(uuid.uuid4()), str(uuid.uuid4())
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=dag_run_id), job=parent_run.Job(namespace="spectralize", name="ingest_test")
    )
    OpenLineageClient(transport=transport).emit(
        RunEvent(
            eventType=state,
            eventTime=datetime.now(UTC).isoformat(),
            run=Run(run_id, {"parent": parent, **lineage.run_facets}),
            job=Job("spectralize", "ingest_test.close_batch"),
            inputs=lineage.inputs,
            outputs=lineage.outputs,
            producer="urn:spectralize:tests",
        )
    )
    event = receiver.events[-1]
    assert event["run"]["runId"] == run_id
    return event


def facts_of(store: Store, batch: Batch) -> BatchFacts:
    with connect(store.dsn) as connection:
        facts = read_batch_facts(connection, batch.batch_id)
    assert facts is not None
    return facts


def told(store: Store, receiver: Receiver, batch: Batch) -> Event:
    """The valid event about a batch."""
    event = send(receiver, describe_batch(facts_of(store, batch), store.source, store.dsn))
    assert faults(event) == []
    assert (urlsplit(store.dsn).password or "-") not in json.dumps(event)
    return event


def written(event: Event) -> dict[str, dict[str, Any]]:
    return {dataset["name"].rpartition(".")[2]: dataset for dataset in event["outputs"]}


def rows(event: Event) -> dict[str, int]:
    return {name: dataset["outputFacets"]["outputStatistics"]["rowCount"] for name, dataset in written(event).items()}


def verdicts(event: Event) -> dict[str, bool]:
    assertions = event["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    return {assertion["name"]: assertion["success"] for assertion in assertions}


def count_rows(store: Store, batch: Batch) -> dict[str, int]:
    """What a batch has written, counted in the tables themselves."""
    counts = {}
    for table in ("mel_frames", "waveform_frames", "mel_seconds"):
        [(counts[table],)] = store.rows(
            f"SELECT count(*) FROM spectralize.{table} JOIN spectralize.spectrograms USING (spectrogram_id) "
            "WHERE batch_id = %s",
            batch.batch_id,
        )
    [(counts["recordings"],)] = store.rows(
        "SELECT count(*) FROM spectralize.recordings WHERE batch_id = %s", batch.batch_id
    )
    return counts


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def test_a_batch_with_a_partial_and_a_reject_is_told_as_it_is(store: Store, receiver: Receiver) -> None:
    objects = {
        "whole.wav": wav(3.0, seed=1),
        "cut.flac": cut(encode(make_samples(20.0, seed=2), container="FLAC")),
        "broken.mp3": b"no audio at all",
    }
    for key, data in objects.items():
        store.put(key, data)
    batch = store.ingest()
    assert {key: outcome for key, (outcome, _) in store.outcomes(batch).items()} == {
        "whole.wav": "loaded",
        "cut.flac": "partial",
        "broken.mp3": "rejected",
    }
    event = told(store, receiver, batch)

    [source] = event["inputs"]
    assert (source["namespace"], source["name"]) == (f"s3://{store.source.bucket}", "/")
    statistics = source["inputFacets"]["inputStatistics"]
    size_bytes = sum(map(len, objects.values()))
    assert (statistics["rowCount"], statistics["fileCount"], statistics["size"]) == (3, 3, size_bytes)
    assert set(verdicts(event).values()) == {True}

    assert rows(event) == count_rows(store, batch)
    assert all(rows(event).values())
    address = urlsplit(store.dsn)
    assert {(dataset["namespace"], dataset["name"]) for dataset in event["outputs"]} == {
        (f"postgres://{address.hostname}:{address.port}", f"{address.path[1:]}.spectralize.{table}")
        for table in ("mel_frames", "waveform_frames", "mel_seconds", "recordings")
    }
    mel_frames = written(event)["mel_frames"]
    fields = {column["name"]: column["type"] for column in mel_frames["facets"]["schema"]["fields"]}
    assert fields == {
        "frame_time": "timestamp with time zone",
        "spectrogram_id": "integer",
        "frame_index": "integer",
        "mel": "halfvec",
    }
    mel = mel_frames["facets"]["dataQualityMetrics"]["columnMetrics"]["mel"]
    [(peak_db,)] = store.rows("SELECT max(peak_db) FROM spectralize.spectrograms WHERE batch_id = %s", batch.batch_id)
    assert (mel["count"], mel["max"]) == (rows(event)["mel_frames"], pytest.approx(peak_db))

    facet = event["run"]["facets"][FACET_NAME]
    assert facet["outcomes"] == {"loaded": 1, "partial": 1, "rejected": 1, "failed": 0}
    assert facet["rejectClasses"] == {"not_audio": 1}
    assert (facet["batchId"], facet["state"], facet["tryNumber"]) == (batch.batch_id, "success", 1)
    assert facet["listing"]["listed"] == facet["listing"]["planned"] == 3
    stored = store.rows("SELECT name, fingerprint FROM spectralize.profiles")
    assert [(profile["name"], profile["fingerprint"]) for profile in facet["profiles"]] == stored
    assert "whole.wav" not in json.dumps(event), "an event tells of prefixes, not of objects"


@pytest.mark.parametrize("profile", ["mel128_22k", "seed2020_pcm"])
def test_the_bytes_of_a_table_are_those_of_its_values(store: Store, receiver: Receiver, profile: str) -> None:
    store.source = store.source.model_copy(update={"profiles": (profile,)})
    store.put("one.wav", wav(2.0))
    batch = store.ingest()
    event = told(store, receiver, batch)
    for table, values in (
        ("mel_frames", "8 + 4 + 4 + pg_column_size(mel)"),
        ("waveform_frames", "8 + 4 + 4 + 4 + 4 + 4 + coalesce(4 + length(pcm), 0)"),
        ("mel_seconds", "8 + 4 + 4 + 4 + 4 + 4 + pg_column_size(mel_mean) + pg_column_size(mel_std)"),
    ):
        [(size_bytes,)] = store.rows(
            f"SELECT coalesce(sum({values}), 0)::bigint FROM spectralize.{table} "
            "JOIN spectralize.spectrograms USING (spectrogram_id) WHERE batch_id = %s",
            batch.batch_id,
        )
        told_bytes = written(event)[table]["outputFacets"]["outputStatistics"]["size"]
        assert told_bytes == pytest.approx(size_bytes, rel=0.05), table


def test_a_batch_that_fails_the_gate_says_which_threshold(store: Store, receiver: Receiver) -> None:
    store.source = store.source.model_copy(update={"max_rejected": 0, "max_rejected_share": 0.1})
    store.put("good.wav", wav(1.0))
    store.put("bad.wav", b"no audio")
    batch = store.plan()
    store.compute(batch)
    with pytest.raises(GateError):
        gate.gate_batch(store.connection, batch.batch_id, store.source)
    for state in ("planned", "failed"):
        event = told(store, receiver, batch)
        assert verdicts(event) == {
            "sums_hold": True,
            "failed_within_threshold": True,
            "rejected_within_threshold": False,
            "gate_passed": False,
        }
        facet = event["run"]["facets"][FACET_NAME]
        assert facet["state"] == state
        assert facet["failure"].startswith("1 of 2 were rejected")
        gate.close_batch(store.connection, batch.batch_id, store.source)
        store.connection.commit()
    assert rows(event) == count_rows(store, batch)


def test_what_nobody_did_is_told_as_failed(store: Store, receiver: Receiver) -> None:
    store.put("one.wav", wav(1.0))
    batch = store.plan()
    with pytest.raises(GateError):
        gate.gate_batch(store.connection, batch.batch_id, store.source)
    event = told(store, receiver, batch)
    facet = event["run"]["facets"][FACET_NAME]
    assert facet["outcomes"]["failed"] == 1
    assert facet["failureClasses"] == {"unfinished": 1}
    assert not verdicts(event)["failed_within_threshold"]
    assert set(rows(event).values()) == {0}


def test_an_empty_batch_is_told_with_nothing_read_and_nothing_written(store: Store, receiver: Receiver) -> None:
    store.put("notes.txt", b"no recording")
    event = told(store, receiver, store.ingest())
    assert event["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 0
    assert set(rows(event).values()) == {0}
    listing = event["run"]["facets"][FACET_NAME]["listing"]
    assert (listing["listed"], listing["ignored"], listing["planned"]) == (1, 1, 0)


def test_a_recompute_writes_frames_and_no_recording(store: Store, receiver: Receiver) -> None:
    store.put("one.wav", wav(1.0))
    store.ingest()
    again = store.ingest(run=store.run(interval=(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)),
                                       kind="backfill"), force=True)  # fmt: skip
    event = told(store, receiver, again)
    assert rows(event) == count_rows(store, again)
    assert (rows(event)["mel_frames"] > 0, rows(event)["recordings"]) == (True, 0)
    assert event["run"]["facets"][FACET_NAME]["interval"]["start"] == "2020-01-01T00:00:00+00:00"


def test_a_batch_before_the_gate_has_no_verdicts_and_an_older_try_is_not_taken_for_it(store: Store) -> None:
    store.put("one.wav", wav(1.0))
    run = store.run()
    batch = store.plan(run)
    facet = source_dataset(store.source, facts_of(store, batch)).inputFacets
    assert facet is not None
    assert "dataQualityAssertions" not in facet
    with connect(store.dsn) as connection:
        assert read_open_batch_facts(connection, run.dag_id, run.run_id) is None
        assert read_batch_facts(connection, 2**40) is None


def test_a_planning_that_has_not_ended_is_told_by_its_open_batch(store: Store, receiver: Receiver) -> None:
    run = store.run()
    opened = open_batch(store.connection, store.source, run)
    store.connection.commit()
    with connect(store.dsn) as connection:
        facts = read_open_batch_facts(connection, run.dag_id, run.run_id)
    assert facts is not None
    event = send(receiver, describe_batch(facts, store.source, store.dsn, with_outputs=False), RunState.FAIL)
    assert faults(event) == []
    facet = event["run"]["facets"][FACET_NAME]
    assert (facet["batchId"], facet["state"], facet["isGated"]) == (opened.batch_id, "open", False)
    assert event["outputs"] == []


#: In a process of its own: Airflow is imported once per process, with the settings it finds then.
TELL = """
import logging, sys, time
import airflow.providers.openlineage.extractors
from types import SimpleNamespace
from spectralize_openlineage import BatchLineage

logging.getLogger("spectralize_openlineage").addHandler(logging.StreamHandler(sys.stdout))

class Step(BatchLineage):
    task_id, source = "gate", sys.argv[1]

task_instance = SimpleNamespace(dag_id="ingest_audio", run_id="r", xcom_pull=lambda task_ids: {"batch_id": 1})
began_at = time.monotonic()
for lineage in (Step().get_openlineage_facets_on_start(), Step().get_openlineage_facets_on_complete(task_instance),
                Step().get_openlineage_facets_on_failure(task_instance)):
    print("TOLD", len(lineage.inputs), len(lineage.outputs), len(lineage.run_facets))
print("SECONDS", time.monotonic() - began_at)
"""


@pytest.mark.parametrize("is_listening", [False, True], ids=["away", "silent"])
def test_a_database_that_does_not_answer_costs_seconds_and_one_line(is_listening: bool, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_listening:
            server.listen()
        connection = {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": server.getsockname()[1],
            "password": "s3cr3t-s3cr3t",
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__OPENLINEAGE__DISABLED": "True",
            "AIRFLOW_CONN_TIMESCALE_DEFAULT": json.dumps(connection),
            "PYTHONPATH": os.pathsep.join([str(REPO / "plugins"), str(REPO / "src")]),
        }
        command = [sys.executable, "-c", TELL, "audio"]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("TOLD")]
    assert told == ["TOLD 1 0 0", "TOLD 0 0 0", "TOLD 0 0 0"]
    lines = [line for line in done.stdout.splitlines() if line.startswith("gate: ")]
    assert len(lines) == 2
    assert lines[0].startswith("gate: no lineage of its batch is told: ServiceError: database ")
    assert "s3cr3t" not in done.stdout + done.stderr
    # The provider ends the process that tells after ten.
    [seconds] = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("SECONDS")]
    assert seconds < 2 * 8


def test_a_database_that_is_busy_is_not_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("one.wav", wav(1.0))
    batch = store.ingest()
    monkeypatch.setattr(lineagefacts, "READING_TIMEOUT_S", 0.3)
    with connect(store.dsn) as locking, connect(store.dsn) as connection:
        locking.execute("LOCK TABLE spectralize.spectrograms IN ACCESS EXCLUSIVE MODE")
        began_at = monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            read_batch_facts(connection, batch.batch_id)
        assert monotonic() - began_at < 10


def test_a_database_without_our_schema_has_nothing_to_tell(empty_dsn: str) -> None:
    with connect(empty_dsn) as connection:
        assert read_batch_facts(connection, 1) is None


@pytest.mark.parametrize(("prefix", "name"), [("", "/"), ("music/", "music"), ("site/a/%Y/%m/", "site/a")])
def test_a_source_is_one_dataset_by_its_fixed_prefix(store: Store, prefix: str, name: str) -> None:
    dataset = source_dataset(store.source.model_copy(update={"prefix": prefix}))
    assert (dataset.namespace, dataset.name) == (f"s3://{store.source.bucket}", name)


def test_the_validation_finds_what_is_wrong(store: Store, receiver: Receiver) -> None:
    store.put("one.wav", wav(1.0))
    event = told(store, receiver, store.ingest())

    def broken(*path: Any, to: object = None) -> Event:
        copy = json.loads(json.dumps(event))
        place = copy
        for step in path[:-1]:
            place = place[step]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to
        return copy

    statistics = ("inputs", 0, "inputFacets", "inputStatistics")
    for wrong in (
        broken("eventTime", to="yesterday"),
        broken("eventType", to="DONE"),
        broken("run", "runId", to="1"),
        broken("job", "namespace"),
        broken("run", "facets", "parent", "job", "name"),
        broken("run", "facets", FACET_NAME, "outcomes", "partial"),
        broken("run", "facets", FACET_NAME, "batchId", to="7"),
        broken("run", "facets", FACET_NAME, "something", to=1),
        broken(*statistics, "_schemaURL"),
        broken(*statistics, "rowCount", to="3"),
        broken(*statistics, "_schemaURL", to="https://openlineage.io/spec/facets/9-0-0/Nothing.json"),
        broken("inputs", 0, "inputFacets", "dataQualityAssertions", "assertions", 0, "success"),
        broken("outputs", 0, "facets", "schema", "fields", 0, "name"),
    ):
        assert faults(wrong), "a fault was not found"
