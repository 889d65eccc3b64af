"""Beside the session's own servers: further PostgreSQL servers, and PostgreSQL's programs as one who reads our pages has them.

The programs may live in the private root, where only what lies inside has a name. So they are put on the PATH under their
own names, and share a folder with the outside that is called the same on both sides.
"""

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from local import pg_binaries, ports
from local.errors import StackError
from local.postgres import Server
from local.processes import MARKER
from local.services import EXTENSIONS
from local.stack import Stack
from local.state import PostgresPlace, State
from local.waiting import tail, wait_until

#: The same outside and inside the private root.
_TMP = Path("/tmp")


def place_of(stack: Stack) -> PostgresPlace:
    """Where the programs and the data of the session's TimescaleDB are."""
    state = State.load(stack.layout.state)
    assert state is not None
    return state.postgres["timescale"]


@contextmanager
def shared_folder(place: PostgresPlace) -> Iterator[Path]:
    """A folder that this process and the programs of `place`, who run as another user, know by one name."""
    inside = Path(tempfile.mkdtemp(prefix="spectralize-", dir=Path(place.chroot or "/") / _TMP.relative_to("/")))
    pg_binaries.own(place, inside)
    shared = _TMP / inside.name
    if place.chroot:
        shared.symlink_to(inside)
    try:
        yield shared
    finally:
        if place.chroot:
            shared.unlink()
        shutil.rmtree(inside)


def make_private_file(place: PostgresPlace, path: Path, text: str) -> None:
    """Write a file that its owner alone may read, as PostgreSQL asks of files with passwords."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    pg_binaries.own(place, path)


def make_owned_folder(place: PostgresPlace, path: Path) -> Path:
    """Create a folder into which the programs of `place` may write."""
    path.mkdir()
    pg_binaries.own(place, path)
    return path


def put_on_path(place: PostgresPlace, folder: Path, *programs: str) -> None:
    """Make PostgreSQL's programs callable by their names from a folder."""
    for program in programs:
        script = folder / program
        script.write_text(f'#!/bin/sh\nexec {shlex.join(pg_binaries.command(place, program))} "$@"\n', encoding="utf-8")
        script.chmod(0o755)


@contextmanager
def run_empty_server(stack: Stack, name: str) -> Iterator[Server]:
    """A server that was made just now: its superuser, and nothing else."""
    place = place_of(stack)
    data_dir = Path(place.data_dir).with_name(name)
    server = _make_server(stack, name, replace(place, data_dir=str(data_dir)), secrets.token_hex(20))
    with _running(stack, server):
        yield server
    shutil.rmtree(pg_binaries.on_host(server.place))


@contextmanager
def run_server_on(stack: Stack, name: str, data_dir: Path) -> Iterator[Server]:
    """A server on a copy of the session's, which brings its roles and their passwords along."""
    state = State.load(stack.layout.state)
    assert state is not None
    place = replace(place_of(stack), data_dir=str(data_dir))
    with _running(stack, _make_server(stack, name, place, state.secrets.postgres_superuser)) as server:
        yield server


def _make_server(stack: Stack, name: str, place: PostgresPlace, superuser_password: str) -> Server:
    state = State.load(stack.layout.state)
    assert state is not None
    return Server(
        name=name,
        database="spectralize",
        port=ports.choose([name], recorded={}, reserved=set(state.ports.values()), ephemeral=True)[name],
        password="",
        superuser_password=superuser_password,
        place=place,
        shared_buffers="64MB",
        extensions=EXTENSIONS["timescale"],
        durable=False,
    )


@contextmanager
def _running(stack: Stack, server: Server) -> Iterator[Server]:
    server.prepare()
    log = stack.layout.log(server.name)
    # Marked as one of the stack's: should we be killed, `clean` finds it.
    environment = os.environ | {"LANG": "C.UTF-8", MARKER: str(stack.layout.stack)}
    with log.open("ab") as file:
        process = subprocess.Popen(
            server.command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip

    def check() -> None:
        if process.poll() is not None:
            raise StackError(f"{server.name} ended with code {process.returncode}: {tail(log)}")
        server.check()

    try:
        wait_until(check, what=server.name, timeout_s=60, log=log)
        yield server
    finally:
        # Fast shutdown: clients are disconnected.
        process.send_signal(signal.SIGINT)
        process.wait(60)
