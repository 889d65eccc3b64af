"""Where the stack keeps things, and the few file operations that must not go wrong."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.errors import StackError

REPO = Path(__file__).resolve().parents[1]


def default_home() -> Path:
    """Return the folder of all embedded stacks: ``SPECTRALIZE_HOME``, or an ignored folder in the checkout."""
    given = os.environ.get("SPECTRALIZE_HOME")
    return Path(given).expanduser() if given else REPO / ".spectralize"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one stack below the home that all stacks share."""

    home: Path
    name: str

    @classmethod
    def of(cls, home: Path | None, name: str) -> Layout:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
            raise StackError(f"stack name {name!r}: use small letters, digits and '-', at most 41 characters")
        return cls((home or default_home()).absolute(), name)

    @property
    def private_root(self) -> Path:
        return self.home / "debian13"

    @property
    def private_root_lock(self) -> Path:
        return self.home / "debian13.lock"

    @property
    def private_root_log(self) -> Path:
        return self.home / "debian13.log"

    @property
    def numba_cache(self) -> Path:
        return self.home / "numba"

    @property
    def stacks(self) -> Path:
        return self.home / "stacks"

    @property
    def stack(self) -> Path:
        return self.stacks / self.name

    @property
    def lock(self) -> Path:
        # Beside the folder, not in it: a lock file that `clean` deletes would lock nobody out.
        return self.stacks / f"{self.name}.lock"

    @property
    def state(self) -> Path:
        return self.stack / "state.json"

    @property
    def logs(self) -> Path:
        return self.stack / "logs"

    @property
    def s3(self) -> Path:
        return self.stack / "s3"

    @property
    def airflow(self) -> Path:
        return self.stack / "airflow"

    @property
    def scratch(self) -> Path:
        return self.stack / "scratch"

    @property
    def supervisor_conf(self) -> Path:
        return self.stack / "supervisord.conf"

    @property
    def supervisor_pid(self) -> Path:
        return self.stack / "supervisord.pid"

    def log(self, service: str) -> Path:
        return self.logs / f"{service}.log"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; a second process waits here until the first is done. The holder may delete the file."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # A lock on a file that was deleted while we waited locks nobody out.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, so that a reader sees the old text or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).replace(path)


def remove_tree(path: Path) -> None:
    """Delete a folder, unless something is mounted in it: a killed root build may have left the host's /dev there."""
    if not path.exists():
        return
    mounts = [line.split()[1].replace("\\040", " ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = sorted(mount for mount in mounts if Path(mount).is_relative_to(path.resolve()))
    if inside:
        raise StackError(f"{path}: not deleted, {inside[-1]} is mounted inside; unmount it first")
    shutil.rmtree(path)
