"""One PostgreSQL server: its data folder, settings, roles and health."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from local import pg_binaries
from local.errors import StackError
from local.paths import remove_tree, write_private
from local.ports import LOOPBACK
from local.state import PostgresPlace
from local.waiting import NotReady

SUPERUSER = "postgres"

#: A query of a reading role that takes longer is ended: whoever asked has left, and retention waits for it.
READER_TIMEOUT = "30s"

#: Sized for two cores that Airflow and Spark need as well.
SETTINGS = f"""\
listen_addresses = '{LOOPBACK}'
unix_socket_directories = ''
max_connections = 100
max_worker_processes = 16
timezone = 'UTC'
log_timezone = 'UTC'
max_wal_size = '4GB'
checkpoint_timeout = '15min'
random_page_cost = 1.1
# Compiling a plan over many chunks takes longer than running it.
jit = off
"""

#: Only for tests: a crash of the machine then loses the data.
NOT_DURABLE = """\
fsync = off
synchronous_commit = off
full_page_writes = off
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server with one database, owned by the role of the same name."""

    name: str
    database: str
    port: int
    password: str
    superuser_password: str
    place: PostgresPlace
    shared_buffers: str
    extensions: Sequence[str] = ()
    durable: bool = True
    #: Role → password of those who read the database and can do nothing else.
    readers: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        data = self.place.data_dir
        return pg_binaries.command(self.place, "postgres", "-D", data, f"--config-file={data}/spectralize.conf")

    def prepare(self) -> None:
        """Create the data folder if there is none, and write the settings."""
        data = pg_binaries.on_host(self.place)
        if not (data / "spectralize.conf").exists():
            self._initialise(data)
        self._write_settings(data)

    def _initialise(self, data: Path) -> None:
        # Settings are written last, so a folder without them is what an interrupted attempt has left.
        remove_tree(data)
        pg_binaries.make_owned_folder(self.place, data)
        password = data.with_name(f"{self.name}.password")
        write_private(password, self.superuser_password)
        pg_binaries.own(self.place, password)
        inside = Path(self.place.data_dir)
        command = pg_binaries.command(
            self.place,
            "initdb",
            f"--pgdata={inside}",
            f"--username={SUPERUSER}",
            f"--pwfile={inside.with_name(password.name)}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            *([] if self.durable else ["--no-sync"]),
        )
        try:
            made = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd="/")
        finally:
            password.unlink()
        if made.returncode:
            raise StackError(f"{self.name}: initdb failed with code {made.returncode}", log_tail=made.stderr[-2000:])

    def _write_settings(self, data: Path) -> None:
        preload = ["timescaledb"] if "timescaledb" in self.extensions else []
        # Included first and overridden: initdb has probed which shared memory works here, also without /dev/shm.
        lines = ["include 'postgresql.conf'", SETTINGS, f"port = {self.port}"]
        lines.append(f"shared_buffers = '{self.shared_buffers}'")
        if preload:
            lines += ["shared_preload_libraries = 'timescaledb'", "timescaledb.telemetry_level = off"]
        if not self.durable:
            lines.append(NOT_DURABLE)
        settings = data / "spectralize.conf"
        write_private(settings, "\n".join(lines) + "\n")
        pg_binaries.own(self.place, settings)

    def check(self) -> None:
        """Raise `NotReady` unless the server answers."""
        try:
            with self._connect("postgres") as connection:
                connection.execute("select 1")
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StackError(
                    f"{self.name}: the server on {LOOPBACK}:{self.port} refuses this stack's password"
                ) from error
            raise NotReady(str(error).splitlines()[-1]) from error

    def provision(self) -> None:
        """Create roles, database and extensions where missing."""
        try:
            self._provision()
        except psycopg.Error as error:
            raise StackError(f"{self.name}: {error}") from error

    def _provision(self) -> None:
        role = sql.Identifier(self.database)
        with self._connect("postgres") as connection:
            if _is_missing(connection, self.database):
                _create_role(connection, self.database, self.password)
            if connection.execute("select from pg_database where datname = %s", [self.database]).fetchone() is None:
                connection.execute(sql.SQL("create database {} owner {}").format(role, role))
            self._compress_wal(connection)
        with self._connect(self.database) as connection:
            for extension in self.extensions:
                connection.execute(sql.SQL("create extension if not exists {}").format(sql.Identifier(extension)))
            for reader, password in self.readers.items():
                if _is_missing(connection, reader):
                    self._create_reader(connection, reader, password)

    def _create_reader(self, connection: psycopg.Connection, name: str, password: str) -> None:
        """Create a role that reads what is the owner's, also what migrations will create, and has a place to write nowhere.

        Not by `pg_read_all_data`, which reads the hashes of passwords, too. Its settings are made once: who has changed
        them keeps the change.
        """
        role, database = sql.Identifier(name), sql.Identifier(self.database)
        with connection.transaction():
            _create_role(connection, name, password)
            for (schema,) in connection.execute(_SCHEMAS_OF, [self.database]).fetchall():
                names = {"role": role, "schema": sql.Identifier(schema)}
                connection.execute(sql.SQL("grant usage on schema {schema} to {role}").format(**names))
                connection.execute(sql.SQL("grant select on all tables in schema {schema} to {role}").format(**names))
            for statement in (
                "alter default privileges for role {database} grant usage on schemas to {role}",
                "alter default privileges for role {database} grant select on tables to {role}",
                "alter role {role} set default_transaction_read_only = on",
                f"alter role {{role}} set statement_timeout = '{READER_TIMEOUT}'",
                # Which everybody has otherwise; the owner keeps both.
                "revoke temporary on database {database} from public",
                "revoke create on schema public from public",
            ):
                connection.execute(sql.SQL(statement).format(role=role, database=database))

    def _compress_wal(self, connection: psycopg.Connection) -> None:
        """Let the server write less, if it was built with lz4."""
        query = "select setting, 'lz4' = any(enumvals) from pg_settings where name = 'wal_compression'"
        setting, has_lz4 = connection.execute(query).fetchone() or ("", False)
        if has_lz4 and setting != "lz4":
            connection.execute("alter system set wal_compression = 'lz4'")
            connection.execute("select pg_reload_conf()")

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            user=SUPERUSER,
            password=self.superuser_password,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )


_SCHEMAS_OF = "select nspname from pg_namespace where nspowner = (select oid from pg_roles where rolname = %s)"


def _is_missing(connection: psycopg.Connection, role: str) -> bool:
    return connection.execute("select from pg_roles where rolname = %s", [role]).fetchone() is None


def _create_role(connection: psycopg.Connection, name: str, password: str) -> None:
    # Hashed here, because a server writes failed statements to its log as they came.
    verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(verifier)))
