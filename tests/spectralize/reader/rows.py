"""Rows written straight into the database: recordings that no file could be made into quickly, and broken ones."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from spectralize.binarycopy import HEADER, TRAILER, RowBlock, encode_rows, frame_times_us
from spectralize.profiles import MelProfile

RECORDED_AT = datetime(2022, 5, 7, 11, 12, 13, 141_516, tzinfo=UTC)

_NUMBERS = count()

#: Rows that are encoded at a time.
_BLOCK = 1 << 19


def make_profile(**changes: Any) -> MelProfile:
    """A small profile with a name of its own."""
    values = {"sr": 16_000, "n_fft": 512, "hop_length": 160, "win_length": 512, "n_mels": 4, **changes}
    return MelProfile(name=f"p{next(_NUMBERS)}", **values)


def write_recording(
    connection: psycopg.Connection[Any],
    profile: MelProfile,
    *,
    n_samples: int,
    sr: int | None = None,
    key: str | None = None,
    bucket: str = "rows",
    recorded_at: datetime = RECORDED_AT,
    tags: dict[str, Any] | None = None,
    **columns: Any,
) -> int:
    """Write a recording as the loader would, with frames that count: cell k of frame i is i % 1000 + k / 16."""
    sr = sr or (profile.sr if isinstance(profile.sr, int) else 44_100)
    hop = profile.hop_length
    n_frames = 1 + n_samples // hop
    n_hops = 0 if profile.waveform == "off" else -(-n_samples // hop)

    def one(query: str, *values: Any) -> Any:
        return connection.execute(query, values).fetchone()[0]  # type: ignore[index]

    profile_id = one(
        "INSERT INTO spectralize.profiles (name, fingerprint, parameters) VALUES (%s, %s, %s) "
        "ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING profile_id",
        profile.name, profile.fingerprint, Jsonb(profile.parameters),
    )  # fmt: skip
    batch_id = one(
        "INSERT INTO spectralize.batches (source, dag_id, run_id, try, kind, core_version) "
        "VALUES ('rows', 'rows', %s, 1, 'manual', '0') RETURNING batch_id", str(next(_NUMBERS)),
    )  # fmt: skip
    object_id = one(
        "INSERT INTO spectralize.objects (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin) "
        "VALUES (%s, %s, %s, 1, %s, %s, 'key') RETURNING object_id",
        bucket, key or f"{next(_NUMBERS)}.wav", str(next(_NUMBERS)), recorded_at, recorded_at,
    )  # fmt: skip
    values = {
        "object_id": object_id, "sha256": b"\0" * 32, "container": "wav", "decoded_codec": "pcm_s16le",
        "decoded_duration_s": n_samples / sr, "decoded_samples": n_samples, "decoded_samplerate_hz": sr,
        "decoded_channels": 1, "batch_id": batch_id, "tags": Jsonb(tags or {}), **columns,
    }  # fmt: skip
    connection.execute(
        f"INSERT INTO spectralize.recordings ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})",
        list(values.values()),
    )
    spectrogram_id = one(
        "INSERT INTO spectralize.spectrograms (object_id, profile_id, batch_id, status, sr, hop_length, n_mels, n_samples, "
        "n_frames, n_hops, n_seconds, peak_db, recorded_at, recorded_at_origin, core_version, library_versions) "
        "VALUES (%s, %s, %s, 'complete', %s, %s, %s, %s, %s, %s, %s, 0, %s, 'key', '0', '{}') RETURNING spectrogram_id",
        object_id, profile_id, batch_id, sr, hop, profile.n_mels, n_samples, n_frames, n_hops, -(-n_samples // sr), recorded_at,
    )  # fmt: skip
    for block in _mel(profile, recorded_at, n_frames, sr):
        copy_rows(connection, block, spectrogram_id)
    for block in _hops(profile, recorded_at, n_samples, n_hops, sr):
        copy_rows(connection, block, spectrogram_id)
    connection.commit()
    return int(object_id)


def copy_rows(connection: psycopg.Connection[Any], block: RowBlock, spectrogram_id: int) -> None:
    """Write encoded rows under this id."""
    statement = f"COPY spectralize.{block.table} ({', '.join(block.columns)}) FROM STDIN (FORMAT binary)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(HEADER)
        copy.write(block.with_spectrogram(spectrogram_id))
        copy.write(TRAILER)


def frames(first: int, stop: int, n_mels: int) -> np.ndarray:
    """What `write_recording` has as frames [first, stop)."""
    cells: np.ndarray = (np.arange(first, stop)[:, None] % 1000 + np.arange(n_mels) / 16).astype(np.float16)
    return cells


def _columns(recorded_at: datetime, first: int, stop: int, hop: int, sr: int) -> dict[str, Any]:
    indices = np.arange(first, stop, dtype=np.int64)
    return {
        "frame_time": frame_times_us(recorded_at, indices, hop, sr),
        "spectrogram_id": np.zeros(stop - first, dtype=np.int32),
        "frame_index": indices.astype(np.int32),
    }


def _mel(profile: MelProfile, recorded_at: datetime, n_frames: int, sr: int) -> Iterator[RowBlock]:
    for first in range(0, n_frames, _BLOCK):
        stop = min(first + _BLOCK, n_frames)
        columns = _columns(recorded_at, first, stop, profile.hop_length, sr)
        yield encode_rows("mel_frames", columns | {"mel": frames(first, stop, profile.n_mels)})


def _hops(profile: MelProfile, recorded_at: datetime, n_samples: int, n_hops: int, sr: int) -> Iterator[RowBlock]:
    hop = profile.hop_length
    n_whole = n_samples // hop
    for first, stop in [(0, n_whole), (n_whole, n_hops)]:
        if first >= stop:
            continue
        columns = _columns(recorded_at, first, stop, hop, sr)
        columns |= {name: np.zeros(stop - first, dtype=np.float32) for name in ("min", "max", "rms")}
        if profile.waveform == "pcm":
            y = np.arange(first * hop, min(stop * hop, n_samples)).astype(np.int16)
            columns["pcm"] = y.reshape(stop - first, -1)
        yield encode_rows("waveform_frames", columns)
