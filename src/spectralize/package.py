"""The core as a deterministic zip: what spark-submit ships to the executors, and its checksum for the ledger."""

import hashlib
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from spectralize.resources import resource_folder
from spectralize.version import CORE_VERSION

#: The oldest time a zip can hold; with sorted names it makes equal trees give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith((".py", ".sql", ".toml", ".typed")):
            yield f"{prefix}{entry.name}", entry.read_bytes()


def build_zip(folder: Path) -> tuple[Path, str]:
    """Write `spectralize-<version>-<checksum>.zip` into folder and return its path and sha256.

    The same code gives the same bytes; a file that is there already is left alone, so two tasks may build at once.
    """
    entries = dict(_walk(files("spectralize"), "spectralize/"))
    for name in ("sql", "config"):
        entries.update(_walk(resource_folder(name), f"spectralize/{name}/"))
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for name, data in sorted(entries.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    path = folder / f"spectralize-{CORE_VERSION}-{digest.hexdigest()[:16]}.zip"
    if not path.exists():
        scratch = path.with_suffix(f".{hashlib.sha256(repr(path).encode()).hexdigest()[:8]}.tmp")
        with zipfile.ZipFile(scratch, "w", compression=zipfile.ZIP_DEFLATED) as archive:
            for name, data in sorted(entries.items()):
                archive.writestr(zipfile.ZipInfo(name, date_time=_EPOCH), data)
        scratch.replace(path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
