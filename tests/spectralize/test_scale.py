"""Sensor and planner on large buckets: S3 calls and statements are counted, and memory does not grow with the keys."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
import urllib3

from spectralize.planner import has_work
from spectralize.preview import preview_batch
from spectralize.s3 import open_s3
from tests.store import Store

#: Growth of this process while a listing is read, in bytes, whatever its length.
MOST_GROWTH = 48 << 20

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 100

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def key_of(number: int, count: int) -> str:
    """Evenly over a hundred days; every tenth object is a sidecar."""
    day = FIRST_DAY + timedelta(days=number * DAYS // count)
    return f"site/{day:%Y/%m/%d}/{number:07}.{'txt' if number % 10 == 9 else 'wav'}"


@dataclass(slots=True)
class Simulated:
    """A client whose bucket holds any number of objects, made up page by page."""

    count: int
    extra: list[str] = field(default_factory=list)

    def get_paginator(self, name: str) -> "Simulated":
        assert name == "list_objects_v2"
        return self

    def paginate(self, *, Bucket: str, Prefix: str, PaginationConfig: dict[str, int]) -> Iterator[dict[str, Any]]:
        size = PaginationConfig["PageSize"]
        keys = (key for key in self._keys() if key.startswith(Prefix))
        while page := list(itertools.islice(keys, size)):
            calls.append("ListObjectsV2")
            yield {"Contents": [{"Key": key, "ETag": '"e"', "Size": 1, "LastModified": FIRST_DAY} for key in page]}

    def _keys(self) -> Iterator[str]:
        yield from self.extra
        for number in range(self.count):
            yield key_of(number, self.count)

    def put_object(self, **options: Any) -> None:
        """Take the manifest."""


calls: list[str] = []


def upload(part: list[str]) -> None:
    """PUT to presigned addresses: a tenth of the time that boto3 takes."""
    pool = urllib3.PoolManager()
    for address in part:
        assert pool.request("PUT", address, body=b"x", retries=3).status == 200


@contextmanager
def growth() -> Iterator[Callable[[], int]]:
    """Watch the resident memory of this process: the most it has grown since, in bytes."""
    process, peak, is_over = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not is_over.is_set():
            peak[0] = max(peak[0], process.memory_info().rss - before)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: peak[0]
    finally:
        is_over.set()
        watcher.join()


class Counted:
    """A connection that counts its statements."""

    def __init__(self, connection: Any) -> None:
        self._connection, self.n_statements = connection, 0

    def execute(self, *arguments: Any) -> Any:
        self.n_statements += 1
        return self._connection.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def final(store: Store, batch_id: int) -> None:
    """Give every listed object a final outcome, in a batch of its own that only a test can have."""
    store.rows(
        "WITH line AS (INSERT INTO spectralize.batch_objects (batch_id, object_id, profile_id, generation, outcome, "
        "reason_class, reason) SELECT %s, object_id, (SELECT profile_id FROM spectralize.profiles), 0, 'rejected', "
        "'not_audio', 'a test' FROM spectralize.objects WHERE bucket = %s ON CONFLICT (batch_id, object_id, profile_id) "
        "DO UPDATE SET outcome = excluded.outcome, reason_class = excluded.reason_class, reason = excluded.reason RETURNING 1) "
        "SELECT count(*) FROM line", batch_id, store.source.bucket,
    )  # fmt: skip
    for table in ("objects", "batch_objects"):
        store.connection.execute(f"ANALYZE spectralize.{table}")
    store.connection.commit()


@pytest.mark.parametrize("count", [100_000, 1_000_000])
def test_a_large_bucket_costs_a_call_per_page_and_no_memory(store: Store, count: int, record_property: Any) -> None:
    store.source = store.source.model_copy(
        update={"prefix": "site/%Y/%m/%d/", "include": ("*.wav",), "max_batch_objects": 10, "sense_days": 2}
    )
    if count == 100_000:
        client: Any = open_s3()
        addresses = [
            client.generate_presigned_url("put_object", {"Bucket": store.source.bucket, "Key": key_of(number, count)})
            for number in range(count)
        ]
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(upload, [addresses[start : start + 5000] for start in range(0, count, 5000)]))
        client.meta.events.register("before-send.s3.ListObjectsV2", lambda **_: calls.append("ListObjectsV2"))
    else:
        client = Simulated(count)
    store.client = client
    connection: Any = Counted(store.connection)
    store = replace(store, connection=connection)
    pages = count // 1000

    def counted(action: Callable[[], Any]) -> tuple[Any, int, int]:
        calls.clear()
        connection.n_statements = 0
        result = action()
        return result, len(calls), connection.n_statements

    # Warm: what the first use of boto3 and psycopg takes is not the listing's.
    assert counted(lambda: has_work(connection, client, store.source)) == (True, 1, 5)
    with growth() as grown:
        started = time.monotonic()
        batch, n_calls, n_statements = counted(store.plan)
        record_property(
            "plan", f"{count} keys: {n_calls} calls, {n_statements} statements, {time.monotonic() - started:.0f} s"
        )
        assert (batch.counts.listed, batch.counts.planned, batch.counts.ignored) == (count, 10, count // 10)
        assert batch.counts.over_cap == count * 9 // 10 - 10
        assert batch.counts.listing_holds()
        assert n_calls in {pages, pages + 1}
        assert n_statements <= 5 * pages + 30

        if not isinstance(client, Simulated):
            seen, n_calls, _ = counted(lambda: preview_batch(connection, client, store.source))
            assert (seen.counts.listed, seen.counts.planned, seen.n_batches) == (count, 10, count * 9 // 100)
            assert n_calls in {pages, pages + 1}

        final(store, batch.batch_id)
        started = time.monotonic()
        found, n_calls, n_statements = counted(lambda: has_work(connection, client, store.source))
        record_property(
            "look", f"{n_calls} calls, {n_statements} statements, {time.monotonic() - started:.0f} s, {grown()} bytes"
        )
        assert not found
        assert n_calls in {pages, pages + 1}
        assert n_statements <= 2 * pages + 4

        # Only the last days: a hundredth of the calls for each.
        now = FIRST_DAY + timedelta(days=DAYS - 1, hours=12)
        recent = store.source.recent_prefixes(now)
        assert recent == ["site/2024/04/08/", "site/2024/04/09/"]
        found, n_calls, _ = counted(lambda: has_work(connection, client, store.source, prefixes=recent))
        assert not found
        assert n_calls <= 2 * (count // DAYS // 1000 + 1)

        # A late upload whose key is smaller than all that are known.
        late = "site/2024/01/01/0.wav"
        if isinstance(client, Simulated):
            client.extra.append(late)
        else:
            store.put(late, b"x")
        assert counted(lambda: has_work(connection, client, store.source))[:2] == (True, 1)
    assert grown() < MOST_GROWTH
