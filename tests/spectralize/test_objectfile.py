"""Objects read as files: in ranges, ahead of time, hashed in passing, and never a mixture of two versions."""

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from spectralize import objectfile
from spectralize.errors import RejectedObjectError
from spectralize.objectfile import ObjectFile, open_objects
from spectralize.tables import PlannedObject
from tests.store import Store

BLOCK = 1000
DATA = np.random.default_rng(0).bytes(10_500)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectfile, "BLOCK_BYTES", BLOCK)


class Source:
    """Bytes in memory, and what was asked of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def fetch(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.data[start:stop]

    def open(self, pool: ThreadPoolExecutor) -> ObjectFile:
        return ObjectFile(len(self.data), self.fetch, pool)


@pytest.fixture
def source() -> Source:
    return Source(DATA)


@pytest.fixture
def file(source: Source) -> Any:
    with ThreadPoolExecutor(2) as pool, source.open(pool) as file:
        yield file


def test_reading_in_turn_asks_for_each_block_once(file: ObjectFile, source: Source) -> None:
    parts = []
    while part := file.read(333):
        parts.append(part)
    assert b"".join(parts) == DATA
    assert file.sha256() == hashlib.sha256(DATA).digest()
    assert sorted(source.asked) == [(start, min(start + BLOCK, len(DATA))) for start in range(0, len(DATA), BLOCK)]


def test_it_behaves_as_a_file_in_memory(file: ObjectFile) -> None:
    expected = io.BytesIO(DATA)
    rng = np.random.default_rng(1)
    for _ in range(500):
        whence = int(rng.integers(0, 3))
        low = {0: 0, 1: -expected.tell(), 2: -len(DATA)}[whence]
        offset, size = int(rng.integers(low, 3000)), int(rng.integers(0, 2500))
        assert file.seek(offset, whence) == expected.seek(offset, whence)
        assert file.read(size) == expected.read(size)
        assert file.tell() == expected.tell()
    assert file.sha256() == hashlib.sha256(DATA).digest()


def test_the_hash_covers_what_nobody_read(file: ObjectFile) -> None:
    file.seek(-10, io.SEEK_END)
    assert file.read() == DATA[-10:]
    file.seek(0)
    file.read(5)
    assert file.sha256() == hashlib.sha256(DATA).digest()


def test_memory_does_not_grow_with_the_object(file: ObjectFile) -> None:
    most = 0
    while file.read(100):
        most = max(most, len(file._kept) + len(file._ahead))
    assert most <= objectfile._KEPT_BLOCKS + objectfile._AHEAD_BLOCKS


def test_a_position_before_the_start_is_refused(file: ObjectFile) -> None:
    with pytest.raises(ValueError, match="position -1: must not be negative"):
        file.seek(-1)


def test_a_failure_is_kept_for_who_cannot_see_it() -> None:
    def fetch(start: int, stop: int) -> bytes:
        raise RejectedObjectError("changed", "overwritten")

    with ThreadPoolExecutor(1) as pool, ObjectFile(10, fetch, pool) as file:
        with pytest.raises(RejectedObjectError):
            file.read(1)
        assert isinstance(file.failure, RejectedObjectError)


def plan(store: Store, key: str) -> PlannedObject:
    head = store.client.head_object(Bucket=store.source.bucket, Key=key)
    return PlannedObject(
        1, store.source.bucket, key, head["ETag"].strip('"'), head["ContentLength"], head["LastModified"],
        "last_modified", None, (),
    )  # fmt: skip


def test_ranges_of_a_real_object(store: Store) -> None:
    store.put("a.bin", DATA)
    store.put("b.bin", b"")
    planned = [plan(store, "a.bin"), plan(store, "b.bin")]
    contents = [file.read() for _, file in open_objects(store.client, planned, max_object_bytes=1 << 30)]
    assert contents == [DATA, b""]


@pytest.mark.parametrize("n_read", [0, BLOCK * 5])
def test_an_object_overwritten_while_it_is_read_is_never_a_mixture(store: Store, n_read: int) -> None:
    store.put("a.bin", DATA)
    planned = plan(store, "a.bin")
    for _, file in open_objects(store.client, [planned], max_object_bytes=1 << 30):
        file.read(n_read)
        store.put("a.bin", DATA[::-1])
        # What was asked for before is still the old one.
        with pytest.raises(RejectedObjectError, match="overwritten since it was listed"):
            file.read()
        assert isinstance(file.failure, RejectedObjectError)
        assert file.failure.reason_class == "changed"


def test_an_object_that_is_gone_has_vanished(store: Store) -> None:
    store.put("a.bin", DATA)
    planned = plan(store, "a.bin")
    store.delete("a.bin")
    for _, file in open_objects(store.client, [planned], max_object_bytes=1 << 30):
        with pytest.raises(RejectedObjectError, match="the key is gone"):
            file.read(1)


def test_the_next_objects_are_on_their_way_while_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fetch_range(_: object, planned: PlannedObject, start: int, stop: int) -> bytes:
        asked.append(planned.object_id)
        return bytes(stop - start)

    monkeypatch.setattr(objectfile, "fetch_range", fetch_range)
    planned = [PlannedObject(i, "b", "k", "e", 10, None, "key", None, ()) for i in range(100)]  # type: ignore[arg-type]
    planned[3] = PlannedObject(3, "b", "k", "e", 10_000, None, "key", None, ())  # type: ignore[arg-type]
    for index, (_, file) in enumerate(open_objects(None, planned, max_object_bytes=5_000)):  # type: ignore[arg-type]
        if index != 3:
            assert file.read() == bytes(10)
        assert max(asked) <= index + objectfile._AHEAD_OBJECTS + 1
    assert sorted(asked) == [i for i in range(100) if i != 3]
    asked.clear()
    monkeypatch.setattr(objectfile, "_AHEAD_BYTES", 25)
    opened = open_objects(None, planned, max_object_bytes=5_000)  # type: ignore[arg-type]
    next(opened)
    opened.close()  # type: ignore[attr-defined]
    assert len(asked) <= 4
