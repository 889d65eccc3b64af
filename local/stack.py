"""The embedded stack as one object: start, stop and find its services."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from rich.console import Console

from local import environment, pg_binaries, ports, processes, services
from local.airflow import COMPONENTS, USER, check_java
from local.conductor import Conductor
from local.errors import StackError
from local.explorer import Explorer
from local.paths import REPO, Layout, locked, remove_tree
from local.services import Services
from local.state import State
from local.supervise import Info, Supervisor

#: A path longer than this does not fit a socket address, counting the suffix that supervisord adds while it binds.
LONGEST_SOCKET_PATH = 95


class Stack:
    """The services of one stack. Nothing is created or started before `up`.

    ``durable=False`` and ``ephemeral_ports=True`` are for tests: quick databases that a power cut may spoil, and none
    of the ports that a developer's own stack wants.
    """

    def __init__(
        self,
        home: Path | None = None,
        name: str = "main",
        *,
        durable: bool = True,
        ephemeral_ports: bool = False,
        dags_folder: Path | None = None,
        console: Console | None = None,
    ) -> None:
        self.layout = Layout.of(home, name)
        self._durable = durable
        self._ephemeral_ports = ephemeral_ports
        given = os.environ.get("SPECTRALIZE_DAGS_FOLDER")
        self._dags_folder = (dags_folder or (Path(given) if given else REPO / "dags")).absolute()
        self._console = console or Console(quiet=True)

    # Starting and stopping

    def up(self, only: Collection[str] | None = None) -> None:
        """Start the services named in ``only`` (default: all) unless they run, and return when they are healthy."""
        wanted = services.expand(only)
        if not COMPONENTS.keys().isdisjoint(wanted):
            check_java()
        with locked(self.layout.lock):
            state = self._prepared_state(wanted)
            known = self._services(state)
            conductor = self._conductor(state)
            conductor.start(conductor.manage([name for name in wanted if name in known.names]))

    def down(self) -> None:
        """Stop everything that belongs to the stack, also what its tasks have started."""
        with locked(self.layout.lock):
            self._stop_everything()

    def clean(self) -> None:
        """Stop the stack and delete its data. What all stacks share (the private Debian root) stays."""
        with locked(self.layout.lock):
            self._stop_everything()
            for folder in pg_binaries.databases_of(self.layout):
                remove_tree(folder)
            remove_tree(self.layout.stack)
            self.layout.lock.unlink()

    def start(self, service: str) -> None:
        """Start one service of a stack that is up; ``airflow`` means all of its components."""
        with self._while_up() as (conductor, _):
            conductor.start(services.expand([service], with_needs=False))

    def stop(self, service: str) -> None:
        """Stop one service and leave the others running."""
        with self._while_up() as (_, supervisor):
            supervisor.stop(services.expand([service], with_needs=False))

    def restart(self, service: str) -> None:
        """Stop one service, wait for its end, and start it again."""
        names = services.expand([service], with_needs=False)
        with self._while_up() as (conductor, supervisor):
            supervisor.stop(names)
            conductor.start(names)

    # Looking

    def pid(self, service: str) -> int | None:
        """Return the process id of a service, None when it does not run."""
        info = self.infos().get(service)
        return info.pid if info else None

    def infos(self) -> dict[str, Info]:
        """Return the state of each service that has been started once."""
        state = State.load(self.layout.state)
        if state is None or not (supervisor := Supervisor.of(self.layout, state)).is_alive():
            return {}
        return supervisor.infos()

    def addresses(self) -> dict[str, str]:
        """Return where each service listens, without passwords."""
        return self._services(self._state()).addresses()

    @property
    def dsn(self) -> str:
        return self._services(self._state()).dsn

    @property
    def s3_endpoint(self) -> str:
        return self._services(self._state()).s3.endpoint

    @property
    def s3_access_key(self) -> str:
        return self._state().secrets.s3_access_key

    @property
    def s3_secret_key(self) -> str:
        return self._state().secrets.s3_secret_key

    @property
    def airflow_url(self) -> str:
        return self._services(self._state()).airflow.url

    @property
    def airflow_user(self) -> str:
        return USER

    @property
    def airflow_password(self) -> str:
        return self._state().secrets.airflow_admin

    @property
    def explorer(self) -> Explorer:
        return self._services(self._state()).explorer

    def env(self) -> dict[str, str]:
        """Return the variables that a DAG, a Spark job, the command line or the reader needs."""
        return self._env(self._state())

    # Inside

    def _state(self) -> State:
        state = State.load(self.layout.state)
        if state is None:
            raise StackError(f"stack {self.layout.name!r} has never been started: run `python -m local up`")
        return state

    def _services(self, state: State) -> Services:
        return Services(self.layout, state, durable=self._durable, dags_folder=self._dags_folder)

    def _env(self, state: State) -> dict[str, str]:
        known = self._services(state)
        return environment.for_clients(
            home=self.layout.home,
            scratch=self.layout.scratch,
            dsn=known.dsn,
            s3=known.s3,
            airflow=known.airflow.env(),
            explorer_url=known.explorer.url,
            spark_ui_port=state.ports["spark-ui"],
        )

    def _conductor(self, state: State) -> Conductor:
        return Conductor(self.layout, state, self._services(state), self._env(state), self._report)

    @contextmanager
    def _while_up(self) -> Iterator[tuple[Conductor, Supervisor]]:
        with locked(self.layout.lock):
            state = self._state()
            supervisor = Supervisor.of(self.layout, state)
            if not supervisor.is_alive():
                raise StackError(f"stack {self.layout.name!r} is down: run `python -m local up`")
            yield self._conductor(state), supervisor

    def _prepared_state(self, wanted: Collection[str]) -> State:
        """Load or create the state, with ports that are free and a place for each database that is wanted."""
        # The stack's folder may hold databases, which another user serves when root runs it; the rest is private.
        layout = self.layout
        private = dict.fromkeys((layout.logs, layout.airflow, layout.scratch), 0o700)
        for folder, mode in ({layout.stack: 0o711} | private).items():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        state = State.load(self.layout.state) or State()
        self._make_run_dir(state)
        supervisor = Supervisor.of(self.layout, state)
        if not supervisor.is_alive() and (count := processes.end_all(self.layout.stack)):
            self._console.print(f"[yellow]ended {count} processes that an earlier stack has left behind[/]")
        self._choose_ports(state, supervisor)
        # Saved before anything is made with the secrets in it.
        state.save(self.layout.state)
        for server in self._services(state).servers_without_place(wanted):
            with self._console.status("looking for PostgreSQL") as status:
                begun = monotonic()
                state.postgres[server] = pg_binaries.place_for(
                    server,
                    self.layout,
                    state.id,
                    extensions=bool(services.EXTENSIONS.get(server)),
                    progress=lambda line: status.update(f"building the private Debian root: {line[:80]}"),
                )
            if monotonic() - begun > 1:
                self._report("private Debian root", begun, str(self.layout.private_root))
            state.save(self.layout.state)
        return state

    def _make_run_dir(self, state: State) -> None:
        if not state.run_dir or not Path(state.run_dir).is_dir():
            run_dir = self.layout.stack / "run"
            if len(str(run_dir / "supervisor.sock")) >= LONGEST_SOCKET_PATH:
                run_dir = Path(tempfile.mkdtemp(prefix="spectralize-", dir="/tmp"))
            run_dir.mkdir(mode=0o700, exist_ok=True)
            state.run_dir = str(run_dir)

    def _choose_ports(self, state: State, supervisor: Supervisor) -> None:
        running = supervisor.running() if supervisor.is_alive() else []
        kept = {role: port for role, port in state.ports.items() if services.owner(role) in running}
        if running:
            # A job may be at its port, which then does not look free: only a stack at rest may move it.
            kept |= {role: state.ports[role] for role in ports.KEPT if role in state.ports}
        with locked(self.layout.stacks / "ports.lock"):
            reserved = {port for role, number in kept.items() for port in ports.needs(role, number)}
            for path in self.layout.stacks.glob("*/state.json"):
                if path != self.layout.state and (neighbour := State.load(path)):
                    reserved |= {port for role, number in neighbour.ports.items() for port in ports.needs(role, number)}
            open_roles = [role for role in ports.USUAL if role not in kept]
            state.ports = kept | ports.choose(
                open_roles, recorded=state.ports, reserved=reserved, ephemeral=self._ephemeral_ports
            )
            state.save(self.layout.state)

    def _stop_everything(self) -> None:
        try:
            state = State.load(self.layout.state)
        except StackError:
            # A spoilt state must not keep anything running, nor `clean` from deleting it.
            state = None
        if state is not None and Supervisor.of(self.layout, state).is_alive():
            self._conductor(state).stop()
        processes.end_all(self.layout.stack)
        if state is None:
            return
        self._services(state).s3.remove_sockets()
        if state.run_dir and not Path(state.run_dir).is_relative_to(self.layout.stack):
            remove_tree(Path(state.run_dir))
            state.run_dir = ""
            state.save(self.layout.state)

    def _report(self, what: str, begun: float, detail: str = "") -> None:
        self._console.print(f"[green]✓[/] {what:<20} {monotonic() - begun:6.1f} s  [dim]{detail}[/]", highlight=False)
