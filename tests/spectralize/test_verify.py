"""Each invariant, broken on purpose: verify must name it, and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.stack import Stack
from spectralize import ledger, retention
from spectralize.database import connect
from spectralize.errors import ServiceError
from spectralize.migrations import migrate, read_migrations
from spectralize.profiles import MelProfile
from spectralize.resources import resource_folder
from spectralize.retention import drop_expired_chunks
from spectralize.verify import invariant_names, verify_store
from tests.conftest import _superuser_dsn, new_store
from tests.spectralize.test_cli import call
from tests.store import Store, wav

FIRST = "(SELECT min(spectrogram_id) FROM spectralize.spectrograms)"

#: An index, or the range, of the oldest chunk of Mel frames.
CHUNK_INDEX = (
    "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class AS c ON c.oid = indrelid "
    "JOIN timescaledb_information.chunks ON chunk_name = c.relname WHERE hypertable_name = 'mel_frames' "
    "ORDER BY range_start LIMIT 1"
)
CHUNK_RANGE = (
    "(SELECT slice.id FROM _timescaledb_catalog.dimension_slice AS slice JOIN _timescaledb_catalog.dimension AS d "
    "ON d.id = slice.dimension_id JOIN _timescaledb_catalog.hypertable AS h ON h.id = d.hypertable_id "
    "WHERE h.table_name = 'mel_frames' ORDER BY slice.range_start LIMIT 1)"
)
CHECK = "CHECK ((interval_start IS NULL) = (interval_end IS NULL))"


def view(change: str) -> str:
    """Replace the view of what is current by something else that is made of it, `v`."""
    return (
        "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW spectralize.current_spectrograms AS WITH v AS (' || "
        f"rtrim(pg_get_viewdef('spectralize.current_spectrograms'::regclass), ';') || ') {change}'; END $$"
    )


#: What breaks each invariant; where there are several ways, a word after a colon tells them apart.
BREACHES = {
    "migrations_are_this_versions": "UPDATE spectralize.schema_migrations SET checksum = md5('x') WHERE version = 3",
    "migrations_are_this_versions: older": "DELETE FROM spectralize.schema_migrations WHERE version = 15",
    "migrations_are_this_versions: newer": (
        "INSERT INTO spectralize.schema_migrations (version, name, checksum) VALUES (99, '0099_add_wings.sql', 'x')"
    ),
    "profiles_are_unchanged": "UPDATE spectralize.profiles SET parameters = parameters || '{\"amin\": 1e-9}'",
    "profiles_are_unchanged: shape": "UPDATE spectralize.profiles SET parameters = '[]'",
    "frames_are_contiguous": f"DELETE FROM spectralize.mel_frames WHERE spectrogram_id = {FIRST} AND frame_index = 7",
    "frames_are_on_time": (
        f"UPDATE spectralize.mel_frames SET frame_time = frame_time + interval '1 microsecond' "
        f"WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "frames_are_on_time: size": (
        f"UPDATE spectralize.mel_frames SET mel = subvector(mel, 1, 127) WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "waveform_is_contiguous": (
        f"INSERT INTO spectralize.waveform_frames SELECT * FROM spectralize.waveform_frames "
        f"WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "seconds_are_contiguous": f"DELETE FROM spectralize.mel_seconds WHERE spectrogram_id = {FIRST} AND second_index = 0",
    "no_orphan_rows": (
        "INSERT INTO spectralize.mel_frames SELECT frame_time, 999999, frame_index, mel FROM spectralize.mel_frames LIMIT 3"
    ),
    "claims_are_unique": (
        "ALTER TABLE spectralize.spectrograms DROP CONSTRAINT spectrograms_object_id_profile_id_generation_key"
    ),
    "batch_sums_hold": "UPDATE spectralize.batches SET listed = listed + 1",
    "batch_counts_match_lines": (
        "UPDATE spectralize.batches SET loaded = loaded - 1, rejected = rejected + 1 WHERE loaded > 0"
    ),
    "outcomes_match_spectrograms": (
        "UPDATE spectralize.batch_objects SET spectrogram_id = (SELECT max(spectrogram_id) FROM spectralize.spectrograms) "
        f"WHERE spectrogram_id = {FIRST}"
    ),
    "spectrograms_are_in_the_ledger": (
        f"UPDATE spectralize.batch_objects SET outcome = 'failed', reason_class = 'x', reason = 'x', spectrogram_id = NULL "
        f"WHERE spectrogram_id = {FIRST}"
    ),
    "attempts_match_lines": f"UPDATE spectralize.batch_objects SET attempts = 2 WHERE spectrogram_id = {FIRST}",
    "loads_have_attempts": (
        "UPDATE spectralize.batch_object_attempts SET outcome = 'failed', reason_class = 'x', reason = 'x' "
        f"WHERE object_id = (SELECT object_id FROM spectralize.spectrograms WHERE spectrogram_id = {FIRST})"
    ),
    "loads_have_attempts: core": (
        "UPDATE spectralize.batch_object_attempts SET core_version = '0.0.1' "
        f"WHERE object_id = (SELECT object_id FROM spectralize.spectrograms WHERE spectrogram_id = {FIRST})"
    ),
    "failures_are_told": (
        "UPDATE spectralize.batches SET state = 'failed', failure = 'x', closed_at = clock_timestamp() "
        "WHERE batch_id = (SELECT max(batch_id) FROM spectralize.batches)"
    ),
    "indexes_are_valid": f"UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text = ({CHUNK_INDEX})",
    "spectrograms_have_recordings": (
        "DELETE FROM spectralize.recordings "
        f"WHERE object_id = (SELECT object_id FROM spectralize.spectrograms WHERE spectrogram_id = {FIRST})"
    ),
    "forgotten_is_gone": (
        "UPDATE spectralize.objects SET forgotten_at = now() "
        f"WHERE object_id = (SELECT object_id FROM spectralize.spectrograms WHERE spectrogram_id = {FIRST})"
    ),
    "snapshots_are_kept": (
        "INSERT INTO spectralize.snapshots (name) VALUES ('kept'); "
        "INSERT INTO spectralize.snapshot_spectrograms "
        f"SELECT snapshot_id, {FIRST} FROM spectralize.snapshots WHERE name = 'kept'; "
        "UPDATE spectralize.spectrograms SET status = 'expired', expired_at = now(), expired_because = 'retention' "
        f"WHERE spectrogram_id = {FIRST}"
    ),
    "waveform_is_on_time": (
        f"UPDATE spectralize.waveform_frames SET frame_time = frame_time - interval '1 microsecond' "
        f"WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "waveform_is_on_time: unasked": (
        f"UPDATE spectralize.waveform_frames SET pcm = '\\x0000' WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "waveform_is_on_time: lost": (
        "UPDATE spectralize.waveform_frames SET pcm = NULL WHERE pcm IS NOT NULL AND frame_index = 7"
    ),
    "waveform_is_on_time: short": (
        "UPDATE spectralize.waveform_frames SET pcm = substr(pcm, 3) WHERE pcm IS NOT NULL AND frame_index = 7"
    ),
    "seconds_are_on_time": (
        f"UPDATE spectralize.mel_seconds SET second_at = second_at + interval '1 second' WHERE spectrogram_id = {FIRST}"
    ),
    "seconds_are_on_time: size": (
        f"UPDATE spectralize.mel_seconds SET mel_std = subvector(mel_std, 1, 127) WHERE spectrogram_id = {FIRST}"
    ),
    "peaks_are_the_highest_cells": (
        f"UPDATE spectralize.spectrograms SET peak_db = peak_db + 0.02 WHERE spectrogram_id = {FIRST}"
    ),
    "peaks_are_the_highest_cells: low": (
        f"UPDATE spectralize.spectrograms SET peak_db = peak_db - 0.02 WHERE spectrogram_id = {FIRST}"
    ),
    "peaks_are_the_highest_cells: cell": (
        "UPDATE spectralize.mel_frames SET mel = (array_fill(65504, ARRAY[1])::halfvec || subvector(mel, 2, 127)) "
        f"WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "spectrograms_match_profiles": (
        f"UPDATE spectralize.spectrograms SET n_samples = n_samples + 512 WHERE spectrogram_id = {FIRST}"
    ),
    "spectrograms_match_profiles: rate": (
        "UPDATE spectralize.profiles SET parameters = parameters || '{\"sr\": 16000}' WHERE name = 'mel128_22k'"
    ),
    "current_is_the_newest": view("SELECT * FROM v WHERE key LIKE ''a%''"),
    "current_is_the_newest: twice": view("SELECT * FROM v UNION ALL SELECT * FROM v"),
    "current_is_the_newest: gone": "DROP VIEW spectralize.current_spectrograms CASCADE",
    "catalogue_is_exact": "DELETE FROM spectralize.catalogue WHERE key LIKE 'b%'",
    "catalogue_is_exact: more": (
        "CREATE TEMPORARY TABLE more AS SELECT * FROM spectralize.catalogue LIMIT 1; UPDATE more SET key = 'nowhere'; "
        "INSERT INTO spectralize.catalogue TABLE more"
    ),
    "catalogue_is_exact: outcome": "UPDATE spectralize.catalogue SET outcome = 'partial'",
    "catalogue_is_exact: words": "UPDATE spectralize.catalogue SET words = words || ' more' WHERE key LIKE 'b%'",
    "indexes_are_there": "DROP INDEX spectralize.mel_frames_spectrogram_time_idx",
    "chunks_have_the_indexes": f"DO $$ BEGIN EXECUTE 'DROP INDEX ' || ({CHUNK_INDEX}); END $$",
    "chunks_keep_to_their_ranges": (
        "UPDATE pg_constraint SET convalidated = false FROM timescaledb_information.chunks "
        "WHERE contype = 'c' AND conrelid::regclass::text = chunk_schema || '.' || chunk_name "
        "AND hypertable_name = 'waveform_frames'"
    ),
    "chunks_keep_to_their_ranges: overlap": (
        f"UPDATE _timescaledb_catalog.dimension_slice SET range_end = 4e15 WHERE id = {CHUNK_RANGE}"
    ),
    "chunks_keep_to_their_ranges: plain": (
        "CREATE TABLE plain (LIKE spectralize.mel_seconds INCLUDING ALL); "
        "INSERT INTO plain SELECT * FROM spectralize.mel_seconds; DROP TABLE spectralize.mel_seconds; "
        "ALTER TABLE plain SET SCHEMA spectralize; ALTER TABLE spectralize.plain RENAME TO mel_seconds"
    ),
    "triggers_are_enabled": "ALTER TABLE spectralize.recordings DISABLE TRIGGER refuse_forgotten",
    "triggers_are_enabled: gone": "DROP TRIGGER refuse_expired_pin ON spectralize.snapshot_spectrograms",
    "triggers_are_enabled: catalogue": "DROP TRIGGER refresh_on_update ON spectralize.objects",
    "triggers_are_enabled: all": "ALTER TABLE spectralize.batch_objects DISABLE TRIGGER ALL",
    "constraints_are_valid": "ALTER TABLE spectralize.batches DROP CONSTRAINT batches_check",
    "constraints_are_valid: unchecked": (
        "ALTER TABLE spectralize.batches DROP CONSTRAINT batches_check; "
        f"ALTER TABLE spectralize.batches ADD CONSTRAINT batches_check {CHECK} NOT VALID"
    ),
}

#: Breaking one thing may break what follows from it.
CONSEQUENCES = {
    "claims_are_unique": {"constraints_are_valid"},
    "spectrograms_match_profiles: rate": {"profiles_are_unchanged"},
    "profiles_are_unchanged: shape": {"spectrograms_match_profiles", "waveform_is_on_time"},
    "outcomes_match_spectrograms": {"spectrograms_are_in_the_ledger"},
    "spectrograms_are_in_the_ledger": {"batch_counts_match_lines"},
    "snapshots_are_kept": {"no_orphan_rows"},
    # The catalogue is what the view comes to.
    "current_is_the_newest": {"catalogue_is_exact"},
    "current_is_the_newest: twice": {"catalogue_is_exact"},
    "current_is_the_newest: gone": {"catalogue_is_exact"},
}


#: Without the right schema nothing else is looked at.
ALONE = ("migrations_are_this_versions: older", "migrations_are_this_versions: newer")


def with_dates(store: Store) -> Store:
    """Two profiles, one of which keeps samples, and keys that tell the day: chunks of several years."""
    patterns = (r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)",)
    changes = {"profiles": ("mel128_22k", "seed2020_pcm"), "time_patterns": patterns}
    return replace(store, source=store.source.model_copy(update=changes))


@pytest.fixture(scope="module")
def filled(dsn: str, aws: None) -> Iterator[Store]:
    """Two recordings, for all tests that leave them as they are."""
    with new_store(dsn) as store:
        store = with_dates(store)
        store.put("a.wav", wav(2.5, seed=1))
        store.put("b_20190302.wav", wav(2.5, seed=2))
        store.ingest()
        # What the last step has read would keep tables from being changed.
        store.connection.commit()
        yield store


@pytest.fixture(scope="module")
def superuser(filled: Store, stack: Stack) -> Iterator[psycopg.Connection]:
    """Who may even spoil the catalogue."""
    dsn = _superuser_dsn(stack, urlsplit(filled.dsn).path.lstrip("/"))
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("case", BREACHES)
def test_verify_names_the_breach(case: str, superuser: psycopg.Connection) -> None:
    name = case.partition(":")[0]
    # In a transaction that is rolled back: verify sees it through the same connection's own snapshot.
    with superuser.transaction(force_rollback=True):
        superuser.execute(BREACHES[case])
        findings = verify_store(superuser, own_transaction=False)
        found = {finding.name for finding in findings if finding.n_breaches}
    assert name in found
    assert found <= {name} | CONSEQUENCES.get(case, set()), [item for item in findings if item.n_breaches]
    assert [finding.name for finding in findings] == ([name] if case in ALONE else invariant_names())


def test_nothing_is_left_broken(filled: Store) -> None:
    assert filled.breaches() == {}


def test_every_invariant_is_broken_above_and_says_what_it_is(filled: Store) -> None:
    assert {case.partition(":")[0] for case in BREACHES} == set(invariant_names())
    findings = verify_store(filled.connection)
    assert [finding.name for finding in findings] == invariant_names()
    assert all(20 < len(finding.statement) < 200 for finding in findings)


def test_every_index_and_constraint_of_the_schema_is_missed(superuser: psycopg.Connection) -> None:
    folder = resource_folder("sql") / "verify"
    constraints = superuser.execute(
        "SELECT c.conname, format('ALTER TABLE spectralize.%I DROP CONSTRAINT %I CASCADE', t.relname, c.conname) "
        "FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = c.conrelid "
        "WHERE t.relnamespace = 'spectralize'::regnamespace AND c.contype IN ('c', 'f', 'p', 'u')"
    ).fetchall()
    indexes = superuser.execute(
        "SELECT split_part(indexdef, ' USING ', 2), format('DROP INDEX spectralize.%I', indexname) FROM pg_indexes "
        "WHERE schemaname = 'spectralize' AND indexname NOT IN (SELECT conname FROM pg_constraint)"
    ).fetchall()
    assert (len(constraints), len(indexes)) > (50, 10)
    for file, plants in (("25_constraints_are_valid.sql", constraints), ("21_indexes_are_there.sql", indexes)):
        query = (folder / file).read_text()
        for what, drop in plants:
            with superuser.transaction(force_rollback=True):
                superuser.execute(drop)
                assert any(what in breach for _, breach in superuser.execute(query)), what


def test_damage_that_a_query_cannot_go_through_is_named(superuser: psycopg.Connection) -> None:
    with superuser.transaction(force_rollback=True):
        superuser.execute('UPDATE spectralize.profiles SET parameters = parameters || \'{"hop_length": "wide"}\'')
        found = {finding.name: finding for finding in verify_store(superuser, own_transaction=False)}
    [breach] = found["spectrograms_match_profiles"].breaches
    assert (breach.what, breach.breach) == (
        "the query", 'cannot be answered: invalid input syntax for type integer: "wide"',
    )  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.fixed_dictionaries(
        {
            "sr": st.sampled_from([8_000, "native"]),
            "fmin": st.floats(min_value=0, max_value=1000) | st.integers(0, 1000),
            "fmax": st.none() | st.floats(1001, 4000) | st.integers(1001, 4000),
            "power": st.floats(min_value=1e-30, max_value=4),
            "amin": st.floats(min_value=1e-300, max_value=0.5),
        }
    ),
    is_wide=st.booleans(),
)
def test_the_fingerprint_of_every_profile_is_what_its_parameters_make(
    store: Store, numbers: dict[str, object], is_wide: bool
) -> None:
    # jsonb has one way to write a number, JSON several.
    if is_wide and numbers["sr"] == "native":
        numbers["fmax"] = 1e22
    numbers["fmin"] = abs(numbers["fmin"])  # type: ignore[arg-type]
    profile = MelProfile(name="odd", n_fft=256, hop_length=64, win_length=256, n_mels=8, **numbers)  # type: ignore[arg-type]
    with store.connection.transaction(force_rollback=True):
        ledger.register_profiles(store.connection, [profile])
        assert not [item for item in verify_store(store.connection, own_transaction=False) if item.n_breaches]


def test_a_load_that_ends_meanwhile_breaks_nothing(store: Store) -> None:
    store = with_dates(store)

    def load(name: str, n_before: int, n_all: int) -> None:
        # In a chunk that was not there before, half-way through the checks.
        if n_before == n_all // 2:
            store.put("c_20170302.wav", wav(1.0, seed=3))
            assert store.ingest().counts.outcomes["loaded"] == 2

    with connect(store.dsn) as connection:
        findings = verify_store(connection, on_check=load)
    assert not [finding for finding in findings if finding.n_breaches]
    assert store.breaches() == {}


def test_no_chunk_is_dropped_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = with_dates(store)
    store.put("old_20150302.wav", wav(1.0, seed=4))
    store.source = store.source.model_copy(update={"name": "fleeting"})
    store.ingest()
    monkeypatch.setattr(retention, "_LOCK_TIMEOUT_MS", 200)
    n_tries = 0

    def drop() -> int:
        keep = {"fleeting": timedelta(days=1)}
        return drop_expired_chunks(store.connection, keep, now=datetime(2016, 1, 1, tzinfo=UTC)).n_spectrograms

    def interfere(name: str, n_before: int, n_all: int) -> None:
        nonlocal n_tries
        # Before the first query, and in the middle.
        if n_before in {0, 5}:
            with pytest.raises(ServiceError, match="in use by a load or a reader"):
                drop()
            n_tries += 1

    with connect(store.dsn) as connection:
        findings = verify_store(connection, on_check=interfere)
    assert n_tries == 2
    assert not [finding for finding in findings if finding.n_breaches]
    assert drop() == 2
    assert store.breaches() == {}


def test_an_older_store_is_told_to_migrate_and_then_is_sound(empty_dsn: str, tmp_path: Path) -> None:
    migrations = read_migrations()
    for migration in migrations:
        if migration.version <= 9:
            (tmp_path / migration.name).write_text(migration.sql)
    migrate(empty_dsn, folder=tmp_path)
    done = call("verify", "--json", dsn=empty_dsn)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["breaches"]) == (1, "", len(migrations) - 9)
    assert list(found["invariants"]) == ["migrations_are_this_versions"]
    assert {item["what"] for item in found["left_out"]} == {*invariant_names()[1:], "sample"}
    assert (
        "0010_create_current_spectrograms.sql: has not been applied: run spectralize migrate"
        in call("verify", dsn=empty_dsn).stdout
    )
    migrate(empty_dsn)
    with connect(empty_dsn) as connection:
        findings = verify_store(connection)
    assert [finding.name for finding in findings] == invariant_names()
    assert not [finding for finding in findings if finding.n_breaches]


def lower_a_cell(spectrogram: str, frame_index: int) -> str:
    """Lower one cell of one frame by a dB."""
    return (
        "UPDATE spectralize.mel_frames SET mel = (SELECT array_agg(CASE WHEN band = 40 THEN cell - 1 ELSE cell END "
        "ORDER BY band)::halfvec FROM unnest(mel::real[]) WITH ORDINALITY AS cells (cell, band)) "
        f"WHERE spectrogram_id = {spectrogram} AND frame_index = {frame_index}"
    )


def test_the_command_names_each_of_ten_breaches(store: Store, empty_dsn: str) -> None:
    migrate(empty_dsn)
    with connect(empty_dsn) as connection:
        source = store.source.model_copy(update={"profiles": ("seed2020_pcm", "speech80_16k")})
        store = replace(store, dsn=empty_dsn, connection=connection, source=source)
        for number, key in enumerate(("altered", "other_bytes", "lost", "doubled", "peak", "forgotten")):
            store.put(f"{key}.wav", wav(2.0, seed=number))
        store.ingest()
        done = call("verify", "--json", "--sample", "100", dsn=empty_dsn)
        clean = json.loads(done.stdout)
        assert (done.returncode, done.stderr, clean["breaches"], clean["left_out"]) == (0, "", 0, [])
        assert (clean["sample"]["spectrograms"], clean["sample"]["read"]) == (12, 12)
        assert clean["sample"]["equal_rows"] == clean["sample"]["rows"] > 6 * (87 + 201) * 2

        ids = {
            (key.removesuffix(".wav"), profile): spectrogram_id for key, profile, spectrogram_id in store.rows(
                "SELECT key, profile, spectrogram_id FROM spectralize.current_spectrograms")
        }  # fmt: skip
        altered, lost, peak = ids["altered", "seed2020_pcm"], ids["lost", "seed2020_pcm"], ids["peak", "speech80_16k"]
        doubled = ids["doubled", "speech80_16k"]
        store.put("other_bytes.wav", wav(2.0, seed=9))
        etag = store.client.head_object(Bucket=source.bucket, Key="other_bytes.wav")["ETag"].strip('"')
        [(chunk_index,)] = store.rows(CHUNK_INDEX)
        for statement in (
            lower_a_cell(str(altered), 20),
            f"UPDATE spectralize.objects SET etag = '{etag}' WHERE key = 'other_bytes.wav'",
            f"DROP INDEX {chunk_index}",
            f"DELETE FROM spectralize.mel_frames WHERE spectrogram_id = {lost} AND frame_index = 11",
            "INSERT INTO spectralize.waveform_frames SELECT * FROM spectralize.waveform_frames "
            f"WHERE spectrogram_id = {doubled} AND frame_index = 12",
            "UPDATE spectralize.batches SET unchanged = unchanged + 1",
            "INSERT INTO spectralize.mel_seconds SELECT second_at, 4711, second_index, n_frames, rms, peak, mel_mean, mel_std "
            "FROM spectralize.mel_seconds LIMIT 1",
            f"UPDATE spectralize.spectrograms SET peak_db = peak_db + 3 WHERE spectrogram_id = {peak}",
            "UPDATE spectralize.schema_migrations SET checksum = repeat('0', 64) WHERE version = 5",
            "UPDATE spectralize.objects SET forgotten_at = now() WHERE key = 'forgotten.wav'",
        ):
            assert connection.execute(statement).rowcount in {1, -1}, statement
        connection.commit()
        done = call("verify", "--json", "--sample", "100", dsn=empty_dsn)
        found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["left_out"]) == (1, "", [])
    broken = {
        name: [f"{breach['what']}: {breach['breach']}" for breach in breaches]
        for name, breaches in found["invariants"].items() if breaches
    }  # fmt: skip
    what = f"s3://{source.bucket}/"
    expected = {
        "migrations_are_this_versions": ["0005_create_spectrograms.sql: was applied with sha256 000000000000…"],
        "frames_are_contiguous": [f"{lost}: 86 frames, 86 distinct, from 0 to 86; n_frames is 87"],
        "waveform_is_contiguous": [f"{doubled}: 201 hops, 200 distinct, from 0 to 199; n_hops is 200"],
        "no_orphan_rows": ["4711: 1 rows of mel_seconds belong to no living spectrogram"],
        "batch_sums_hold": ["batch 1: listed 6 = unchanged 1 + planned 6"],
        "forgotten_is_gone": [f"{what}forgotten.wav: "] * 9,
        "peaks_are_the_highest_cells": [f"{peak}: peak_db is "],
        "chunks_have_the_indexes": ["chunk _hyper_1_1_chunk of mel_frames: it has no index btree (spectrogram_id, frame_time)"],
        "objects_are_unchanged": ["spectrogram "] * 2,
        "frames_equal_a_fresh_decode": [f"spectrogram {altered} ({what}altered.wav, seed2020_pcm): mel_frames: 1 row differs",
                                        f"spectrogram {peak} ({what}peak.wav, speech80_16k): peak_db is "],
        "frames_equal_librosa": [f"spectrogram {altered} ({what}altered.wav, seed2020_pcm): mel_frames: 1 row differs"],
    }  # fmt: skip
    assert broken.keys() == expected.keys(), broken
    for name, starts in expected.items():
        lines = sorted(broken[name])
        assert len(lines) == len(starts), (name, lines)
        assert all(any(line.startswith(start) for start in starts) for line in lines), (name, lines)
    assert all(f"({what}other_bytes.wav, " in line for line in broken["objects_are_unchanged"])
    assert found["breaches"] >= 18
