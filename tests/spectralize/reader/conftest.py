"""One store for the tests that only read: every profile, good recordings and bad ones."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from spectralize import open_store
from spectralize.database import connect
from spectralize.profiles import load_profiles
from spectralize.reader import Store as Reader
from spectralize.s3 import open_s3
from spectralize.sources import Source
from tests.spectralize.test_tags import tagged
from tests.store import Store, encode, make_samples, wav

#: What is loaded, by key. The last two end as partial and rejected.
OBJECTS = {
    "field/2021/03/04/dawn.flac": encode(make_samples(7.3, sr=44_100, channels=2, seed=1), 44_100, "FLAC"),
    "field/2021/03/05/dusk.ogg": encode(make_samples(12.0, sr=48_000, seed=2), 48_000, "OGG"),
    "music/100%_jazz [red].mp3": tagged({"title": "So What?", "artist": "Miles", "genre": "jazz", "date": "1959"}),
    "music/short.wav": wav(0.4, seed=4),
    "music/sub/tone.wav": wav(3.0, seed=5),
    "damaged/cut.flac": encode(make_samples(6.0, sr=44_100, seed=6), 44_100, "FLAC")[:120_000],
    "damaged/empty.wav": b"",
}


@contextmanager
def bucket_of(dsn: str, prefix: str, **changes: object) -> Iterator[Store]:
    """A bucket with its source, and a connection."""
    bucket = f"{prefix}-{uuid.uuid4().hex[:12]}"
    client = open_s3()
    for name in (bucket, f"{bucket}-manifests"):
        client.create_bucket(Bucket=name)
    source = Source(name="test", bucket=bucket, profiles=("mel128_22k",), settle_s=0)
    with connect(dsn) as connection:
        yield Store(dsn, connection, client, source.model_copy(update=changes))
    for name in (bucket, f"{bucket}-manifests"):
        for item in client.list_objects_v2(Bucket=name).get("Contents", []):
            client.delete_object(Bucket=name, Key=item["Key"])
        client.delete_bucket(Bucket=name)


@pytest.fixture(scope="module")
def filled(dsn: str, aws: None) -> Iterator[Store]:
    """`OBJECTS`, loaded for every profile of the configuration."""
    pattern = r"(?P<year>\d{4})/(?P<month>\d{2})/(?P<day>\d{2})"
    with bucket_of(dsn, "read", profiles=tuple(load_profiles()), time_patterns=(pattern,)) as store:
        for key, data in OBJECTS.items():
            store.put(key, data)
        store.ingest()
        yield store


@pytest.fixture
def reader(filled: Store) -> Iterator[Reader]:
    """The store as users open it."""
    with open_store(filled.dsn) as reader:
        yield reader
