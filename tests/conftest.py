"""Real servers, once per session: SeaweedFS and TimescaleDB, and for those tests that ask for it, Airflow.

They run in a stack of their own, on free ports, beside whatever stack the developer has up. A test module gets a database
of its own, a test a bucket of its own. `make test` has several workers; each is a session, with a stack of its own, and a
file is one worker's.
"""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from xdist.scheduler import LoadFileScheduling

from local.airflow_api import AirflowApi
from local.paths import REPO
from local.postgres import SUPERUSER
from local.stack import Stack
from local.state import State
from spectralize.database import connect
from spectralize.migrations import migrate
from spectralize.s3 import open_s3
from spectralize.sources import Source
from tests.store import Store

#: The files that take longest. What waits for Airflow and Spark leaves the processor to others, so it goes beside them.
LONGEST = (
    "tests/test_flow.py",
    "tests/test_operation.py",
    "tests/test_pages.py",
    "tests/test_alerts.py",
    "tests/test_openlineage.py",
    "tests/explorer/test_accessibility.py",
    "tests/spark_jobs/test_mel_spectrogram.py",
    "tests/spectralize/test_formats.py",
    "tests/local/test_stack.py",
    "tests/docs/test_reading.py",
    "tests/spectralize/test_verify.py",
    "tests/spectralize/test_recheck.py",
    "tests/spectralize/test_columnstore.py",
    "tests/spectralize/test_backup.py",
    "tests/spectralize/reader/test_audio.py",
    "tests/docs/test_sql.py",
    "tests/test_reader_install.py",
    "tests/spectralize/test_planner.py",
    "tests/spectralize/test_worker.py",
    "tests/spectralize/test_lineage_views.py",
    "tests/spectralize/test_isolate.py",
    "tests/spectralize/test_fuzz.py",
    "tests/spectralize/test_decode.py",
)

#: The folder whose tests look at one store.
EXPLORER = "tests/explorer/"

#: The files whose tests need Airflow.
AIRFLOW = (
    "tests/test_flow.py",
    "tests/test_pages.py",
    "tests/test_operation.py",
    "tests/test_alerts.py",
    "tests/test_openlineage.py",
)

#: The stack whose Airflow runs.
STARTED: list[Stack] = []

#: What a process of its own does at the end of a session.
CLEAN = "import sys; from local.stack import Stack; Stack(name=sys.argv[1]).clean()"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have workers begin with what is long: begun last, it would run while the other worker has nothing left to do."""
    if hasattr(config, "workerinput"):
        rank = {config.rootpath / name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path, len(LONGEST)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Have a worker stop Airflow once its tests are through: idle, it takes a quarter of a core from those that follow."""
    # Only workers have all files that need it one after the other.
    if hasattr(item.config, "workerinput") and nextitem is not None and STARTED:
        is_last = [str(one.path.relative_to(REPO)) in AIRFLOW for one in (item, nextitem)] == [True, False]
        if is_last:
            STARTED.pop().stop("airflow")


class ByFile(LoadFileScheduling):
    """A file stays with one worker, and so do all that need Airflow, or the explorer's store: both take time to make."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if file.startswith(EXPLORER):
            return EXPLORER
        return "airflow" if file in AIRFLOW else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Have xdist deal out the tests so."""
    return ByFile(config, log)


@pytest.fixture(scope="session")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's own configuration with two more sources: one with dated keys, and one that is wrong."""
    folder = tmp_path_factory.mktemp("config")
    for file in (REPO / "config").glob("*.toml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8") + MORE.get(file.name, ""), encoding="utf-8")
    return folder


MORE = {
    "sources.toml": r"""
[sources.field]
bucket = "field"
prefix = "site/%Y/%m/%d/"
time_patterns = [
    '(?P<year>\d{4})/(?P<month>\d{2})/(?P<day>\d{2})/(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})',
]
include = ["*.wav", "*.mp3"]
profiles = ["mel128_22k"]
settle_s = 0
sense_poll_s = [1, 2]
keep_days = 36500
owner = "biologists"

[sources.alarm]
bucket = "alarm"
profiles = ["mel128_22k"]
settle_s = 0
sense_window_s = 0
retries = 0
max_rejected = 0
max_rejected_share = 0
late_after_s = 600
owner = "on call"

[sources.wrong]
bucket = "wrong"
profiles = ["mel129"]
"""
}


@pytest.fixture(scope="session")
def stack(configuration: Path) -> Iterator[Stack]:
    """The services of this session: S3 and TimescaleDB run, Airflow does not yet."""
    stack = Stack(name=f"test-{os.getpid()}", durable=False, ephemeral_ports=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Only for the processes of the stack.
            patch.setenv("SPECTRALIZE_CONFIG", str(configuration))
            stack.up(only=["s3", "timescale"])
        yield stack
    finally:
        # Apart from us: an interrupted worker is given seconds to end, and Airflow takes longer.
        cleaning = subprocess.Popen([sys.executable, "-c", CLEAN, stack.layout.name], cwd=REPO, start_new_session=True)
        assert cleaning.wait() == 0


@pytest.fixture(scope="session")
def airflow(stack: Stack, aws: None) -> Iterator[AirflowApi]:
    """All of Airflow, on the session's stack."""
    for bucket in ("field", "alarm"):
        open_s3().create_bucket(Bucket=bucket)
    stack.up()
    STARTED.append(stack)
    with AirflowApi(stack.airflow_url, stack.airflow_user, stack.airflow_password) as api:
        for dag_id in ("ingest_audio", "ingest_field", "ingest_alarm", "watch_batches"):
            api.wait_for_dag(dag_id)
        yield api


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_developer() -> Iterator[None]:
    """Keep the addresses of a developer's own store out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SPECTRALIZE_DSN", "SPECTRALIZE_CONFIG"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def aws(stack: Stack) -> Iterator[None]:
    """The environment that leads boto3 to the session's S3."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.env().items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield


def _superuser_dsn(stack: Stack, database: str) -> str:
    state = State.load(stack.layout.state)
    assert state is not None
    parts = urlsplit(stack.dsn)
    address = f"{SUPERUSER}:{state.secrets.postgres_superuser}@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=address, path=f"/{database}"))


@contextmanager
def fresh_database(stack: Stack, owner: str) -> Iterator[str]:
    """A database with nothing in it but the extensions."""
    name = re.sub(r"\W", "_", owner)[-40:] + "_" + uuid.uuid4().hex[:6]
    with psycopg.connect(_superuser_dsn(stack, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER spectralize").format(sql.Identifier(name)))
    with psycopg.connect(_superuser_dsn(stack, name), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION timescaledb")
        connection.execute("CREATE EXTENSION vector")
    yield urlunsplit(urlsplit(stack.dsn)._replace(path=f"/{name}"))
    with psycopg.connect(_superuser_dsn(stack, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_dsn(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without our schema, for one test."""
    with fresh_database(stack, request.node.name) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def dsn(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database, for one test module."""
    with fresh_database(stack, request.module.__name__) as dsn:
        migrate(dsn)
        yield dsn


@pytest.fixture
def store(dsn: str, aws: None) -> Iterator[Store]:
    """An empty bucket with its source, and a connection to the module's database."""
    with new_store(dsn) as store:
        yield store


@contextmanager
def new_store(dsn: str) -> Iterator[Store]:
    """The same, for who needs it for longer than a test."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    client = open_s3()
    for name in (bucket, f"{bucket}-manifests"):
        client.create_bucket(Bucket=name)
    source = Source(
        name="test", bucket=bucket, include=("*.wav", "*.flac", "*.mp3", "*.ogg"), profiles=("mel128_22k",), settle_s=0
    )
    with connect(dsn) as connection:
        yield Store(dsn, connection, client, source)
    # Every bucket holds on to volumes of its own, and there are only as many as fit the disk.
    for name in (bucket, f"{bucket}-manifests"):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            keys = [item["Key"] for item in page.get("Contents", [])]
            if objects := [{"Key": key} for key in keys if key.isprintable()]:
                client.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
            # Not every character may stand in the XML that names many.
            for key in keys:
                if not key.isprintable():
                    client.delete_object(Bucket=name, Key=key)
        client.delete_bucket(Bucket=name)
