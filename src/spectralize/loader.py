"""One object into the database: recording, claim, frames, roll-ups and ledger, in one transaction."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from spectralize import ledger
from spectralize.binarycopy import HEADER, TRAILER, Columns, encode_rows, frame_times_us
from spectralize.database import fetch_row
from spectralize.errors import RejectedObjectError
from spectralize.extract import Extraction, Features, library_versions
from spectralize.tables import TAG_COLUMNS, Outcome, PlannedObject, PlannedProfile, Timings
from spectralize.version import CORE_VERSION

Connection = psycopg.Connection[Any]

_TAG_NAMES = tuple(TAG_COLUMNS)

_INSERT_RECORDING = f"""
INSERT INTO spectralize.recordings (
    object_id, sha256, {", ".join(_TAG_NAMES)}, tags, container,
    declared_codec, declared_duration_s, declared_samplerate_hz, declared_channels,
    decoded_codec, decoded_duration_s, decoded_samples, decoded_samplerate_hz, decoded_channels, batch_id
) VALUES ({", ".join(["%s"] * (len(_TAG_NAMES) + 14))})
ON CONFLICT (object_id) DO NOTHING
"""

_CLAIM = """
INSERT INTO spectralize.spectrograms (
    object_id, profile_id, generation, batch_id, status, reason, sr, hop_length, n_mels,
    n_samples, n_frames, n_hops, n_seconds, peak_db, recorded_at, recorded_at_origin, recorded_at_flag,
    core_version, library_versions
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (object_id, profile_id, generation) DO NOTHING
RETURNING spectrogram_id
"""

_CLAIMED = """
SELECT spectrogram_id, status, reason FROM spectralize.spectrograms
WHERE object_id = %s AND profile_id = %s AND generation = %s
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which batch works, where, and since when: what an attempt leaves in the ledger."""

    batch_id: int
    worker: str
    started_at: datetime


def load_object(
    connection: Connection,
    attempt: Attempt,
    planned: PlannedObject,
    extraction: Extraction,
    timings: Timings,
) -> dict[str, Outcome]:
    """Write one recording with all its profiles, or nothing.

    Safe to repeat and to run twice at once: the unique claim makes the second one wait, find the first one's spectrogram
    and write only its own ledger line.

    Raises
    ------
    LedgerError
        If the batch has been closed meanwhile: a driver that outlived its run changes nothing.
    """
    started = time.perf_counter()
    outcomes: dict[str, Outcome] = {}
    with connection.transaction():
        ledger.hold_batch_open(connection, attempt.batch_id)
        _insert_recording(connection, attempt, planned, extraction)
        for profile in planned.profiles:
            result = _load_profile(connection, attempt, planned, profile, extraction)
            timings.load_s = time.perf_counter() - started
            ledger.record_outcome(
                connection, attempt.batch_id, planned.object_id, profile.profile_id, result.outcome,
                reason_class=result.reason_class, reason=result.reason, spectrogram_id=result.spectrogram_id,
                worker=attempt.worker, started_at=attempt.started_at, timings=timings,
            )  # fmt: skip
            outcomes[profile.name] = result.outcome
    return outcomes


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one profile."""

    outcome: Outcome
    reason_class: str | None = None
    reason: str | None = None
    spectrogram_id: int | None = None


def _load_profile(
    connection: Connection,
    attempt: Attempt,
    planned: PlannedObject,
    profile: PlannedProfile,
    extraction: Extraction,
) -> _Result:
    features = extraction.features[profile.name]
    if isinstance(features, RejectedObjectError):
        return _Result("rejected", features.reason_class, features.reason)
    spectrogram_id, status, reason = _claim_and_copy(connection, attempt, planned, profile, extraction, features)
    if status == "partial":
        return _Result("partial", "damaged", reason, spectrogram_id)
    return _Result("loaded", spectrogram_id=spectrogram_id)


def _insert_recording(connection: Connection, attempt: Attempt, planned: PlannedObject, extraction: Extraction) -> None:
    audio, tags = extraction.audio, extraction.tags
    connection.execute(
        _INSERT_RECORDING,
        (
            planned.object_id,
            extraction.sha256,
            *(tags.columns[name] for name in _TAG_NAMES),
            Jsonb(tags.other),
            audio.container,
            audio.declared_codec,
            audio.declared_duration_s,
            audio.declared_samplerate_hz,
            audio.declared_channels,
            audio.codec,
            audio.duration_s,
            len(audio.y),
            audio.sr,
            audio.channels,
            attempt.batch_id,
        ),
    )


def _claim_and_copy(
    connection: Connection,
    attempt: Attempt,
    planned: PlannedObject,
    profile: PlannedProfile,
    extraction: Extraction,
    features: Features,
) -> tuple[int, str, str | None]:
    defect = extraction.audio.defect
    status = "partial" if defect else "complete"
    n_hops = len(features.waveform.rms) if features.waveform else 0
    row = connection.execute(
        _CLAIM,
        (
            planned.object_id,
            profile.profile_id,
            profile.generation,
            attempt.batch_id,
            status,
            defect,
            features.sr,
            features.profile.hop_length,
            features.profile.n_mels,
            features.n_samples,
            len(features.mel),
            n_hops,
            len(features.seconds.rms),
            float(features.mel.max()),
            planned.recorded_at,
            planned.recorded_at_origin,
            planned.recorded_at_flag,
            CORE_VERSION,
            Jsonb(library_versions()),
        ),
    ).fetchone()
    if row is None:
        # The holder of the claim has committed, or the insert would have won.
        claimed_id, claimed_status, claimed_reason = fetch_row(
            connection, _CLAIMED, (planned.object_id, profile.profile_id, profile.generation)
        )
        return claimed_id, claimed_status, claimed_reason
    spectrogram_id = int(row[0])
    _copy_mel_frames(connection, spectrogram_id, planned.recorded_at, features)
    _copy_waveform_frames(connection, spectrogram_id, planned.recorded_at, features)
    _copy_mel_seconds(connection, spectrogram_id, planned.recorded_at, features)
    return spectrogram_id, status, defect


def _copy(connection: Connection, table: str, *parts: Columns) -> None:
    names = ", ".join(parts[0])
    # Table and column names are constants of this module; values travel in the binary rows.
    statement = f"COPY spectralize.{table} ({names}) FROM STDIN (FORMAT binary)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(HEADER)
        for part in parts:
            for block in encode_rows(part):
                copy.write(block)
        copy.write(TRAILER)


def _frame_columns(
    spectrogram_id: int, recorded_at: datetime, features: Features, start: int, stop: int
) -> dict[str, Any]:
    indices = np.arange(start, stop, dtype=np.int64)
    return {
        "frame_time": frame_times_us(recorded_at, indices, features.profile.hop_length, features.sr),
        "spectrogram_id": np.full(stop - start, spectrogram_id, dtype=np.int32),
        "frame_index": indices.astype(np.int32),
    }


def _copy_mel_frames(connection: Connection, spectrogram_id: int, recorded_at: datetime, features: Features) -> None:
    columns = _frame_columns(spectrogram_id, recorded_at, features, 0, len(features.mel))
    _copy(connection, "mel_frames", columns | {"mel": features.mel})


def _copy_waveform_frames(
    connection: Connection, spectrogram_id: int, recorded_at: datetime, features: Features
) -> None:
    waveform = features.waveform
    if waveform is None:
        return
    n_hops, hop_length = len(waveform.rms), features.profile.hop_length

    def part(start: int, stop: int) -> dict[str, Any]:
        columns = _frame_columns(spectrogram_id, recorded_at, features, start, stop)
        columns |= {"min": waveform.min[start:stop], "max": waveform.max[start:stop], "rms": waveform.rms[start:stop]}
        if waveform.pcm is not None:
            columns["pcm"] = waveform.pcm[start * hop_length : stop * hop_length].reshape(stop - start, -1)
        return columns

    # The last hop may hold fewer samples than the others: rows of one width each.
    n_whole = n_hops if waveform.pcm is None else features.n_samples // hop_length
    parts = [part(start, stop) for start, stop in ((0, n_whole), (n_whole, n_hops)) if stop > start]
    _copy(connection, "waveform_frames", *parts)


def _copy_mel_seconds(connection: Connection, spectrogram_id: int, recorded_at: datetime, features: Features) -> None:
    seconds = features.seconds
    indices = np.arange(len(seconds.rms), dtype=np.int64)
    _copy(
        connection,
        "mel_seconds",
        {
            "second_at": frame_times_us(recorded_at, indices, 1, 1),
            "spectrogram_id": np.full(len(indices), spectrogram_id, dtype=np.int32),
            "second_index": indices.astype(np.int32),
            "n_frames": seconds.n_frames,
            "rms": seconds.rms,
            "peak": seconds.peak,
            "mel_mean": seconds.mel_mean,
            "mel_std": seconds.mel_std,
        },
    )
