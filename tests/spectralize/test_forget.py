"""Forgetting: nothing of the recording is left, nothing of another is touched, and nothing comes back."""

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from spectralize import cli, isolate, ledger, loader
from spectralize import forget as forgetting
from spectralize.database import connect
from spectralize.errors import LedgerError
from spectralize.forget import Place, find_bucket, forget, plan_forget
from spectralize.maintenance import remove_superseded, report_store
from spectralize.planner import has_work
from tests.store import CONTENT, Store
from tests.store import wav as make_wav

#: Rows about one key that hold something of the recording, table by table.
TRACES = """
WITH own AS (SELECT object_id FROM spectralize.objects WHERE bucket = %(bucket)s AND key = %(key)s),
     computed AS (SELECT spectrogram_id FROM spectralize.spectrograms JOIN own USING (object_id))
SELECT (SELECT count(*) FROM spectralize.recordings JOIN own USING (object_id)),
       (SELECT count(*) FROM spectralize.mel_frames JOIN computed USING (spectrogram_id)),
       (SELECT count(*) FROM spectralize.waveform_frames JOIN computed USING (spectrogram_id)),
       (SELECT count(*) FROM spectralize.mel_seconds JOIN computed USING (spectrogram_id)),
       (SELECT count(*) FROM spectralize.snapshot_spectrograms JOIN computed USING (spectrogram_id)),
       (SELECT count(*) FROM spectralize.current_spectrograms WHERE bucket = %(bucket)s AND key = %(key)s)
"""
NOTHING = (0, 0, 0, 0, 0, 0)


_test = 0


@pytest.fixture(autouse=True)
def own_sounds() -> None:
    """The tests share a database: what one puts must not be a copy of what another has put."""
    global _test
    _test += 1


def wav(seconds: float = 1.0, *, seed: int = 0) -> bytes:
    return make_wav(seconds, seed=100 * _test + seed)


def traces(store: Store, key: str) -> tuple[int, ...]:
    row = store.connection.execute(TRACES, {"bucket": store.source.bucket, "key": key}).fetchone()
    store.connection.commit()
    assert row is not None
    return row


def content(store: Store, key: str) -> list[tuple[Any, ...]]:
    return [row for row in store.rows(CONTENT, store.source.bucket) if row[1] == key]


def lines(store: Store, key: str) -> list[tuple[Any, ...]]:
    """The lineage of a key: batches, outcomes, and the spectrograms they made."""
    return store.rows(
        "SELECT b.batch_id, b.outcome, b.reason_class, b.attempts, b.spectrogram_id, s.generation "
        "FROM spectralize.batch_objects AS b JOIN spectralize.objects AS o USING (object_id) "
        "LEFT JOIN spectralize.spectrograms AS s USING (spectrogram_id) WHERE o.bucket = %s AND o.key = %s ORDER BY 1, 5",
        store.source.bucket, key,
    )  # fmt: skip


def erase(store: Store, key: str = "a.wav", **options: Any) -> forgetting.Erasure:
    return forget(store.connection, store.source.bucket, key, **options)


def test_every_version_of_a_recording_goes_and_its_lineage_stays(store: Store) -> None:
    store.put("a.wav", wav(seed=1))
    store.put("b.wav", wav(seed=2))
    store.ingest()
    store.put("a.wav", wav(2.0, seed=3))
    store.ingest()
    remove_superseded(store.connection, grace=timedelta(0))
    store.put("a.wav", wav(3.0, seed=4))
    store.ingest()
    store.rows(
        "WITH made AS (INSERT INTO spectralize.snapshots (name) VALUES ('all') RETURNING snapshot_id) "
        "INSERT INTO spectralize.snapshot_spectrograms SELECT snapshot_id, spectrogram_id "
        "FROM made, spectralize.spectrograms WHERE status <> 'expired' RETURNING 1"
    )
    planned = plan_forget(store.connection, store.source.bucket, "a.wav")
    assert (planned.n_objects, planned.n_recordings, planned.n_spectrograms, planned.n_frames) == (3, 3, 2, 87 + 130)
    assert planned.hours == pytest.approx(6 / 3600)
    other, lineage = content(store, "b.wav"), lines(store, "a.wav")
    assert erase(store) == planned
    assert traces(store, "a.wav") == NOTHING
    assert (content(store, "b.wav"), lines(store, "a.wav")) == (other, lineage)
    assert traces(store, "b.wav")[4] == 1
    assert store.rows(
        "SELECT s.expired_because, count(*), count(s.expired_at), count(o.forgotten_at) FROM spectralize.spectrograms AS s "
        "JOIN spectralize.objects AS o USING (object_id) WHERE o.bucket = %s AND o.key = 'a.wav' GROUP BY 1 ORDER BY 1",
        store.source.bucket,
    ) == [("forgotten", 2, 2, 2), ("superseded", 1, 1, 1)]
    assert store.breaches() == {}
    again = erase(store)
    assert (again.is_forgotten, again.n_recordings, again.n_spectrograms) == (True, 0, 0)
    assert report_store(store.connection).n_forgotten == 1
    store.connection.rollback()


@pytest.mark.parametrize("is_in_use", [False, True])
def test_the_rows_leave_the_pages(store: Store, is_in_use: bool) -> None:
    store.source = store.source.model_copy(update={"time_patterns": (r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)",)})
    day = f"20{10 + is_in_use}-06-03"
    key = f"{day.replace('-', '')}.wav"
    store.put(key, wav())
    store.ingest()
    chunks = (
        "SELECT format('%%I.%%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks "
        "WHERE range_start <= %s AND range_end > %s ORDER BY 1"
    )
    names = [name for (name,) in store.rows(chunks, day, day)]
    size = "SELECT sum(pg_relation_size(name::regclass))::bigint FROM unnest(%s::text[]) AS name"
    assert len(names) == 3
    assert store.rows(size, names)[0][0] > 0
    wait_until_alone(store)
    if is_in_use:
        with (
            ThreadPoolExecutor(1) as pool,
            connect(store.dsn) as other,
            connect(store.dsn, application="forget") as connection,
        ):
            # As autovacuum and CREATE INDEX do.
            other.execute(f"LOCK TABLE ONLY {names[0]} IN SHARE UPDATE EXCLUSIVE MODE")
            erasing = pool.submit(forget, connection, store.source.bucket, key)
            wait_for_lock(store, "forget", erasing)
            other.rollback()
            erasing.result(60)
    else:
        erase(store, key)
    assert store.rows(size, names) == [(0,)]


def wait_until_alone(store: Store) -> None:
    """Wait until nobody else has a snapshot in which the rows still are: autovacuum, and jobs of TimescaleDB."""
    snapshots = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
    )
    while store.rows(snapshots)[0][0]:
        time.sleep(0.05)


def test_a_forgotten_key_is_never_planned_again(store: Store) -> None:
    store.put("a.wav", wav(seed=1))
    store.put("b.wav", wav(seed=2))
    store.ingest()
    erase(store)
    # Still in S3, uploaded anew with other bytes, and gone and back.
    for data in (None, wav(seed=3), wav(seed=1)):
        if data:
            store.put("a.wav", data)
        assert not has_work(store.connection, store.client, store.source)
        for options in ({}, {"force": True}):
            counts = store.ingest(**options).counts
            assert counts.listing_holds()
            assert (counts.listed, counts.ignored, counts.planned) == (2, 1, int(bool(options)))
    start = store.rows("SELECT min(partition_at) FROM spectralize.objects WHERE bucket = %s", store.source.bucket)[0][0]
    backfill = store.run(kind="backfill", interval=(start - timedelta(days=1), start + timedelta(days=1)))
    counts = store.ingest(run=backfill).counts
    assert (counts.listed, counts.ignored, counts.unchanged) == (2, 1, 1)
    assert traces(store, "a.wav") == NOTHING
    # Not even what was uploaded since is noted.
    assert store.rows(
        "SELECT count(*) FROM spectralize.objects WHERE bucket = %s AND key = 'a.wav'", store.source.bucket
    ) == [(1,)]
    assert store.breaches() == {}


def test_a_load_that_was_planned_before_is_rejected(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "PART_BYTES", 30_000)
    monkeypatch.setattr("spectralize.features._FLUSH_BYTES", 10_000)
    streams: list[str] = []
    real = loader.load_stream

    def count(*arguments: Any) -> Any:
        streams.append(arguments[2].key)
        return real(*arguments)

    monkeypatch.setattr("spectralize.worker.load_stream", count)
    store.put("long.wav", wav(9.0, seed=1))
    store.put("short.wav", wav(seed=2))
    store.put("other.wav", wav(seed=3))
    batch = store.plan()
    for key in ("long.wav", "short.wav"):
        planned = erase(store, key)
        assert (planned.n_objects, planned.n_recordings) == (1, 0)
    store.compute(batch)
    # Streamed once: another attempt would change nothing.
    assert streams == ["long.wav"]
    store.source = store.source.model_copy(update={"max_rejected": 5})
    assert store.outcomes(store.finish(batch)) == {
        "long.wav": ("rejected", "forgotten"), "short.wav": ("rejected", "forgotten"), "other.wav": ("loaded", None),
    }  # fmt: skip
    assert traces(store, "long.wav") == traces(store, "short.wav") == NOTHING
    assert store.breaches() == {}


def wait_for_lock(store: Store, application: str, ended: Any) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    while not store.rows(query, application)[0][0]:
        assert not ended.done()


@pytest.mark.parametrize("is_new_upload", [False, True])
def test_a_load_under_way_is_awaited_and_erased(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_new_upload: bool
) -> None:
    store.put("a.wav", wav(seed=1))
    if is_new_upload:
        store.ingest()
        store.put("a.wav", wav(seed=2))
    batch = store.plan()
    written, go_on = threading.Event(), threading.Event()
    real = ledger.record_outcomes

    def hold(*arguments: Any) -> None:
        real(*arguments)
        written.set()
        assert go_on.wait(60)

    monkeypatch.setattr(ledger, "record_outcomes", hold)
    with ThreadPoolExecutor(2) as pool, connect(store.dsn, application="forget") as connection:
        load = pool.submit(store.compute, batch)
        assert written.wait(60)
        erasing = pool.submit(forget, connection, store.source.bucket, "a.wav")
        wait_for_lock(store, "forget", erasing)
        go_on.set()
        load.result(60)
        erased = erasing.result(60)
    assert erased.n_spectrograms == 1 + is_new_upload
    assert store.outcomes(store.finish(batch)) == {"a.wav": ("loaded", None)}
    assert traces(store, "a.wav") == NOTHING
    assert store.breaches() == {}


@pytest.mark.parametrize("is_new_upload", [False, True])
def test_a_load_waits_for_a_forgetting_under_way(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_new_upload: bool
) -> None:
    store.put("a.wav", wav(seed=1))
    store.ingest()
    batch = None if is_new_upload else store.plan(force=True)
    locked, go_on = threading.Event(), threading.Event()
    real = forgetting.mark_expired

    def hold(*arguments: Any) -> None:
        locked.set()
        assert go_on.wait(60)
        real(*arguments)

    monkeypatch.setattr(forgetting, "mark_expired", hold)
    with ThreadPoolExecutor(2) as pool, connect(store.dsn) as connection:
        erasing = pool.submit(forget, connection, store.source.bucket, "a.wav")
        assert locked.wait(30)
        if batch is None:
            # Overwritten just now: an object that `forget` has not seen.
            store.put("a.wav", wav(seed=2))
            batch = store.plan()
            assert batch.counts.planned == 1
        load = pool.submit(store.compute, batch)
        wait_for_lock(store, f"spectralize batch {batch.batch_id}", load)
        go_on.set()
        erasing.result(60)
        load.result(60)
    assert store.outcomes(store.finish(batch)) == {"a.wav": ("rejected", "forgotten")}
    assert traces(store, "a.wav") == NOTHING
    assert store.breaches() == {}


def test_copies_are_named_and_erased_when_told_to(store: Store) -> None:
    data = wav(seed=7)
    for key in ("a.wav", "x/copy 1.wav", "later.wav"):
        store.put(key, data)
    store.put("b.wav", wav(seed=8))
    store.ingest(max_objects=3)
    bucket = store.source.bucket
    with pytest.raises(LedgerError, match=r"the same bytes are also in .*: erase them too with --copies") as caught:
        erase(store)
    # Also the one that no batch has come to yet.
    assert f"s3://{bucket}/later.wav, s3://{bucket}/x/copy 1.wav:" in str(caught.value)
    store.connection.rollback()
    assert traces(store, "a.wav")[0] == 1
    done = erase(store, copies=True)
    assert done.places == (Place(bucket, "a.wav"), Place(bucket, "later.wav"), Place(bucket, "x/copy 1.wav"))
    assert {traces(store, place.key) for place in done.places} == {NOTHING}
    counts = store.ingest().counts
    assert (counts.listed, counts.ignored) == (4, 3)
    assert traces(store, "b.wav")[0] == 1
    assert erase(store, copies=True).places == done.places
    assert store.breaches() == {}


def test_a_key_that_is_not_known_or_in_two_buckets_is_one_line(store: Store) -> None:
    with pytest.raises(LedgerError, match=r"s3://.*/nope\.wav: not known to the store"):
        erase(store, "nope.wav")
    with pytest.raises(LedgerError, match=r"key 'no\\npe\.wav': no bucket is known to have held it"):
        find_bucket(store.connection, "no\npe.wav")
    store.put("in two.wav", wav())
    store.ingest()
    assert find_bucket(store.connection, "in two.wav") == store.source.bucket
    store.connection.execute(
        "INSERT INTO spectralize.objects (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin) "
        "VALUES ('another', 'in two.wav', 'x', 1, now(), now(), 'key')"
    )
    with pytest.raises(LedgerError, match=rf"is in another, {store.source.bucket}: say which with --bucket"):
        find_bucket(store.connection, "in two.wav")
    store.connection.rollback()


def test_the_database_itself_refuses_a_recording_of_a_forgotten_key(store: Store) -> None:
    store.put("a.wav", wav())
    store.ingest()
    [recording] = store.rows(
        "SELECT r.* FROM spectralize.recordings AS r JOIN spectralize.objects USING (object_id) WHERE bucket = %s",
        store.source.bucket,
    )
    erase(store)
    values = ", ".join(["%s"] * len(recording))
    adapted = [psycopg.types.json.Jsonb(value) if isinstance(value, dict | list) else value for value in recording]
    with pytest.raises(psycopg.Error) as caught:
        store.connection.execute(f"INSERT INTO spectralize.recordings VALUES ({values})", adapted)
    store.connection.rollback()
    assert caught.value.sqlstate == "SF001"
    assert str(caught.value).startswith(f"object {recording[0]} belongs to a recording that was forgotten")


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`spectralize forget` in this process, without a terminal."""

    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["spectralize", "forget", *arguments, "--dsn", store.dsn])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_the_command_asks_erases_and_says_what_is_left(
    store: Store, call: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store.source.bucket
    store.put("a [red].wav", wav(2.0))
    store.put("command.wav", wav(seed=1))
    store.ingest()
    unsure = call("a [red].wav", "--bucket", bucket)
    assert unsure.returncode == 2
    assert "add --yes to erase" in unsure.stderr
    assert call("command.wav", "--bucket", bucket, "--source", "audio").returncode == 2
    unknown = call("nope.wav", "--yes")
    assert (unknown.returncode, unknown.stderr) == (1, "error: key 'nope.wav': no bucket is known to have held it\n")
    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin.isatty", lambda: True)
        patch.setattr("typer.confirm", lambda text, **_: bool(asked.append(text)))
        declined = call("a [red].wav")
    assert (declined.returncode, declined.stderr) == (1, "nothing was erased\n")
    what = f"s3://{bucket}/a [red].wav: 0.00 h, 1 spectrograms with 87 Mel frames, 1 recordings"
    assert asked == [f"Erase {what}, for good?"]
    assert traces(store, "a [red].wav")[0] == 1
    done = call("a [red].wav", "--yes")
    where = f"s3://{bucket}/a [red].wav"
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"erased: {where}: 0.00 h, 1 spectrograms with 87 Mel frames, 1 recordings\n"
        f"{where}: still in S3: --delete-object deletes it\n"
    )
    assert traces(store, "a [red].wav") == NOTHING
    again = json.loads(call("a [red].wav", "--delete-object", "--yes", "--json").stdout)
    assert (again["is_forgotten"], again["s3"]) == (True, {where: "deleted from S3, 1 versions"})
    last = call("a [red].wav")
    assert (last.returncode, last.stdout.splitlines()[1]) == (0, f"{where}: not in S3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    away = call("command.wav", "--yes")
    assert away.returncode == 0
    assert (
        f"s3://{bucket}/command.wav: may still be in S3, which was not read: S3: s3://{bucket}/command.wav: access is refused"
        in away.stdout
    )
    monkeypatch.undo()
    assert store.breaches() == {}


def test_every_version_of_the_object_is_deleted(store: Store, call: Callable[..., Done]) -> None:
    bucket, client = store.source.bucket, store.client
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for seed in range(2):
        store.put("versions.wav", wav(seed=seed))
    store.put("versions.wav.txt", b"another key with the same beginning")
    store.ingest()
    store.delete("versions.wav")
    shown = call("versions.wav", "--yes").stdout.splitlines()[1]
    assert shown == f"s3://{bucket}/versions.wav: still in S3: --delete-object deletes it"
    done = call("versions.wav", "--yes", "--delete-object")
    assert done.stdout.splitlines()[1] == f"s3://{bucket}/versions.wav: deleted from S3, 3 versions", done.stderr
    listed = client.list_object_versions(Bucket=bucket)
    assert {item["Key"] for item in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]} == {
        "versions.wav.txt"
    }
    for item in listed["Versions"]:
        client.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
