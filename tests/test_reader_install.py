"""The light install: `pip install .[reader]` in an empty environment, used as a reader uses it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.paths import REPO, default_home
from tests.spectralize.reader.conftest import bucket_of
from tests.store import Store, encode, make_samples

#: What only those who compute need. Each is big, and some need Java.
HEAVY = {
    "airflow",
    "apache-airflow",
    "apache-airflow-core",
    "dash",
    "librosa",
    "numba",
    "pyspark",
    "pyspark-client",
    "scipy",
}

READ = """
import json, sys
from spectralize import open_store
with open_store() as store:
    recording = store.recording(sys.argv[1])
    mel, audio = recording.mel(1.0, 2.0, ref="max", top_db=80), recording.audio(1.0, 2.0)
    windows = store.mel_windows([recording, recording], [0.0, 0.5], 1.0)
    table = store.recordings(text="tone").to_pandas()
print(json.dumps({"mel": mel.shape, "audio": audio.shape, "windows": windows.shape, "table": len(table),
                  "modules": sorted(name for name in sys.modules if "." not in name)}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing in it but the extra `reader`, at the locked versions."""
    folder = tmp_path_factory.mktemp("reader") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    uv = default_home() / "uv" / "bin" / "uv"
    assert uv.exists(), "make install puts uv there"
    subprocess.run(
        [str(uv), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "--constraint",
         "requirements/reader.txt", ".[reader]"],
        cwd=REPO, check=True, timeout=240,
    )  # fmt: skip
    return folder


def call(environment: Path, *command: str, **variables: str) -> str:
    """Run a program of the environment, away from the checkout and from what this process has set."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in {"HOME", "PATH"}}
    done = subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=environment, env=kept | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tone(dsn: str, aws: None) -> Iterator[Store]:
    with bucket_of(dsn, "light") as store:
        store.put("tone.flac", encode(make_samples(3.0, sr=44_100, channels=2), 44_100, "FLAC"))
        store.ingest()
        yield store


def test_it_pulls_nothing_heavy(environment: Path) -> None:
    listing = "import importlib.metadata as m; print('\\n'.join(d.metadata['Name'].lower() for d in m.distributions()))"
    names = set(call(environment, "python", "-c", listing).split())
    assert {"spectralize", "xarray", "numpy", "psycopg", "boto3", "av"} <= names
    assert not names & HEAVY
    assert [name for name in names if "airflow" in name or "spark" in name] == []


def test_it_reads_windows_and_audio(environment: Path, tone: Store) -> None:
    found = json.loads(call(environment, "python", "-c", READ, "tone.flac", SPECTRALIZE_DSN=tone.dsn))
    assert not HEAVY & set(found.pop("modules"))
    assert found == {"mel": [43, 128], "audio": [44_100], "windows": [2, 43, 128], "table": 1}


def test_its_command_line_looks_into_the_store(environment: Path, tone: Store) -> None:
    listed = json.loads(call(environment, "spectralize", "ls", "--json", SPECTRALIZE_DSN=tone.dsn))
    assert [item["key"] for item in listed["recordings"]] == ["tone.flac"]
    shown = json.loads(call(environment, "spectralize", "show", "tone.flac", "--json", SPECTRALIZE_DSN=tone.dsn))
    assert shown["recording"]["decoded_channels"] == 2
    assert json.loads(call(environment, "spectralize", "status", "--json", SPECTRALIZE_DSN=tone.dsn))["recordings"] == 1
    verified = json.loads(call(environment, "spectralize", "verify", "--json", SPECTRALIZE_DSN=tone.dsn))
    assert verified["breaches"] == 0


def test_importing_the_package_imports_nothing_else(environment: Path) -> None:
    code = "import sys; import spectralize; print([n for n in ('numpy', 'psycopg', 'xarray', 'pandas') if n in sys.modules])"
    assert call(environment, "python", "-c", code) == "[]\n"
