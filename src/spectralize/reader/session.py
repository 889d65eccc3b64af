"""The reader's connections: one per process and thread, opened when first needed."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.pq import TransactionStatus

from spectralize.database import connect, describe_dsn, resolve_dsn, service_errors
from spectralize.errors import ConfigError, ReadError, SpectralizeError

T = TypeVar("T")
Connection = psycopg.Connection[Any]

_APPLICATION = "spectralize reader"

#: Connections of a parent process, in its child: kept, because with the last reference the child would end them for both.
_INHERITED: list[Connection] = []


class _Held:
    """A thread's connection; closed with its thread, or with the session."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._pid = os.getpid()

    def close(self) -> None:
        if self._pid == os.getpid():
            self.connection.close()
        else:
            _INHERITED.append(self.connection)

    __del__ = close


class Session:
    """Runs reads on a connection of the calling thread.

    Safe to use after fork, to share between threads and to pickle: what travels is the address of the database. A child
    opens connections of its own; one that broke since it was last used (the server was restarted) is opened anew, once.

    Parameters
    ----------
    dsn
        Address of the database, by default that of ``SPECTRALIZE_DSN``.

    Raises
    ------
    ConfigError
        If there is no address, or it is malformed. Nothing is connected yet.
    """

    def __init__(self, dsn: str | None = None) -> None:
        self._dsn = resolve_dsn(dsn)
        self._reset()

    def _reset(self) -> None:
        self._local = threading.local()
        self._held: WeakSet[_Held] = WeakSet()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, str]:
        return {"dsn": self._dsn}

    def __setstate__(self, state: dict[str, str]) -> None:
        self._dsn = state["dsn"]
        self._reset()

    def __repr__(self) -> str:
        return describe_dsn(self._dsn)

    def run(self, work: Callable[[Connection], T]) -> T:
        """Call `work` with a connection in autocommit mode that changes nothing; twice, if the first one was stale.

        Raises
        ------
        ServiceError
            If the database is away, or goes away.
        ConfigError
            If it refuses us.
        SpectralizeError
            If its schema is missing or older than this version.
        """
        connection, is_new = self._connection()
        with _read_errors(self._dsn):
            try:
                return _work_cleanly(work, connection)
            except psycopg.OperationalError:
                if is_new or not connection.closed:
                    raise
        connection, _ = self._connection()
        with _read_errors(self._dsn):
            return _work_cleanly(work, connection)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Call `work` with a connection of its own that may change something, in one transaction. Errors as in `run`."""
        with _read_errors(self._dsn), connect(self._dsn, application=_APPLICATION) as connection:
            return work(connection)

    def close(self) -> None:
        """Close the connections of this process; the next read opens one again."""
        for held in list(self._held):
            held.close()

    def _connection(self) -> tuple[Connection, bool]:
        if self._pid != os.getpid():
            self._reset()
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and not held.connection.closed:
            return held.connection, False
        held = _Held(connect(self._dsn, autocommit=True, read_only=True, application=_APPLICATION))
        self._local.held = held
        self._held.add(held)
        return held.connection, True


def _work_cleanly(work: Callable[[Connection], T], connection: Connection) -> T:
    """Call `work`; a connection that an interrupt leaves in mid-command is closed, or it would refuse the next one."""
    try:
        return work(connection)
    finally:
        if not connection.closed and connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()


@contextmanager
def _read_errors(dsn: str) -> Iterator[None]:
    """Turn what PostgreSQL says into one line for a person."""
    where = f"database {describe_dsn(dsn)}"
    try:
        with service_errors(dsn):
            yield
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedTable) as error:
        raise SpectralizeError(f"{where} has no spectralize schema of this version: run spectralize migrate") from error
    except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction) as error:
        raise SpectralizeError(f"{where} has an older schema than this version: run spectralize migrate") from error
    except psycopg.DataError as error:
        # A NUL in a text, a number beyond every column: nothing in the store can be like that.
        raise ReadError(f"{where} cannot look for that: {str(error).strip().splitlines()[0]}") from error
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise ConfigError(f"{where} refuses this role: {str(error).strip().splitlines()[0]}") from error
