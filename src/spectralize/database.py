"""Connections to the features database, and what its failures mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from spectralize.errors import ConfigError, LedgerError, ServiceError

CONNECT_TIMEOUT_S = 10

#: What PostgreSQL answers when it is going away, coming up, or full: a later try may succeed.
_PASSING = (psycopg.OperationalError, psycopg.InterfaceError)


def describe_dsn(dsn: str) -> str:
    """Return `user@host:port/database`: what a log may show."""
    parts = conninfo_to_dict(dsn)
    host, port = parts.get("host", "local socket"), parts.get("port", "5432")
    return f"{parts.get('user', '')}@{host}:{port}/{parts.get('dbname', '')}"


def resolve_dsn(dsn: str | None = None) -> str:
    """Return the given DSN or that of ``SPECTRALIZE_DSN``, checked for form but not tried."""
    dsn = dsn or environ.get("SPECTRALIZE_DSN")
    if not dsn:
        raise ConfigError("no database given: set SPECTRALIZE_DSN to postgresql://user:password@host:port/database")
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ConfigError(
            "SPECTRALIZE_DSN: not a PostgreSQL address of the form postgresql://user:password@host:port/database"
        ) from error
    return dsn


@contextmanager
def service_errors(dsn: str) -> Iterator[None]:
    """Turn the errors of a database that is away into one line that names it."""
    try:
        yield
    except _PASSING as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        # Without a code of the server's own, the server was not reached.
        verb = "is unreachable" if error.sqlstate is None else "gave up"
        raise ServiceError(f"database {describe_dsn(dsn)} {verb}: {first_line}") from error


def fetch_row(connection: psycopg.Connection[Any], query: str, values: object = None) -> tuple[Any, ...]:
    """Run a query that always has a first row, and return that row."""
    row = connection.execute(query, values).fetchone()  # type: ignore[call-overload]
    if row is None:
        raise LedgerError(f"no row where there must be one: {query.split()[0]} {values!r}")
    return tuple(row)


def connect(
    dsn: str | None = None, *, autocommit: bool = False, application: str = "spectralize"
) -> psycopg.Connection[Any]:
    """Open a connection in UTC.

    Raises
    ------
    ConfigError
        If there is no DSN or it is malformed.
    ServiceError
        If the database cannot be reached.
    """
    dsn = resolve_dsn(dsn)
    with service_errors(dsn):
        return psycopg.connect(
            dsn,
            autocommit=autocommit,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=application,
            options="-c timezone=UTC",
        )
