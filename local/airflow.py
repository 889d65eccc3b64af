"""Airflow's components on this machine: settings, metadata migration, health."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx
import psycopg

from local.errors import StackError
from local.paths import REPO, write_private
from local.ports import LOOPBACK
from local.state import Secrets
from local.waiting import NotReady, tail

USER = "admin"
OLDEST_JAVA = 17

#: Service name → command. The two that would serve logs on every interface are told not to; tasks run on this machine,
#: so the API server reads their logs from disk.
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("airflow", "api-server"),
    "scheduler": ("airflow", "scheduler", "--skip-serve-logs"),
    "dag-processor": ("airflow", "dag-processor"),
    "triggerer": ("airflow", "triggerer", "--skip-serve-logs"),
}

#: Bounds how many Spark jobs run at once: tasks that start one name it as their pool.
SPARK_POOL = "spark_jobs"
SPARK_POOL_DESCRIPTION = "Spark jobs at the same time"

#: The steps that look after indexes and statistics start and end like the others. What they would tell by themselves is each
#: of their statements as a job of its own, and PostgreSQL's catalogue as data that we read.
LINEAGE_POLICY = [
    {
        "scope": {"dag_id": ".*", "task_id": "require_valid_indexes|analyze_tables"},
        "match_mode": "regex",
        "controls": {"extract_operator_metadata": False},
    }
]

#: What the user's environment may say about OpenLineage events, and what of it says where to send them.
LINEAGE = ("OPENLINEAGE_", "AIRFLOW__OPENLINEAGE__")
_LINEAGE_TRANSPORT = (
    "OPENLINEAGE_URL",
    "OPENLINEAGE_CONFIG",
    "OPENLINEAGE__TRANSPORT",
    "AIRFLOW__OPENLINEAGE__TRANSPORT",
    "AIRFLOW__OPENLINEAGE__CONFIG_",
)

#: Connections of the user's environment that alerts go to (docs/alerts.md).
ALERTS = "AIRFLOW_CONN_ALERTS_"

#: Service name → its name in the health report.
IN_HEALTH_REPORT = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}


@dataclass(frozen=True, slots=True)
class Airflow:
    folder: Path
    dags_folder: Path
    port: int
    secrets: Secrets
    metadata_dsn: str

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def _passwords(self) -> Path:
        return self.folder / "passwords.json"

    def command(self, component: str) -> list[str]:
        program, *arguments = COMPONENTS[component]
        return [str(Path(sys.executable).parent / program), *arguments]

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self._passwords, json.dumps({USER: self.secrets.airflow_admin}) + "\n")

    def env(self) -> dict[str, str]:
        return {
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__FERNET_KEY": self.secrets.airflow_fernet,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            # The default asks the name service for the full name, which takes seconds on a machine without one.
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.metadata_dsn.replace("postgresql://", "postgresql+psycopg2://"),
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": self.secrets.airflow_api,
            "AIRFLOW__API_AUTH__JWT_SECRET": self.secrets.airflow_jwt,
            # Short beats, so that a demo waits for work and not for a clock.
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            # A task whose supervisor is gone counts as failed after a minute, not after five.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "2",
            # A changed file is parsed at once anyway; this is for unchanged ones, each costing seconds of a core.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "120",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # The default of 5 s is too short while Spark keeps every core busy.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "spectralize",
            "AIRFLOW__OPENLINEAGE__EMISSION_POLICY": json.dumps(LINEAGE_POLICY),
            **_lineage_transport(),
            **{name: value for name, value in os.environ.items() if name.startswith(ALERTS)},
        }

    def migrate(self, environment: Mapping[str, str], done: str, log: Path) -> str:
        """Bring the metadata to the installed version, unless ``done`` says so; return what to remember as done."""
        if done and done == self._migration_state():
            return done
        with log.open("w") as file:
            command = [str(Path(sys.executable).parent / "airflow"), "db", "migrate"]
            code = subprocess.run(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False
            ).returncode
        if code:
            raise StackError(f"airflow db migrate failed with code {code}, see {log}", log_tail=tail(log))
        return self._migration_state()

    def _migration_state(self) -> str:
        """Return Airflow's version and the revision its database is at: a lost database shows as another revision."""
        try:
            with psycopg.connect(self.metadata_dsn, connect_timeout=5) as connection:
                row = connection.execute("select version_num from alembic_version").fetchone()
        except psycopg.errors.UndefinedTable:
            row = None
        except psycopg.OperationalError as error:
            raise StackError(f"airflow: its metadata server does not answer ({error})") from error
        return f"{version('apache-airflow')} {row[0] if row else 'empty'}"

    def check(self, started: Mapping[str, datetime]) -> None:
        """Raise `NotReady` unless every component has sent a heartbeat since it was ``started``.

        The report alone calls a component healthy for half a minute after it was killed.
        """
        try:
            # The API of the tasks builds itself at its first request, for longer than a task waits for an answer.
            httpx.get(f"{self.url}/execution/health", timeout=60, trust_env=False).raise_for_status()
            response = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=10, trust_env=False)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise NotReady(f"{self.url}: {error}") from error
        report = response.json()
        if report["metadatabase"]["status"] != "healthy":
            raise NotReady("Airflow cannot reach its metadata")
        for service, since in started.items():
            if key := IN_HEALTH_REPORT.get(service):
                heard = report[key][f"latest_{key}_heartbeat"]
                if report[key]["status"] != "healthy" or datetime.fromisoformat(heard).astimezone(UTC) < since:
                    raise NotReady(f"no heartbeat of the {service} yet")


def _lineage_transport() -> dict[str, str]:
    """Return where the user's own environment sends OpenLineage events; if it says nothing, they are off.

    Off means that Airflow does not even load what would send them, which every task would have to.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(LINEAGE) and value}
    if not any(name.startswith(_LINEAGE_TRANSPORT) for name in given):
        return {"AIRFLOW__OPENLINEAGE__DISABLED": "True"}
    return {"AIRFLOW__OPENLINEAGE__DISABLED": "False", **given}


def spark_pool_slots(cores: int) -> int:
    """Return how many Spark jobs may run at once on this machine, unless an operator says otherwise.

    Every job takes all cores, with a Python worker on each, so more jobs at once cost memory and save nothing. Yet where there
    is room for two, a short run need not wait for a long one, and uses the seconds in which the other starts its session.
    """
    return 1 if cores < 4 else 2


def check_java() -> None:
    """Raise unless Spark will find a Java that it can run on."""
    home = os.environ.get("JAVA_HOME")
    # Spark takes JAVA_HOME first, too.
    java = f"{home}/bin/java" if home else shutil.which("java")
    need = f"Spark needs Java {OLDEST_JAVA} or newer; install one (Debian: openjdk-17-jre-headless) or set JAVA_HOME"
    if java is None or not os.access(java, os.X_OK):
        raise StackError(f"java not found{f' at {java}' if java else ' on PATH'}: {need}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', shown)
    if not found:
        raise StackError(f"{java}: `java -version` gave no version: {need}")
    if int(found[1]) < OLDEST_JAVA:
        raise StackError(f"{java} is version {found[1]}: {need}")
