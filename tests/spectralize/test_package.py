"""What is shipped to executors, and the version that the ledger records."""

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import spectralize
from spectralize.package import build_zip


def test_the_same_code_gives_the_same_bytes(tmp_path: Path) -> None:
    first, first_sha256 = build_zip(tmp_path / "one")
    second, second_sha256 = build_zip(tmp_path / "two")
    assert first.name == second.name
    assert first_sha256 == second_sha256
    assert first.read_bytes() == second.read_bytes()
    again, _ = build_zip(tmp_path / "one")
    assert again == first
    assert [path.name for path in (tmp_path / "one").iterdir()] == [first.name]


def test_the_zip_holds_the_core_and_nothing_else(tmp_path: Path) -> None:
    path, _ = build_zip(tmp_path)
    names = zipfile.ZipFile(path).namelist()
    assert {
        "spectralize/worker.py",
        "spectralize/sql/migrations/0001_create_objects.sql",
        "spectralize/config/sources.toml",
    } <= set(names)
    assert all(name.startswith("spectralize/") for name in names)


def test_the_installed_version_is_the_ledgers() -> None:
    assert version("spectralize") == spectralize.__version__


def test_the_executors_half_of_the_core_works_from_the_zip(tmp_path: Path) -> None:
    path, _ = build_zip(tmp_path)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import spectralize.worker as w; print(w.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(path))
