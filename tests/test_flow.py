"""The whole flow on real audio: S3, the real scheduler, a real Spark job, TimescaleDB. One test builds on the one before."""

import io
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
import pytest
import soundfile
from playwright.sync_api import expect
from rich.console import Console

from bench.chromium import open_browser
from bench.chromium import wait_until as wait_until_page
from local.airflow_api import AirflowApi, DagRun
from local.corpus import CorpusFile, build_corpus
from local.demo import Demo
from local.errors import StackError
from local.paths import Layout
from local.stack import Stack
from local.waiting import NotReady, wait_until
from spectralize import open_store
from spectralize.database import connect
from spectralize.profiles import find_profile
from spectralize.resample import resample_audio
from spectralize.s3 import open_s3
from spectralize.sources import load_sources
from spectralize.status import read_batch_lines, read_status
from tests.explorer.browser import PATIENCE_MS
from tests.flow import breaches, describe, spark_processes, states
from tests.reference import assert_close_db, decode, librosa_mel
from tests.store import CONTENT, wav

DAG_ID = "ingest_audio"
BUCKET = "audio"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def corpus() -> list[CorpusFile]:
    """The demo's own recordings, built once and kept beside the embedded stack."""
    folder = Layout.of(None, "main").home / "corpus"
    return build_corpus(folder / "audio", cache=folder / "package")


@pytest.fixture(scope="module")
def api(airflow: AirflowApi) -> AirflowApi:
    return airflow


@pytest.fixture
def connection(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    with connect(stack.dsn) as connection:
        yield connection


@pytest.fixture(scope="module")
def first_run(api: AirflowApi, corpus: list[CorpusFile]) -> DagRun:
    """The corpus, uploaded and ingested."""
    client = open_s3()
    for file in corpus:
        client.put_object(Bucket=BUCKET, Key=file.key, Body=file.path.read_bytes())
    due = api.next_run(DAG_ID)
    assert due is not None
    run = api.trigger(DAG_ID, logical_date=due.logical_date)
    api.unpause(DAG_ID)
    return api.wait_for_run(DAG_ID, run.run_id)


def ingest(api: AirflowApi, conf: dict[str, object] | None = None) -> DagRun:
    return api.wait_for_run(DAG_ID, api.trigger(DAG_ID, conf).run_id)


def batch_of(connection: psycopg.Connection[Any], run: DagRun) -> dict[str, Any]:
    [batch] = [batch for batch in read_status(connection)["batches"] if batch["run_id"] == run.run_id]
    connection.rollback()
    return batch


def count_rows(connection: psycopg.Connection[Any]) -> dict[str, int]:
    tables = ("objects", "recordings", "spectrograms", "mel_frames", "waveform_frames", "mel_seconds")
    counts = {table: connection.execute(f"SELECT count(*) FROM spectralize.{table}").fetchone()[0] for table in tables}
    connection.rollback()
    return counts


def test_the_scheduler_runs_the_dag_and_each_object_has_its_outcome(
    api: AirflowApi, first_run: DagRun, corpus: list[CorpusFile], connection: psycopg.Connection[Any], stack: Stack
) -> None:
    assert first_run.state == "success", describe(api, first_run)
    assert set(states(api, first_run).values()) == {"success"}
    log = api.task_log(DAG_ID, first_run.run_id, "mel_spectrogram")
    assert "Spark-Submit cmd: spark-submit --master local[*,4]" in log
    batch = batch_of(connection, first_run)
    lines = {line["key"]: line["outcome"] for line in read_batch_lines(connection, batch["batch_id"])}
    assert lines == {file.key: file.expected for file in corpus if file.expected != "ignored"}
    assert batch["state"] == "success"
    assert batch["code_zip_sha256"]
    assert batch["ignored"] == sum(file.expected == "ignored" for file in corpus)
    assert breaches(connection) == []


def test_no_secret_is_in_any_task_log_or_xcom(api: AirflowApi, first_run: DagRun, stack: Stack) -> None:
    env = stack.env()
    secrets = [env["AWS_SECRET_ACCESS_KEY"], env["SPECTRALIZE_DSN"].split(":")[2].split("@")[0], stack.airflow_password]
    text = "".join(
        api.task_log(DAG_ID, first_run.run_id, task.task_id) for task in api.task_instances(DAG_ID, first_run.run_id)
    )
    text += str(
        api._request(
            "GET", f"dags/{DAG_ID}/dagRuns/{first_run.run_id}/taskInstances/plan_batch/xcomEntries/return_value"
        )
    )
    text += str(api._request("GET", f"dags/{DAG_ID}/dagRuns/{first_run.run_id}/taskInstances/mel_spectrogram"))
    assert "manifests/audio/" in text
    assert [secret for secret in secrets if secret in text] == []


def stored(stack: Stack, key: str) -> np.ndarray:
    with open_store(stack.dsn) as store:
        return store.recording(f"s3://{BUCKET}/{key}").mel().values


def test_stored_frames_of_each_recording_equal_librosas(
    first_run: DagRun, corpus: list[CorpusFile], stack: Stack
) -> None:
    profile = find_profile("mel128_22k")
    assert isinstance(profile.sr, int)
    checked = set()
    for file in corpus:
        if file.expected not in {"loaded", "partial"}:
            continue
        audio = decode(file.path.read_bytes(), max_duration_s=3600)
        actual = stored(stack, file.key)
        y = resample_audio(audio.y, audio.sr, profile.sr)
        assert_close_db(actual, librosa_mel(y, profile.sr, profile), bound_db=0.01, is_half=True)
        if file.path.suffix in {".wav", ".flac"} and file.expected == "loaded":
            samples, sr = soundfile.read(io.BytesIO(file.path.read_bytes()), dtype="float32", always_2d=True)
            y = resample_audio(np.ascontiguousarray(samples.mean(axis=1)), sr, profile.sr)
            assert_close_db(actual, librosa_mel(y, profile.sr, profile), bound_db=0.01, is_half=True)
        checked.add(file.path.suffix)
    assert checked >= {".mp3", ".m4a", ".flac", ".ogg", ".wav", ".opus"}


def test_the_tags_of_each_format_are_stored(
    first_run: DagRun, corpus: list[CorpusFile], connection: psycopg.Connection[Any]
) -> None:
    keys = [file.key for file in corpus if file.expected == "loaded"]
    rows = connection.execute(
        "SELECT o.key, r.title, r.artist, r.duration, r.samplerate, r.decoded_duration_s, r.decoded_samplerate_hz "
        "FROM spectralize.recordings AS r JOIN spectralize.objects AS o USING (object_id) WHERE o.key = ANY (%s)", (keys,),
    ).fetchall()  # fmt: skip
    assert len(rows) == len(keys)
    for key, title, artist, duration, samplerate, decoded_s, decoded_hz in rows:
        assert title, key
        assert artist, key
        assert duration == pytest.approx(decoded_s, abs=0.2), key
        assert samplerate == decoded_hz, key


def test_running_again_adds_nothing_and_counts_every_object_unchanged(
    api: AirflowApi, first_run: DagRun, connection: psycopg.Connection[Any]
) -> None:
    before = count_rows(connection)
    run = ingest(api)
    assert run.state == "success", describe(api, run)
    assert count_rows(connection) == before
    batch, first = batch_of(connection, run), batch_of(connection, first_run)
    assert (batch["planned"], batch["unchanged"]) == (0, first["planned"])
    assert states(api, run)["mel_spectrogram"] == "skipped"
    assert breaches(connection) == []


@pytest.mark.slow
def test_overwriting_a_key_loads_one_object_and_supersedes_the_old(
    api: AirflowApi, first_run: DagRun, corpus: list[CorpusFile], connection: psycopg.Connection[Any], stack: Stack
) -> None:
    wav_file, flac_file = (next(file for file in corpus if file.path.suffix == kind and file.expected == "loaded")
                           for kind in (".wav", ".flac"))  # fmt: skip
    current = "SELECT object_id, spectrogram_id FROM spectralize.current_spectrograms WHERE bucket = %s AND key = %s"
    before = connection.execute(current, (BUCKET, wav_file.key)).fetchall()
    rows = count_rows(connection)
    open_s3().put_object(Bucket=BUCKET, Key=wav_file.key, Body=flac_file.path.read_bytes())
    run = ingest(api)
    assert run.state == "success", describe(api, run)
    batch = batch_of(connection, run)
    assert (batch["planned"], batch["loaded"]) == (1, 1)
    after = connection.execute(current, (BUCKET, wav_file.key)).fetchall()
    assert len(before) == len(after) == 1
    assert before[0][0] != after[0][0]
    assert count_rows(connection)["spectrograms"] == rows["spectrograms"] + 1
    np.testing.assert_array_equal(stored(stack, wav_file.key), stored(stack, flac_file.key))
    assert breaches(connection) == []


def test_the_demo_shows_what_became_of_each_object(
    api: AirflowApi, first_run: DagRun, corpus: list[CorpusFile], stack: Stack
) -> None:
    out = io.StringIO()
    Demo(stack, Console(file=out, width=160)).run(None)
    shown = out.getvalue()
    assert "planned 0 = loaded 0 + partial 0 + rejected 0 + failed 0" in shown
    assert "verify: 0 breaches" in shown
    assert all(file.key in shown for file in corpus)
    assert stack.airflow_password not in shown
    assert stack.explorer.url in shown
    assert (stack.layout.home / "demo" / "mel_spectrogram.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_is_seen_in_the_explorer(
    first_run: DagRun, corpus: list[CorpusFile], stack: Stack, tmp_path: Path
) -> None:
    stack.up(["explorer"])
    with open_browser(tmp_path, base_url=stack.explorer.url) as browser:
        page = browser.new_page()
        page.goto("/?per=100")
        table = page.locator("#recordings-table")
        expect(table).to_be_visible(timeout=PATIENCE_MS)
        for file in corpus:
            if file.expected == "ignored":
                continue
            row = table.get_by_role("row").filter(has=page.get_by_role("link", name=file.key, exact=True))
            expect(row).to_contain_text(file.expected)
            expect(row.locator("img")).to_have_count(0 if file.expected == "rejected" else 1)
        for text in (
            "FFmpeg finds no audio container",
            "packet cannot be decoded",
            "of the declared 120.03 s are there",
        ):
            expect(table).to_contain_text(text)
        table.get_by_role("link", name=re.compile("Orbital Elevator")).click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Orbital Elevator", timeout=PATIENCE_MS)
        wait_until_page(page, "performance.getEntriesByName('spectralize:drawn').length > 0", PATIENCE_MS)


@pytest.mark.slow
def test_the_demo_takes_a_folder_of_ones_own(first_run: DagRun, stack: Stack, tmp_path: Path) -> None:
    """Whatever it holds has an outcome, and the picture is of what was loaded."""
    (tmp_path / "my [red]sound.wav").write_bytes(wav(3.0))
    (tmp_path / "broken.mp3").write_bytes(b"no audio at all")
    out = io.StringIO()
    Demo(stack, Console(file=out, width=160)).run(tmp_path)
    assert "own/my [red]sound.wav" in out.getvalue()
    assert "planned 2 = loaded 1 + partial 0 + rejected 1 + failed 0" in out.getvalue()


def test_the_demo_fails_on_any_surprise(stack: Stack, first_run: DagRun, corpus: list[CorpusFile]) -> None:
    surprised = [replace(file, expected="rejected") if file.key.endswith(".ogg") else file for file in corpus]
    demo = Demo(stack, Console(quiet=True))
    with pytest.raises(StackError, match=r"03 Deprecation\.ogg' is loaded, not rejected"):
        demo.show(surprised, load_sources().find("audio"), first_run)


def kill_half_way(stack: Stack, connection: psycopg.Connection[Any], run: DagRun, *, with_spark: bool) -> int:
    """SIGKILL the Airflow task once the first object is in the ledger, and the Spark job with it or not."""

    def half_way() -> None:
        rows = connection.execute(
            "SELECT count(*) FROM spectralize.batch_objects AS o JOIN spectralize.batches AS b USING (batch_id) "
            "WHERE b.run_id = %s AND o.outcome = 'loaded'", (run.run_id,),
        ).fetchone()  # fmt: skip
        connection.rollback()
        if not rows or rows[0] < 2:
            raise NotReady("nothing is loaded yet")

    wait_until(half_way, what="the Spark job half-way", timeout_s=120)
    [spark] = spark_processes(stack)
    task = spark.parent()
    assert task is not None
    victims = [task, *([spark, *spark.children(recursive=True)] if with_spark else [])]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    psutil.wait_procs(victims, timeout=10)
    row = connection.execute(
        "SELECT count(*) FROM spectralize.batch_objects AS o JOIN spectralize.batches AS b USING (batch_id) "
        "WHERE b.run_id = %s AND o.outcome IS NULL", (run.run_id,),
    ).fetchone()  # fmt: skip
    connection.rollback()
    assert row is not None
    return int(row[0])


def contents(connection: psycopg.Connection[Any], prefix: str) -> dict[str, tuple[Any, ...]]:
    """Content of each current spectrogram under a prefix, by key without the prefix; times and generations left out."""
    rows = connection.execute(CONTENT, (BUCKET,)).fetchall()
    connection.rollback()
    return {row[1].removeprefix(prefix): row[2:4] + row[5:11] + row[12:] for row in rows if row[1].startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize("with_spark", [True, False], ids=["with its Spark job", "leaving the Spark job behind"])
def test_a_task_killed_half_way_and_retried_gives_the_tables_of_an_undisturbed_run(
    with_spark: bool,
    api: AirflowApi,
    first_run: DagRun,
    corpus: list[CorpusFile],
    connection: psycopg.Connection[Any],
    stack: Stack,
) -> None:
    prefix = f"again-{with_spark}/"
    loadable = [file for file in corpus if file.expected in {"loaded", "partial"} and file.path.suffix != ".wav"]
    for file in loadable:
        open_s3().put_object(Bucket=BUCKET, Key=prefix + file.key, Body=file.path.read_bytes())
    run = api.trigger(DAG_ID)
    unfinished = kill_half_way(stack, connection, run, with_spark=with_spark)
    assert unfinished > 0
    run = api.wait_for_run(DAG_ID, run.run_id)
    assert run.state == "success", describe(api, run)
    [task] = [task for task in api.task_instances(DAG_ID, run.run_id) if task.task_id == "mel_spectrogram"]
    assert task.try_number == 2
    batch = batch_of(connection, run)
    assert (batch["planned"], batch["loaded"] + batch["partial"]) == (len(loadable), len(loadable))
    undisturbed = contents(connection, "")
    assert contents(connection, prefix) == {file.key: undisturbed[file.key] for file in loadable}
    assert breaches(connection) == []


@pytest.mark.slow
@pytest.mark.parametrize("service", ["s3", "timescale"])
def test_a_server_that_is_away_fails_the_task_with_one_line_and_a_retry_succeeds(
    service: str, api: AirflowApi, first_run: DagRun, stack: Stack
) -> None:
    task_id = {"s3": "plan_batch", "timescale": "ensure_schema"}[service]
    stack.stop(service)
    try:
        run = api.trigger(DAG_ID)

        def has_failed_once() -> None:
            tasks = {task.task_id: task for task in api.task_instances(DAG_ID, run.run_id)}
            if task_id not in tasks or tasks[task_id].state != "up_for_retry":
                raise NotReady(f"{task_id} has not failed yet")

        wait_until(has_failed_once, what=f"the failure of {task_id}", timeout_s=120)
    finally:
        stack.start(service)
    log = api.task_log(DAG_ID, run.run_id, task_id)
    [line] = [line for line in log.splitlines() if "Exception: " in line]
    assert "is unreachable" in line
    run = api.wait_for_run(DAG_ID, run.run_id)
    assert run.state == "success", describe(api, run)
