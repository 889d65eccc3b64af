"""The whole job: from S3 through Spark into TimescaleDB, on a stack of its own with PostgreSQL's durability left on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

import psutil  # type: ignore[import-untyped]
import psycopg
from boto3.s3.transfer import TransferConfig
from psycopg import sql
from rich.console import Console

from bench.corpus import Corpus
from bench.measurement import BenchError, Measurement, machine_cpu_s, own_cpu_s, tree_cpu_s
from local.airflow import check_java
from local.paths import REPO
from local.postgres import SUPERUSER
from local.stack import Stack
from local.state import State
from local.waiting import tail
from spectralize import gate
from spectralize.database import connect, fetch_row
from spectralize.ledger import Run
from spectralize.migrations import migrate
from spectralize.package import build_zip
from spectralize.planner import plan_batch
from spectralize.s3 import open_s3
from spectralize.sources import Source

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

BUCKET = "bench"
MANIFESTS = "bench-manifests"


class Driver:
    """A Spark driver in a process of its own; see `bench.driver`."""

    def __init__(self, stack: Stack, *, n_cores: int) -> None:
        self._log = stack.layout.logs / "bench-driver.log"
        package, _ = build_zip(stack.layout.scratch)
        settings = REPO / "config" / "spark-defaults.conf"
        arguments = f"--master local[{n_cores},4] --properties-file '{settings}' --py-files '{package}' pyspark-shell"
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.driver"],
                cwd=REPO, env=kept | stack.env() | {"PYSPARK_SUBMIT_ARGS": arguments},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        #: What the figures leave out.
        self.session_s = float(self._receive()["session_s"])
        self.java = next(child for child in psutil.Process(self._process.pid).children() if child.name() == "java")

    def run(self, manifest: str, dsn: str) -> dict[str, Any]:
        """Compute one batch; return `wall_s` and `outcomes`."""
        if self._process.stdin is None:
            raise BenchError("the Spark driver has no stdin")
        self._process.stdin.write(json.dumps({"manifest": manifest, "dsn": dsn}) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def cpu_s(self) -> dict[str, float]:
        """Return processor time so far: of Python workers with what they fork, and of JVM and driver together."""
        driver = psutil.Process(self._process.pid)
        return {
            "python": tree_cpu_s(self.java.pid, with_root=False),
            "jvm": own_cpu_s(self.java) + own_cpu_s(driver),
        }

    def workers(self) -> list[psutil.Process]:
        """Return the Python workers and what they have forked, without the daemon that they are forked from."""
        daemons = {child.pid for child in self.java.children()}
        return [process for process in self.java.children(recursive=True) if process.pid not in daemons]

    def _receive(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            code = self._process.wait()
            raise BenchError(f"the Spark driver ended with code {code}:\n{tail(self._log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(slots=True)
class Services:
    """S3 and TimescaleDB, for one run of the bench."""

    stack: Stack
    client: S3Client

    def upload(self, corpus: Corpus) -> None:
        """Put the files of a corpus under its name, large ones in parts."""
        transfer = TransferConfig(max_concurrency=2)

        def put(path: Path) -> None:
            self.client.upload_file(str(path), BUCKET, f"{corpus.name}/{path.name}", Config=transfer)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, [file.path for file in corpus.files]))

    def run_batch(self, driver: Driver, dsn: str, corpus: Corpus, number: int) -> Measurement:
        """Plan, compute and close one batch. What is measured is the computing."""
        source = Source(
            name=corpus.name, bucket=BUCKET, prefix=f"{corpus.name}/", profiles=("mel128_22k",), settle_s=0,
            max_object_bytes=1 << 40, max_duration_s=1e6,
        )  # fmt: skip
        run = Run(f"bench_{corpus.name}", f"round_{number}_{uuid.uuid4().hex[:8]}", "manual")
        with connect(dsn) as connection:
            batch = plan_batch(connection, self.client, source, run, manifests=f"s3://{MANIFESTS}")
            settle_disks(self.stack)
            before, busy_s = self._cpu_s(driver), machine_cpu_s()
            answer = driver.run(str(batch.manifest_uri), dsn)
            after, busy_s = self._cpu_s(driver), machine_cpu_s() - busy_s
            gate.gate_batch(connection, batch.batch_id, source)
            counts = gate.close_batch(connection, batch.batch_id, source).counts
        if counts.outcomes["loaded"] != len(corpus.files):
            raise BenchError(f"{corpus.name}: {counts.outcomes} of {len(corpus.files)} files")
        cpu_s = {part: after[part] - before[part] for part in before}
        return Measurement.of("job", corpus, number, wall_s=answer["wall_s"], cpu_s=cpu_s, busy_s=busy_s)

    def durability(self) -> str:
        """Return the settings that decide whether a commit survives a power cut, as the server has them."""
        names = ("fsync", "synchronous_commit", "full_page_writes")
        with connect(self.stack.dsn) as connection:
            return ", ".join(f"{name} {fetch_row(connection, f'SHOW {name}')[0]}" for name in names)

    def _cpu_s(self, driver: Driver) -> dict[str, float]:
        services = {"postgres": "timescale", "s3": "s3"}
        return driver.cpu_s() | {part: tree_cpu_s(self.stack.pid(name) or 0) for part, name in services.items()}

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """Yield the address of a database that holds the schema and nothing else."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(superuser_dsn(self.stack, "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER spectralize").format(sql.Identifier(name)))
        with psycopg.connect(superuser_dsn(self.stack, name), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION timescaledb")
            connection.execute("CREATE EXTENSION vector")
        dsn = urlunsplit(urlsplit(self.stack.dsn)._replace(path=f"/{name}"))
        migrate(dsn)
        try:
            yield dsn
        finally:
            with psycopg.connect(superuser_dsn(self.stack, "postgres"), autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def settle_database(self, dsn: str) -> None:
        """Do now what the server would else do in the background while something is measured."""
        name = urlsplit(dsn).path.removeprefix("/")
        with psycopg.connect(superuser_dsn(self.stack, name), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
        settle_disks(self.stack)


def superuser_dsn(stack: Stack, database: str) -> str:
    """Return the address of a database of the stack for the role that may do everything."""
    state = State.load(stack.layout.state)
    if state is None:
        raise BenchError(f"stack {stack.layout.name}: is not up")
    parts = urlsplit(stack.dsn)
    address = f"{SUPERUSER}:{state.secrets.postgres_superuser}@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=address, path=f"/{database}"))


def settle_disks(stack: Stack) -> None:
    """Have everything written that earlier measurements have left unwritten: it is not for the next one to pay."""
    with psycopg.connect(superuser_dsn(stack, "postgres"), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    os.sync()


@contextmanager
def open_services(console: Console) -> Iterator[Services]:
    """Start S3 and TimescaleDB on free ports, and delete both afterwards.

    Raises
    ------
    StackError
        If this machine cannot run them.
    """
    check_java()
    with ExitStack() as cleanup:
        stack = Stack(name=f"bench-{os.getpid()}", durable=True, ephemeral_ports=True, console=console)
        _clean_leftovers(stack.layout.stacks)
        cleanup.callback(stack.clean)
        stack.up(only=["s3", "timescale"])
        os.environ.update({name: value for name, value in stack.env().items() if name.startswith("AWS_")})
        client = open_s3()
        for bucket in (BUCKET, MANIFESTS):
            client.create_bucket(Bucket=bucket)
        yield Services(stack, client)


def _clean_leftovers(stacks: Path) -> None:
    """Remove the stacks of earlier runs that were killed."""
    for folder in stacks.glob("bench-*/"):
        match = re.fullmatch(r"bench-(\d+)", folder.name)
        if match and not psutil.pid_exists(int(match[1])):
            Stack(name=folder.name).clean()
