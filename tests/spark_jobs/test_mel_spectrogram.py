"""The job as spark-submit runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spectralize.ledger import record_code
from spectralize.package import build_zip
from spectralize.version import CORE_VERSION
from tests.store import CONTENT, Store, digest, wav

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def environment(store: Store, stack: object) -> dict[str, str]:
    """What the driver gets from Airflow's operator."""
    base = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return base | stack.env() | {"SPECTRALIZE_DSN": store.dsn}  # type: ignore[attr-defined]


def submit(manifest: str, environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    path, _ = build_zip(folder)
    command = [
        str(Path(sys.executable).parent / "spark-submit"), "--master", "local[*,4]",
        "--properties-file", str(REPOSITORY / "config" / "spark-defaults.conf"), "--py-files", str(path),
        str(REPOSITORY / "spark_jobs" / "mel_spectrogram.py"), manifest,
    ]  # fmt: skip
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_submissions_of_one_manifest_at_once_equal_an_undisturbed_run(
    store: Store, environment: dict[str, str], tmp_path: Path
) -> None:
    for number in range(24):
        store.put(f"{number:02}.wav", wav(4.0 + number % 3, seed=number))
    store.put("empty.wav", b"")
    batch = store.plan()
    # As Airflow's step does before it submits.
    _, zip_sha256 = build_zip(tmp_path)
    record_code(store.connection, batch.batch_id, zip_sha256)
    store.connection.commit()
    jobs = [submit(str(batch.manifest_uri), environment, tmp_path) for _ in range(2)]
    for job in jobs:
        out, err = job.communicate(timeout=240)
        assert job.returncode == 0, err[-3000:]
        assert f"batch {batch.batch_id} of test" in out
    batch = store.finish(batch)
    assert batch.counts.outcomes == {"loaded": 24, "partial": 0, "rejected": 1, "failed": 0}
    assert store.breaches() == {}
    # What the driver was told came with the work to every executor, and from there into every attempt.
    assert store.rows(
        "SELECT DISTINCT core_version, code_zip_sha256 FROM spectralize.batch_object_attempts WHERE batch_id = %s",
        batch.batch_id,
    ) == [(CORE_VERSION, zip_sha256)]
    disturbed = store.rows(CONTENT, store.source.bucket)
    assert len(disturbed) == 24
    # Undisturbed, in this process, as a generation of its own.
    store.ingest(force=True)
    without_generation = [
        [row[:4] + row[5:] for row in rows] for rows in (disturbed, store.rows(CONTENT, store.source.bucket))
    ]
    assert digest(without_generation[0]) == digest(without_generation[1])


@pytest.mark.slow
def test_a_server_that_is_away_is_one_line_and_submitting_again_succeeds(
    store: Store, environment: dict[str, str], tmp_path: Path
) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    # At once, since most of it is waiting: for S3 to be asked again and again.
    jobs = [
        submit(str(batch.manifest_uri), environment | away, tmp_path)
        for away in (
            {"SPECTRALIZE_DSN": "postgresql://spectralize:topsecret@127.0.0.1:9/spectralize"},
            {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
        )
    ]
    for job in jobs:
        out, err = job.communicate(timeout=240)
        assert job.returncode == 1
        # spark-submit gives both streams of the driver's Python as its stdout.
        [line] = out.splitlines()
        assert line.startswith("mel_spectrogram: ")
        assert "is unreachable" in line
        assert "Traceback" not in err
        assert "topsecret" not in out + err
    again = submit(str(batch.manifest_uri), environment, tmp_path)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err[-3000:]
    assert store.outcomes(store.finish(batch)) == {"a.wav": ("loaded", None)}
