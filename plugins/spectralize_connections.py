"""From Airflow's connections to the core: database address, S3 client, and errors that say whether a retry can help."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

from spectralize.errors import ServiceError, SpectralizeError

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import Connection
    from types_boto3_s3.client import S3Client

TIMESCALE_CONN_ID = "timescale_default"
AWS_CONN_ID = "aws_default"
SPARK_CONN_ID = "spark_default"

_SPARK_PORT = 7077
_SPARK_TIMEOUT_S = 5


@contextmanager
def plain_errors() -> Iterator[None]:
    """Report the core's errors in one line; only those that may pass are retried."""
    try:
        yield
    except ServiceError as error:
        raise AirflowException(str(error)) from None
    except SpectralizeError as error:
        raise AirflowFailException(str(error)) from None
    except AirflowNotFoundException as error:
        raise AirflowFailException(f"{error}: add it under Admin, Connections, or as AIRFLOW_CONN_…") from None
    except Exception as error:
        # psycopg is loaded by the time it can raise; importing it here would slow every parse of the DAGs.
        psycopg = sys.modules.get("psycopg")
        if psycopg is None or not isinstance(error, psycopg.Error):
            raise
        from spectralize.database import is_outage

        line = f"features database: {(str(error).splitlines() or [type(error).__name__])[0]}"
        raise (AirflowException if is_outage(error) else AirflowFailException)(line) from None


def features_dsn() -> str:
    """Return the address of the features database from the connection `timescale_default`."""
    connection = BaseHook.get_connection(TIMESCALE_CONN_ID)
    if not connection.host:
        raise AirflowFailException(f"connection {TIMESCALE_CONN_ID}: it has no host")
    user, password = quote(connection.login or "", safe=""), quote(connection.password or "", safe="")
    return f"postgresql://{user}:{password}@{connection.host}:{connection.port or 5432}/{connection.schema or 'spectralize'}"


def _s3_hook() -> S3Hook:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    # The hook takes a connection that is missing for an empty one, and so whatever account this machine happens to have.
    BaseHook.get_connection(AWS_CONN_ID)
    return S3Hook(aws_conn_id=AWS_CONN_ID)


def s3_client() -> S3Client:
    """Return a boto3 client of the connection `aws_default`."""
    return _s3_hook().get_conn()


def job_environment() -> dict[str, str]:
    """Return what the Spark driver needs to reach database and S3. Holds secrets: for a process environment only."""
    hook = _s3_hook()
    credentials = hook.get_credentials()
    if credentials is None:
        raise AirflowFailException(f"connection {AWS_CONN_ID}: it has no credentials")
    environment = {
        "SPECTRALIZE_DSN": features_dsn(),
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_DEFAULT_REGION": hook.region_name or "us-east-1",
    }
    if credentials.token:
        environment["AWS_SESSION_TOKEN"] = credentials.token
    endpoint = hook.conn_config.get_service_endpoint_url("s3")
    if endpoint:
        environment["AWS_ENDPOINT_URL_S3"] = endpoint
    if has_own_ui(BaseHook.get_connection(SPARK_CONN_ID)):
        # No setting binds the UI to an address, only this variable does; without it every interface would serve it.
        environment["SPARK_LOCAL_IP"] = "127.0.0.1"
    return environment


def require_spark_master() -> Connection:
    """Return the connection `spark_default`; a standalone master must answer.

    Raises
    ------
    AirflowFailException
        If the connection names no master. The hook would take that, and an unknown connection, for YARN.
    AirflowException
        If the master is away: it may come back.
    """
    connection = BaseHook.get_connection(SPARK_CONN_ID)
    master = connection.host or ""
    if not master:
        raise AirflowFailException(
            f"connection {SPARK_CONN_ID}: it has no host; set the Spark master, as in local[*,4]"
        )
    if not master.startswith("spark://"):
        return connection
    reasons = []
    default_port = str(connection.port or _SPARK_PORT)
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.partition(":")
        if not (port or default_port).isdecimal():
            raise AirflowFailException(f"connection {SPARK_CONN_ID}: {master}: {port!r} is no port")
        try:
            socket.create_connection((host, int(port or default_port)), _SPARK_TIMEOUT_S).close()
        except (OSError, OverflowError) as error:
            reasons.append(f"{address}: {error}")
        else:
            return connection
    raise AirflowException(f"connection {SPARK_CONN_ID}: no Spark master answers at {master} ({'; '.join(reasons)})")


def ui_url(connection: Connection) -> str:
    """Return the address of Spark's UI that a Spark connection names in its extra as `ui_url`, empty if it names none."""
    url = str(connection.extra_dejson.get("ui_url") or "")
    return url if url.startswith(("http://", "https://")) else ""


def has_own_ui(connection: Connection) -> bool:
    """Tell whether `ui_url` is served by the job's own driver: the master is in this process, and the address on this machine."""
    is_local = re.fullmatch(r"local(\[.*\])?", connection.host or "") is not None
    address = urlsplit(ui_url(connection))
    return is_local and address.hostname in {"127.0.0.1", "localhost"} and address.port is not None


def spark_ui_conf(connection: Connection) -> dict[str, str]:
    """Return the Spark settings that turn the driver's UI on at the port of `ui_url`; none where a cluster has its own.

    The driver needs `job_environment` besides, which keeps the UI on loopback. A second job on the same machine takes the
    next port.
    """
    if not has_own_ui(connection):
        return {}
    # Nobody is asked for a password there, so it shows and does not act.
    return {
        "spark.ui.enabled": "true",
        "spark.ui.port": str(urlsplit(ui_url(connection)).port),
        "spark.ui.killEnabled": "false",
    }
