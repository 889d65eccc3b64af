"""The variables that DAGs, Spark jobs, the command line and the reader find their servers by."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from local.ports import LOOPBACK
from local.processes import MARKER
from local.s3 import REGION, S3

#: What a developer's shell may hold and a stack's process must not see: other credentials, other servers, and settings
#: that slow Python down or bend its imports.
FOREIGN = (
    "AIRFLOW",
    "OPENLINEAGE_",
    "AWS_",
    "PG",
    "SPARK_",
    "S3_",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "SUPERVISOR_",
)


def for_clients(
    *,
    home: Path,
    scratch: Path,
    dsn: str,
    s3: S3,
    airflow: Mapping[str, str],
    explorer_url: str,
    spark_ui_port: int,
) -> dict[str, str]:
    """Return what everything that talks to the stack needs, wherever it was started."""
    single_threaded = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {
        "SPECTRALIZE_HOME": str(home),
        "SPECTRALIZE_DSN": dsn,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        # Without credentials at hand boto would look for a cloud's metadata service, and wait for it.
        "AWS_EC2_METADATA_DISABLED": "true",
        **airflow,
        # Where the links of alerts lead.
        "SPECTRALIZE_EXPLORER_URL": explorer_url,
        "AIRFLOW_CONN_AWS_DEFAULT": _aws_connection(s3),
        "AIRFLOW_CONN_TIMESCALE_DEFAULT": _postgres_connection(dsn),
        # Four attempts per task: plain local[*] fails the job when one Python worker dies.
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(
            {
                "conn_type": "spark",
                "host": "local[*,4]",
                "extra": {"deploy-mode": "client", "ui_url": f"http://{LOOPBACK}:{spark_ui_port}"},
            }
        ),
        "SPARK_LOCAL_IP": LOOPBACK,
        # A job that is killed leaves its scratch files here, where `clean` finds them, rather than in /tmp.
        "SPARK_LOCAL_DIRS": str(scratch),
        "SPARK_SUBMIT_OPTS": f'"-Djava.io.tmpdir={scratch}" -XX:-UsePerfData',
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "NUMBA_CACHE_DIR": str(home / "numba"),
        # Spark runs a worker per core; threads inside the workers would fight over the same cores.
        **dict.fromkeys(single_threaded, "1"),
    }


def for_processes(stack: Path, client: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the stack's own processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {
        "LANG": "C.UTF-8",
        **kept,
        **client,
        # The environment's own spark-submit and airflow come first.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        # A proxy for the internet must not be asked for 127.0.0.1.
        **{name: ",".join(filter(None, [kept.get(name), "127.0.0.1,localhost"])) for name in ("NO_PROXY", "no_proxy")},
        "PYTHONUNBUFFERED": "1",
        MARKER: str(stack),
        # Airflow renames its processes; this keeps the renaming from overwriting the marker above.
        "SPT_NOENV": "1",
    }


def _aws_connection(s3: S3) -> str:
    extra = {
        "endpoint_url": s3.endpoint,
        "region_name": REGION,
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    }
    return json.dumps({"conn_type": "aws", "login": s3.access_key, "password": s3.secret_key, "extra": extra})


def _postgres_connection(dsn: str) -> str:
    parts: dict[str, Any] = conninfo_to_dict(dsn)
    connection: dict[str, Any] = {"conn_type": "postgres"}
    for field, part in {"host": "host", "login": "user", "password": "password", "schema": "dbname"}.items():
        if part in parts:
            connection[field] = parts.pop(part)
    if "port" in parts:
        connection["port"] = int(parts.pop("port"))
    if parts:
        connection["extra"] = parts
    return json.dumps(connection)
