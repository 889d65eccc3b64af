"""Where a batch's rows come from, and what touched a key: the ledger and its views of lineage, as rows to print."""

import re
from itertools import takewhile
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from spectralize.errors import LedgerError, as_one_line
from spectralize.forget import Place
from spectralize.status import read_batch_lines, read_batch_status

Connection = psycopg.Connection[Any]

#: Every zip that attempts of a batch ran. What does not know its code has that of the batch, as in the views.
_CODE = """
SELECT coalesce(a.core_version, b.core_version) AS core_version,
       CASE WHEN a.core_version IS NULL THEN b.code_zip_sha256 ELSE a.code_zip_sha256 END AS code_zip_sha256,
       CASE WHEN a.core_version IS NULL THEN 'batch' ELSE 'attempt' END AS code_from,
       count(*) AS attempts, count(*) FILTER (WHERE a.outcome IN ('loaded', 'partial')) AS loaded,
       count(DISTINCT a.worker) AS workers
FROM spectralize.batch_object_attempts AS a JOIN spectralize.batches AS b USING (batch_id)
WHERE a.batch_id = %s GROUP BY 1, 2, 3 ORDER BY min(a.started_at)
"""

_PROFILES = """
SELECT p.name AS profile, p.fingerprint, p.parameters, n.planned
FROM (SELECT profile_id, count(*) AS planned FROM spectralize.batch_objects WHERE batch_id = %s GROUP BY profile_id) AS n
JOIN spectralize.profiles AS p USING (profile_id) ORDER BY p.name
"""

#: The prefix that a source has now may not be what it had then; that of the planned keys stays. Keys sort by bytes, so the
#: first and the last have in common what all have.
_READ_FROM = """
SELECT o.bucket, min(o.key) AS first_key, max(o.key) AS last_key, count(*) AS objects, sum(o.size_bytes)::bigint AS size_bytes
FROM (SELECT DISTINCT object_id FROM spectralize.batch_objects WHERE batch_id = %s) AS planned
JOIN spectralize.objects AS o USING (object_id) GROUP BY o.bucket ORDER BY o.bucket
"""

_WROTE = """
SELECT (SELECT count(*) FROM (SELECT DISTINCT object_id FROM spectralize.batch_objects WHERE batch_id = %(batch_id)s) AS planned
        JOIN spectralize.recordings AS r USING (object_id) WHERE r.batch_id = %(batch_id)s) AS recordings,
       count(*) AS spectrograms, coalesce(sum(n_frames), 0)::bigint AS mel_frames,
       coalesce(sum(n_hops), 0)::bigint AS waveform_frames, coalesce(sum(n_seconds), 0)::bigint AS mel_seconds,
       count(*) FILTER (WHERE status = 'expired') AS expired
FROM spectralize.spectrograms WHERE batch_id = %(batch_id)s
"""

_ALERTS = """
SELECT kind, created_at, sent_at, tries, last_error FROM spectralize.alerts WHERE batch_id = %s ORDER BY alert_id
"""

_TRIES = """
SELECT t.batch_id, t.try, t.state, t.failure, t.opened_at, t.closed_at
FROM spectralize.batches AS t JOIN spectralize.batches AS b USING (dag_id, run_id)
WHERE b.batch_id = %s ORDER BY t.try
"""

#: As `reader.catalogue` does: one probe of the index per bucket, where a key alone would have every object looked at.
_BUCKETS_OF_KEY = """
WITH RECURSIVE buckets AS (
    (SELECT bucket FROM spectralize.objects ORDER BY bucket LIMIT 1)
    UNION ALL
    SELECT (SELECT o.bucket FROM spectralize.objects AS o WHERE o.bucket > b.bucket ORDER BY o.bucket LIMIT 1)
    FROM buckets AS b WHERE b.bucket IS NOT NULL
)
SELECT b.bucket FROM buckets AS b
WHERE EXISTS (SELECT FROM spectralize.objects AS o WHERE o.bucket = b.bucket AND o.key = %s)
ORDER BY b.bucket
"""

_OBJECTS = """
SELECT o.object_id, o.uid::text, o.etag, o.size_bytes, o.version_id, o.last_modified, o.first_seen_at, o.tombstoned_at,
       o.forgotten_at, encode(r.sha256, 'hex') AS sha256, r.batch_id AS decoded_in_batch
FROM spectralize.objects AS o LEFT JOIN spectralize.recordings AS r USING (object_id)
WHERE o.bucket = %s AND o.key = %s ORDER BY o.last_modified, o.listed_since, o.object_id
"""

_ATTEMPTS = """
SELECT object_id, batch_id, source, dag_id, run_id, try, kind, interval_start, interval_end, run_parameters, profile,
       fingerprint, profile_parameters, generation, attempt, outcome, reason_class, reason, batch_outcome, spectrogram_id,
       has_written, worker, started_at, ended_at, core_version, code_zip_sha256, code_from
FROM spectralize.object_lineage WHERE bucket = %s AND key = %s ORDER BY batch_id, profile, object_id, attempt
"""

_SPECTROGRAMS = """
SELECT spectrogram_id, object_id, encode(sha256, 'hex') AS sha256, profile, fingerprint, generation, status, expired_at,
       expired_because, is_current, n_frames, recorded_at, batch_id, dag_id, run_id, try, attempt, worker, loaded_at,
       core_version, code_zip_sha256, code_from, library_versions, manifest_uri, manifest_sha256
FROM spectralize.spectrogram_lineage WHERE bucket = %s AND key = %s ORDER BY spectrogram_id
"""

_SAME_BYTES = """
SELECT bucket, key, object_id, encode(sha256, 'hex') AS sha256, last_modified, tombstoned_at, is_current
FROM spectralize.duplicates
WHERE sha256 = ANY (ARRAY(
    SELECT r.sha256 FROM spectralize.recordings AS r JOIN spectralize.objects AS o USING (object_id)
    WHERE o.bucket = %(bucket)s AND o.key = %(key)s
)) AND (bucket, key) <> (%(bucket)s, %(key)s)
ORDER BY bucket, key, object_id
"""


def _rows(connection: Connection, query: str, values: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()


def read_batch_facts(connection: Connection, batch_id: int) -> dict[str, Any]:
    """Return what a batch read, with which code and parameters, and what it wrote.

    Returns
    -------
    A dict of `code` (a row per zip that its attempts ran), `profiles`, `read_from` (a row per bucket, with the `prefix` that
    all its planned keys have), `wrote` (rows by table) and `alerts` (who was told what of it, and when).
    """
    read_from = _rows(connection, _READ_FROM, (batch_id,))
    for row in read_from:
        letters = zip(row.pop("first_key"), row.pop("last_key"), strict=False)
        row["prefix"] = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], letters))
    [wrote] = _rows(connection, _WROTE, {"batch_id": batch_id})
    return {
        "code": _rows(connection, _CODE, (batch_id,)),
        "profiles": _rows(connection, _PROFILES, (batch_id,)),
        "read_from": read_from,
        "wrote": wrote,
        "alerts": _rows(connection, _ALERTS, (batch_id,)),
    }


def read_batch_lineage(connection: Connection, batch_id: int) -> dict[str, Any]:
    """Return a batch, its facts, every try of its run, and its objects.

    Raises
    ------
    LedgerError
        If there is no such batch.
    """
    return {
        "batch": read_batch_status(connection, batch_id),
        "tries": _rows(connection, _TRIES, (batch_id,)),
        **read_batch_facts(connection, batch_id),
        "objects": read_batch_lines(connection, batch_id),
    }


def find_place(connection: Connection, name: str) -> Place:
    """Return the key that is meant by `s3://bucket/key`, the uid of one of its objects, or a key alone.

    Raises
    ------
    LedgerError
        If the store does not know it, or a key alone is in several buckets.
    """
    shown = as_one_line(name)
    # What no column can hold, no key is.
    if "\0" in name or re.search("[\ud800-\udfff]", name):
        raise LedgerError(f"key '{shown}': not known to the store")
    if (uid := _as_uid(name)) is not None:
        row = connection.execute("SELECT bucket, key FROM spectralize.objects WHERE uid = %s", (uid,)).fetchone()
        if row is not None:
            return Place(*row)
    if name.startswith("s3://"):
        bucket, _, key = name.removeprefix("s3://").partition("/")
        values = (bucket, key)
        known = connection.execute("SELECT FROM spectralize.objects WHERE bucket = %s AND key = %s LIMIT 1", values)
        if known.fetchone() is None:
            raise LedgerError(f"{shown}: not known to the store; spectralize ls lists what it holds")
        return Place(bucket, key)
    buckets = [row[0] for row in connection.execute(_BUCKETS_OF_KEY, (name,))]
    if not buckets:
        raise LedgerError(f"key '{shown}': not known to the store; spectralize ls lists what it holds")
    if len(buckets) > 1:
        raise LedgerError(f"key '{shown}' is in several buckets: write s3://{'|'.join(buckets)}/…")
    return Place(buckets[0], name)


def _as_uid(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def read_key_lineage(connection: Connection, place: Place) -> dict[str, Any]:
    """Return everything that ever touched a key.

    Returns
    -------
    A dict of `bucket`, `key`; `objects`, the oldest first; `attempts`, a row per attempt of any run on one of them;
    `spectrograms`, with the code and bytes of each; and `same_bytes`: objects of other keys with the same sha256.
    """
    values = (place.bucket, place.key)
    return {
        "bucket": place.bucket,
        "key": place.key,
        "objects": _rows(connection, _OBJECTS, values),
        "attempts": _rows(connection, _ATTEMPTS, values),
        "spectrograms": _rows(connection, _SPECTROGRAMS, values),
        "same_bytes": _rows(connection, _SAME_BYTES, {"bucket": place.bucket, "key": place.key}),
    }
