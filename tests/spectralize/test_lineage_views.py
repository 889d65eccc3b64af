"""Lineage both ways: the views, `spectralize status <batch|key>`, and what a question costs in a large ledger."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from local.stack import Stack
from spectralize import lineage, outbox
from spectralize.alerts import Sent
from spectralize.database import connect
from spectralize.errors import GateError
from spectralize.forget import forget, plan_forget
from spectralize.gate import close_batch
from spectralize.ledger import Batch, OutcomeLine, record_code, record_outcomes
from spectralize.migrations import migrate
from spectralize.tables import Timings
from spectralize.version import CORE_VERSION
from spectralize.worker import run_slice
from tests.conftest import fresh_database, new_store
from tests.spectralize.test_cli import call_here
from tests.store import Store, wav

ZIPS = tuple(hashlib.sha256(name).hexdigest() for name in (b"first", b"second"))

#: Of the spectrograms of this test's bucket: who made them, and with what.
MADE = """
SELECT key, attempt, worker, core_version, code_zip_sha256, code_from FROM spectralize.spectrogram_lineage
WHERE bucket = %s ORDER BY key, spectrogram_id
"""

#: Of every attempt in this test's bucket.
TOUCHED = """
SELECT key, batch_id, attempt, outcome, has_written, code_zip_sha256, code_from FROM spectralize.object_lineage
WHERE bucket = %s ORDER BY key, batch_id, attempt
"""


def note(store: Store, batch: Batch, zip_sha256: str) -> None:
    record_code(store.connection, batch.batch_id, zip_sha256)
    store.connection.commit()


def compute(store: Store, batch: Batch, *keys: str, worker: str) -> None:
    manifest = store.manifest(batch)
    run_slice(store.work(manifest), [item for item in manifest.objects if item.key in keys], worker=worker)


def test_a_retry_with_another_zip_leaves_the_first_ones_work_its_own(store: Store) -> None:
    for seed, key in enumerate(("a.wav", "b.wav")):
        store.put(key, wav(seed=seed))
    batch = store.plan()
    note(store, batch, ZIPS[0])
    compute(store, batch, "a.wav", worker="one")
    note(store, batch, ZIPS[1])
    compute(store, batch, "a.wav", "b.wav", worker="two")
    store.finish(batch)
    assert store.rows(MADE, store.source.bucket) == [
        ("a.wav", 1, "one", CORE_VERSION, ZIPS[0], "attempt"),
        ("b.wav", 1, "two", CORE_VERSION, ZIPS[1], "attempt"),
    ]
    assert store.breaches() == {}


def test_a_job_that_outlives_its_retry_says_what_itself_ran(store: Store) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    note(store, batch, ZIPS[0])
    outlived = store.work(store.manifest(batch))
    note(store, batch, ZIPS[1])
    run_slice(outlived, store.manifest(batch).objects, worker="zombie")
    assert store.rows(MADE, store.source.bucket) == [("a.wav", 1, "zombie", CORE_VERSION, ZIPS[0], "attempt")]


def test_attempts_that_do_not_know_their_code_have_that_of_their_batch(store: Store) -> None:
    for seed, key in enumerate(("a.wav", "b.wav")):
        store.put(key, wav(seed=seed))
    batch = store.plan()
    # Not shipped as a zip; a later try was.
    compute(store, batch, "a.wav", "b.wav", worker="one")
    note(store, batch, ZIPS[1])
    store.finish(batch)
    store.connection.execute(
        "UPDATE spectralize.batch_object_attempts AS a SET core_version = NULL FROM spectralize.objects AS o "
        "WHERE o.object_id = a.object_id AND o.bucket = %s AND o.key = 'b.wav'", (store.source.bucket,),
    )  # fmt: skip
    store.connection.commit()
    assert [row[3:] for row in store.rows(MADE, store.source.bucket)] == [
        (CORE_VERSION, None, "attempt"),
        (CORE_VERSION, ZIPS[1], "batch"),
    ]
    assert [row[5:] for row in store.rows(TOUCHED, store.source.bucket)] == [(None, "attempt"), (ZIPS[1], "batch")]
    # Such a store is sound: every one was like that before.
    assert store.breaches() == {}


def test_one_attempt_has_written_and_the_others_found_it_there(store: Store) -> None:
    store.put("a.wav", wav())
    first, second = store.plan(), store.plan()
    store.compute(first)
    store.compute(second)
    [(object_id, profile_id, spectrogram_id)] = store.rows(
        "SELECT object_id, profile_id, spectrogram_id FROM spectralize.batch_objects WHERE batch_id = %s",
        first.batch_id,
    )
    late = OutcomeLine(
        object_id, profile_id, "loaded", None, None, spectrogram_id, "late", datetime.now(UTC), Timings(), ZIPS[1]
    )
    record_outcomes(store.connection, first.batch_id, [late])
    store.connection.commit()
    assert [row[1:5] for row in store.rows(TOUCHED, store.source.bucket)] == [
        (first.batch_id, 1, "loaded", True),
        (first.batch_id, 2, "loaded", False),
        (second.batch_id, 1, "loaded", False),
    ]
    [made] = store.rows(MADE, store.source.bucket)
    assert made[2] != "late"
    assert made[4] is None


def test_what_nobody_came_to_is_a_row_without_an_attempt(store: Store) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    [row] = store.rows(TOUCHED, store.source.bucket)
    assert row[2:5] == (None, None, False)
    with pytest.raises(GateError):
        store.finish(batch)
    [row] = store.rows(TOUCHED, store.source.bucket)
    assert row[2:5] == (None, "failed", False)


def test_duplicates_are_objects_and_not_only_keys(store: Store) -> None:
    for key, seed in (("a.wav", 31), ("b.wav", 32), ("copies/a.wav", 31), ("twice.wav", 33)):
        store.put(key, wav(seed=seed))
    for key in ("bad.wav", "bad again.wav"):
        store.put(key, b"no audio")
    store.ingest()
    # The same bytes in parts have another etag, so this is another object.
    client, bucket = store.client, store.source.bucket
    upload = client.create_multipart_upload(Bucket=bucket, Key="twice.wav")["UploadId"]
    part = client.upload_part(Bucket=bucket, Key="twice.wav", UploadId=upload, PartNumber=1, Body=wav(seed=33))
    client.complete_multipart_upload(
        Bucket=bucket, Key="twice.wav", UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    )  # fmt: skip
    store.ingest()
    store.delete("copies/a.wav")
    store.ingest()
    rows = store.rows(
        "SELECT key, sha256, n_objects, n_keys, is_current, tombstoned_at IS NOT NULL FROM spectralize.duplicates "
        "WHERE bucket = %s ORDER BY key, object_id", store.source.bucket,
    )  # fmt: skip
    one, three = (hashlib.sha256(wav(seed=seed)).digest() for seed in (31, 33))
    assert rows == [
        ("a.wav", one, 2, 2, True, False),
        ("copies/a.wav", one, 2, 2, True, True),
        ("twice.wav", three, 2, 1, False, False),
        ("twice.wav", three, 2, 1, True, False),
    ]


@pytest.fixture(scope="module")
def two_tries(dsn: str, aws: None) -> Iterator[tuple[Store, Batch, Batch]]:
    """A run of two tries: in the first the job was retried with another zip, the second came when a key was overwritten."""
    with new_store(dsn) as store:
        for seed, key in enumerate(("field/a [red].wav", "field/b.wav", "field/copy.wav")):
            store.put(key, wav(seed=41 + seed % 2))
        store.put("field/empty.wav", b"")
        store.source = store.source.model_copy(update={"max_rejected": 0, "max_rejected_share": 0.0})
        run = store.run(parameters={"note": "<b>mine</b>", "force": False}, kind="manual")
        first = store.plan(run)
        note(store, first, ZIPS[0])
        compute(store, first, "field/a [red].wav", worker="node-1")
        note(store, first, ZIPS[1])
        store.compute(first)
        with pytest.raises(GateError):
            store.finish(first)
        close_batch(store.connection, first.batch_id, store.source)
        store.source = store.source.model_copy(update={"max_rejected": 10})
        store.put("field/b.wav", wav(2.0, seed=45))
        second = store.plan(run)
        store.compute(second)
        store.finish(second)
        yield store, first, second


def test_status_of_a_batch_says_how_it_came_about(two_tries: tuple[Store, Batch, Batch]) -> None:
    store, first, second = two_tries
    shown = call_here("status", str(first.batch_id), dsn=store.dsn).stdout
    run = store.runs[0]
    for text in (
        f"batch {first.batch_id} of test (manual): failed: 1 of 4 were rejected",
        f"{run.dag_id} {run.run_id}, try 1 of 2, manual",
        f"{CORE_VERSION}, zip {ZIPS[0]}: 1 attempt, 1 loaded",
        f"{CORE_VERSION}, zip {ZIPS[1]}: 3 attempts, 2 loaded",
        f"s3://{store.source.bucket}/field/*: 4 objects",
        "recordings 3, spectrograms 3, mel_frames 132",
        'note = "<b>mine</b>"',
        "mel128_22k, fingerprint d768f8d7",
        f"2: batch {second.batch_id}, success",
        f"s3://{store.source.bucket}-manifests/test/{first.batch_id}.jsonl, sha256 ",
    ):
        assert text in shown, shown
    found = json.loads(call_here("status", str(first.batch_id), "--json", dsn=store.dsn).stdout)
    assert [(code["code_zip_sha256"], code["attempts"], code["loaded"]) for code in found["code"]] == [
        (ZIPS[0], 1, 1),
        (ZIPS[1], 3, 2),
    ]
    assert (found["batch"]["try"], found["batch"]["parameters"]["force"]) == (1, False)
    assert [item["batch_id"] for item in found["tries"]] == [first.batch_id, second.batch_id]
    assert len(found["objects"]) == 4
    [(sha256,)] = store.rows("SELECT manifest_sha256 FROM spectralize.batches WHERE batch_id = %s", first.batch_id)
    manifest = store.client.get_object(Bucket=f"{store.source.bucket}-manifests", Key=f"test/{first.batch_id}.jsonl")[
        "Body"
    ].read()
    assert found["batch"]["manifest_sha256"] == sha256 == hashlib.sha256(manifest).hexdigest()


def test_status_of_a_key_says_everything_that_touched_it(two_tries: tuple[Store, Batch, Batch]) -> None:
    store, first, second = two_tries
    bucket = store.source.bucket
    found = json.loads(call_here("status", "field/b.wav", "--json", dsn=store.dsn).stdout)
    old, new = (hashlib.sha256(data).hexdigest() for data in (wav(seed=42), wav(2.0, seed=45)))
    assert [item["sha256"] for item in found["objects"]] == [old, new]
    assert [
        (item["batch_id"], item["try"], item["code_zip_sha256"], item["has_written"]) for item in found["attempts"]
    ] == [
        (first.batch_id, 1, ZIPS[1], True),
        (second.batch_id, 2, None, True),
    ]
    assert found["attempts"][0]["run_parameters"] == {"note": "<b>mine</b>", "force": False}
    assert [(item["sha256"], item["batch_id"], item["is_current"]) for item in found["spectrograms"]] == [
        (old, first.batch_id, False),
        (new, second.batch_id, True),
    ]
    assert found["same_bytes"] == []
    shown = call_here("status", f"s3://{bucket}/field/b.wav", dsn=store.dsn).stdout
    for text in (old, new, "overwritten", ZIPS[1][:12], "not shipped", "complete, current", 'with {"force": false'):
        assert text in shown, shown
    # Markup in a key is no markup, and its copy is named.
    shown = call_here("status", "field/a [red].wav", dsn=store.dsn).stdout
    assert f"s3://{bucket}/field/a [red].wav" in shown
    assert f"s3://{bucket}/field/copy.wav" in shown
    assert ZIPS[0][:12] in shown
    # What was rejected has attempts, and nothing else.
    found = json.loads(call_here("status", "field/empty.wav", "--json", dsn=store.dsn).stdout)
    assert [item["reason_class"] for item in found["attempts"]] == ["empty"]
    assert (found["objects"][0]["sha256"], found["spectrograms"]) == (None, [])
    uid = found["objects"][0]["uid"]
    assert json.loads(call_here("status", uid, "--json", dsn=store.dsn).stdout)["key"] == "field/empty.wav"


def test_status_of_a_batch_says_who_was_told(store: Store) -> None:
    store.put("empty.wav", b"")
    batch = store.plan()
    store.compute(batch)
    close_batch(store.connection, batch.batch_id, store.source, errors={"check_batch": "failed checks: x"})
    outbox.deliver(store.connection, lambda alert: Sent(errors=["mail: [red]refused\n"]))
    shown = call_here("status", str(batch.batch_id), dsn=store.dsn).stdout
    assert "failed, not delivered in 1 try: mail: [red]refused\\n" in shown
    store.rows("UPDATE spectralize.alerts SET next_try_at = now() WHERE batch_id = %s RETURNING 1", batch.batch_id)
    outbox.deliver(store.connection, lambda alert: Sent(["mail"]))
    found = json.loads(call_here("status", str(batch.batch_id), "--json", dsn=store.dsn).stdout)
    [alert] = found["alerts"]
    assert (alert["kind"], alert["tries"], alert["last_error"]) == ("failed", 2, None)
    assert alert["sent_at"]


def test_status_of_what_there_is_not_is_one_line(two_tries: tuple[Store, Batch, Batch]) -> None:
    store, _, _ = two_tries
    for name, line in (
        ("999999", "batch 999999: not in the ledger; spectralize status lists the batches"),
        ("field/none.wav", "key 'field/none.wav': not known to the store; spectralize ls lists what it holds"),
        ("s3://nowhere/a.wav", "s3://nowhere/a.wav: not known to the store; spectralize ls lists what it holds"),
        ("s3://", "s3://: not known to the store; spectralize ls lists what it holds"),
        ("a\udcff.wav", "key 'a\\udcff.wav': not known to the store"),
        ("9" * 19, f"key '{'9' * 19}': not known to the store; spectralize ls lists what it holds"),
    ):
        done = call_here("status", name, dsn=store.dsn)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {line}\n")
    with new_store(store.dsn) as other:
        for place in (store, other):
            place.put("both.wav", wav(seed=51))
            place.ingest()
        buckets = "|".join(sorted((store.source.bucket, other.source.bucket)))
        done = call_here("status", "both.wav", dsn=store.dsn)
        assert (done.returncode, done.stderr) == (
            1, f"error: key 'both.wav' is in several buckets: write s3://{buckets}/…\n",
        )  # fmt: skip
        found = json.loads(call_here("status", f"s3://{other.source.bucket}/both.wav", "--json", dsn=store.dsn).stdout)
        assert [item["bucket"] for item in found["same_bytes"]] == [store.source.bucket]


def test_a_forgotten_key_keeps_its_runs_and_loses_its_sha256(store: Store) -> None:
    store.put("gone.wav", wav(seed=61))
    store.ingest()
    with connect(store.dsn) as connection:
        plan_forget(connection, store.source.bucket, "gone.wav")
        forget(connection, store.source.bucket, "gone.wav")
    name = f"s3://{store.source.bucket}/gone.wav"
    found = json.loads(call_here("status", name, "--json", dsn=store.dsn).stdout)
    assert [item["sha256"] for item in found["objects"]] == [None]
    assert [item["outcome"] for item in found["attempts"]] == ["loaded"]
    assert [item["expired_because"] for item in found["spectrograms"]] == ["forgotten"]
    shown = call_here("status", name, dsn=store.dsn).stdout
    assert "expired (forgotten)" in shown


#: A ledger of 100 000 objects: in batches of 100, each loaded, every hundredth a copy of another, two attempts each.
N_OBJECTS, N_BATCHES = 100_000, 1_000
LARGE = (
    "INSERT INTO spectralize.profiles (name, fingerprint, parameters) VALUES ('p', 'f', '{}')",
    "INSERT INTO spectralize.batches (source, dag_id, run_id, try, kind, core_version) "
    "SELECT 's', 'ingest_s', 'run ' || n, 1, 'manual', '0.4.0' FROM generate_series(1, %(batches)s) AS n",
    "INSERT INTO spectralize.objects (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin) "
    "SELECT 'b' || n %% 3, 'key/' || n, md5(n::text), n, now(), now(), 'last_modified' FROM generate_series(1, %(objects)s) AS n",
    "INSERT INTO spectralize.recordings (object_id, sha256, container, decoded_codec, decoded_duration_s, decoded_samples, "
    "decoded_samplerate_hz, decoded_channels, batch_id) "
    "SELECT n, sha256(((n / 100 * 100 + greatest(1, n %% 100))::text)::bytea), "
    "'wav', 'pcm', 1, 1, 1, 1, 1 + n %% %(batches)s FROM generate_series(1, %(objects)s) AS n",
    "INSERT INTO spectralize.spectrograms (object_id, profile_id, generation, batch_id, status, sr, hop_length, n_mels, "
    "n_samples, n_frames, n_hops, n_seconds, peak_db, recorded_at, recorded_at_origin, core_version, library_versions) "
    "SELECT n, 1, 0, 1 + n %% %(batches)s, 'complete', 1, 1, 1, 1, 1, 0, 1, 0, now(), 'key', '0.4.0', '{}' "
    "FROM generate_series(1, %(objects)s) AS n",
    "INSERT INTO spectralize.batch_objects (batch_id, object_id, profile_id, generation, outcome, spectrogram_id, attempts) "
    "SELECT batch_id, object_id, 1, 0, 'loaded', spectrogram_id, 2 FROM spectralize.spectrograms",
    "INSERT INTO spectralize.batch_object_attempts "
    "(batch_id, object_id, profile_id, attempt, outcome, worker, started_at, core_version, code_zip_sha256) "
    "SELECT batch_id, object_id, 1, attempt, 'loaded', 'w', now(), '0.4.0', 'z' "
    "FROM spectralize.batch_objects, generate_series(1, 2) AS attempt",
)


@pytest.fixture(scope="module")
def large_dsn(stack: Stack) -> Iterator[str]:
    """A database with a ledger of 100 000 objects, and its statistics."""
    with fresh_database(stack, "large_ledger") as dsn:
        migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in LARGE:
                connection.execute(statement.encode(), {"objects": N_OBJECTS, "batches": N_BATCHES})
            connection.execute("ANALYZE")
        yield dsn


KEY, BATCH = ("b1", "key/4"), 5

#: One key, object or spectrogram; or one batch of a hundred objects.
COSTS: dict[str, tuple[str, Any, int]] = {
    "buckets of a key": (lineage._BUCKETS_OF_KEY, (KEY[1],), 100),
    "objects of a key": (lineage._OBJECTS, KEY, 100),
    "attempts of a key": (lineage._ATTEMPTS, KEY, 100),
    "spectrograms of a key": (lineage._SPECTROGRAMS, KEY, 100),
    "same bytes": (lineage._SAME_BYTES, {"bucket": "b1", "key": "key/100"}, 100),
    "attempts of an object": ("SELECT * FROM spectralize.object_lineage WHERE object_id = %s", (7,), 100),
    "a spectrogram": ("SELECT * FROM spectralize.spectrogram_lineage WHERE spectrogram_id = %s", (7,), 100),
    "duplicates of a key": ("SELECT * FROM spectralize.duplicates WHERE bucket = %s AND key = %s", ("b1", "key/100"), 100),
    "duplicates of bytes": (
        "SELECT * FROM spectralize.duplicates WHERE sha256 = (SELECT sha256 FROM spectralize.recordings WHERE object_id = 100)",
        None, 100,
    ),
    "attempts of a batch": ("SELECT * FROM spectralize.object_lineage WHERE batch_id = %s", (BATCH,), 5_000),
    "attempts of a run": (
        "SELECT * FROM spectralize.object_lineage WHERE dag_id = 'ingest_s' AND run_id = 'run 5' AND try = 1", None, 5_000,
    ),
    "spectrograms of a batch": ("SELECT * FROM spectralize.spectrogram_lineage WHERE batch_id = %s", (BATCH,), 5_000),
    "code of a batch": (lineage._CODE, (BATCH,), 5_000),
    "profiles of a batch": (lineage._PROFILES, (BATCH,), 5_000),
    "what a batch read": (lineage._READ_FROM, (BATCH,), 5_000),
    "what a batch wrote": (lineage._WROTE, {"batch_id": BATCH}, 5_000),
    "tries of a run": (lineage._TRIES, (BATCH,), 5_000),
}  # fmt: skip


def rows_looked_at(plan: dict[str, Any]) -> int:
    """Rows that a plan reads from tables and indexes, those that it throws away again among them."""
    own = 0
    if "Relation Name" in plan:
        own = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return own + sum(rows_looked_at(part) for part in plan.get("Plans", ()))


@pytest.mark.slow
@pytest.mark.parametrize("question", COSTS)
def test_a_question_about_one_thing_looks_at_that_thing(large_dsn: str, question: str) -> None:
    query, values, most = COSTS[question]
    with psycopg.connect(large_dsn) as connection:
        assert connection.execute(query.encode(), values).fetchone() is not None
        [[[found]]] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode(), values).fetchall()
    assert 0 < rows_looked_at(found["Plan"]) < most, json.dumps(found["Plan"], indent=1)


def test_a_sum_of_rows_looked_at_sees_a_sequential_scan(large_dsn: str) -> None:
    with psycopg.connect(large_dsn) as connection:
        [[[found]]] = connection.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM spectralize.object_lineage WHERE worker = 'nobody'"
        ).fetchall()
    assert rows_looked_at(found["Plan"]) > N_OBJECTS
