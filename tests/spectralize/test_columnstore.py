"""On the edition of TimescaleDB that has a columnstore, old chunks go into it, and everything works on them as before.

That edition is not the one of the embedded stack, where `test_maintenance` has it left out: see tests/community.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.stack import Stack
from spectralize.database import connect
from spectralize.forget import forget
from spectralize.ledger import Batch
from spectralize.maintenance import (
    Conversion,
    convert_to_columnstore,
    drop_expired_chunks,
    remove_superseded,
    repair_indexes,
    report_store,
)
from spectralize.migrations import migrate, read_migrations
from spectralize.verify import verify_store
from tests.community.engine import UnavailableError, run_community
from tests.conftest import fresh_database
from tests.store import CONTENT, Store, wav

NOW = timedelta(0)
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
PATTERN = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})_(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})"

CHUNKS = """
SELECT hypertable_name, chunk_name, range_end <= now(), is_compressed
FROM timescaledb_information.chunks WHERE hypertable_schema = 'spectralize' ORDER BY 1, 2
"""

SETTINGS = """
SELECT hypertable::text, segmentby, orderby FROM timescaledb_information.hypertable_columnstore_settings ORDER BY 1
"""

#: What the server itself says of the chunks that it has converted.
SIZES = """
SELECT chunk_name, before_compression_total_bytes, after_compression_total_bytes
FROM unnest('{mel_frames,waveform_frames,mel_seconds}'::text[]) AS hypertable (name),
     chunk_columnstore_stats(format('spectralize.%%I', name)::regclass)
WHERE chunk_name = ANY (%s)
"""

#: The tables that hold the columns of converted chunks.
COLUMNS = "SELECT relname FROM pg_class WHERE relname LIKE 'compress\\_hyper\\_%%\\_chunk' AND relkind = 'r' AND 1 = %s"

WINDOW = """
SELECT frame_index, frame_time, mel FROM spectralize.mel_frames
WHERE spectrogram_id = %s AND frame_time >= %s AND frame_time < %s ORDER BY frame_time
"""

_tests, _weeks, _sounds = itertools.count(), itertools.count(), itertools.count()


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """The edition with a columnstore, migrated from nothing."""
    try:
        with run_community() as dsn:
            assert migrate(dsn) == [migration.name for migration in read_migrations()]
            yield dsn
    except UnavailableError as error:
        # A test that is always skipped would look like one that passes.
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Community edition of TimescaleDB: {error}")


@pytest.fixture
def archive(store: Store) -> Iterator[Store]:
    """A store whose keys tell the time, and in which earlier tests have left nothing to maintain."""
    store.source = store.source.model_copy(update={"time_patterns": (PATTERN,), "name": f"archive{next(_tests)}"})
    remove_superseded(store.connection, grace=NOW)
    convert(store)
    yield store
    store.connection.close()


@pytest.fixture
def week() -> datetime:
    """The start of a chunk that no other test shares.

    The hypertables' weeks begin on Thursdays, as 1970 did. This one, and those beside it, lie within one chunk of
    `mel_seconds`, which has 30 days: it begins ten days after that, and so does every thirtieth week from it.
    """
    return datetime(1970, 1, 1, tzinfo=UTC) + (1600 + 30 * next(_weeks)) * WEEK


def put(store: Store, at: datetime, seconds: float = 2.0) -> str:
    """A recording that begins then, and is like no other."""
    key = f"{at:%Y%m%d_%H%M%S}.wav"
    store.put(key, wav(seconds, seed=next(_sounds)))
    return key


def ingest(store: Store, **options: Any) -> Batch:
    """One whole batch. The engine has one session, so ours ends for the time in which the executor needs it."""
    batch = store.plan(**options)
    store.connection.close()
    store.compute(batch)
    store.connection = connect(store.dsn)
    return store.finish(batch)


def convert(store: Store, **options: Any) -> Conversion:
    return convert_to_columnstore(store.connection, after=NOW, **options)


def content(store: Store) -> list[tuple[Any, ...]]:
    return store.rows(CONTENT, store.source.bucket)


def statuses(store: Store) -> list[tuple[str, str, str | None]]:
    """Key, status and reason of each spectrogram, in the order in which they were made."""
    return store.rows(
        "SELECT o.key, s.status, s.expired_because FROM spectralize.spectrograms AS s "
        "JOIN spectralize.objects AS o USING (object_id) WHERE o.bucket = %s ORDER BY o.key, s.spectrogram_id",
        store.source.bucket,
    )


def spectrogram_of(store: Store, key: str) -> int:
    [(spectrogram_id,)] = store.rows(
        "SELECT spectrogram_id FROM spectralize.current_spectrograms WHERE bucket = %s AND key = %s",
        store.source.bucket, key,
    )  # fmt: skip
    return int(spectrogram_id)


def copy_window(store: Store, key: str, start: datetime, end: datetime) -> bytes:
    """The rows of a window as the server copies them out, in binary."""
    values = (spectrogram_of(store, key), start, end)
    with store.connection.cursor() as cursor, cursor.copy(f"COPY ({WINDOW}) TO STDOUT (FORMAT binary)", values) as copy:
        data = b"".join(copy)
    store.connection.commit()
    return data


def explain_window(store: Store, key: str, start: datetime, end: datetime) -> str:
    plan = store.rows(f"EXPLAIN {WINDOW}", spectrogram_of(store, key), start, end)
    return "\n".join(line for (line,) in plan)


def test_old_chunks_are_converted_and_nothing_else_changes(archive: Store, week: datetime) -> None:
    store = archive
    put(store, week + HOUR, 20.0)
    put(store, week + 2 * HOUR, 10.0)
    put(store, week - timedelta(seconds=5), 10.0)
    store.put("just_now.wav", wav(2.0, seed=next(_sounds)))
    assert ingest(store).counts.outcomes["loaded"] == 4
    before, chunks, settings = content(store), store.rows(CHUNKS), store.rows(SETTINGS)
    old = [name for _, name, has_ended, is_converted in chunks if has_ended and not is_converted]
    # Two weeks of frames and of hops, a month of seconds.
    assert len(old) == 5

    found = convert(store, dry_run=True)
    assert (store.rows(CHUNKS), store.rows(SETTINGS)) == (chunks, settings)
    assert (found.is_dry_run, found.left_out, found.n_chunks) == (True, None, 5)
    assert found.bytes_after == found.bytes_before

    done = convert(store)
    assert replace(done, is_dry_run=True, bytes_after=done.bytes_before) == found
    sizes = store.rows(SIZES, old)
    assert len(sizes) == 5
    assert done.bytes_before == sum(size for _, size, _ in sizes)
    assert sum(size for *_, size in sizes) <= done.bytes_after < done.bytes_before
    assert str(done).startswith(
        f"5 chunks converted to columnstore, {done.bytes_before / 1e6:.1f} MB before, {done.bytes_after / 1e6:.1f} MB after: "
    )
    assert f"mel_frames {week - WEEK:%Y-%m-%d}" in done.chunks
    assert store.rows(SETTINGS) == [
        ("spectralize.mel_frames", "spectrogram_id", "frame_time"),
        ("spectralize.mel_seconds", "spectrogram_id", "second_at"),
        ("spectralize.waveform_frames", "spectrogram_id", "frame_time"),
    ]
    assert store.rows(CHUNKS) == [
        (table, name, has_ended, is_converted or name in old) for table, name, has_ended, is_converted in chunks
    ]
    assert content(store) == before
    assert store.breaches() == {}

    again = convert(store)
    assert str(again) == "0 chunks converted to columnstore, 0.0 MB before, 0.0 MB after"
    # What grows old later is converted then.
    put(store, week + 2 * WEEK)
    ingest(store)
    assert convert(store).n_chunks == 2
    assert store.breaches() == {}


def test_a_window_of_a_converted_chunk_has_the_same_rows(archive: Store, week: datetime) -> None:
    store = archive
    key = put(store, week + HOUR, 30.0)
    put(store, week + 2 * HOUR, 5.0)
    put(store, week + WEEK, 5.0)
    ingest(store)
    window = (key, week + HOUR + timedelta(seconds=12), week + HOUR + timedelta(seconds=14))
    before = copy_window(store, *window)
    assert "Columnar" not in explain_window(store, *window)
    convert(store)
    assert copy_window(store, *window) == before
    # 86 frames of 2 s; without this one could compare nothing with nothing.
    assert len(before) == 19 + 86 * (2 + 4 + 4 + 4 + 8 + 4 + 4 + 2 * 128) + 2
    # From the columns, by their index, and from one chunk alone.
    plan = explain_window(store, *window)
    assert plan.count("ColumnarScan") == 1
    assert plan.count("spectrogram_id__ts_meta_min") == 1
    assert "Seq Scan" not in plan


def test_both_editions_hold_the_same(archive: Store, week: datetime, stack: Stack) -> None:
    store = archive
    key = put(store, week + HOUR, 20.0)
    put(store, week - timedelta(seconds=2), 4.0)
    store.put("broken.wav", b"no audio at all")
    window = (key, week + HOUR + timedelta(seconds=3), week + HOUR + timedelta(seconds=5))
    ingest(store)
    convert(store)
    with fresh_database(stack, "columnstore_apache") as dsn:
        migrate(dsn)
        with connect(dsn) as connection:
            apache = replace(store, dsn=dsn, connection=connection)
            apache.ingest()
            assert convert(apache).left_out
            assert content(apache) == content(store)
            assert len(content(apache)) == 2
            assert copy_window(apache, *window) == copy_window(store, *window)
            assert apache.breaches() == {}
    assert store.breaches() == {}


def test_what_is_loaded_into_a_converted_chunk_is_as_good(archive: Store, week: datetime) -> None:
    store = archive
    first = put(store, week + HOUR, 5.0)
    ingest(store)
    assert convert(store).n_chunks == 3
    before, chunks = content(store), store.rows(CHUNKS)
    # Long enough to be streamed: its transaction has many COPYs, and the claim last.
    late = put(store, week + 2 * HOUR, 100.0)
    # Across the end of the converted chunk, into one that is made by the load.
    across = put(store, week + WEEK - timedelta(seconds=2), 4.0)
    batch = ingest(store)
    assert batch.counts.outcomes["loaded"] == 2
    after = content(store)
    assert [row[1] for row in after] == [first, late, across]
    assert after[:1] == before
    assert store.breaches() == {}
    # The chunk stays as it was, with the new rows beside its columns.
    assert set(chunks) < set(store.rows(CHUNKS))
    assert convert(store).n_chunks == 2
    assert content(store) == after
    assert store.breaches() == {}
    # A forced run computes all of it again.
    assert ingest(store, force=True).counts.outcomes["loaded"] == 3
    assert store.breaches() == {}
    assert [row[7:] for row in content(store)] == [row[7:] for row in after]


def test_superseded_rows_leave_a_converted_chunk(archive: Store, week: datetime) -> None:
    store = archive
    replaced = put(store, week + HOUR, 5.0)
    kept = put(store, week + 2 * HOUR, 5.0)
    across = put(store, week - timedelta(seconds=2), 4.0)
    ingest(store)
    convert(store)
    put(store, week + HOUR, 3.0)
    put(store, week - timedelta(seconds=2), 3.0)
    ingest(store)
    before = content(store)
    found = remove_superseded(store.connection, grace=NOW, dry_run=True)
    done = remove_superseded(store.connection, grace=NOW)
    # As many as the ledger says, of which a dry run knows: none was missed in the columns.
    assert (replace(done, is_dry_run=True), done.n_spectrograms) == (found, 2)
    old, new = ("expired", "superseded"), ("complete", None)
    assert statuses(store) == [
        (across, *old), (across, *new), (replaced, *old), (replaced, *new), (kept, *new),
    ]  # fmt: skip
    assert content(store) == before
    assert store.breaches() == {}


def test_retention_drops_converted_chunks_and_trims_those_that_stay(archive: Store, week: datetime) -> None:
    store = archive
    columns = store.rows(COLUMNS, 1)
    source = store.source.name
    across = put(store, week - timedelta(seconds=3), 6.0)
    ingest(store)
    store.source = store.source.model_copy(update={"name": f"{source}kept"})
    young = put(store, week + HOUR)
    ingest(store)
    assert convert(store).n_chunks == 5
    assert len(store.rows(COLUMNS, 1)) == len(columns) + 5
    [_, kept] = content(store)
    later = week + 10 * WEEK
    done = drop_expired_chunks(store.connection, {source: WEEK}, now=later)
    # The week before goes, with frames and hops; what the recording has in the other two chunks is deleted.
    assert (done.n_spectrograms, done.n_chunks) == (1, 2)
    assert done.n_trimmed_rows > 200
    assert done.n_bytes > 10_000
    assert statuses(store) == [(across, "expired", "retention"), (young, "complete", None)]
    assert content(store) == [kept]
    assert store.breaches() == {}
    assert drop_expired_chunks(store.connection, {f"{source}kept": WEEK}, now=later).n_chunks == 3
    # Nothing is left of them, nor of their columns.
    assert store.rows(COLUMNS, 1) == columns
    assert store.breaches() == {}


def test_what_is_forgotten_leaves_a_converted_chunk(archive: Store, week: datetime) -> None:
    store = archive
    key = put(store, week + HOUR, 5.0)
    other = put(store, week + 2 * HOUR, 5.0)
    ingest(store)
    convert(store)
    forgotten = spectrogram_of(store, key)
    [_, kept] = content(store)
    forget(store.connection, store.source.bucket, key)
    for table in ("mel_frames", "waveform_frames", "mel_seconds"):
        assert store.rows(f"SELECT count(*) FROM spectralize.{table} WHERE spectrogram_id = %s", forgotten) == [(0,)]
    assert (content(store), kept[1]) == ([kept], other)
    assert store.breaches() == {}


def test_verify_looks_into_the_columns(archive: Store, week: datetime) -> None:
    store = archive
    key = put(store, week + HOUR, 5.0)
    ingest(store)
    convert(store)
    spectrogram_id = spectrogram_of(store, key)
    breaking = {
        "DELETE FROM spectralize.mel_frames WHERE spectrogram_id = %s AND frame_index = 7": "frames_are_contiguous",
        "UPDATE spectralize.mel_frames SET frame_time = frame_time + interval '1 microsecond' "
        "WHERE spectrogram_id = %s AND frame_index = 7": "frames_are_on_time",
        "DELETE FROM spectralize.waveform_frames WHERE spectrogram_id = %s AND frame_index = 7":
            "waveform_is_contiguous",
        "DELETE FROM spectralize.mel_seconds WHERE spectrogram_id = %s AND second_index = 2": "seconds_are_contiguous",
    }  # fmt: skip
    for statement, invariant in breaking.items():
        assert store.connection.execute(statement, (spectrogram_id,)).rowcount == 1
        findings = verify_store(store.connection, own_transaction=False)
        store.connection.rollback()
        assert [
            (finding.name, breach.what) for finding in findings for breach in finding.breaches
        ] == [(invariant, str(spectrogram_id))]  # fmt: skip
    assert store.breaches() == {}


def test_report_and_indexes_are_those_of_any_store(archive: Store, week: datetime) -> None:
    store = archive
    put(store, week + HOUR, 20.0)
    ingest(store)
    before = report_store(store.connection)
    done = convert(store)
    after = report_store(store.connection)
    rows = {table.name: (table.n_rows, table.n_chunks, table.oldest, table.newest) for table in before.tables[:3]}
    assert {
        table.name: (table.n_rows, table.n_chunks, table.oldest, table.newest) for table in after.tables[:3]
    } == rows
    saved = sum(table.n_bytes for table in before.tables[:3]) - sum(table.n_bytes for table in after.tables[:3])
    assert saved == done.bytes_before - done.bytes_after
    assert str(repair_indexes(store.connection)) == "every index is valid"
