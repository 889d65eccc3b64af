"""The store that the pages read: recordings that look like something, and the usual accidents."""

from collections.abc import Iterator

import pytest

from spectralize.database import connect
from spectralize.s3 import open_s3
from spectralize.sources import Source
from tests.docs.sounds import make_objects
from tests.store import Store

BUCKET = "recordings"

#: Recorders name their files by the time: 20240601_043000.flac.
TIME = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})_(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})"


@pytest.fixture(scope="module")
def filled(dsn: str, aws: None) -> Iterator[Store]:
    """A bucket as the pages name it, loaded for two profiles."""
    client = open_s3()
    for name in (BUCKET, f"{BUCKET}-manifests"):
        client.create_bucket(Bucket=name)
    source = Source(
        name="recordings", bucket=BUCKET, include=("*.wav", "*.flac", "*.mp3"), profiles=("mel128_22k", "speech80_16k"),
        settle_s=0, time_patterns=(TIME,),
    )  # fmt: skip
    with connect(dsn) as connection:
        store = Store(dsn, connection, client, source)
        for key, data in make_objects().items():
            store.put(key, data)
        store.ingest()
        yield store
    for name in (BUCKET, f"{BUCKET}-manifests"):
        for item in client.list_objects_v2(Bucket=name).get("Contents", []):
            client.delete_object(Bucket=name, Key=item["Key"])
        client.delete_bucket(Bucket=name)
