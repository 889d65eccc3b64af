"""A private Debian 13 folder that holds PostgreSQL 17 with TimescaleDB and pgvector.

Older systems cannot install these packages (they need a newer libc), but can run them with the folder as their root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from local.errors import StackError
from local.paths import Layout, locked, remove_tree, write_private
from local.waiting import tail

SUITE = "trixie"
PACKAGES = ("postgresql-17-timescaledb", "postgresql-17-pgvector")
#: Inside the root.
BIN_DIR = "/usr/lib/postgresql/17/bin"


def is_built(layout: Layout) -> bool:
    """Tell whether the root is complete: it gets its name only when its build has ended well."""
    return layout.private_root.is_dir()


def can_build() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and shutil.which("chroot") is not None


def build(layout: Layout, progress: Callable[[str], None]) -> None:
    """Build the root unless it is there. Stacks that ask at the same time share one build."""
    with locked(layout.private_root_lock):
        if is_built(layout):
            return
        unfinished = layout.private_root.with_name("debian13.unfinished")
        remove_tree(unfinished)
        log = layout.private_root_log
        write_private(log, "")
        if shutil.which("mmdebstrap") is None:
            # A failed update is no reason to stop: the package lists may be good enough.
            _run(["apt-get", "update"], log, progress, must_succeed=False)
            _run(
                ["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap", "debian-archive-keyring"],
                log,
                progress,
            )
        _run(
            ["mmdebstrap", "--variant=essential", f"--include={','.join(PACKAGES)}", SUITE, str(unfinished)],
            log,
            progress,
        )
        unfinished.rename(layout.private_root)


def _run(command: list[str], log: Path, progress: Callable[[str], None], *, must_succeed: bool = True) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    with log.open("a") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            # The server runs as another user and has to read the folder, whatever the caller's umask is.
            umask=0o022,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                progress(line.strip())
        except BaseException:
            process.terminate()
            raise
        finally:
            code = process.wait()
    if code and must_succeed:
        raise StackError(f"private Debian root: {command[0]} failed with code {code}, see {log}", log_tail=tail(log))
