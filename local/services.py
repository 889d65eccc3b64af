"""Which services a stack has, in what order they start, and how each is put together from the stack's state."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict

from local import explorer, pg_binaries
from local.airflow import COMPONENTS, Airflow
from local.errors import StackError
from local.explorer import Explorer
from local.paths import Layout
from local.ports import LOOPBACK
from local.postgres import Server
from local.s3 import S3
from local.state import State
from local.supervise import Program

#: Services that keep data and wait for nobody.
STORES = ("s3", "timescale", "metadata")
ORDER = (*STORES, *COMPONENTS, explorer.NAME)
#: What each database has to offer beyond PostgreSQL itself.
EXTENSIONS: Mapping[str, Sequence[str]] = {"timescale": ("timescaledb", "vector")}


class Store(Protocol):
    @property
    def command(self) -> Sequence[str]: ...
    def prepare(self) -> None: ...
    def check(self) -> None: ...
    def provision(self) -> None: ...


def expand(only: Collection[str] | None, *, with_needs: bool = True) -> list[str]:
    """Return service names in starting order, with the stores that they need; ``airflow`` stands for its components."""
    names = set(ORDER if only is None else only)
    if "airflow" in names:
        names = names - {"airflow"} | set(COMPONENTS)
    if unknown := names.difference(ORDER):
        raise StackError(
            f"no service {sorted(unknown)[0]!r}; there are {', '.join(ORDER)}, or airflow for {', '.join(COMPONENTS)}"
        )
    if with_needs and not names.isdisjoint(COMPONENTS):
        names.add("metadata")
    if with_needs and explorer.NAME in names:
        names |= {"s3", "timescale"}
    return [name for name in ORDER if name in names]


def owner(role: str) -> str:
    """Return the service that listens on the port of ``role``."""
    return "s3" if role.startswith("s3") else "api-server" if role == "airflow" else role


class Services:
    """The services of one stack, as its state describes them."""

    def __init__(self, layout: Layout, state: State, *, durable: bool, dags_folder: Path) -> None:
        self._layout, self._state, self._durable, self._dags_folder = layout, state, durable, dags_folder

    @property
    def given_dsn(self) -> str | None:
        """The database that the user wants instead of the stack's own."""
        given = os.environ.get("SPECTRALIZE_DSN")
        if not given:
            return None
        try:
            password = conninfo_to_dict(given).get("password")
        except psycopg.ProgrammingError as error:
            raise StackError(f"SPECTRALIZE_DSN: not a PostgreSQL connection string ({error})") from error
        # A shell that has evaluated `python -m local env` holds the stack's own DSN.
        return None if password == self._state.secrets.timescale else given

    @property
    def names(self) -> list[str]:
        return [name for name in ORDER if name != "timescale" or self.given_dsn is None]

    @property
    def dsn(self) -> str:
        return self.given_dsn or self._dsn("timescale", "spectralize", self._state.secrets.timescale)

    @property
    def s3(self) -> S3:
        secrets = self._state.secrets
        return S3(
            folder=self._layout.s3,
            run_dir=Path(self._state.run_dir),
            ports=self._state.ports,
            access_key=secrets.s3_access_key,
            secret_key=secrets.s3_secret_key,
            reader_access_key=secrets.explorer_s3_access_key,
            reader_secret_key=secrets.explorer_s3_secret_key,
        )

    @property
    def airflow(self) -> Airflow:
        secrets = self._state.secrets
        metadata = self._dsn("metadata", "airflow", secrets.metadata)
        return Airflow(self._layout.airflow, self._dags_folder, self._state.ports["airflow"], secrets, metadata)

    @property
    def explorer(self) -> Explorer:
        own = self._dsn("timescale", "spectralize", self._state.secrets.explorer_database, role=explorer.NAME)
        # Of a database that was given, no role but that of the given address is known.
        dsn = self.given_dsn or own
        port = self._state.ports["explorer"]
        return Explorer(self._layout.stack, port, dsn, self.s3, self.airflow.url)

    def store(self, name: str) -> Store:
        return self.s3 if name == "s3" else self._server(name)

    def servers_without_place(self, wanted: Collection[str]) -> list[str]:
        """Return the database servers for which binaries must be found first."""
        places = self._state.postgres
        return [
            name
            for name in ("timescale", "metadata")
            if name in wanted and name in self.names and not (name in places and pg_binaries.is_usable(places[name]))
        ]

    def programs(self) -> list[Program]:
        """Return how to run every service that can be run by now."""
        programs = [Program("s3", self.s3.command, self._layout.log("s3"), environment=self.s3.environment)]
        for name in ("timescale", "metadata"):
            if name in self._state.postgres and name in self.names:
                command = self._server(name).command
                # SIGINT is PostgreSQL's fast shutdown: clients are disconnected, data is safe.
                programs.append(
                    Program(name, command, self._layout.log(name), "INT", stop_as_group=False, stop_wait_s=40)
                )
        for name in COMPONENTS:
            command = self.airflow.command(name)
            # The API server answers what it was asked within a moment, and then spends seconds on tidying its memory.
            wait_s = 5 if name == "api-server" else 20
            programs.append(
                Program(name, command, self._layout.log(name), stop_wait_s=wait_s, directory=self._layout.stack)
            )
        programs.append(
            Program(
                explorer.NAME,
                self.explorer.start_command,
                self._layout.log(explorer.NAME),
                stop_wait_s=5,
                directory=self.explorer.start_directory,
            )
        )
        return programs

    def addresses(self) -> dict[str, str]:
        found = {"s3": self.s3.endpoint, "api-server": self.airflow.url, explorer.NAME: self.explorer.url}
        for name in ("timescale", "metadata"):
            found[name] = f"{LOOPBACK}:{self._state.ports[name]}"
        if self.given_dsn is not None:
            found["timescale"] = "given by SPECTRALIZE_DSN"
        return found

    def _dsn(self, server: str, database: str, password: str, *, role: str = "") -> str:
        return f"postgresql://{role or database}:{password}@{LOOPBACK}:{self._state.ports[server]}/{database}"

    def _server(self, name: str) -> Server:
        is_timescale = name == "timescale"
        secrets = self._state.secrets
        return Server(
            name=name,
            database="spectralize" if is_timescale else "airflow",
            port=self._state.ports[name],
            password=secrets.timescale if is_timescale else secrets.metadata,
            superuser_password=secrets.postgres_superuser,
            place=self._state.postgres[name],
            shared_buffers="256MB" if is_timescale else "64MB",
            extensions=EXTENSIONS.get(name, ()),
            durable=self._durable,
            readers={explorer.NAME: secrets.explorer_database} if is_timescale else {},
        )
