"""What maintenance takes, what it leaves, and that ledger and frames agree after each step."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from local.stack import Stack
from spectralize import expiry, ledger, retention
from spectralize.database import connect
from spectralize.errors import ConfigError, ServiceError
from spectralize.maintenance import (
    convert_to_columnstore,
    drop_expired_chunks,
    remove_superseded,
    repair_indexes,
    report_store,
)
from spectralize.planner import has_work
from tests.conftest import _superuser_dsn
from tests.store import CONTENT, Store, encode, make_samples, wav

NOW = timedelta(0)
WEEK = timedelta(days=7)
PATTERN = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})_(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})"

#: Everything that maintenance could change.
ALL_ROWS = """
SELECT (SELECT md5(string_agg(s::text, ' ' ORDER BY spectrogram_id)) FROM spectralize.spectrograms AS s),
       (SELECT count(*) FROM spectralize.mel_frames), (SELECT count(*) FROM spectralize.waveform_frames),
       (SELECT count(*) FROM spectralize.mel_seconds),
       (SELECT string_agg(chunk_name, ' ' ORDER BY chunk_name) FROM timescaledb_information.chunks)
"""


def statuses(store: Store) -> dict[str, list[tuple[str, str | None]]]:
    """Status and reason of each key's spectrograms, in the order in which they were made."""
    found: dict[str, list[tuple[str, str | None]]] = {}
    for key, status, because in store.rows(
        "SELECT o.key, s.status, s.expired_because FROM spectralize.spectrograms AS s JOIN spectralize.objects AS o "
        "USING (object_id) WHERE o.bucket = %s ORDER BY o.key, s.spectrogram_id", store.source.bucket,
    ):  # fmt: skip
        found.setdefault(key, []).append((status, because))
    return found


def content(store: Store) -> list[tuple[Any, ...]]:
    return store.rows(CONTENT, store.source.bucket)


def pin(store: Store, key: str) -> None:
    store.rows(
        "WITH snapshot AS (INSERT INTO spectralize.snapshots (name) VALUES (gen_random_uuid()::text) RETURNING snapshot_id) "
        "INSERT INTO spectralize.snapshot_spectrograms SELECT snapshot_id, spectrogram_id FROM snapshot, "
        "(SELECT spectrogram_id FROM spectralize.spectrograms JOIN spectralize.objects USING (object_id) "
        " WHERE bucket = %s AND key = %s AND status <> 'expired' ORDER BY spectrogram_id LIMIT 1) AS oldest "
        "RETURNING 1",
        store.source.bucket, key,
    )  # fmt: skip


def age(store: Store, by: timedelta) -> None:
    """Let this bucket's history have happened earlier."""
    objects = "object_id IN (SELECT object_id FROM spectralize.objects WHERE bucket = %s)"
    store.connection.execute(
        f"UPDATE spectralize.spectrograms SET loaded_at = loaded_at - %s WHERE {objects}", (by, store.source.bucket)
    )
    store.connection.execute(
        f"UPDATE spectralize.objects SET listed_since = listed_since - %s WHERE {objects}", (by, store.source.bucket)
    )
    store.connection.commit()


@pytest.fixture
def tidy(store: Store) -> Store:
    """A store in which nothing of earlier tests is superseded."""
    remove_superseded(store.connection, grace=NOW)
    return store


def test_what_was_replaced_is_removed_and_readers_see_no_difference(tidy: Store) -> None:
    store = tidy
    store.put("a.wav", wav(seed=1))
    store.put("b.wav", wav(2.0, seed=2))
    store.put("c.wav", wav(seed=3))
    store.ingest()
    store.put("b.wav", wav(seed=4))
    store.ingest()
    store.delete("c.wav")
    store.ingest(force=True)
    before, rows = content(store), store.rows(ALL_ROWS)
    found = remove_superseded(store.connection, grace=NOW, dry_run=True)
    assert store.rows(ALL_ROWS) == rows
    assert (found.is_dry_run, found.n_spectrograms) == (True, 3)
    assert str(found).startswith("3 superseded spectrograms would be removed, 0.00 h with ")
    done = remove_superseded(store.connection, grace=NOW)
    assert (replace(done, is_dry_run=True), done.is_dry_run) == (found, False)
    assert content(store) == before
    old, new = ("expired", "superseded"), ("complete", None)
    assert statuses(store) == {"a.wav": [old, new], "b.wav": [old, old, new], "c.wav": [new]}
    assert store.breaches() == {}
    assert remove_superseded(store.connection, grace=NOW).n_spectrograms == 0
    assert store.ingest().counts.unchanged == 2


def test_the_grace_begins_when_the_current_one_was_loaded_or_returned(tidy: Store) -> None:
    store = tidy
    store.put("a.wav", wav(seed=1))
    store.ingest()
    age(store, timedelta(days=9))
    store.put("a.wav", wav(seed=2))
    store.ingest()
    day = timedelta(days=1)
    assert remove_superseded(store.connection, grace=day, dry_run=True).n_spectrograms == 0
    age(store, timedelta(days=2))
    assert remove_superseded(store.connection, grace=day, dry_run=True).n_spectrograms == 1
    # The first content returns: now the second is superseded, since just now, although both were loaded long ago.
    store.put("a.wav", wav(seed=1))
    store.ingest()
    assert remove_superseded(store.connection, grace=day).n_spectrograms == 0
    assert remove_superseded(store.connection, grace=NOW).n_spectrograms == 1
    assert statuses(store) == {"a.wav": [("complete", None), ("expired", "superseded")]}


def test_a_partial_one_yields_to_a_complete_one_of_the_same_object_only(tidy: Store) -> None:
    store = tidy
    whole = encode(make_samples(3.0), 22_050, "FLAC")
    store.put("same.flac", whole)
    store.put("newer.flac", whole)
    store.ingest()
    store.put("newer.flac", whole[: len(whole) // 2])
    assert store.ingest().counts.outcomes["partial"] == 1
    forced = store.ingest(force=True)
    # As if another version of the decoder had found the same object damaged.
    for statement in (
        "UPDATE spectralize.spectrograms SET status = 'partial' WHERE batch_id = %s AND status = 'complete'",
        "UPDATE spectralize.batch_objects SET outcome = 'partial' WHERE batch_id = %s",
        "UPDATE spectralize.batch_object_attempts SET outcome = 'partial' WHERE batch_id = %s",
        "UPDATE spectralize.batches SET loaded = 0, partial = 2 WHERE batch_id = %s",
    ):
        store.connection.execute(statement, (forced.batch_id,))
    store.connection.commit()
    before = content(store)
    remove_superseded(store.connection, grace=NOW)
    old = ("expired", "superseded")
    assert statuses(store) == {
        "same.flac": [("complete", None), old],
        "newer.flac": [old, old, ("partial", None)],
    }
    assert content(store) == before
    assert store.breaches() == {}


def test_the_last_living_one_stays_although_its_object_was_overwritten(tidy: Store) -> None:
    store = tidy
    store.put("a.wav", wav())
    store.ingest()
    store.put("a.wav", b"no audio at all")
    assert store.ingest().counts.outcomes["rejected"] == 1
    assert remove_superseded(store.connection, grace=NOW).n_spectrograms == 0
    assert statuses(store) == {"a.wav": [("complete", None)]}


def test_what_is_in_a_snapshot_stays(tidy: Store) -> None:
    store = tidy
    store.put("a.wav", wav())
    store.ingest()
    pin(store, "a.wav")
    store.ingest(force=True)
    assert remove_superseded(store.connection, grace=NOW).n_spectrograms == 0
    store.rows("DELETE FROM spectralize.snapshot_spectrograms RETURNING 1")
    assert remove_superseded(store.connection, grace=NOW).n_spectrograms == 1
    with pytest.raises(psycopg.Error, match="has expired: it cannot be kept in a snapshot"):
        store.rows(
            "INSERT INTO spectralize.snapshot_spectrograms SELECT (SELECT max(snapshot_id) FROM spectralize.snapshots), "
            "max(spectrogram_id) FROM spectralize.spectrograms WHERE status = 'expired' RETURNING 1"
        )
    store.connection.rollback()
    assert store.breaches() == {}


def test_a_snapshot_taken_meanwhile_is_honoured(tidy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tidy
    store.put("a.wav", wav())
    store.ingest()
    store.ingest(force=True)
    real = expiry.lock_expiry

    def take_snapshot(connection: psycopg.Connection[Any]) -> None:
        with connect(store.dsn) as other:
            pin(replace(store, connection=other), "a.wav")
        real(connection)

    monkeypatch.setattr(expiry, "lock_expiry", take_snapshot)
    assert remove_superseded(store.connection, grace=NOW).n_spectrograms == 0
    assert statuses(store) == {"a.wav": [("complete", None)] * 2}
    assert store.breaches() == {}


def test_content_that_returns_after_it_was_removed_is_computed_again(tidy: Store) -> None:
    store = tidy
    first = wav(seed=1)
    store.put("a.wav", first)
    store.ingest()
    before = content(store)
    store.put("a.wav", wav(seed=2))
    store.ingest()
    remove_superseded(store.connection, grace=NOW)
    assert not has_work(store.connection, store.client, store.source)
    store.put("a.wav", first)
    assert has_work(store.connection, store.client, store.source)
    batch = store.ingest()
    assert (batch.counts.planned, batch.counts.outcomes["loaded"]) == (1, 1)
    # As it was, but for its generation, and its time: the key tells none, so that is when it was uploaded.
    [old], [new] = before, content(store)
    assert new[4] == batch.batch_id
    assert new[:4] + new[5:11] + new[12:] == old[:4] + old[5:11] + old[12:]
    assert store.ingest().counts.unchanged == 1
    assert store.breaches() == {}


def test_a_negative_time_is_refused(store: Store) -> None:
    for call in (
        lambda: remove_superseded(store.connection, grace=-WEEK),
        lambda: drop_expired_chunks(store.connection, {"birds": -WEEK}),
        lambda: convert_to_columnstore(store.connection, after=-WEEK),
    ):
        with pytest.raises(ConfigError, match="negative"):
            call()


class Years:
    """Recordings in a year of their own, whose chunks no other test shares."""

    _next = 1975

    def __init__(self, store: Store) -> None:
        Years._next += 2
        self.store = store
        self.source = f"old{Years._next}"
        store.source = store.source.model_copy(update={"time_patterns": (PATTERN,), "name": self.source})
        # The hypertables' weeks begin on Thursdays, as 1970 did.
        weeks = (datetime(Years._next, 6, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // WEEK
        self.boundary = datetime(1970, 1, 1, tzinfo=UTC) + weeks * WEEK

    def put(self, offset: timedelta, *, seconds: float = 1.0, name: str = "", seed: int = 0) -> str:
        """A recording that begins so long after the start of a certain chunk."""
        key = f"{name}{self.boundary + offset:%Y%m%d_%H%M%S}.wav"
        self.store.put(key, wav(seconds, seed=seed))
        return key

    def ingest(self, source: str | None = None) -> None:
        self.store.source = self.store.source.model_copy(update={"name": source or self.source})
        self.store.ingest()

    def drop(self, keep: timedelta = WEEK, *others: str, **options: Any) -> retention.Retention:
        """Retention as it stands ten weeks after the start of that chunk."""
        sources = dict.fromkeys((self.source, *others), keep)
        return drop_expired_chunks(self.store.connection, sources, now=self.boundary + 10 * WEEK, **options)

    def chunks(self, table: str = "mel_frames") -> list[int]:
        """The chunks that exist near the boundary, as days from it."""
        rows = self.store.rows(
            "SELECT range_start FROM timescaledb_information.chunks WHERE hypertable_name = %s "
            "AND range_start BETWEEN %s AND %s ORDER BY 1",
            table, self.boundary - 20 * WEEK, self.boundary + 20 * WEEK,
        )  # fmt: skip
        return [(start - self.boundary).days for (start,) in rows]


@pytest.fixture
def years(store: Store) -> Years:
    return Years(store)


HOUR = timedelta(hours=1)
GONE = ("expired", "retention")
THERE = ("complete", None)


def test_chunks_go_when_the_time_of_all_in_them_has_run_out(years: Years) -> None:
    store = years.store
    first, second = years.put(HOUR), years.put(2 * HOUR, seconds=2.0)
    years.ingest()
    assert years.chunks() == [0]
    rows = store.rows(ALL_ROWS)
    # Counted from the end of the recording: the second lasts until two seconds after its beginning.
    barely = 10 * WEEK - 2 * HOUR - timedelta(seconds=2)
    assert years.drop(barely).n_chunks == 0
    assert drop_expired_chunks(store.connection, {}).n_chunks == 0
    found = years.drop(dry_run=True)
    assert store.rows(ALL_ROWS) == rows
    assert (found.n_spectrograms, found.n_chunks, found.n_waiting) == (2, 3, 0)
    done = years.drop(barely - timedelta(seconds=1))
    assert (replace(done, is_dry_run=True), done.is_dry_run) == (found, False)
    assert done.n_bytes > 10_000
    assert years.chunks() == years.chunks("waveform_frames") == years.chunks("mel_seconds") == []
    assert statuses(store) == {first: [GONE], second: [GONE]}
    assert store.breaches() == {}
    assert years.drop().n_chunks == 0
    # Scheduled runs leave it alone; a forced one computes it again.
    assert not has_work(store.connection, store.client, store.source)
    assert store.ingest().counts.unchanged == 2
    assert store.ingest(force=True).counts.outcomes["loaded"] == 2
    assert statuses(store) == {first: [GONE, THERE], second: [GONE, THERE]}
    assert store.breaches() == {}


def test_a_recording_across_two_chunks_leaves_the_one_that_stays(years: Years) -> None:
    store = years.store
    across = years.put(timedelta(seconds=-3), seconds=6.0, seed=1)
    waiting = years.put(HOUR, seconds=2.0, seed=2)
    years.ingest()
    young = years.put(2 * HOUR, seconds=2.0, seed=3)
    years.ingest("kept")
    assert years.chunks() == [-7, 0]
    before = [row for row in content(store) if row[1] != across]
    done = years.drop()
    # Frames, hops and seconds that lie in the second chunk, and the seconds whose chunk holds both weeks.
    assert (done.n_spectrograms, done.n_waiting, done.n_chunks) == (1, 1, 2)
    assert done.n_trimmed_rows > 200
    assert years.chunks() == years.chunks("waveform_frames") == [0]
    assert statuses(store) == {across: [GONE], waiting: [THERE], young: [THERE]}
    assert content(store) == before
    assert store.breaches() == {}
    assert years.drop(WEEK, "kept").n_spectrograms == 2
    assert years.chunks() == years.chunks("mel_seconds") == []
    assert store.breaches() == {}


def test_recordings_across_all_chunks_do_not_keep_each_other_for_ever(years: Years) -> None:
    # A recorder that never stops: each chunk shares a recording with the next, up to one that is too young to go.
    store = years.store
    keys = [years.put(week * WEEK - timedelta(seconds=2), seconds=4.0, seed=week) for week in range(6)]
    years.ingest()
    done = years.drop(6 * WEEK + timedelta(days=3))
    assert [statuses(store)[key] for key in keys] == [[GONE]] * 4 + [[THERE]] * 2
    assert done.n_spectrograms == 4
    assert years.chunks() == [21, 28, 35]
    assert store.breaches() == {}


def test_sources_that_share_a_chunk_wait_for_each_other(years: Years) -> None:
    store = years.store
    mine = years.put(HOUR)
    years.ingest()
    other = years.put(2 * HOUR)
    years.ingest("other")
    rows = store.rows(ALL_ROWS)
    done = years.drop()
    assert (done.n_chunks, done.n_spectrograms, done.n_waiting) == (0, 0, 1)
    assert store.rows(ALL_ROWS) == rows
    assert years.drop(WEEK, "other").n_spectrograms == 2
    assert statuses(store) == {mine: [GONE], other: [GONE]}
    assert store.breaches() == {}


def test_a_snapshot_keeps_its_chunk(years: Years) -> None:
    store = years.store
    pinned, free = years.put(HOUR), years.put(2 * HOUR)
    alone = years.put(3 * WEEK)
    years.ingest()
    pin(store, pinned)
    before = content(store)[:2]
    done = years.drop()
    assert (done.n_spectrograms, done.n_waiting) == (1, 1)
    assert statuses(store) == {pinned: [THERE], free: [THERE], alone: [GONE]}
    assert content(store) == before
    assert store.breaches() == {}


def test_retention_does_not_bring_back_what_was_overwritten(years: Years) -> None:
    # The new one's time was read from another part of the key: it lies in a chunk that goes, while the old one is kept.
    store = years.store
    store.source = store.source.model_copy(update={"time_patterns": ("_or_" + PATTERN,)})
    name = f"{years.boundary + 3 * WEEK:%Y%m%d_%H%M%S}_or_"
    key = years.put(HOUR, name=name, seed=1)
    years.ingest()
    pin(store, key)
    years.put(HOUR, name=name, seed=2)
    store.source = store.source.model_copy(update={"time_patterns": (PATTERN,)})
    years.ingest()
    assert years.drop().n_spectrograms == 1
    assert statuses(store) == {key: [THERE, GONE]}
    assert content(store) == []
    remove_superseded(store.connection, grace=NOW)
    assert statuses(store) == {key: [THERE, GONE]}
    assert store.breaches() == {}


def test_what_removals_have_left_empty_goes_too(years: Years) -> None:
    store = years.store
    years.put(HOUR, name="a", seed=1)
    years.ingest()
    store.put(f"a{years.boundary + HOUR:%Y%m%d_%H%M%S}.wav", wav(seed=2))
    years.ingest()
    remove_superseded(store.connection, grace=NOW)
    assert drop_expired_chunks(store.connection, {years.source: 10 * WEEK}, now=years.boundary + WEEK).n_chunks == 0
    assert years.chunks() == [0]
    assert years.drop().n_chunks == 3
    assert store.breaches() == {}


@contextmanager
def held_load(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Plan a batch and load it in a second connection, up to just before the commit; yields what lets it go on."""
    batch = store.plan()
    written, go_on = threading.Event(), threading.Event()
    real = ledger.record_outcomes

    def hold(*arguments: Any) -> None:
        real(*arguments)
        written.set()
        assert go_on.wait(60)

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(ledger, "record_outcomes", hold)
        load = pool.submit(store.compute, batch)
        try:
            assert written.wait(60)

            def finish() -> Any:
                go_on.set()
                load.result(60)
                return store.finish(batch)

            yield finish
        finally:
            go_on.set()


def test_retention_gives_up_behind_a_load_and_judges_anew_after_it(
    years: Years, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = years.store
    old = years.put(HOUR, seed=1)
    years.ingest()
    new = years.put(2 * HOUR, seed=2)
    store.source = store.source.model_copy(update={"name": "kept"})
    rows = store.rows(ALL_ROWS)
    with held_load(store, monkeypatch) as finish_load:
        monkeypatch.setattr(retention, "_LOCK_TIMEOUT_MS", 200)
        with pytest.raises(ServiceError, match="in use by a load or a reader; nothing was changed, try again later"):
            years.drop()
        assert store.rows(ALL_ROWS) == rows
        monkeypatch.setattr(retention, "_LOCK_TIMEOUT_MS", 30_000)
        waits = threading.Event()
        real = retention._drop

        def drop_chunk(*arguments: Any) -> None:
            waits.set()
            real(*arguments)

        monkeypatch.setattr(retention, "_drop", drop_chunk)
        with ThreadPoolExecutor(1) as pool, connect(store.dsn) as connection:
            drop = pool.submit(Years.drop, replace_connection(years, connection))
            assert waits.wait(30)
            assert finish_load().counts.outcomes["loaded"] == 1
            # What the load brought must stay, and with it the chunk.
            assert drop.result(60).n_chunks == 0
    assert statuses(store) == {old: [THERE], new: [THERE]}
    assert store.breaches() == {}
    assert years.drop(WEEK, "kept").n_spectrograms == 2


def replace_connection(years: Years, connection: psycopg.Connection[Any]) -> Years:
    other = object.__new__(Years)
    other.__dict__ = years.__dict__ | {"store": replace(years.store, connection=connection)}
    return other


def test_a_load_that_waits_for_retention_finds_or_makes_another_chunk(
    years: Years, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = years.store
    old = years.put(HOUR, seed=1)
    years.ingest()
    new = years.put(2 * HOUR, seed=2)
    store.source = store.source.model_copy(update={"name": "kept"})
    batch = store.plan()
    dropping, go_on = threading.Event(), threading.Event()
    real = retention.mark_expired

    def hold(*arguments: Any) -> None:
        dropping.set()
        assert go_on.wait(60)
        real(*arguments)

    monkeypatch.setattr(retention, "mark_expired", hold)
    with ThreadPoolExecutor(2) as pool, connect(store.dsn) as connection:
        drop = pool.submit(Years.drop, replace_connection(years, connection))
        assert dropping.wait(30)
        load = pool.submit(store.compute, batch)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
        while not store.rows(waiting, f"spectralize batch {batch.batch_id}")[0][0]:
            assert not load.done()
        go_on.set()
        assert drop.result(60).n_spectrograms == 1
        load.result(60)
    assert store.finish(batch).counts.outcomes["loaded"] == 1
    assert statuses(store) == {old: [GONE], new: [THERE]}
    assert store.breaches() == {}


def test_broken_indexes_are_rebuilt(store: Store, stack: Stack) -> None:
    store.put("a.wav", wav())
    store.ingest()
    assert str(repair_indexes(store.connection)) == "every index is valid"
    [(chunk_index,)] = store.rows(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class AS c ON c.oid = indrelid "
        "JOIN timescaledb_information.chunks ON chunk_name = c.relname WHERE hypertable_name = 'mel_frames' "
        "ORDER BY range_start LIMIT 1"
    )
    database = urlsplit(store.dsn).path.lstrip("/")
    with psycopg.connect(_superuser_dsn(stack, database), autocommit=True) as connection:
        for name in (chunk_index, "spectralize.recordings_sha256_idx"):
            connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (name,))
    assert list(store.breaches()) == ["indexes_are_valid"]
    assert set(repair_indexes(store.connection).indexes) == {chunk_index, "spectralize.recordings_sha256_idx"}
    assert store.breaches() == {}


def test_columnstore_is_left_out_where_the_licence_has_none(store: Store) -> None:
    done = convert_to_columnstore(store.connection, after=NOW)
    assert str(done) == (
        "columnstore left out: the server's timescaledb.license is 'apache', columnstore needs 'timescale'"
    )


def test_the_report_counts_what_is_there(tidy: Store) -> None:
    store = tidy
    before = report_store(store.connection)
    store.put("a.wav", wav(2.0))
    store.ingest()
    store.ingest(force=True)
    remove_superseded(store.connection, grace=NOW)
    after = report_store(store.connection)
    assert (after.n_living - before.n_living, after.n_current - before.n_current) == (1, 1)
    assert after.expired["superseded"] - before.expired["superseded"] == 1
    assert after.hours - before.hours == pytest.approx(2 / 3600, abs=1e-4)
    assert after.half_bytes - before.half_bytes == 87 * 128 * 2
    tables = {table.name: table for table in after.tables}
    for name, what in (("mel_frames", "frame_time"), ("waveform_frames", "frame_time"), ("mel_seconds", "second_at")):
        assert [(tables[name].n_rows,)] == store.rows(f"SELECT count(*) FROM spectralize.{name}")
        [(oldest, newest)] = store.rows(f"SELECT min({what}), max({what}) FROM spectralize.{name}")
        assert (tables[name].oldest or "") <= oldest.isoformat() <= newest.isoformat() < (tables[name].newest or "")
    assert after.disk_bytes == sum(table.n_bytes for table in after.tables)
    assert {"batches", "objects", "recordings", "spectrograms"} <= set(tables)
    assert set(asdict(after)) >= {"n_living", "expired", "tables"}
    store.connection.rollback()
