"""What the explorer is tested on: recordings whose picture is known, formats, accidents, hostile names, and many others."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from bench.synthetic import fill_store, plan_dated
from spectralize import gate
from spectralize.errors import GateError
from tests.conftest import new_store
from tests.docs.sounds import as_flac, as_mp3, chords, dawn, night
from tests.spectralize.test_tags import tagged
from tests.store import Store, encode

#: A tone that rises by as many hertz in every second.
CHIRP = "tests/chirp.wav"
CHIRP_S = 10.0
CHIRP_FROM_HZ, CHIRP_TO_HZ = 200.0, 8_000.0

LONG = "field/20240601_220000.flac"
LONG_S = 600
FIELD = "field/20240601_043000.flac"

#: Its tags say what the others' do not.
TAGGED = "music/chords.mp3"
TAGS = {"title": "Four chords", "artist": "Nobody Inparticular", "genre": "ambient", "date": "2024"}

PARTIAL = "damaged/cut.flac"
REJECTED = ("damaged/broken.wav", "damaged/empty.wav")
#: What breaks the batch that tolerates nothing.
INTOLERABLE = "damaged/noise.wav"

#: Markup, both quotes, a formula's first letter, and the character that writes what follows from right to left.
HOSTILE = "=hostile/<img src=x onerror=alert(1)>\"'&amp;\u202evaw.wav"
HOSTILE_TAGGED = "hostile/tags.mp3"
HOSTILE_TAGS = {
    "title": "<script>alert(1)</script>",
    "artist": "</script><script>alert(2)</script>",
    "album": '=HYPERLINK("http://evil.example","here")',
    "genre": "javascript:alert(3)",
    "comment": "{{7*7}} ${7*7} <iframe src=//evil.example>",
}

PROFILES = ("mel128_22k", "seed2020")
#: Recorders name their files by the time: 20240601_043000.flac.
_TIME = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})_(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})"

#: The others, among which something has to be found; they have no audio.
N_OTHERS = 120
_OTHERS_FROM, _OTHERS_SPAN_S, _OTHERS_S = datetime(2023, 1, 1, tzinfo=UTC), 90 * 86_400.0, 3.0


@dataclass(frozen=True, slots=True)
class Stock:
    """A filled store.

    Attributes
    ----------
    ids
        Key -> id of the recording, or of the object where there is no recording.
    good, spotted, failed
        Batches: one in which all went well, one with rejected objects, and one that its gate has failed.
    """

    dsn: str
    bucket: str
    ids: dict[str, int]
    good: int
    spotted: int
    failed: int


def chirp(seconds: float = CHIRP_S, sr: int = 22_050) -> bytes:
    """The tone as a 16-bit wav."""
    t = np.arange(round(seconds * sr)) / sr
    phase = 2 * np.pi * (CHIRP_FROM_HZ * t + (CHIRP_TO_HZ - CHIRP_FROM_HZ) / (2 * seconds) * t**2)
    return encode(0.5 * np.sin(phase)[:, None], sr)


def chirp_hz(at_s: float) -> float:
    """Its frequency at a time."""
    return CHIRP_FROM_HZ + (CHIRP_TO_HZ - CHIRP_FROM_HZ) * at_s / CHIRP_S


def _good() -> dict[str, bytes]:
    y = chords()
    samples = y[:, None].astype(np.float32)
    return {
        CHIRP: chirp(),
        FIELD: as_flac(dawn()),
        LONG: as_flac(night(LONG_S), 22_050),
        TAGGED: as_mp3(y, TAGS),
        "music/chords.flac": as_flac(y),
        "music/chords.ogg": encode(samples, 44_100, "OGG"),
        "music/chords.aiff": encode(samples, 44_100, "AIFF"),
        "music/chords.m4a": tagged({"title": "In a box", "artist": "Somebody"}, "ipod", "aac"),
        HOSTILE: chirp(1.0),
        HOSTILE_TAGGED: tagged(HOSTILE_TAGS),
    }


@contextmanager
def fill_stock(dsn: str) -> Iterator[Stock]:
    """Fill a migrated database by batches as they happen; its bucket is gone afterwards."""
    fill_store(dsn, plan_dated(N_OTHERS, start=_OTHERS_FROM, span_s=_OTHERS_SPAN_S, duration_s=_OTHERS_S), n_loaders=0)
    with new_store(dsn) as store:
        store.source = store.source.model_copy(
            update={"include": ("*",), "profiles": PROFILES, "time_patterns": (_TIME,), "owner": "biologists"}
        )
        good = _ingest(store, _good())
        cut = as_flac(dawn(12.0, seed=4))
        spotted = _ingest(
            store, {PARTIAL: cut[: len(cut) // 2], REJECTED[0]: b"RIFF, but no more than that", REJECTED[1]: b""}
        )
        store.source = store.source.model_copy(update={"max_rejected": 0, "max_rejected_share": 0.0})
        failed = _ingest(store, {INTOLERABLE: b"The recorder had no card.\n" * 40})
        ids = dict(store.rows("SELECT key, object_id FROM spectralize.objects WHERE bucket = %s", store.source.bucket))
        yield Stock(dsn, store.source.bucket, ids, good, spotted, failed)


def _ingest(store: Store, objects: dict[str, bytes]) -> int:
    for key, data in objects.items():
        store.put(key, data)
    batch = store.plan()
    store.compute(batch)
    with suppress(GateError):
        gate.gate_batch(store.connection, batch.batch_id, store.source)
    gate.close_batch(store.connection, batch.batch_id, store.source)
    return batch.batch_id
