"""Connections to the features database, and what its failures mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from spectralize.errors import ConfigError, LedgerError, ServiceError

CONNECT_TIMEOUT_S = 10

#: What PostgreSQL says to the wrong password, role or database. Errors of connecting carry no SQLSTATE.
_REFUSALS = ("authentication failed", "no password supplied", "no pg_hba.conf entry", '" does not exist')

#: Classes of SQLSTATE that say the server is going away, coming up, full, or wants the transaction again.
_OUTAGE_CLASSES = ("08", "40", "53", "57", "58")


#: Reads are short, and many at a time: worker processes would cost each more than they save.
_READ_ONLY = " -c default_transaction_read_only=on -c max_parallel_workers_per_gather=0"


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
        if not isinstance(dsn, str) or _has_loose_secret(dsn):
            raise ValueError
        conninfo_to_dict(dsn)
    # What is malformed may hold the password, and so may the error that says why.
    except (psycopg.ProgrammingError, ValueError) as error:
        raise ConfigError(
            "SPECTRALIZE_DSN: not a PostgreSQL address of the form postgresql://user:password@host:port/database "
            "(a password with @, / or ? in it is written with %40, %2F, %3F)"
        ) from (error if isinstance(error, psycopg.Error) else None)
    return dsn


def _has_loose_secret(dsn: str) -> bool:
    """Tell whether a part of the password would be taken for host or database, and shown as such."""
    if not dsn.startswith(("postgresql://", "postgres://")):
        return False
    credentials, is_at, address = dsn.partition("://")[2].partition("?")[0].partition("@")
    return "@" in address or (bool(is_at) and "/" in credentials)


def is_outage(error: psycopg.Error) -> bool:
    """Tell whether the server is the trouble, so that the same call may succeed later, rather than what was asked of it."""
    if error.sqlstate is not None:
        return error.sqlstate.startswith(_OUTAGE_CLASSES)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


@contextmanager
def service_errors(dsn: str) -> Iterator[None]:
    """Turn the errors of a database that is away into one line that names it."""
    try:
        yield
    except psycopg.Error as error:
        if not is_outage(error):
            raise
        raise ServiceError(f"database {describe_dsn(dsn)} gave up: {_first_line(error)}") from error


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def fetch_row(connection: psycopg.Connection[Any], query: str, values: object = None) -> tuple[Any, ...]:
    """Run a query that always has a first row, and return that row."""
    row = connection.execute(query, values).fetchone()  # type: ignore[call-overload]
    if row is None:
        raise LedgerError(f"no row where there must be one: {query.split()[0]} {values!r}")
    return tuple(row)


def connect(
    dsn: str | None = None, *, autocommit: bool = False, read_only: bool = False, application: str = "spectralize"
) -> psycopg.Connection[Any]:
    """Open a connection in UTC; one that is `read_only` is refused any change.

    Raises
    ------
    ConfigError
        If there is no DSN, it is malformed, or the server refuses its role, password or database.
    ServiceError
        If the database cannot be reached.
    """
    dsn = resolve_dsn(dsn)
    given = conninfo_to_dict(dsn)
    # The user's own come first: both count, and where they contradict each other, the later one does.
    options = f"{given.get('options') or environ.get('PGOPTIONS', '')} -c timezone=UTC{_READ_ONLY if read_only else ''}"
    try:
        return psycopg.connect(
            dsn,
            autocommit=autocommit,
            connect_timeout=given.get("connect_timeout") or CONNECT_TIMEOUT_S,
            application_name=application,
            options=options.strip(),
        )
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"database {describe_dsn(dsn)}: {_first_line(error)}") from error
    except psycopg.OperationalError as error:
        if any(text in str(error) for text in _REFUSALS):
            raise ConfigError(f"database {describe_dsn(dsn)} refuses us: {_first_line(error)}") from error
        raise ServiceError(f"database {describe_dsn(dsn)} is unreachable: {_first_line(error)}") from error
