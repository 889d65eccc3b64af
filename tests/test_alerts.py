"""Who is told what, on the real scheduler: each failure once, whatever died, with all that is needed to act.

The source `alarm` tolerates no reject and no delay, and tries nothing again (tests/conftest.py). One test builds on the one
before.
"""

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import psycopg
import pytest

from local.airflow_api import FINAL, AirflowApi, DagRun
from local.stack import Stack
from local.waiting import NotReady, wait_until
from spectralize.database import connect
from spectralize.s3 import open_s3
from tests.flow import breaches, describe, spark_processes
from tests.receivers import SECRET, Receivers, open_receivers
from tests.store import wav

DAG_ID = "ingest_alarm"
BUCKET = "alarm"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def put(key: str, data: bytes) -> None:
    open_s3().put_object(Bucket=BUCKET, Key=key, Body=data)


@pytest.fixture(scope="module")
def receivers(airflow: AirflowApi) -> Iterator[Receivers]:
    """A webhook and a mail server. No owner has a connection of their own: all is sent to these."""
    with open_receivers() as receivers:
        config = [{"path": receivers.webhook}, {"path": receivers.mail}]
        airflow.add_connection("alerts_default", "apprise", {"config": config})
        airflow.unpause(DAG_ID)

        def scheduled() -> DagRun:
            runs = airflow.runs(DAG_ID)
            if not runs or runs[0].state not in FINAL:
                raise NotReady("the scheduled run has not ended")
            return runs[0]

        assert wait_until(scheduled, what="the scheduled run", timeout_s=120).state == "success"
        yield receivers


@pytest.fixture
def connection(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    with connect(stack.dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def news(receivers: Receivers) -> Receivers:
    """The receivers, with nothing in their boxes."""
    receivers.payloads.clear()
    receivers.mails.clear()
    return receivers


def done(api: AirflowApi, run: DagRun) -> DagRun:
    return api.wait_for_run(run.dag_id, run.run_id)


def watch(api: AirflowApi) -> None:
    """One look of the watch, whatever its schedule does beside it."""
    run = done(api, api.trigger("watch_batches"))
    assert run.state == "success", describe(api, run)


def wait_for(receivers: Receivers, count: int) -> None:
    def probe() -> None:
        if len(receivers.payloads) < count or len(receivers.mails) < count:
            raise NotReady(f"there are {receivers.titles} and {receivers.subjects}")

    wait_until(probe, what=f"{count} alerts", timeout_s=120)


def only(api: AirflowApi, news: Receivers) -> tuple[dict[str, Any], str]:
    """The one payload and the one mail's HTML; there are no more, also after another look of the watch."""
    wait_for(news, 1)
    watch(api)
    assert (len(news.payloads), len(news.mails)) == (1, 1), (news.titles, news.subjects)
    [payload], [mail] = news.payloads, news.mails
    assert mail["Subject"] == payload["title"]
    body = mail.get_body(("html",))
    assert body is not None
    return payload, body.get_content()


def batch_of(connection: psycopg.Connection[Any], run: DagRun) -> int:
    row = connection.execute(
        "SELECT batch_id FROM spectralize.batches WHERE run_id = %s ORDER BY try DESC", (run.run_id,)
    ).fetchone()
    assert row
    return int(row[0])


def test_a_reject_threshold_is_told_once_with_all_that_is_needed_to_act(
    airflow: AirflowApi, news: Receivers, connection: psycopg.Connection[Any], stack: Stack
) -> None:
    put("sound.wav", wav(1.0))
    put("<b>noise</b>\x07.mp3", b"no audio at all")
    run = done(airflow, airflow.trigger(DAG_ID))
    assert run.state == "failed"
    payload, html = only(airflow, news)
    batch_id = batch_of(connection, run)
    assert payload["type"] == "failure"
    assert payload["title"].startswith(f"batch {batch_id} of alarm failed: 1 of 2 were rejected")
    text = payload["message"]
    for said in (
        "Source:    alarm",
        f"Batch:     {batch_id} (manual, try 1)",
        f"Run:       {run.run_id} of {DAG_ID}",
        "Interval:  ",
        "Listed 2 = unchanged 0 + planned 2 + unsettled 0 + ignored 0 + over cap 0",
        "Planned 2 = loaded 1 + partial 0 + rejected 1 + failed 0",
        "  1 rejected: not_audio",
        r"  rejected s3://alarm/<b>noise</b>\x07.mp3 (mel128_22k)",
        "    not_audio: FFmpeg finds no audio container",
        "raise max_rejected or max_rejected_share",
        f"Run in Airflow: {stack.airflow_url}/dags/{DAG_ID}/runs/",
        f"Batch, objects and lineage: {stack.airflow_url}/spectralize/dags/{DAG_ID}/runs/",
    ):
        assert said in text, said
    assert f"{stack.airflow_url}/dags/{DAG_ID}/runs/" in html
    assert "&lt;b&gt;noise&lt;/b&gt;" in html
    assert "<b>noise</b>" not in html
    [(kind, tries, last_error)] = connection.execute(
        "SELECT kind, tries, last_error FROM spectralize.alerts WHERE batch_id = %s AND sent_at IS NOT NULL",
        (batch_id,),
    ).fetchall()
    assert (kind, tries, last_error) == ("failed", 1, None)


def test_the_next_success_says_once_that_it_is_over(
    airflow: AirflowApi, news: Receivers, connection: psycopg.Connection[Any]
) -> None:
    runs = [done(airflow, airflow.trigger(DAG_ID)) for _ in range(2)]
    assert [run.state for run in runs] == ["success", "success"], describe(airflow, runs[0])
    payload, html = only(airflow, news)
    assert payload["type"] == "success"
    assert payload["title"] == f"alarm works again: batch {batch_of(connection, runs[0])} of alarm succeeded"
    assert re.search(r"failed since .* UTC: batch \d+", payload["message"])
    assert "works again" in html
    assert breaches(connection) == []


def wait_for_spark(stack: Stack, connection: psycopg.Connection[Any], run: DagRun) -> psutil.Process:
    """The JVM of a run's own job: not the one that writes its command line, nor one that an earlier run left behind."""

    def probe() -> psutil.Process:
        row = connection.execute(
            "SELECT manifest_uri FROM spectralize.batches WHERE run_id = %s AND state = 'planned'", (run.run_id,)
        ).fetchone()
        for process in spark_processes(stack) if row else []:
            command = process.cmdline()
            if row[0] in command and "org.apache.spark.launcher.Main" not in command:
                return process
        raise NotReady("its Spark job does not run yet")

    return wait_until(probe, what="the Spark job", timeout_s=120)


@pytest.mark.parametrize("victim", ["task", "supervisor"])
def test_what_was_killed_is_told_once(
    victim: str, airflow: AirflowApi, news: Receivers, connection: psycopg.Connection[Any], stack: Stack
) -> None:
    put(f"killed-{victim}.wav", wav(1.0))
    run = airflow.trigger(DAG_ID)
    spark = wait_for_spark(stack, connection, run)
    task = spark.parent()
    assert task is not None
    supervisor = task.parent()
    assert supervisor is not None
    victims = [task] if victim == "task" else [supervisor, task]
    # The job itself, left alone, would load what it has.
    for process in [*victims, spark, *spark.children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)
    run = done(airflow, run)
    assert run.state == "failed"
    payload, _ = only(airflow, news)
    assert payload["title"].startswith(f"batch {batch_of(connection, run)} of alarm failed: 1 of 1 failed")
    assert "mel_spectrogram: it died without a word" in payload["message"], payload["message"]
    assert "1 failed: unfinished" in payload["message"]
    assert "planned again by the next run" in payload["message"]
    # The next run does what was left, and that is said.
    news.payloads.clear(), news.mails.clear()
    run = done(airflow, airflow.trigger(DAG_ID))
    assert run.state == "success", describe(airflow, run)
    payload, _ = only(airflow, news)
    assert payload["title"].startswith("alarm works again")
    assert breaches(connection) == []


def test_a_retry_that_succeeds_is_silent(
    airflow: AirflowApi, news: Receivers, connection: psycopg.Connection[Any], stack: Stack
) -> None:
    """The source `audio` tries again."""
    airflow.unpause("ingest_audio")
    open_s3().put_object(Bucket="audio", Key="retried.wav", Body=wav(1.0, seed=77))
    run = airflow.trigger("ingest_audio")
    spark = wait_for_spark(stack, connection, run)
    task = spark.parent()
    assert task is not None
    for process in (task, spark, *spark.children(recursive=True)):
        os.kill(process.pid, signal.SIGKILL)
    run = done(airflow, run)
    assert run.state == "success", describe(airflow, run)
    watch(airflow)
    assert news.titles == []


def test_a_late_batch_is_told_once_and_then_that_it_came(
    airflow: AirflowApi, news: Receivers, connection: psycopg.Connection[Any], stack: Stack
) -> None:
    put("late.wav", wav(1.0))
    run = airflow.trigger(DAG_ID)
    spark = wait_for_spark(stack, connection, run)
    os.kill(spark.pid, signal.SIGSTOP)
    try:
        # As if it had been opened an hour ago.
        connection.execute(
            "UPDATE spectralize.batches SET opened_at = opened_at - interval '1 hour' WHERE run_id = %s", (run.run_id,)
        )
        watch(airflow)
        payload, _ = only(airflow, news)
    finally:
        os.kill(spark.pid, signal.SIGCONT)
    batch_id = batch_of(connection, run)
    assert payload["type"] == "warning"
    assert payload["title"] == f"batch {batch_id} of alarm is late: not closed 10 min after it was opened"
    assert "waiting 1" in payload["message"]
    assert "See in Airflow which task it hangs in" in payload["message"]
    news.payloads.clear(), news.mails.clear()
    run = done(airflow, run)
    assert run.state == "success", describe(airflow, run)
    payload, _ = only(airflow, news)
    assert "late since" in payload["message"]


def test_receivers_that_were_away_hear_it_when_they_are_back(
    airflow: AirflowApi, news: Receivers, connection: psycopg.Connection[Any]
) -> None:
    put("more noise.mp3", b"no audio either")
    news.down()
    run = done(airflow, airflow.trigger(DAG_ID))
    assert run.state == "failed"

    def tried() -> None:
        row = connection.execute(
            "SELECT tries FROM spectralize.alerts WHERE run_id = %s AND kind = 'failed'", (run.run_id,)
        ).fetchone()
        if not row or row[0] < 1:
            raise NotReady("not tried yet")

    wait_until(tried, what="a try to send", timeout_s=60)
    [(error,)] = connection.execute(
        "SELECT last_error FROM spectralize.alerts WHERE run_id = %s", (run.run_id,)
    ).fetchall()
    assert "address 1 of 2 (JSON)" in error
    assert "address 2 of 2 (E-Mail)" in error
    news.up()

    def sent() -> None:
        watch(airflow)
        if not news.payloads:
            raise NotReady("not sent yet")

    wait_until(sent, what="the alert", timeout_s=120)
    payload, _ = only(airflow, news)
    assert "1 of 1 were rejected" in payload["title"]


def test_an_outage_of_the_features_database_is_told_once_and_so_is_its_end(
    airflow: AirflowApi, news: Receivers, connection: psycopg.Connection[Any], stack: Stack
) -> None:
    put("cut off.wav", wav(1.0))
    run = airflow.trigger(DAG_ID)
    wait_for_spark(stack, connection, run)
    stack.stop("timescale")
    try:
        run = done(airflow, run)
        assert run.state == "failed"
        wait_for(news, 1)
        # Another run fails by the same outage: nobody hears of it again before it is over.
        second = done(airflow, airflow.trigger(DAG_ID))
        assert second.state == "failed"
        looked = done(airflow, airflow.trigger("watch_batches"))
        assert looked.state == "failed"
    finally:
        stack.start("timescale")
    assert len(news.payloads) == 1, news.titles
    [payload] = news.payloads
    assert payload["title"].startswith(f"run {run.run_id} of {DAG_ID} failed: ")
    assert "is unreachable" in payload["message"] or "gave up" in payload["message"]
    assert "Bring the database back" in payload["message"]
    assert len(news.mails) == 1
    news.payloads.clear(), news.mails.clear()
    # By its schedule the watch would look within five minutes.
    watch(airflow)
    payload, _ = only(airflow, news)
    assert payload["title"].startswith("the features database is back; it was away since ")
    assert f"{run.run_id} of {DAG_ID}" in payload["message"]
    assert f"{second.run_id} of {DAG_ID}" in payload["message"]
    with connect(stack.dsn, autocommit=True) as again:
        # The watch has closed what the run could not, after a grace.
        def closed() -> None:
            watch(airflow)
            row = again.execute("SELECT state FROM spectralize.batches WHERE run_id = %s", (run.run_id,)).fetchone()
            if row != ("failed",):
                raise NotReady(f"the batch is {row}")

        wait_until(closed, what="the batch that was left open", timeout_s=200)
        assert len(news.payloads) == 1
        news.payloads.clear(), news.mails.clear()
        last = done(airflow, airflow.trigger(DAG_ID))
        assert last.state == "success", describe(airflow, last)
        payload, _ = only(airflow, news)
        # That the outage is over has been said: this is about the batch of the test before.
        _, _, ended = payload["message"].partition("This ends:")
        [line] = [line for line in ended.splitlines() if " since " in line]
        assert line.endswith("batch {}".format(*again.execute(
            "SELECT max(batch_id) FROM spectralize.alerts WHERE kind = 'failed' AND facts ->> 'failure' LIKE %s", ("%rejected%",)
        ).fetchone() or ()))  # fmt: skip
        assert again.execute(
            "SELECT count(*) FROM spectralize.current_spectrograms WHERE bucket = %s AND key = 'cut off.wav'", (BUCKET,)
        ).fetchone() == (1,)
        assert breaches(again) == []


def test_the_receivers_secret_is_nowhere(
    airflow: AirflowApi, receivers: Receivers, connection: psycopg.Connection[Any], stack: Stack
) -> None:
    logs = {path: path.read_text(errors="replace") for path in stack.layout.stack.rglob("*.log")}
    assert any("Executing on_failure dag callback" in log for log in logs.values())
    assert [path for path, log in logs.items() if SECRET in log] == []
    assert connection.execute(
        "SELECT count(*) FROM spectralize.alerts AS a WHERE a::text LIKE %s", (f"%{SECRET}%",)
    ).fetchone() == (0,)
