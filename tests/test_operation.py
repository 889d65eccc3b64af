"""What an operator does, on the real scheduler, triggerer and Spark: wait, backfill, force, clear, cap, reprocess.

One test builds on the one before. The source `field` has dated keys (tests/conftest.py).
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from local.airflow_api import AirflowApi, DagRun
from local.errors import StackError
from local.stack import Stack
from local.waiting import NotReady, wait_until
from spectralize.database import connect
from spectralize.s3 import open_s3
from tests.flow import breaches, describe, states
from tests.receivers import Receivers, open_receivers
from tests.store import wav

DAG_ID = "ingest_field"
BUCKET = "field"

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("released")]


#: Frames of a recording of so many seconds at 22,050 Hz with hops of 512 samples, centred.
def n_frames(seconds: float) -> int:
    return 1 + int(seconds * 22_050) // 512


def put(day: date, name: str, data: bytes) -> str:
    key = f"site/{day:%Y/%m/%d}/{name}"
    open_s3().put_object(Bucket=BUCKET, Key=key, Body=data)
    return key


@pytest.fixture
def connection(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    with connect(stack.dsn, autocommit=True) as connection:
        yield connection


def batches(connection: psycopg.Connection[Any], run: DagRun) -> list[dict[str, Any]]:
    """The batches of a run, one per try, oldest first."""
    cursor = connection.execute(
        "SELECT try, kind, state, failure, listed, unchanged, planned, over_cap, ignored, loaded, rejected, interval_start, "
        "batch_id FROM spectralize.batches WHERE dag_id = %s AND run_id = %s ORDER BY try", (run.dag_id, run.run_id),
    )  # fmt: skip
    assert cursor.description
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def wait_for_task(api: AirflowApi, run: DagRun, task_id: str, state: str) -> None:
    def probe() -> None:
        found = states(api, run).get(task_id)
        if found != state:
            raise NotReady(f"it is {found}")

    wait_until(probe, what=f"{task_id} being {state}", timeout_s=180)


def done(api: AirflowApi, run: DagRun) -> DagRun:
    return api.wait_for_run(run.dag_id, run.run_id)


def test_a_source_that_is_wrong_is_one_line_and_the_others_have_their_dags(airflow: AirflowApi) -> None:
    def probe() -> list[dict[str, Any]]:
        errors = airflow.import_errors()
        if not errors:
            raise NotReady("check_sources has not been parsed")
        return errors

    [error] = wait_until(probe, what="the import error", timeout_s=90)
    assert error["filename"].endswith("check_sources.py")
    last = error["stack_trace"].strip().splitlines()[-1]
    assert "sources.toml, source 'wrong': profiles: 'mel129' is not in mel_profiles.toml, which has" in last


TODAY = datetime.now(UTC).date()


@pytest.fixture(scope="module")
def receivers(airflow: AirflowApi) -> Iterator[Receivers]:
    """Where the owner of the source is told; tests/test_alerts.py has the rest."""
    with open_receivers() as receivers:
        config = {"path": [receivers.webhook, receivers.mail]}
        airflow.add_connection("alerts_biologists", "apprise", {"config": config})
        yield receivers


def wait_for_alerts(receivers: Receivers, count: int) -> None:
    def probe() -> None:
        if min(len(receivers.payloads), len(receivers.mails)) < count:
            raise NotReady(f"there are {receivers.titles} and {receivers.subjects}")

    wait_until(probe, what=f"{count} alerts", timeout_s=60)


@pytest.fixture(scope="module")
def released(airflow: AirflowApi) -> DagRun:
    """The scheduled run, which waited for the first upload."""
    airflow.unpause(DAG_ID)

    def scheduled() -> DagRun:
        runs = airflow.runs(DAG_ID)
        if not runs:
            raise NotReady("no run yet")
        return runs[0]

    run = wait_until(scheduled, what="the scheduled run", timeout_s=90)
    wait_for_task(airflow, run, "sense", "deferred")
    put(TODAY, "notes.txt", b"no recording")
    put(TODAY, "000000.wav", wav(2.0))
    return done(airflow, run)


def test_a_scheduled_run_waits_without_a_slot_and_is_released_by_an_upload_which_it_loads(
    airflow: AirflowApi, released: DagRun, connection: psycopg.Connection[Any]
) -> None:
    assert released.state == "success", describe(airflow, released)
    [batch] = batches(connection, released)
    assert (batch["kind"], batch["state"]) == ("scheduled", "success")
    assert (batch["listed"], batch["planned"], batch["ignored"], batch["loaded"]) == (2, 1, 1, 1)
    [(frames,)] = connection.execute(
        "SELECT count(*) FROM spectralize.mel_frames WHERE frame_time >= %s AND frame_time < %s",
        (TODAY, TODAY + timedelta(days=1)),
    ).fetchall()
    assert frames >= n_frames(2.0)
    [asset] = airflow._request("GET", "assets/events", params={"source_dag_id": DAG_ID})["asset_events"]
    assert asset["extra"]["batch_id"] == batch["batch_id"]
    assert breaches(connection) == []


def test_a_batch_that_fails_the_gate_fails_the_run_and_tells_its_owner_and_a_clear_plans_anew(
    airflow: AirflowApi, connection: psycopg.Connection[Any], receivers: Receivers, stack: Stack
) -> None:
    for number in range(11):
        put(TODAY, f"noise-{number:02}.mp3", b"no audio" * (number + 1))
    run = done(airflow, airflow.trigger(DAG_ID))
    assert run.state == "failed"
    assert states(airflow, run)["gate"] == "failed"
    [batch] = batches(connection, run)
    assert (batch["state"], batch["rejected"]) == ("failed", 11)
    assert "11 of 11 were rejected" in batch["failure"]
    assert "11 of 11 were rejected" in airflow.task_log(DAG_ID, run.run_id, "gate")
    wait_for_alerts(receivers, 1)
    assert f"{stack.airflow_url}/dags/{DAG_ID}/runs/" in receivers.payloads[0]["message"]
    airflow.clear(DAG_ID, run.run_id)
    run = done(airflow, run)
    assert run.state == "success", describe(airflow, run)
    first, second = batches(connection, run)
    assert first == batch
    assert (second["try"], second["state"], second["planned"], second["unchanged"]) == (2, "success", 0, 12)
    wait_for_alerts(receivers, 2)
    failed, recovered = receivers.titles
    assert (
        failed == f"batch {batch['batch_id']} of field failed: 11 of 11 were rejected, more than 10 and more than 20%"
    )
    assert recovered == f"field works again: batch {second['batch_id']} of field succeeded"
    assert receivers.subjects == receivers.titles


@pytest.mark.slow
def test_a_window_that_ends_with_nothing_new_fails_if_it_is_told_to(
    airflow: AirflowApi, connection: psycopg.Connection[Any]
) -> None:
    run = done(airflow, airflow.trigger(DAG_ID, {"wait_s": 2, "nothing_new": "fail"}))
    assert run.state == "failed"
    assert states(airflow, run)["sense"] == "success"
    [batch] = batches(connection, run)
    assert (batch["state"], batch["planned"]) == ("failed", 0)
    assert batch["failure"] == f"nothing new in s3://{BUCKET}/site/%Y/%m/%d/ within 2 s"


def test_a_dry_run_of_reprocess_prints_the_plan_and_changes_nothing(
    airflow: AirflowApi, connection: psycopg.Connection[Any]
) -> None:
    airflow.unpause("reprocess_audio")
    before = connection.execute("SELECT count(*) FROM spectralize.batches").fetchall()
    run = done(airflow, airflow.trigger("reprocess_audio", {"source": "field", "outcomes": ["rejected"]}))
    assert run.state == "success", describe(airflow, run)
    assert states(airflow, run)["plan_batch"] == "skipped"
    log = airflow.task_log("reprocess_audio", run.run_id, "show_plan")
    assert "this form would compute 11 objects: 11 mp3" in log
    assert "a dry run" in log
    assert connection.execute("SELECT count(*) FROM spectralize.batches").fetchall() == before


def test_the_weekly_maintenance_says_what_it_did_and_verifies(
    airflow: AirflowApi, connection: psycopg.Connection[Any]
) -> None:
    airflow.unpause("maintain_timescale")
    run = done(airflow, airflow.trigger("maintain_timescale", {"grace_days": 0}))
    assert run.state == "success", describe(airflow, run)
    # Unpausing has not made up for a Sunday before, which would not have been as the form says.
    assert [found.run_id for found in airflow.runs("maintain_timescale")] == [run.run_id]
    assert "invariants hold" in airflow.task_log(run.dag_id, run.run_id, "verify_store")
    assert "left out" in airflow.task_log(run.dag_id, run.run_id, "convert_to_columnstore")
    assert "mel_frames" in airflow.task_log(run.dag_id, run.run_id, "report_store")


@pytest.mark.parametrize(
    ("dag_id", "conf", "said"),
    [
        (DAG_ID, {"max_objects": 0}, "max_objects"),
        (DAG_ID, {"force": "yes"}, "force"),
        ("reprocess_audio", {"source": "nope"}, "source"),
        ("reprocess_audio", {"source": "field", "profile": "mel129"}, "profile"),
        ("reprocess_audio", {"source": "field", "first_day": "yesterday"}, "first_day"),
        ("reprocess_audio", {"source": "field", "core_version_older_than": "new"}, "core_version_older_than"),
    ],
)
def test_params_outside_their_schema_are_refused_when_they_are_given(
    airflow: AirflowApi, dag_id: str, conf: dict[str, object], said: str
) -> None:
    with pytest.raises(StackError, match=f"(400|422).*{said}"):
        airflow.trigger(dag_id, conf)


@pytest.mark.slow
def test_reprocess_computes_what_the_form_selects(airflow: AirflowApi, connection: psycopg.Connection[Any]) -> None:
    airflow.unpause("reprocess_audio")
    form = {"source": "field", "dry_run": False, "key_glob": "site/*/000000.WAV"}
    run = done(airflow, airflow.trigger("reprocess_audio", form))
    assert run.state == "success", describe(airflow, run)
    [batch] = batches(connection, run)
    assert (batch["kind"], batch["planned"], batch["loaded"]) == ("reprocess", 1, 1)
    generations = connection.execute(
        "SELECT generation FROM spectralize.spectrograms JOIN spectralize.objects USING (object_id) "
        "WHERE bucket = %s AND key LIKE '%%/000000.wav' ORDER BY 1", (BUCKET,),
    ).fetchall()  # fmt: skip
    assert generations == [(0,), (batch["batch_id"],)]
    assert breaches(connection) == []


@pytest.mark.slow
def test_caps_busy_runs_and_runs_side_by_side_lose_nothing_and_load_nothing_twice(
    airflow: AirflowApi, connection: psycopg.Connection[Any]
) -> None:
    keys = [put(TODAY, f"01000{number}.wav", wav(1.0, seed=number)) for number in range(3)]
    first = airflow.trigger(DAG_ID, {"max_objects": 2})
    wait_for_task(airflow, first, "mel_spectrogram", "running")
    keys.append(put(TODAY, "010009.wav", wav(1.0, seed=9)))
    first = done(airflow, first)
    assert first.state == "success", describe(airflow, first)
    [batch] = batches(connection, first)
    assert (batch["planned"], batch["loaded"], batch["over_cap"]) == (2, 2, 1)
    both = [done(airflow, run) for run in [airflow.trigger(DAG_ID), airflow.trigger(DAG_ID)]]
    assert [run.state for run in both] == ["success", "success"]
    found = [batch for run in both for batch in batches(connection, run)]
    assert max(batch["planned"] for batch in found) == 2
    assert all(batch["planned"] == batch["loaded"] for batch in found)
    rows = connection.execute(
        "SELECT o.key, count(*), sum(s.n_frames), count(DISTINCT f.frame_index) "
        "FROM spectralize.spectrograms AS s JOIN spectralize.objects AS o USING (object_id) "
        "JOIN spectralize.mel_frames AS f USING (spectrogram_id) WHERE o.key = ANY (%s) GROUP BY 1 ORDER BY 1", (keys,),
    ).fetchall()  # fmt: skip
    assert [row[0] for row in rows] == keys
    assert {row[1] for row in rows} == {row[3] for row in rows} == {n_frames(1.0)}
    assert breaches(connection) == []


DAYS = [date(2024, 6, 1) + timedelta(days=number) for number in range(7)]


def backfill(api: AirflowApi, *, force: bool, reprocess: str) -> list[DagRun]:
    """Backfill the seven days, up to four runs at once, and return the runs by day."""
    start, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (DAYS[0], DAYS[-1]))
    backfill_id = api.backfill(DAG_ID, start, end, reprocess=reprocess, conf={"force": force}, max_active_runs=4)
    api.wait_for_backfill(backfill_id, timeout_s=800)
    runs = [run for run in api.runs(DAG_ID) if run.logical_date and run.logical_date.date() in DAYS]
    runs.sort(key=lambda run: run.logical_date or start)
    assert [run.state for run in runs] == ["success"] * 7
    return runs


def frames_by_day(connection: psycopg.Connection[Any]) -> dict[date, int]:
    return dict(
        connection.execute(
            "SELECT (f.frame_time AT TIME ZONE 'UTC')::date, count(*) FROM spectralize.mel_frames AS f "
            "JOIN spectralize.current_spectrograms AS c USING (spectrogram_id) "
            "WHERE c.bucket = %s AND f.frame_time < '2024-07-01' GROUP BY 1",
            (BUCKET,),
        ).fetchall()
    )


@pytest.mark.slow
def test_a_backfill_of_seven_days_loads_each_day_with_its_run_once_and_again_by_force(
    airflow: AirflowApi, connection: psycopg.Connection[Any]
) -> None:
    # Day n has n + 1 recordings of different length; the first begins at exactly 00:00:00 UTC.
    lengths = {day: [1.0 + 0.5 * number for number in range(1 + index % 3)] for index, day in enumerate(DAYS)}
    for day in DAYS:
        for number, seconds in enumerate(lengths[day]):
            put(day, f"{number * 6:02}0000.wav", wav(seconds, seed=day.day * 10 + number))
    outside = [
        put(DAYS[0] - timedelta(days=1), "235900.wav", wav(1.0)),
        put(DAYS[-1] + timedelta(days=1), "000000.wav", wav(1.0)),
    ]
    expected = {day: sum(n_frames(seconds) for seconds in lengths[day]) for day in DAYS}

    runs = backfill(airflow, force=False, reprocess="none")
    assert frames_by_day(connection) == expected
    for run, day in zip(runs, DAYS, strict=True):
        [batch] = batches(connection, run)
        assert batch["interval_start"] == datetime(day.year, day.month, day.day, tzinfo=UTC)
        assert (batch["kind"], batch["planned"], batch["loaded"]) == ("backfill", len(lengths[day]), len(lengths[day]))
    untouched = connection.execute("SELECT count(*) FROM spectralize.spectrograms JOIN spectralize.objects USING (object_id) "
                                   "WHERE key = ANY (%s)", (outside,)).fetchall()  # fmt: skip
    assert untouched == [(0,)]

    everything = connection.execute(
        "SELECT spectrogram_id, loaded_at FROM spectralize.spectrograms ORDER BY 1"
    ).fetchall()
    runs = backfill(airflow, force=False, reprocess="completed")
    assert (
        connection.execute("SELECT spectrogram_id, loaded_at FROM spectralize.spectrograms ORDER BY 1").fetchall()
        == everything
    )
    for run, day in zip(runs, DAYS, strict=True):
        again = batches(connection, run)[-1]
        assert (again["try"], again["planned"], again["unchanged"]) == (2, 0, len(lengths[day]))

    runs = backfill(airflow, force=True, reprocess="completed")
    assert frames_by_day(connection) == expected
    for run, day in zip(runs, DAYS, strict=True):
        first, _, forced = batches(connection, run)
        assert (forced["try"], forced["planned"], forced["loaded"]) == (3, len(lengths[day]), len(lengths[day]))
        lineage = connection.execute(
            "SELECT s.generation, s.batch_id, count(*) FROM spectralize.spectrograms AS s "
            "JOIN spectralize.batch_objects AS b ON b.batch_id = s.batch_id AND b.spectrogram_id = s.spectrogram_id "
            "WHERE s.batch_id IN (%s, %s) GROUP BY 1, 2 ORDER BY 1", (first["batch_id"], forced["batch_id"]),
        ).fetchall()  # fmt: skip
        assert lineage == [
            (0, first["batch_id"], len(lengths[day])),
            (forced["batch_id"], forced["batch_id"], len(lengths[day])),
        ]
    assert breaches(connection) == []


@pytest.mark.slow
def test_a_clear_of_a_succeeded_run_plans_anew_and_changes_nothing(
    airflow: AirflowApi, connection: psycopg.Connection[Any]
) -> None:
    run = done(airflow, airflow.trigger(DAG_ID))
    assert run.state == "success", describe(airflow, run)
    [before] = batches(connection, run)
    rows = connection.execute("SELECT spectrogram_id, loaded_at FROM spectralize.spectrograms ORDER BY 1").fetchall()
    airflow.clear(DAG_ID, run.run_id)
    run = done(airflow, run)
    assert run.state == "success", describe(airflow, run)
    first, second = batches(connection, run)
    assert first == before
    assert (second["try"], second["state"], second["planned"]) == (2, "success", 0)
    again = connection.execute("SELECT spectrogram_id, loaded_at FROM spectralize.spectrograms ORDER BY 1").fetchall()
    assert again == rows
    assert breaches(connection) == []


@pytest.mark.slow
def test_a_waiting_run_that_is_marked_failed_does_not_turn_green(airflow: AirflowApi) -> None:
    run = airflow.trigger(DAG_ID, {"wait_s": 600})
    wait_for_task(airflow, run, "sense", "deferred")
    airflow.set_run_state(DAG_ID, run.run_id, "failed")
    wait_for_task(airflow, run, "close_batch", "failed")
    assert done(airflow, run).state == "failed"
    assert "no batch was planned; failed: sense" in airflow.task_log(DAG_ID, run.run_id, "close_batch")


@pytest.mark.slow
def test_a_cleared_run_that_cannot_plan_does_not_turn_green_on_its_old_batch(
    airflow: AirflowApi, connection: psycopg.Connection[Any], stack: Stack
) -> None:
    run = done(airflow, airflow.trigger(DAG_ID))
    assert run.state == "success", describe(airflow, run)
    [before] = batches(connection, run)
    stack.stop("s3")
    try:
        airflow.clear(DAG_ID, run.run_id)
        run = done(airflow, run)
    finally:
        stack.start("s3")
    assert run.state == "failed"
    found = states(airflow, run)
    assert (found["plan_batch"], found["gate"], found["close_batch"]) == ("failed", "upstream_failed", "failed")
    assert batches(connection, run)[0] == before
    assert all(batch["state"] == "failed" for batch in batches(connection, run)[1:])
    assert breaches(connection) == []
