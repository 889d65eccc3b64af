"""What every page and every answer of the explorer has at hand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from os import environ
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spectralize.database import fetch_row, resolve_dsn
from spectralize.errors import ConfigError, ReadError, ServiceError, SpectralizeError
from spectralize.explorer.settings import Settings
from spectralize.reader import Store
from spectralize.reader.session import Session

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

#: What one statement may take. Pages are made of a few; a page that takes longer has lost its reader.
STATEMENT_TIMEOUT_S = 10

#: A database that vanishes without a word holds a thread for this long, not for hours.
_PATIENCE = {
    "connect_timeout": 5, "tcp_user_timeout": 15_000, "keepalives_idle": 15, "keepalives_interval": 5,
    "keepalives_count": 3,
}  # fmt: skip

#: NULL while there is no such table.
_MAY_WRITE = "SELECT has_table_privilege(to_regclass('spectralize.objects'), 'INSERT, UPDATE, DELETE')"

#: Fails where pages would, and reads no row.
_PROBE = "SELECT object_id FROM spectralize.current_spectrograms LIMIT 0"


@dataclass(frozen=True, slots=True)
class Explorer:
    """The store, opened for reading, and the settings."""

    settings: Settings
    store: Store

    def read(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Call `work` with this thread's connection, in autocommit mode and read-only; errors as in `Session.run`."""
        return self.store.session.run(work)


class RoleError(ConfigError):
    """The database lets us write, and others reach us."""


class BoundedSession(Session):
    """A session whose statements are given up after a while, whose role is looked at, and whose errors people may see.

    The browser is told nothing of where the database is; the log is.
    """

    application = "spectralize explorer"

    #: What a copy that was unpickled takes.
    _is_role_known, _is_loopback = False, False

    def __init__(self, settings: Settings) -> None:
        super().__init__(_bound(resolve_dsn(settings.dsn)))
        self._is_loopback = settings.is_loopback

    def run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """As `Session.run`; errors name no addresses.

        Raises
        ------
        RoleError
            If the role may write, and this explorer is bound elsewhere than to loopback.
        """

        def checked(connection: psycopg.Connection[Any]) -> T:
            if not self._is_role_known:
                self._look_at_role(connection)
            return work(connection)

        try:
            return super().run(checked)
        except SpectralizeError as error:
            if not isinstance(error.__cause__, psycopg.Error):
                raise
            public = self._public(error, error.__cause__)
        # Without the one that names addresses in its wake.
        raise public

    def _look_at_role(self, connection: psycopg.Connection[Any]) -> None:
        may_write = fetch_row(connection, _MAY_WRITE)[0]
        if may_write and not self._is_loopback:
            raise RoleError(
                "the explorer's database role may write, and others reach the explorer: give it one that only reads, as in "
                "docs/sql.md"
            )
        if may_write:
            _LOG.warning("database %s: this role may write; docs/sql.md has one that only reads", self)
        self._is_role_known = may_write is not None

    def _public(self, error: SpectralizeError, cause: psycopg.Error) -> SpectralizeError:
        if isinstance(cause, psycopg.errors.QueryCanceled):
            _LOG.warning("%s", error)
            return ReadError(
                f"The database was given {STATEMENT_TIMEOUT_S} s for that and did not finish: ask for less."
            )
        if isinstance(error, ServiceError):
            _LOG.warning("%s", error)
            return ServiceError("The database cannot be reached. Please try again in a while.")
        if isinstance(error, ConfigError) and cause.sqlstate is None:
            _LOG.warning("%s", error)
            return ConfigError("The database refuses the explorer: its log says why.")
        return type(error)(str(error).replace(f"database {self}", "The database"))


def _bound(dsn: str) -> str:
    """Return the address with our limits; what it says itself counts instead."""
    given = conninfo_to_dict(dsn)
    own = given.get("options") or environ.get("PGOPTIONS", "")
    limits = f"-c statement_timeout={STATEMENT_TIMEOUT_S}s -c lock_timeout={STATEMENT_TIMEOUT_S // 2}s {own}"
    return make_conninfo(**{**_PATIENCE, **given, "options": limits.strip()})  # type: ignore[arg-type]


def check_database(session: Session) -> str:
    """Return why pages cannot be made, in a few words that anybody may read; empty if they can.

    Raises
    ------
    RoleError
        As in `BoundedSession.run`.
    """
    try:
        session.run(lambda connection: connection.execute(_PROBE))
    except RoleError:
        raise
    except ServiceError:
        return "the database is away"
    except ConfigError:
        return "the database refuses the explorer's role"
    except SpectralizeError:
        return "the database has no schema of this version"
    return ""
