"""A store of noise, made in minutes: everything as the job leaves it but the waveform, and no audio behind it.

Recordings go through the loader that the job has (one transaction each: recording, claim, frames, seconds, ledger), so the
tables, their chunks and their free space are those of a store that was ingested. A Mel vector takes 264 bytes whatever it
holds, and nothing here compresses: noise reads as music does.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from bench.measurement import BenchError
from spectralize import gate, ledger
from spectralize.binarycopy import RowBlock, encode_rows, frame_times_us
from spectralize.database import connect
from spectralize.decode import AudioInfo
from spectralize.extract import Extraction
from spectralize.features import FeatureSummary
from spectralize.isolate import Done
from spectralize.ledger import Run
from spectralize.loader import Attempt, Result, load_group
from spectralize.profiles import find_profile
from spectralize.seconds import Seconds, SecondsStream
from spectralize.sources import Source
from spectralize.tables import TAG_COLUMNS, PlannedObject, PlannedProfile, Timings
from spectralize.tags import Tags

#: As `mel128_22k`, but without the waveform: what is measured are Mel frames.
PROFILE = find_profile("mel128_22k").model_copy(update={"name": "synthetic", "waveform": "off"})
SR = 22_050
BUCKET = "synthetic"
SOURCE = Source(name="synthetic", bucket=BUCKET, profiles=(PROFILE.name,), settle_s=0)
N_LOADERS = 2

FIRST_DAY = datetime(2004, 1, 1, tzinfo=UTC)
YEARS_S = 20 * 365.25 * 86_400
#: After all dated keys, so that no chunk of theirs holds it.
BULK_DAY = datetime(2024, 6, 12, tzinfo=UTC)
_DAY_S = 86_400.0

#: Loudest cell of every recording: with this mean and deviation one in 250 is cut off there.
PEAK_DB = 0.0
_MEAN_DB, _DEVIATION_DB = -40.0, 15.0
_FLOOR_DB = -100.0

#: So many different recordings there are; what they hold repeats after that.
_N_VARIETIES = 16
_SHIFT_FRAMES = 97

#: Recordings that a loader takes at a time; each has a transaction of its own.
_AT_A_TIME = 8

Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Take:
    """A recording to be made: its key, when it was recorded, and which noise it is."""

    key: str
    recorded_at: datetime
    is_dated: bool
    duration_s: float
    variety: int

    @property
    def n_samples(self) -> int:
        """Samples at the profile's rate."""
        return round(self.duration_s * SR)

    @property
    def n_frames(self) -> int:
        """Frames are centred: 7752 for three minutes."""
        return 1 + self.n_samples // PROFILE.hop_length

    def mel(self) -> npt.NDArray[np.float16]:
        """Shape (n_frames, n_mels): what it holds, in dB."""
        return _noise(self.n_frames, self.variety)


def plan_dated(n: int, *, start: datetime, span_s: float, duration_s: float) -> list[Take]:
    """Dated keys, evenly spread over a span of time, at any time of the day."""
    at_s = (np.arange(n) + np.random.default_rng(n).uniform(0, 0.9, n)) * (span_s / n)
    takes = []
    for number, offset_s in enumerate(at_s.tolist()):
        at = start + timedelta(seconds=int(offset_s))
        takes.append(Take(f"site/{at:%Y/%m/%d/%H%M%S}.wav", at, True, duration_s, number % _N_VARIETIES))
    return takes


def plan_bulk(n: int, *, duration_s: float) -> list[Take]:
    """Keys without a date, all uploaded within one day."""
    at_s = np.random.default_rng(n).uniform(0, _DAY_S - duration_s - 1, n)
    return [
        Take(f"upload/{number:06}.wav", BULK_DAY + timedelta(seconds=int(at)), False, duration_s, number % _N_VARIETIES)
        for number, at in enumerate(np.sort(at_s).tolist())
    ]


@cache
def _noise(n_frames: int, variety: int) -> npt.NDArray[np.float16]:
    first = variety * _SHIFT_FRAMES
    return _noises(n_frames)[first : first + n_frames]


@cache
def _noises(n_frames: int) -> npt.NDArray[np.float16]:
    n_rows = n_frames + (_N_VARIETIES - 1) * _SHIFT_FRAMES
    noise = np.random.default_rng(0).standard_normal((n_rows, PROFILE.n_mels), dtype=np.float32)
    mel = np.clip(noise * np.float32(_DEVIATION_DB) + np.float32(_MEAN_DB), _FLOOR_DB, PEAK_DB)
    halves: npt.NDArray[np.float16] = mel.astype(np.float16)
    return halves


@cache
def _wire_noise(n_frames: int, variety: int) -> npt.NDArray[np.float16]:
    """The noise in the byte order of the wire: brought there once, not per recording."""
    wire: npt.NDArray[np.float16] = _noise(n_frames, variety).astype(">f2")
    return wire


@cache
def _seconds(n_frames: int, n_samples: int, variety: int) -> Seconds:
    stream = SecondsStream(SR, PROFILE.hop_length, PROFILE.n_mels)
    stream.push(np.zeros(n_samples, dtype=np.float32), _noise(n_frames, variety).astype(np.float32))
    return stream.finish()


def fill_store(
    dsn: str, takes: Sequence[Take], *, advance: Callable[[int], object] = lambda _: None, n_loaders: int = N_LOADERS
) -> None:
    """Load synthetic recordings into a migrated database, as one batch that succeeds.

    Parameters
    ----------
    advance
        Called with the number of frames loaded since it was called last.
    n_loaders
        Processes that load side by side; 0 loads in this one.
    """
    with connect(dsn) as connection:
        batch_id, planned = _plan_batch(connection, takes)
        groups = [planned[start : start + _AT_A_TIME] for start in range(0, len(planned), _AT_A_TIME)]
        for n_frames in _load(dsn, batch_id, groups, n_loaders):
            advance(n_frames)
        gate.gate_batch(connection, batch_id, SOURCE)
        batch = gate.close_batch(connection, batch_id, SOURCE)
        connection.commit()
    if batch.counts.outcomes["loaded"] != len(takes):
        raise BenchError(f"synthetic recordings: {batch.counts.outcomes} of {len(takes)}")


_SEE = """
INSERT INTO spectralize.objects (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin)
SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::text[])
"""

_PLAN = """
INSERT INTO spectralize.batch_objects (batch_id, object_id, profile_id, generation)
SELECT %(batch_id)s, object_id, %(profile_id)s, 0 FROM spectralize.objects WHERE bucket = %(bucket)s AND key = ANY (%(keys)s)
"""

_SAVE_PLAN = """
UPDATE spectralize.batches
SET state = 'planned', planned_at = clock_timestamp(), listed = %(n)s, unchanged = 0, planned = %(n)s, unsettled = 0,
    ignored = 0, over_cap = 0, planned_spectrograms = %(n)s
WHERE batch_id = %(batch_id)s
"""


def _plan_batch(
    connection: psycopg.Connection[Any], takes: Sequence[Take]
) -> tuple[int, list[tuple[PlannedObject, Take]]]:
    """Leave in the ledger what planning leaves there, without listing anything."""
    profile_id = ledger.register_profiles(connection, [PROFILE])[PROFILE.name]
    batch = ledger.open_batch(connection, SOURCE, Run("bench_synthetic", f"frames_of_{len(takes)}", "manual"))
    modified = [BULK_DAY if take.is_dated else take.recorded_at for take in takes]
    sizes = [take.n_samples * 2 + 44 for take in takes]
    etags = [hashlib.md5(take.key.encode(), usedforsecurity=False).hexdigest() for take in takes]
    connection.execute(
        _SEE,
        (
            BUCKET, [take.key for take in takes], etags, sizes, modified, [take.recorded_at for take in takes],
            [_origin(take) for take in takes],
        ),
    )  # fmt: skip
    values = {"batch_id": batch.batch_id, "profile_id": profile_id, "bucket": BUCKET, "n": len(takes)}
    connection.execute(_PLAN, values | {"keys": [take.key for take in takes]})
    connection.execute(_SAVE_PLAN, values)
    rows = connection.execute("SELECT key, object_id FROM spectralize.objects WHERE bucket = %s", (BUCKET,)).fetchall()
    connection.commit()
    ids = dict(rows)
    profiles = (PlannedProfile(profile_id, PROFILE.name),)
    return batch.batch_id, [
        (PlannedObject(ids[take.key], BUCKET, take.key, etag, size, take.recorded_at, _origin(take), None, profiles), take)
        for take, etag, size in zip(takes, etags, sizes, strict=True)
    ]  # fmt: skip


def _origin(take: Take) -> str:
    return "key" if take.is_dated else "last_modified"


Group = list[tuple[PlannedObject, Take]]


def _load(dsn: str, batch_id: int, groups: Sequence[Group], n_loaders: int) -> Iterator[int]:
    if not n_loaders:
        with connect(dsn) as connection:
            for group in groups:
                yield _load_group(connection, batch_id, group)
        return
    # Started anew rather than forked: this process may have clients with threads of their own.
    context = multiprocessing.get_context("spawn")
    with context.Pool(n_loaders, _open_loader, (dsn,)) as pool:
        yield from pool.imap_unordered(partial(_load_in_process, batch_id), groups)


#: A loader's own connection.
_CONNECTIONS: list[psycopg.Connection[Any]] = []


def _open_loader(dsn: str) -> None:
    # Ctrl-C is for the process that started us; it ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _CONNECTIONS.append(connect(dsn))


def _load_in_process(batch_id: int, group: Group) -> int:
    return _load_group(_CONNECTIONS[0], batch_id, group)


def _load_group(connection: psycopg.Connection[Any], batch_id: int, group: Group) -> int:
    for planned, take in group:
        load_group(connection, Attempt(batch_id, "synthetic"), [_result(planned, take)])
        connection.commit()
    return sum(take.n_frames for _, take in group)


def _result(planned: PlannedObject, take: Take) -> Result:
    """What the job would have after decoding it."""
    seconds = _seconds(take.n_frames, take.n_samples, take.variety)
    audio = AudioInfo(SR, 1, take.n_samples, "pcm_s16le", "wav", "pcm_s16le", take.duration_s, SR, 1, None)
    tags = Tags(dict.fromkeys(TAG_COLUMNS), {}, [])
    summary = FeatureSummary(
        sr=SR, hop_length=PROFILE.hop_length, n_mels=PROFILE.n_mels, n_samples=take.n_samples, n_frames=take.n_frames,
        n_hops=0, n_seconds=len(seconds.rms), peak_db=PEAK_DB,
    )  # fmt: skip
    sha256 = hashlib.sha256(take.key.encode()).digest()
    rows = [(PROFILE.name, _frame_rows(take)), (PROFILE.name, _second_rows(take, seconds))]
    extraction = Extraction(sha256, audio, tags, {PROFILE.name: summary})
    return Result(planned, Done(rows, extraction, Timings()), datetime.now(UTC))


def _frame_rows(take: Take) -> RowBlock:
    indices = np.arange(take.n_frames, dtype=np.int64)
    columns: Columns = {
        "frame_time": frame_times_us(take.recorded_at, indices, PROFILE.hop_length, SR),
        "spectrogram_id": np.zeros(take.n_frames, dtype=np.int32),
        "frame_index": indices.astype(np.int32),
        "mel": _wire_noise(take.n_frames, take.variety),
    }
    return encode_rows("mel_frames", columns)


def _second_rows(take: Take, seconds: Seconds) -> RowBlock:
    indices = np.arange(len(seconds.rms), dtype=np.int64)
    columns: Columns = {
        "second_at": frame_times_us(take.recorded_at, indices, 1, 1),
        "spectrogram_id": np.zeros(len(indices), dtype=np.int32),
        "second_index": indices.astype(np.int32),
        "n_frames": seconds.n_frames,
        "rms": seconds.rms,
        "peak": seconds.peak,
        "mel_mean": seconds.mel_mean,
        "mel_std": seconds.mel_std,
    }
    return encode_rows("mel_seconds", columns)
