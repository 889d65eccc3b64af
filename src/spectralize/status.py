"""Counts and sums of the store and its batches, for people and for programs."""

from typing import Any, TypedDict

import psycopg
from psycopg.rows import dict_row

from spectralize.database import fetch_row
from spectralize.errors import LedgerError
from spectralize.tables import OUTCOMES


class Status(TypedDict):
    """What `spectralize status --json` prints."""

    recordings: int
    spectrograms: int
    mel_frames: int
    waveform_frames: int
    mel_seconds: int
    hours: float
    outcomes: dict[str, int]
    reject_classes: dict[str, int]
    batches: list[dict[str, Any]]


_COUNTS = """
SELECT (SELECT count(*) FROM spectralize.recordings),
       count(*), coalesce(sum(n_frames), 0)::bigint, coalesce(sum(n_hops), 0)::bigint, coalesce(sum(n_seconds), 0)::bigint
FROM spectralize.spectrograms WHERE status <> 'expired'
"""

_HOURS = "SELECT coalesce(sum(decoded_duration_s), 0) / 3600 FROM spectralize.recordings"

#: The newest line of each (object, profile) says where it stands now.
_NEWEST = """
SELECT DISTINCT ON (object_id, profile_id) outcome, reason_class FROM spectralize.batch_objects
WHERE outcome IS NOT NULL ORDER BY object_id, profile_id, batch_id DESC
"""

_BATCH = """
SELECT b.batch_id, b.source, b.dag_id, b.run_id, b.try, b.kind, b.state, b.failure, b.interval_start, b.interval_end,
       b.listed, b.unchanged, b.planned, b.unsettled, b.ignored, b.over_cap, b.planned_spectrograms,
       coalesce(b.loaded, n.loaded) AS loaded, coalesce(b.partial, n.partial) AS partial,
       coalesce(b.rejected, n.rejected) AS rejected, coalesce(b.failed, n.failed) AS failed,
       b.core_version, b.code_zip_sha256, b.parameters, b.manifest_uri, b.manifest_sha256,
       b.opened_at, b.planned_at, b.gated_at, b.closed_at
FROM spectralize.batches AS b
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE outcome = 'loaded') AS loaded, count(*) FILTER (WHERE outcome = 'partial') AS partial,
           count(*) FILTER (WHERE outcome = 'rejected') AS rejected, count(*) FILTER (WHERE outcome = 'failed') AS failed
    FROM spectralize.batch_objects WHERE batch_id = b.batch_id
) AS n
"""

_BATCHES = _BATCH + "ORDER BY b.batch_id DESC LIMIT %s"

_LINES = """
SELECT b.batch_id, o.bucket, o.key, o.etag, o.size_bytes, p.name AS profile, b.generation, b.outcome, b.reason_class,
       coalesce(b.reason, s.reason) AS reason, b.attempts, r.decoded_duration_s AS duration_s, s.n_frames,
       b.fetch_s, b.decode_s, b.mel_s, b.load_s, s.spectrogram_id, s.status
FROM spectralize.batch_objects AS b
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
LEFT JOIN spectralize.spectrograms AS s ON s.spectrogram_id = b.spectrogram_id
LEFT JOIN spectralize.recordings AS r ON r.object_id = s.object_id
"""

_LINES_OF_BATCH = _LINES + "WHERE b.batch_id = %s ORDER BY o.key, p.name"

#: The newest object of each key, and the newest batch that planned it.
_LINES_OF_KEYS = (
    "SELECT DISTINCT ON (key, profile) * FROM ("
    + _LINES
    + "WHERE o.bucket = %s AND o.key = ANY (%s) ORDER BY o.last_modified DESC, o.listed_since DESC, b.batch_id DESC"
    + ") AS lines ORDER BY key, profile"
)


_SPECTROGRAMS_OF_OBJECT = """
SELECT s.spectrogram_id, p.name AS profile, s.generation, s.batch_id, s.status, s.reason, s.expired_at, s.expired_because,
       s.sr, s.hop_length, s.n_mels, s.n_samples, s.n_frames, s.n_hops, s.n_seconds, s.peak_db, s.recorded_at,
       s.recorded_at_origin, s.recorded_at_flag, s.core_version, s.library_versions, s.loaded_at,
       EXISTS (
           SELECT FROM spectralize.current_spectrograms AS c
           WHERE c.bucket = o.bucket AND c.key = o.key AND c.profile_id = s.profile_id AND c.spectrogram_id = s.spectrogram_id
       ) AS is_current,
       ARRAY (
           SELECT n.name FROM spectralize.snapshot_spectrograms AS pin JOIN spectralize.snapshots AS n USING (snapshot_id)
           WHERE pin.spectrogram_id = s.spectrogram_id ORDER BY n.name
       ) AS snapshots
FROM spectralize.spectrograms AS s
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
WHERE s.object_id = %s ORDER BY p.name, s.generation
"""

_LINES_OF_OBJECT = """
SELECT b.batch_id, n.source, n.kind, n.dag_id, n.run_id, n.try, p.name AS profile, b.generation, b.outcome, b.reason_class,
       b.reason, b.attempts, b.spectrogram_id, b.fetch_s, b.decode_s, b.mel_s, b.load_s, b.ended_at
FROM spectralize.batch_objects AS b
JOIN spectralize.batches AS n USING (batch_id)
JOIN spectralize.profiles AS p USING (profile_id)
WHERE b.object_id = %s ORDER BY b.batch_id, p.name
"""


def read_status(connection: psycopg.Connection[Any], *, n_batches: int = 20) -> Status:
    """Count what the store holds and list its newest batches."""
    recordings, spectrograms, mel_frames, waveform_frames, mel_seconds = fetch_row(connection, _COUNTS)
    outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    rejects: dict[str, int] = {}
    for outcome, reason_class in connection.execute(_NEWEST):
        outcomes[outcome] += 1
        if outcome == "rejected":
            rejects[reason_class] = rejects.get(reason_class, 0) + 1
    with connection.cursor(row_factory=dict_row) as cursor:
        batches = cursor.execute(_BATCHES, (n_batches,)).fetchall()
    return Status(
        recordings=recordings,
        spectrograms=spectrograms,
        mel_frames=mel_frames,
        waveform_frames=waveform_frames,
        mel_seconds=mel_seconds,
        hours=round(float(fetch_row(connection, _HOURS)[0]), 4),
        outcomes=outcomes,
        reject_classes=rejects,
        batches=batches,
    )


def read_batch_status(connection: psycopg.Connection[Any], batch_id: int) -> dict[str, Any]:
    """Return one batch as `read_status` lists it.

    Raises
    ------
    LedgerError
        If there is none with that id.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        batch = cursor.execute(_BATCH + "WHERE b.batch_id = %s", (batch_id,)).fetchone()
    if batch is None:
        raise LedgerError(f"batch {batch_id}: not in the ledger; spectralize status lists the batches")
    return batch


def read_batch_lines(connection: psycopg.Connection[Any], batch_id: int) -> list[dict[str, Any]]:
    """Return one row per planned (object, profile) of a batch, with its outcome, reason and timings."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_LINES_OF_BATCH, (batch_id,)).fetchall()


def read_key_lines(connection: psycopg.Connection[Any], bucket: str, keys: list[str]) -> list[dict[str, Any]]:
    """Return the newest line of each key and profile: where these objects stand now, whichever batch brought them there."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_LINES_OF_KEYS, (bucket, keys)).fetchall()


def read_object_spectrograms(connection: psycopg.Connection[Any], object_id: int) -> list[dict[str, Any]]:
    """Return everything that was ever computed of an object, expired ones too, and which of it is current or pinned."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SPECTROGRAMS_OF_OBJECT, (object_id,)).fetchall()


def read_object_history(connection: psycopg.Connection[Any], object_id: int) -> list[dict[str, Any]]:
    """Return the ledger's lines of an object, the oldest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_LINES_OF_OBJECT, (object_id,)).fetchall()
