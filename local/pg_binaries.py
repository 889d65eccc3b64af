"""Which PostgreSQL binaries a server of the stack runs on, and as which user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from local import private_root
from local.errors import StackError
from local.paths import Layout
from local.state import PostgresPlace

#: The oldest version that Airflow's metadata may live on.
OLDEST_FOR_METADATA = 13
USER = "postgres"


@dataclass(frozen=True, slots=True)
class Installed:
    """A PostgreSQL of the system."""

    bin_dir: Path
    version: int
    has_extensions: bool


def place_for(
    server: str, layout: Layout, stack_id: str, *, extensions: bool, progress: Callable[[str], None]
) -> PostgresPlace:
    """Choose binaries and data folder for a new server, building the private root if there is no other way."""
    installed = list(_installed())
    complete = next((postgres for postgres in installed if postgres.has_extensions), None)
    if complete is not None:
        return _system_place(complete, layout, server)
    if not private_root.is_built(layout) and not extensions:
        plain = next((postgres for postgres in installed if postgres.version >= OLDEST_FOR_METADATA), None)
        if plain is not None:
            return _system_place(plain, layout, server)
    if os.geteuid() == 0 and shutil.which("chroot") and private_root.is_built(layout):
        return _private_place(layout, server, stack_id)
    if private_root.can_build():
        private_root.build(layout, progress)
        return _private_place(layout, server, stack_id)
    if not extensions:
        raise StackError(
            f"{server}: no PostgreSQL {OLDEST_FOR_METADATA} or newer found; install postgresql, or run `up` once "
            "as root on a system with apt"
        )
    raise StackError(
        f"{server}: no PostgreSQL with TimescaleDB and pgvector found; install {' and '.join(private_root.PACKAGES)}, "
        "run `up` as root on a system with apt, or set SPECTRALIZE_DSN to a server that has both"
    )


def is_usable(place: PostgresPlace) -> bool:
    """Tell whether recorded binaries are still there."""
    return Path(place.chroot or "/").joinpath(place.bin_dir.lstrip("/"), "postgres").is_file()


def on_host(place: PostgresPlace) -> Path:
    """Return the data folder as seen from outside the private root."""
    return Path(place.chroot or "/") / place.data_dir.lstrip("/")


def databases_of(layout: Layout) -> list[Path]:
    """Return the folders inside the private root that hold databases of this stack, or of a deleted one of its name."""
    return sorted((layout.private_root / "var/lib/spectralize").glob(f"{layout.name}.*"))


def command(place: PostgresPlace, program: str, *arguments: str) -> list[str]:
    """Return the command line of a PostgreSQL program. Root runs it as another user: PostgreSQL refuses root."""
    words = [f"{place.bin_dir}/{program}", *arguments]
    if os.geteuid() == 0:
        words = ["chroot", f"--userspec={USER}", place.chroot or "/", *words]
    return words


def make_owned_folder(place: PostgresPlace, folder: Path) -> None:
    """Create a folder that belongs to the user who runs the server."""
    # The parents stay root's: they must be passable for the server's user, whatever the caller's umask is.
    for parent in reversed([folder, *folder.parents]):
        if not parent.exists():
            parent.mkdir(exist_ok=True)
            parent.chmod(0o755)
    if os.geteuid() == 0:
        own(place, folder)
        inside = str(folder) if place.chroot is None else "/" + str(folder.relative_to(place.chroot))
        test = ["chroot", f"--userspec={USER}", place.chroot or "/", "/usr/bin/test", "-w", inside]
        if subprocess.run(test, capture_output=True, check=False).returncode:
            raise StackError(
                f"{folder}: the user {USER} cannot get there; set SPECTRALIZE_HOME to a folder that everybody may enter"
            )


def own(place: PostgresPlace, path: Path) -> None:
    """Give a file to the server's user, whose number inside the private root may belong to somebody else outside."""
    if os.geteuid() == 0:
        passwd = Path(place.chroot or "/") / "etc/passwd"
        for line in passwd.read_text().splitlines():
            fields = line.split(":")
            if fields[0] == USER:
                os.chown(path, int(fields[2]), int(fields[3]))
                return
        raise StackError(f"{passwd}: there is no user {USER}, and PostgreSQL does not run as root")


def _system_place(postgres: Installed, layout: Layout, server: str) -> PostgresPlace:
    return PostgresPlace(str(postgres.bin_dir), str(layout.stack / "postgres" / server))


def _private_place(layout: Layout, server: str, stack_id: str) -> PostgresPlace:
    folder = f"/var/lib/spectralize/{layout.name}.{stack_id}/{server}"
    return PostgresPlace(private_root.BIN_DIR, folder, str(layout.private_root))


@cache
def _installed() -> tuple[Installed, ...]:
    """Return the system's PostgreSQL servers, newest first."""
    found = {}
    for bin_dir in _candidates():
        if (bin_dir / "postgres").is_file() and (bin_dir / "initdb").is_file():
            shown = subprocess.run([bin_dir / "postgres", "--version"], capture_output=True, text=True, check=False)
            if match := re.search(r"\b(\d+)\.", shown.stdout):
                libraries = _library_dir(bin_dir)
                complete = all((libraries / name).is_file() for name in ("timescaledb.so", "vector.so"))
                found[bin_dir.resolve()] = Installed(bin_dir, int(match[1]), complete)
    return tuple(sorted(found.values(), key=lambda postgres: postgres.version, reverse=True))


def _candidates() -> Iterator[Path]:
    yield from Path("/usr/lib/postgresql").glob("*/bin")
    yield from Path("/usr").glob("pgsql-*/bin")
    yield Path("/usr/local/pgsql/bin")
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def _library_dir(bin_dir: Path) -> Path:
    pg_config = bin_dir / "pg_config"
    if pg_config.is_file():
        shown = subprocess.run([pg_config, "--pkglibdir"], capture_output=True, text=True, check=False)
        if shown.returncode == 0:
            return Path(shown.stdout.strip())
    return bin_dir.parent / "lib"
