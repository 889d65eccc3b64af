"""The embedded stack, run for real under a name of its own."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from time import monotonic

import boto3
import psutil
import psycopg
import pytest
from botocore.exceptions import ClientError

from local import processes
from local.airflow_api import AirflowApi
from local.errors import StackError
from local.paths import REPO
from local.stack import Stack
from local.state import State
from local.waiting import NotReady, wait_until

STORES = ("s3", "timescale")


def new_stack(home: Path | None = None, dags_folder: Path | None = None) -> Stack:
    name = f"test-{secrets.token_hex(3)}"
    return Stack(home, name, durable=False, ephemeral_ports=True, dags_folder=dags_folder)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    stack = new_stack()
    try:
        yield stack
    finally:
        stack.clean()
    assert not stack.layout.stack.exists()


@pytest.fixture
def running(stack: Stack) -> Stack:
    stack.up(STORES)
    return stack


def listening(stack: Stack) -> set[tuple[str, int]]:
    """Where the processes of a stack listen, as the kernel says."""
    found = set()
    for process in processes.of_stack(stack.layout.stack):
        # PostgreSQL's workers come and go.
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found


def local(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local", *arguments],
        env={**os.environ, **environment},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )


def test_serves_s3_and_timescale(running: Stack) -> None:
    credentials = {"aws_access_key_id": running.s3_access_key, "aws_secret_access_key": running.s3_secret_key}
    s3 = boto3.client("s3", endpoint_url=running.s3_endpoint, region_name="us-east-1", **credentials)
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {"audio", "spectralize"}
    s3.put_object(Bucket="audio", Key="a", Body=b"0123456789")
    assert s3.get_object(Bucket="audio", Key="a", Range="bytes=2-4")["Body"].read() == b"234"
    stranger = boto3.client(
        "s3",
        endpoint_url=running.s3_endpoint,
        region_name="us-east-1",
        **{**credentials, "aws_secret_access_key": "wrong"},
    )
    with pytest.raises(ClientError):
        stranger.list_buckets()

    with psycopg.connect(running.dsn) as connection:
        extensions = {name for (name,) in connection.execute("select extname from pg_extension")}
        assert {"timescaledb", "vector"} <= extensions
        is_superuser = connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
        assert is_superuser == (False,)
        connection.execute("create schema tried")
        connection.execute("create table tried.frames (at timestamptz not null, mel halfvec(4))")
        connection.execute("select create_hypertable('tried.frames', by_range('at'))")
        connection.rollback()


def test_second_up_is_quick_and_finds_everything_as_it_was(running: Stack) -> None:
    with psycopg.connect(running.dsn) as connection:
        connection.execute("create table if not exists kept as select 42 as answer")
    before = running.env()
    pids = [running.pid(name) for name in STORES]

    begun = monotonic()
    running.up(STORES)

    assert monotonic() - begun < 5
    assert [running.pid(name) for name in STORES] == pids
    running.down()
    running.up(STORES)
    assert running.env() == before
    with psycopg.connect(running.dsn) as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


def test_listens_on_loopback_alone(running: Stack) -> None:
    found = listening(running)

    ports = State.load(running.layout.state).ports  # type: ignore[union-attr]
    assert {ports["s3"], ports["timescale"]} <= {port for _, port in found}
    assert {address for address, _ in found} == {"127.0.0.1"}


def test_no_secret_on_a_command_line_or_in_a_readable_file(running: Stack) -> None:
    state = State.load(running.layout.state)
    assert state is not None
    known = [getattr(state.secrets, name) for name in state.secrets.__slots__]
    for process in processes.of_stack(running.layout.stack):
        assert not any(secret in " ".join(process.cmdline()) for secret in known)
    for path in running.layout.stack.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found = [name for name in state.secrets.__slots__ if getattr(state.secrets, name).encode() in content]
            assert not found or path.name in ("s3.json", "state.json", "passwords.json"), (path, found)
            assert not found or path.stat().st_mode & 0o077 == 0, path


def test_down_ends_what_tasks_have_started_too(running: Stack) -> None:
    marked = {**os.environ, processes.MARKER: str(running.layout.stack)}
    stray = subprocess.Popen(["sleep", "600"], env=marked, start_new_session=True)
    unmarked = subprocess.Popen(["sleep", "600"])
    try:
        running.down()

        assert stray.wait(timeout=5) == -signal.SIGTERM
        assert processes.of_stack(running.layout.stack) == []
        assert unmarked.poll() is None
        running.down()
    finally:
        stray.kill()
        unmarked.kill()
        stray.wait()
        unmarked.wait()


def test_up_copes_with_what_a_killed_process_manager_leaves(running: Stack) -> None:
    with psycopg.connect(running.dsn) as connection:
        connection.execute("create table if not exists survives as select 7 as answer")
    before = {name: running.pid(name) for name in STORES}
    os.kill(int(running.layout.supervisor_pid.read_text()), signal.SIGKILL)

    running.up(STORES)

    for name, pid in before.items():
        assert running.pid(name) not in (None, pid)
    with psycopg.connect(running.dsn) as connection:
        assert connection.execute("select answer from survives").fetchone() == (7,)
    assert {address for address, _ in listening(running)} == {"127.0.0.1"}


def test_moves_when_a_port_was_taken_in_the_meantime(running: Stack) -> None:
    running.down()
    taken = State.load(running.layout.state).ports["timescale"]  # type: ignore[union-attr]
    with socket.create_server(("127.0.0.1", taken)):
        running.up(["timescale"])
        with psycopg.connect(running.dsn) as connection:
            assert connection.info.port != taken


def test_stop_and_restart_one_service(running: Stack) -> None:
    s3, timescale = running.pid("s3"), running.pid("timescale")
    running.stop("timescale")
    assert running.pid("timescale") is None
    running.start("timescale")
    running.restart("s3")
    assert running.pid("timescale") not in (None, timescale)
    assert running.pid("s3") not in (None, s3)


def test_a_service_that_dies_is_named_at_once(running: Stack) -> None:
    state = State.load(running.layout.state)
    assert state is not None
    place = state.postgres["timescale"]
    settings = Path(place.chroot or "/") / place.data_dir.lstrip("/") / "postgresql.conf"
    running.down()
    good = settings.read_text()
    settings.write_text(good + "\nno_such_setting = 1\n")
    try:
        begun = monotonic()
        with pytest.raises(StackError, match="timescale ended right after its start") as caught:
            running.up(["timescale"])
        assert monotonic() - begun < 15
        assert "no_such_setting" in caught.value.log_tail
    finally:
        settings.write_text(good)


def test_env_of_a_shell_is_no_foreign_database(running: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    own = running.dsn
    monkeypatch.setenv("SPECTRALIZE_DSN", own)
    pid = running.pid("timescale")
    running.up(STORES)
    assert running.pid("timescale") == pid

    monkeypatch.setenv("SPECTRALIZE_DSN", "postgresql://me:pw@elsewhere/db")
    assert running.dsn == "postgresql://me:pw@elsewhere/db"
    running.up(STORES)
    assert running.pid("timescale") is None
    assert '"host": "elsewhere"' in running.env()["AIRFLOW_CONN_TIMESCALE_DEFAULT"]


def test_deep_folders_get_a_socket_elsewhere(tmp_path: Path) -> None:
    stack = new_stack(tmp_path / ("deep" * 20))
    try:
        stack.up(["s3"])
        state = State.load(stack.layout.state)
        assert state is not None
        run_dir = Path(state.run_dir)
        assert not run_dir.is_relative_to(tmp_path)
        assert run_dir.stat().st_mode & 0o777 == 0o700
    finally:
        stack.clean()
    assert not run_dir.exists()


def test_missing_java_is_one_clear_line(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    environment = {"PATH": str(tools), "JAVA_HOME": "", "SPECTRALIZE_HOME": str(tmp_path / "home")}

    missing = local("up", **environment)
    java = tools / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    old = local("up", **environment)

    for outcome, words in ((missing, "java not found on PATH"), (old, "version 8")):
        assert outcome.returncode == 1
        assert outcome.stdout == ""
        assert outcome.stderr.count("\n") == 1
        assert outcome.stderr.startswith("error: ")
        assert words in outcome.stderr
    assert not (tmp_path / "home").exists()


def test_unknown_service_is_one_clear_line(tmp_path: Path) -> None:
    outcome = local("up", "--only", "s4", SPECTRALIZE_HOME=str(tmp_path))
    assert (outcome.returncode, outcome.stderr.count("\n")) == (1, 1)
    assert "'s4'" in outcome.stderr


@pytest.mark.slow
def test_airflow_runs_a_dag_and_goes_down_while_a_task_runs(tmp_path: Path) -> None:
    (tmp_path / "tried.py").write_text(
        dedent(
            """
            from airflow.sdk import dag, task


            @dag(schedule=None)
            def tried():
                @task
                def talk():
                    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
                    from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
                    from airflow.providers.postgres.hooks.postgres import PostgresHook

                    assert S3Hook().check_for_bucket("audio")
                    print(PostgresHook("timescale_default").get_first("select extname from pg_extension"))
                    print(SparkSubmitHook(conn_id="spark_default")._build_spark_submit_command("job.py"))

                @task
                def linger():
                    import subprocess

                    subprocess.run(["sleep", "600"], check=True)

                talk() >> linger()


            tried()
            """
        )
    )
    stack = new_stack(dags_folder=tmp_path)
    try:
        stack.up()
        with AirflowApi(stack.airflow_url, stack.airflow_user, stack.airflow_password) as api:
            api.wait_for_dag("tried")
            api.unpause("tried")
            run_id = api.trigger("tried").run_id

            def lingers() -> None:
                states = {task.task_id: task.state for task in api.task_instances("tried", run_id)}
                if states.get("linger") != "running":
                    raise NotReady(str(states))

            wait_until(lingers, what="the second task", timeout_s=90)
            assert "--master local[*,4]" in api.task_log("tried", run_id, "talk")
            (tmp_path / "broken.py").write_text("from airflow.sdk import dag\nraise ValueError('spoilt')\n")
            with pytest.raises(StackError, match=r"broken\.py cannot be imported: ValueError: spoilt"):
                api.wait_for_dag("broken", timeout_s=60)
        assert {address for address, _ in listening(stack)} == {"127.0.0.1"}
        stack.restart("metadata")
        stack.restart("scheduler")
        begun = monotonic()
        stack.down()
        assert monotonic() - begun < 30
        assert processes.of_stack(stack.layout.stack) == []
    finally:
        stack.clean()
