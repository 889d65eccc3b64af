"""The process manager of a stack: a supervisord of its own, spoken to over its unix socket."""

from __future__ import annotations

import http.client
import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil  # type: ignore[import-untyped]
from supervisor.xmlrpc import Faults, SupervisorTransport  # type: ignore[import-untyped]

from local.errors import StackError
from local.paths import Layout, write_private
from local.state import State
from local.waiting import NotReady, tail, wait_until

#: States in which a service that was asked to start has failed: no need to wait for a timeout.
FAILED = frozenset({"FATAL", "BACKOFF", "EXITED", "UNKNOWN"})
ENDED = frozenset({"STOPPED", "FATAL", "EXITED", "UNKNOWN"})


@dataclass(frozen=True, slots=True)
class Program:
    """How a service is run."""

    name: str
    command: Sequence[str]
    log: Path
    stop_signal: str = "TERM"
    #: Send the signal to the children as well; not for PostgreSQL, which ends its own in order.
    stop_as_group: bool = True
    #: A service that is still busy then is killed.
    stop_wait_s: int = 20
    directory: Path = Path("/")
    #: Shown by `ps` and kept in a file: no secrets here.
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Info:
    """A service as the process manager sees it."""

    state: str
    pid: int | None
    started: datetime
    error: str


class Supervisor:
    def __init__(self, conf: Path, socket: Path, pid_file: Path, log: Path) -> None:
        self._conf, self._socket, self._pid_file, self._log = conf, socket, pid_file, log

    @classmethod
    def of(cls, layout: Layout, state: State) -> Supervisor:
        socket = Path(state.run_dir) / "supervisor.sock"
        return cls(layout.supervisor_conf, socket, layout.supervisor_pid, layout.log("supervisord"))

    def pid(self) -> int:
        return int(self._call("getPID"))

    def is_alive(self) -> bool:
        try:
            self.pid()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def write(self, programs: Collection[Program]) -> None:
        """Write the configuration file; `reload` or `launch` makes it count."""
        # Root has to say that root is meant.
        user = "\nuser = root" if os.geteuid() == 0 else ""
        sections = [
            f"[unix_http_server]\nfile = {_quoted(self._socket)}\nchmod = 0700",
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
            f"[supervisord]\nlogfile = {_quoted(self._log)}\nlogfile_maxbytes = 1MB\nlogfile_backups = 1\n"
            f"pidfile = {_quoted(self._pid_file)}\numask = 022{user}",
            *(_section(program) for program in programs),
        ]
        write_private(self._conf, "\n\n".join(sections) + "\n")

    def launch(self, environment: Mapping[str, str]) -> None:
        """Start the process manager itself. Its children inherit ``environment``, so no file holds its secrets."""
        # It puts itself in the background and only then creates the socket.
        command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(self._conf)]
        started = subprocess.run(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if started.returncode:
            raise StackError(f"supervisord does not start: {started.stdout} {started.stderr}", log_tail=tail(self._log))

        def answers() -> None:
            if not self.is_alive():
                raise NotReady(f"no answer on {self._socket}")

        wait_until(answers, what="supervisord", timeout_s=20, log=self._log)

    def reload(self) -> list[str]:
        """Take over a changed configuration file; return the services that ran and were stopped by the change."""
        ((added, changed, removed),) = self._call("reloadConfig")
        interrupted = [name for name in changed if self.info(name).pid]
        for name in (*changed, *removed):
            self.stop([name])
            self._call("removeProcessGroup", name)
        for name in (*added, *changed):
            self._call("addProcessGroup", name)
        return interrupted

    def infos(self) -> dict[str, Info]:
        return {raw["name"]: _info(raw) for raw in self._call("getAllProcessInfo")}

    def info(self, name: str) -> Info:
        return _info(self._call("getProcessInfo", name))

    def start(self, name: str) -> None:
        """Ask for a start; whether it succeeds is seen from `info`."""
        try:
            self._call("startProcess", name, False)
        except Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise StackError(f"{name} does not start: {fault.faultString}") from fault

    def running(self) -> list[str]:
        return [name for name, info in self.infos().items() if info.pid]

    def ask_to_stop(self, names: Collection[str]) -> list[str]:
        """Tell services to stop, and return those that were running."""
        running = [name for name, info in self.infos().items() if name in names and info.state not in ENDED]
        for name in running:
            try:
                self._call("stopProcess", name, False)
            except Fault as fault:
                if fault.faultCode != Faults.NOT_RUNNING:
                    raise StackError(f"{name} does not stop: {fault.faultString}") from fault
        return running

    def stop(self, names: Collection[str]) -> None:
        """Stop services, all at once, and wait until they have stopped."""
        waiting = self.ask_to_stop(names)

        def stopped() -> None:
            running = [name for name in waiting if self.info(name).state not in ENDED]
            if running:
                raise NotReady(f"still running: {', '.join(running)}")

        wait_until(stopped, what="stop", timeout_s=60)

    def shut_down(self) -> None:
        """End the process manager and everything it runs."""
        process = psutil.Process(self.pid())
        self._call("shutdown")

        def gone() -> None:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                raise NotReady(f"process {process.pid} still runs")

        try:
            wait_until(gone, what="supervisord stop", timeout_s=60)
        except psutil.NoSuchProcess:
            return

    def _call(self, method: str, *arguments: object) -> Any:
        # A connection per call: calls come from several threads, and a transport belongs to one.
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            # The address is never used, the transport knows the socket.
            return getattr(ServerProxy("http://localhost", transport=transport).supervisor, method)(*arguments)
        finally:
            transport.close()


def _info(raw: Mapping[str, Any]) -> Info:
    return Info(raw["statename"], raw["pid"] or None, datetime.fromtimestamp(raw["start"], UTC), raw["spawnerr"])


def _section(program: Program) -> str:
    lines = {
        "command": shlex.join(program.command),
        "directory": program.directory,
        "autostart": "false",
        "autorestart": "true",
        "startsecs": "2",
        # During `up` the first failure ends the waiting; later, a database that is restarting must not end its clients.
        "startretries": "10",
        "stopsignal": program.stop_signal,
        "stopasgroup": str(program.stop_as_group).lower(),
        "killasgroup": "true",
        "stopwaitsecs": program.stop_wait_s,
        "redirect_stderr": "true",
        "stdout_logfile": program.log,
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": "1",
        "environment": ",".join(f'{name}="{value}"' for name, value in program.environment.items()),
    }
    return "\n".join([f"[program:{program.name}]", *(f"{key} = {_quoted(value)}" for key, value in lines.items())])


def _quoted(value: object) -> str:
    # A percent sign starts an expansion in this file format.
    return str(value).replace("%", "%%")
