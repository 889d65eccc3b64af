"""The schema's migrations: numbered SQL files, each applied once, in one transaction, in order."""

import hashlib
import re
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import psycopg

from spectralize.database import connect, is_outage, resolve_dsn, service_errors
from spectralize.errors import MigrationError
from spectralize.resources import resource_folder

_NAME = re.compile(r"(?P<version>\d{4})_[a-z0-9_]+\.sql")

#: The advisory lock that serialises migrations. Changing it lets an old and a new version migrate at once.
_LOCK = 0x5BEC_7A11

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS spectralize;
CREATE TABLE IF NOT EXISTS spectralize.schema_migrations (
    version    integer PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """sha256 of the text, whatever the line ends of the checkout."""
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()


def read_migrations(folder: Traversable | None = None) -> list[Migration]:
    """Read the migrations in order; numbers must run 1, 2, 3, … without gaps or doubles."""
    folder = folder or resource_folder("sql") / "migrations"
    found = []
    for file in folder.iterdir():
        match = _NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"sql/migrations/{file.name}: must be named NNNN_verb_object.sql")
        found.append(Migration(int(match["version"]), file.name, file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.name)
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise MigrationError(f"sql/migrations/{migration.name}: its number must be {expected:04d}")
    return found


def _check_applied(applied: dict[int, tuple[str, str]], migrations: list[Migration]) -> None:
    known = {migration.version: migration for migration in migrations}
    for version, (name, checksum) in applied.items():
        if version not in known:
            raise MigrationError(
                f"the database has migration {name}, which this version of spectralize does not: upgrade spectralize"
            )
        if known[version].checksum != checksum:
            raise MigrationError(
                f"sql/migrations/{known[version].name} was changed after it had been applied: "
                "restore it and add a new migration instead"
            )


def migrate(dsn: str | None = None, *, folder: Traversable | None = None) -> list[str]:
    """Bring the schema up to this version and return the names of what was applied.

    Safe when several start at once: a session-level advisory lock lets one go first, the others then find nothing to do.

    Raises
    ------
    MigrationError
        If an applied file was changed, the database is newer than this version, or a migration fails (it is then rolled
        back whole, and the ones before it stay).
    ServiceError
        If the database cannot be reached.
    """
    migrations = read_migrations(folder)
    done = []
    dsn = resolve_dsn(dsn)
    with service_errors(dsn), connect(dsn, autocommit=True, application="spectralize migrate") as connection:
        # Losers of a race wait here; closing the connection releases the lock.
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        connection.execute(_BOOTSTRAP)
        rows = connection.execute("SELECT version, name, checksum FROM spectralize.schema_migrations ORDER BY version")
        applied = {int(str(version)): (str(name), str(checksum)) for version, name, checksum in rows}
        _check_applied(applied, migrations)
        for migration in migrations:
            if migration.version in applied:
                continue
            try:
                with connection.transaction():
                    connection.execute(migration.sql)
                    connection.execute(
                        "INSERT INTO spectralize.schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
                        (migration.version, migration.name, migration.checksum),
                    )
            except psycopg.Error as error:
                if is_outage(error):
                    raise
                line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise MigrationError(f"sql/migrations/{migration.name} failed and was rolled back: {line}") from error
            done.append(migration.name)
    return done
