"""The migration runner against a real server."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from spectralize.errors import MigrationError, ServiceError
from spectralize.migrations import migrate, read_migrations
from spectralize.profiles import load_profiles
from spectralize.resources import resource_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped migrations, to add to and spoil."""
    target = tmp_path / "migrations"
    shutil.copytree(str(resource_folder("sql") / "migrations"), target)
    return target


def test_many_at_once_apply_each_migration_once(empty_dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: migrate(empty_dsn), range(4)))
    names = [migration.name for migration in read_migrations()]
    assert sorted(name for done in applied for name in done) == names
    assert migrate(empty_dsn) == []
    with psycopg.connect(empty_dsn) as connection:
        hypertables = connection.execute(
            "SELECT hypertable_name FROM timescaledb_information.hypertables ORDER BY 1"
        ).fetchall()
        license_ = connection.execute("SHOW timescaledb.license").fetchone()
    assert [name for (name,) in hypertables] == ["mel_frames", "mel_seconds", "waveform_frames"]
    assert license_ is not None


def test_a_changed_file_is_refused(empty_dsn: str, folder: Path) -> None:
    migrate(empty_dsn)
    first = sorted(folder.iterdir())[0]
    first.write_text(first.read_text() + "-- changed\n")
    with pytest.raises(MigrationError, match=r"0001_create_objects\.sql was changed after it had been applied"):
        migrate(empty_dsn, folder=folder)


def test_line_ends_of_a_checkout_do_not_matter(empty_dsn: str, folder: Path) -> None:
    migrate(empty_dsn)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate(empty_dsn, folder=folder) == []


def test_a_failing_migration_leaves_nothing_and_can_be_mended(empty_dsn: str, folder: Path) -> None:
    migrate(empty_dsn)
    number = len(list(folder.iterdir())) + 1
    file = folder / f"{number:04}_create_trial.sql"
    file.write_text("CREATE TABLE spectralize.trial (id int); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match="rolled back: division by zero"):
        migrate(empty_dsn, folder=folder)
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT to_regclass('spectralize.trial')").fetchone() == (None,)
    file.write_text("CREATE TABLE spectralize.trial (id int);")
    assert migrate(empty_dsn, folder=folder) == [file.name]
    with pytest.raises(MigrationError, match="upgrade spectralize"):
        migrate(empty_dsn)


def test_a_store_that_has_spectrograms_learns_why_they_expired(empty_dsn: str, folder: Path) -> None:
    for file in folder.iterdir():
        if file.name > "0012":
            file.unlink()
    migrate(empty_dsn, folder=folder)
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(
            """
            INSERT INTO spectralize.batches (source, dag_id, run_id, try, kind, core_version)
            VALUES ('s', 'd', 'r', 1, 'manual', '1');
            INSERT INTO spectralize.profiles (name, fingerprint, parameters) VALUES ('p', 'f', '{}');
            INSERT INTO spectralize.objects
                (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin)
            VALUES ('b', 'k', 'e', 1, now(), now(), 'key');
            INSERT INTO spectralize.recordings (object_id, sha256, container, decoded_codec, decoded_duration_s,
                decoded_samples, decoded_samplerate_hz, decoded_channels, batch_id)
            VALUES (1, sha256(''), 'wav', 'pcm', 1, 1, 1, 1, 1);
            INSERT INTO spectralize.spectrograms (object_id, profile_id, generation, batch_id, status, sr, hop_length, n_mels,
                n_samples, n_frames, n_hops, n_seconds, peak_db, recorded_at, recorded_at_origin, core_version, library_versions)
            SELECT 1, 1, generation, 1, status, 1, 1, 1, 1, 1, 0, 1, 0, now(), 'key', '1', '{}'
            FROM (VALUES (0, 'expired'), (1, 'complete')) AS made (generation, status);
            """
        )
    assert "0012_expire_spectrograms.sql" in migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        rows = connection.execute(
            "SELECT status, expired_because, expired_at IS NULL FROM spectralize.spectrograms ORDER BY generation"
        ).fetchall()
        assert rows == [("expired", "retention", False), ("complete", None, True)]
        assert connection.execute("SELECT generation FROM spectralize.current_spectrograms").fetchall() == [(1,)]
        for change in ("status = 'expired'", "expired_at = now()", "expired_because = 'forgotten'"):
            with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():
                connection.execute(f"UPDATE spectralize.spectrograms SET {change} WHERE status = 'complete'")


def test_a_gap_or_a_bad_name_is_refused(folder: Path) -> None:
    (folder / "0099_create_late.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match=r"0099_create_late\.sql: its number must be"):
        read_migrations(folder)
    (folder / "0099_create_late.sql").rename(folder / "latest.sql")
    with pytest.raises(MigrationError, match=r"latest\.sql: must be named NNNN_verb_object\.sql"):
        read_migrations(folder)


def test_a_database_that_is_away_is_one_line_without_the_password() -> None:
    with pytest.raises(ServiceError, match=r"database u@127\.0\.0\.1:9/d is unreachable") as caught:
        migrate("postgresql://u:topsecret@127.0.0.1:9/d")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["wheel", "zip"])
def test_the_migrations_travel_in_wheel_and_zip(kind: str, empty_dsn: str, tmp_path: Path) -> None:
    if kind == "wheel":
        repository = Path(__file__).parents[2]
        build = "import hatchling.build, sys; hatchling.build.build_wheel(sys.argv[1])"
        subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=repository, check=True, capture_output=True)
        [archive] = tmp_path.glob("*.whl")
        shutil.unpack_archive(archive, tmp_path / "site", "zip")
        path = tmp_path / "site"
    else:
        from spectralize.package import build_zip

        path, _ = build_zip(tmp_path)
    code = (
        "import spectralize, spectralize.migrations as m; from spectralize.profiles import load_profiles; "
        "print(spectralize.__file__); print(len(m.read_migrations()), sorted(load_profiles())); m.migrate()"
    )
    environment = os.environ | {"PYTHONPATH": str(path), "SPECTRALIZE_DSN": empty_dsn}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, found = done.stdout.splitlines()
    assert where.startswith(str(path))
    assert found == f"{len(read_migrations())} {sorted(load_profiles())}"
