"""docs/lineage.md, run as it stands: twelve questions, each held against what really happened to the recordings."""

import hashlib
import io
import re
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from local.paths import REPO
from local.stack import Stack
from spectralize import open_store
from spectralize.database import connect
from spectralize.errors import GateError
from spectralize.expiry import remove_superseded
from spectralize.gate import close_batch
from spectralize.isolate import Refused
from spectralize.ledger import Batch, Run, record_code
from spectralize.loader import Attempt, Result, load_group
from spectralize.s3 import open_s3
from spectralize.sources import Source
from spectralize.worker import run_slice
from tests.docs.conftest import TIME
from tests.docs.pages import Block, read_blocks
from tests.docs.test_sql import chunks_opened, type_into_psql
from tests.store import Store

PAGE = REPO / "docs" / "lineage.md"
BUCKET = "recordings"
SR = 22_050

#: As `record_code` would have been told: the sha256 of three zips of the core, one after the other.
ZIPS = tuple(hashlib.sha256(f"core, build {number}".encode()).hexdigest() for number in (1, 2, 3))
#: The cores in them. By their letters the newer one comes first.
OLD, NEW = "0.9.0", "0.10.0"

FIRST, SECOND, THIRD, TEXT = (f"site-7/202406{day}_043000.wav" for day in ("01", "02", "12", "13"))
COPY = "spare card/20240601_043000.wav"
NIGHTLY = "scheduled__2024-06-14T00:00:00+00:00"


def tone(half_period: int, seconds: int = 2) -> bytes:
    """A square wave as a wav: whole numbers, so that its bytes, and their sha256, are the same on every machine."""
    samples = [8_000 if position // half_period % 2 else -8_000 for position in range(seconds * SR)]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(SR)
        output.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
    return buffer.getvalue()


OBJECTS = {
    FIRST: tone(25),
    SECOND: tone(50),
    THIRD: tone(100),
    COPY: tone(25),
    TEXT: b"The recorder had no card.\n" * 40,
}
OVERWRITTEN = tone(60, seconds=3)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class History:
    """The store, and the numbers that its four batches got."""

    store: Store
    first: int
    second: int
    third: int
    fourth: int


@pytest.fixture(scope="module")
def history(dsn: str, aws: None) -> Iterator[History]:
    """A run whose job was retried with another zip, and that was cleared; an overwritten key; a forced recompute; an expiry."""
    client = open_s3()
    for name in (BUCKET, f"{BUCKET}-manifests"):
        client.create_bucket(Bucket=name)
    source = Source(
        name="recordings",
        bucket=BUCKET,
        include=("*.wav",),
        profiles=("mel128_22k",),
        settle_s=0,
        time_patterns=(TIME,),
    )
    with connect(dsn) as connection, pytest.MonkeyPatch.context() as patch:
        store = Store(dsn, connection, client, source)
        yield History(store, *_happen(store, patch))
    for name in (BUCKET, f"{BUCKET}-manifests"):
        for item in client.list_objects_v2(Bucket=name).get("Contents", []):
            client.delete_object(Bucket=name, Key=item["Key"])
        client.delete_bucket(Bucket=name)


def _happen(store: Store, patch: pytest.MonkeyPatch) -> list[int]:
    _install(patch, OLD)
    for key, data in OBJECTS.items():
        store.put(key, data)
    nightly = Run(
        "ingest_recordings", NIGHTLY, "scheduled",
        interval=(datetime(2024, 6, 13, tzinfo=UTC), datetime(2024, 6, 14, tzinfo=UTC)),
    )  # fmt: skip
    first = store.plan(nightly)
    # The job's first try loads one recording, S3 has enough at another, and then the job is killed.
    _submit(store, first, ZIPS[0], {FIRST}, worker="node-1:301")
    _refuse(store, first, ZIPS[0], THIRD, worker="node-1:301")
    # Airflow retries the step, from a newer zip of the same core. S3 still refuses the one.
    _submit(store, first, ZIPS[1], {SECOND, COPY, TEXT}, worker="node-2:77")
    _refuse(store, first, ZIPS[1], THIRD, worker="node-2:77")
    with pytest.raises(GateError):
        store.finish(first)
    close_batch(store.connection, first.batch_id, store.source)
    # Somebody clears the run: its second try.
    second = store.plan(nightly)
    _submit(store, second, ZIPS[1], {THIRD}, worker="node-1:302")
    store.finish(second)

    _install(patch, NEW)
    store.put(SECOND, OVERWRITTEN)
    third = store.plan(Run("ingest_recordings", "manual__2024-06-15T08:00:00+00:00", "manual"))
    _submit(store, third, ZIPS[2], {SECOND, TEXT}, worker="node-1:303")
    store.finish(third)
    with open_store(store.dsn) as reader:
        reader.snapshot("thrushes v1", recordings=reader.recordings(key_prefix="site-7/"))
    forced = Run(
        "ingest_recordings", "manual__2024-06-16T09:00:00+00:00", "manual",
        parameters={"force": True, "note": "after the new card"},
    )  # fmt: skip
    fourth = store.plan(forced, force=True)
    _submit(store, fourth, ZIPS[2], {FIRST, SECOND, THIRD, COPY, TEXT}, worker="node-2:78")
    store.finish(fourth)
    # Maintenance: what is superseded loses its frames, unless a snapshot keeps it.
    remove_superseded(store.connection, grace=timedelta(0))
    store.connection.commit()
    return [batch.batch_id for batch in (first, second, third, fourth)]


def _install(patch: pytest.MonkeyPatch, version: str) -> None:
    for module in ("ledger", "loader", "planner", "worklist"):
        patch.setattr(f"spectralize.{module}.CORE_VERSION", version)


def _submit(store: Store, batch: Batch, zip_sha256: str, keys: set[str], *, worker: str) -> None:
    """What Airflow's step and the job's driver do, for some of the batch's objects."""
    record_code(store.connection, batch.batch_id, zip_sha256)
    store.connection.commit()
    manifest = store.manifest(batch)
    run_slice(store.work(manifest), [item for item in manifest.objects if item.key in keys], worker=worker)


def _refuse(store: Store, batch: Batch, zip_sha256: str, key: str, *, worker: str) -> None:
    """What the job writes when S3 does not give an object out."""
    [planned] = [item for item in store.manifest(batch).objects if item.key == key]
    refused = Refused(False, "SlowDown", "Please reduce your request rate.")
    load_group(
        store.connection, Attempt(batch.batch_id, worker, zip_sha256), [Result(planned, refused, datetime.now(UTC))]
    )
    store.connection.commit()


def questions() -> list[Block]:
    return [block for block in read_blocks(PAGE) if block.kind == "sql"]


def ask(stack: Stack, history: History, block: Block) -> str:
    return type_into_psql(stack, history.store.dsn, f"SET timezone = 'UTC';\n{block.text}")


def answer(stack: Stack, history: History, number: int, *, block: int = 0) -> list[dict[str, str]]:
    """What psql prints to one of a question's queries, a row each."""
    [heading] = {item.heading for item in questions() if item.heading.startswith(f"{number}. ")}
    lines = ask(stack, history, [item for item in questions() if item.heading == heading][block]).splitlines()
    names, rows = lines[0], lines[2 : lines.index(next(line for line in lines if re.fullmatch(r"\(\d+ rows?\)", line)))]
    split = [[cell.strip() for cell in line.split("|")] for line in (names, *rows)]
    return [dict(zip(split[0], row, strict=True)) for row in split[1:]]


def columns(rows: list[dict[str, str]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


#: How the page shortens a sha256.
FIRST_ZIP, SECOND_ZIP, THIRD_ZIP = (digest[:12] for digest in ZIPS)
BYTES = {key: sha256(data)[:12] for key, data in OBJECTS.items()}
NEW_BYTES = sha256(OVERWRITTEN)[:12]


@pytest.mark.parametrize("block", questions(), ids=lambda block: f"line {block.line}")
def test_every_query_prints_what_the_page_shows(stack: Stack, history: History, block: Block) -> None:
    assert block.shown, f"{block.where}: shows no result"
    block.check(ask(stack, history, block))


def test_there_are_twelve_questions_and_each_is_asked() -> None:
    numbers = [int(found) for found in re.findall(r"^## (\d+)\. .*\?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)]
    assert numbers == list(range(1, 13))
    assert {int(block.heading.partition(".")[0]) for block in questions()} == set(numbers)


def test_the_store_of_the_page_is_sound(history: History) -> None:
    assert history.store.breaches() == {}


def test_1_a_frame_leads_to_the_bytes_and_the_zip_of_the_try_that_made_it(stack: Stack, history: History) -> None:
    # The batch itself names the second zip: the job was tried again with it.
    assert history.store.rows("SELECT code_zip_sha256 FROM spectralize.batches WHERE batch_id = %s", history.first) == [
        (ZIPS[1],)
    ]
    rows = answer(stack, history, 1)
    assert columns(rows, "key", "bytes", "batch", "try", "core", "zip") == [
        (FIRST, BYTES[FIRST], str(history.first), "1", OLD, FIRST_ZIP)
    ]
    # The one frame of the window: 44 hops of 512 samples are 1.0217 s.
    assert columns(rows, "frame_index") == [("44",)]


def test_1_opens_as_many_chunks_as_the_page_says(history: History) -> None:
    [block] = [block for block in questions() if "-- opens" in block.text]
    [[opened, chunks]] = re.findall(r"^-- opens (\d+) of (\d+) chunks$", block.text, re.MULTILINE)
    assert chunks_opened(history.store.dsn, block.text) == (int(opened), int(chunks))
    assert int(chunks) > 1


def test_1_finds_the_frame_by_the_index(history: History) -> None:
    [block] = [block for block in questions() if "-- opens" in block.text]
    with psycopg.connect(history.store.dsn) as connection:
        # So few rows are read whole, unless that is forbidden.
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {block.text}".encode()))
    assert re.search(r"Index Cond: \(\(spectrogram_id = 1\) AND \(frame_time >= .* AND \(frame_time < ", plan), plan
    assert re.search(r"Index Scan using spectrograms_pkey .*\n\s+Index Cond: \(spectrogram_id = 1\)", plan), plan


def test_2_every_run_that_touched_a_key_with_the_bytes_it_had(stack: Stack, history: History) -> None:
    rows = answer(stack, history, 2)
    assert columns(rows, "batch", "bytes", "zip", "core", "wrote") == [
        (str(history.first), BYTES[SECOND], SECOND_ZIP, OLD, "t"),
        (str(history.third), NEW_BYTES, THIRD_ZIP, NEW, "t"),
        (str(history.fourth), NEW_BYTES, THIRD_ZIP, NEW, "t"),
    ]
    assert rows[0]["run_id"] == NIGHTLY
    assert '"force": true' in rows[-1]["run_parameters"]


def test_3_the_first_try_of_a_run_that_was_cleared(stack: Stack, history: History) -> None:
    assert columns(answer(stack, history, 3), "key", "attempt", "outcome", "zip") == [
        (FIRST, "1", "loaded", FIRST_ZIP),
        (SECOND, "1", "loaded", SECOND_ZIP),
        (THIRD, "1", "failed", FIRST_ZIP),
        (THIRD, "2", "failed", SECOND_ZIP),
        (TEXT, "1", "rejected", SECOND_ZIP),
        (COPY, "1", "loaded", SECOND_ZIP),
    ]
    tries = answer(stack, history, 3, block=1)
    assert columns(tries, "try", "batch", "state", "planned", "loaded", "failed") == [
        ("1", str(history.first), "failed", "5", "3", "1"),
        ("2", str(history.second), "success", "1", "1", "0"),
    ]


def test_4_older_cores_by_number_and_not_by_letter(stack: Stack, history: History) -> None:
    rows = answer(stack, history, 4)
    assert columns(rows, "key", "core") == [(key, OLD) for key in sorted((FIRST, SECOND, THIRD, COPY))]
    assert OLD > NEW
    assert {row["is_current"] for row in rows} == {"f"}


def test_5_the_same_bytes_under_two_keys(stack: Stack, history: History) -> None:
    assert columns(answer(stack, history, 5), "key", "bytes", "n_keys", "is_current") == [
        (key, BYTES[FIRST], "2", "t") for key in (FIRST, COPY)
    ]
    assert BYTES[FIRST] == BYTES[COPY]


def test_6_what_was_refused_and_why(stack: Stack, history: History) -> None:
    rows = answer(stack, history, 6)
    assert columns(rows, "batch", "key", "outcome", "reason_class") == [
        (str(history.first), THIRD, "failed", "SlowDown"),
        (str(history.first), TEXT, "rejected", "not_audio"),
        (str(history.third), TEXT, "rejected", "not_audio"),
        (str(history.fourth), TEXT, "rejected", "not_audio"),
    ]
    assert rows[0]["attempts"] == "2"


def test_7_what_a_bad_zip_made_and_nothing_else(stack: Stack, history: History) -> None:
    rows = answer(stack, history, 7)
    assert columns(rows, "key", "batch", "status", "snapshots") == [
        (SECOND, str(history.first), "expired", "{}"),
        (COPY, str(history.first), "expired", "{}"),
        (THIRD, str(history.second), "complete", '{"thrushes v1"}'),
    ]


def test_8_what_a_snapshot_holds(stack: Stack, history: History) -> None:
    assert columns(answer(stack, history, 8), "key", "bytes", "batch", "zip") == [
        (FIRST, BYTES[FIRST], str(history.first), FIRST_ZIP),
        (THIRD, BYTES[THIRD], str(history.second), SECOND_ZIP),
        (SECOND, NEW_BYTES, str(history.third), THIRD_ZIP),
    ]


def test_9_an_outcome_over_the_attempts(stack: Stack, history: History) -> None:
    assert columns(answer(stack, history, 9), "batch", "attempt", "outcome", "zip") == [
        (str(history.first), "1", "failed", FIRST_ZIP),
        (str(history.first), "2", "failed", SECOND_ZIP),
        (str(history.second), "1", "loaded", SECOND_ZIP),
        (str(history.fourth), "1", "loaded", THIRD_ZIP),
    ]


def test_10_what_took_the_place_of_what_expired(stack: Stack, history: History) -> None:
    rows = answer(stack, history, 10)
    assert columns(rows, "key", "bytes", "because", "now_batch", "is_same_object") == [
        (SECOND, BYTES[SECOND], "superseded", str(history.fourth), "f"),
        (COPY, BYTES[COPY], "superseded", str(history.fourth), "t"),
    ]
    ids = [int(row["id"]) for row in rows]
    assert history.store.rows("SELECT count(*) FROM spectralize.mel_frames WHERE spectrogram_id = ANY (%s)", ids) == [
        (0,)
    ]


def test_11_what_was_forced(stack: Stack, history: History) -> None:
    rows = answer(stack, history, 11)
    # Hops of 512 samples, and one frame more: three recordings of 2 s and one of 3 s.
    n_frames = 3 * (1 + 2 * SR // 512) + 1 + 3 * SR // 512
    assert columns(rows, "batch", "computed_again", "frames") == [(str(history.fourth), "4", str(n_frames))]


def test_12_what_loaded_most(stack: Stack, history: History) -> None:
    rows = answer(stack, history, 12)
    assert columns(rows, "batch", "loaded", "attempts", "workers", "audio_s") == [
        (str(history.fourth), "4", "5", "1", "9.0"),
        (str(history.first), "3", "6", "2", "6.0"),
        (str(history.second), "1", "1", "1", "2.0"),
        (str(history.third), "1", "2", "1", "3.0"),
    ]
    assert all(float(row["mean_s"]) > 0 for row in rows)


def test_the_views_have_the_columns_that_the_page_names(history: History) -> None:
    """Each view that the page names is there, and each column that it is asked by."""
    for view, asked_by in (
        ("spectrogram_lineage", "spectrogram_id, bucket, key, batch_id, code_from, profile_parameters, run_parameters"),
        ("object_lineage", "bucket, key, object_id, batch_id, dag_id, run_id, code_from, profile_parameters"),
        ("duplicates", "sha256, bucket, key"),
    ):
        with psycopg.connect(history.store.dsn) as connection:
            assert connection.execute(f"SELECT {asked_by} FROM spectralize.{view} LIMIT 1".encode()).fetchone()
