"""The reader's connections: one per process and thread, opened when first needed."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import ref

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from spectralize.database import connect, describe_dsn, resolve_dsn, service_errors
from spectralize.errors import ConfigError, ReadError, SpectralizeError

T = TypeVar("T")
Connection = psycopg.Connection[Any]

#: Connections of a parent process, in its child: kept, because with the last reference the child would end them for both.
_INHERITED: list[Connection] = []


class _EndedError(Exception):
    """The connection has been closed by this process itself, and nothing was asked of it."""


class _Held:
    """A thread's connection; closed with its thread, or with the session: then not before a read that is under way ends."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._pid = os.getpid()
        self._reading = threading.Lock()
        self._is_ending = False

    @property
    def is_usable(self) -> bool:
        """Tell whether it is this process's, and as far as we know alive."""
        return self._pid == os.getpid() and not self._is_ending and not self.connection.closed

    def work(self, work: Callable[[Connection], T]) -> T:
        """Call `work`; a connection that an interrupt leaves in mid-command is closed, or it would refuse the next one.

        Raises
        ------
        _EndedError
            If the session was closed by another thread before this read began.
        """
        try:
            with self._reading:
                if self._is_ending:
                    raise _EndedError
                try:
                    return work(self.connection)
                finally:
                    if not self.connection.closed and self.connection.info.transaction_status != TransactionStatus.IDLE:
                        self.connection.close()
        finally:
            if self._is_ending:
                self.close()

    def close(self) -> None:
        if self._pid != os.getpid():
            _INHERITED.append(self.connection)
            return
        # Under another thread's feet, libpq would read what is freed. Whoever of the two comes last closes.
        self._is_ending = True
        if self._reading.acquire(blocking=False):
            self.connection.close()
            self._reading.release()

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

    #: As the server's list of connections names us.
    application = "spectralize reader"

    def __init__(self, dsn: str | None = None) -> None:
        self._dsn = resolve_dsn(dsn)
        self._begin()

    def _begin(self) -> None:
        self._local = threading.local()
        # Weak, by references of our own: unlike a WeakSet, this can be copied while other threads add to it.
        self._held: set[ref[_Held]] = set()
        parts = conninfo_to_dict(self._dsn)
        #: What tells one database from another, whoever reads it.
        self.database = tuple(parts.get(name) for name in ("service", "host", "hostaddr", "port", "dbname"))

    def __getstate__(self) -> dict[str, str]:
        return {"dsn": self._dsn}

    def __setstate__(self, state: dict[str, str]) -> None:
        self._dsn = state["dsn"]
        self._begin()

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
        may_be_stale = True
        while True:
            held, is_new = self._connection()
            with _read_errors(self._dsn):
                try:
                    return held.work(work)
                except _EndedError:
                    continue
                except psycopg.OperationalError:
                    if is_new or not may_be_stale or not held.connection.closed:
                        raise
                    may_be_stale = False

    def write(self, work: Callable[[Connection], T]) -> T:
        """Call `work` with a connection of its own that may change something, in one transaction. Errors as in `run`."""
        with _read_errors(self._dsn), connect(self._dsn, application=self.application) as connection:
            return work(connection)

    def close(self) -> None:
        """Close the connections of this process, after the reads under way; the next read opens one again."""
        for reference in list(self._held):
            held = reference()
            if held is not None:
                held.close()

    def _connection(self) -> tuple[_Held, bool]:
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and held.is_usable:
            return held, False
        held = _Held(connect(self._dsn, autocommit=True, read_only=True, application=self.application))
        self._local.held = held
        self._held.add(ref(held, self._held.discard))
        return held, True


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
    except psycopg.Error as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ReadError(f"{where} cannot do that: {line}") from error
