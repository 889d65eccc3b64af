"""Forgetting a recording: its consent was withdrawn, so it is erased everywhere, and its key is never loaded again."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors, sql

from spectralize.database import fetch_row
from spectralize.errors import LedgerError, as_one_line
from spectralize.expiry import DOOMED_COLUMNS, Doomed, delete_rows, lock_expiry, lock_spectrograms, mark_expired
from spectralize.tables import SCHEMA

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A key of a bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{as_one_line(self.key)}"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is erased, or would be.

    Attributes
    ----------
    places
        The key that was asked for, then its copies.
    n_objects
        Everything ever listed under these keys.
    n_spectrograms, n_frames, hours
        Living spectrograms, their Mel frames, and the audio of all recordings of these keys.
    is_forgotten
        Whether all of it was forgotten before, so that nothing is left to erase.
    """

    places: tuple[Place, ...]
    n_objects: int
    n_recordings: int
    n_spectrograms: int
    n_frames: int
    hours: float
    is_forgotten: bool

    def __str__(self) -> str:
        keys = ", ".join(str(place) for place in self.places)
        return (
            f"{keys}: {self.hours:.2f} h, {self.n_spectrograms} spectrograms with {self.n_frames} Mel frames, "
            f"{self.n_recordings} recordings"
        )


def find_bucket(connection: Connection, key: str) -> str:
    """Return the bucket that holds a key.

    Raises
    ------
    LedgerError
        If no bucket does, or several do.
    """
    rows = connection.execute(
        "SELECT DISTINCT bucket FROM spectralize.objects WHERE key = %s ORDER BY bucket", (key,)
    ).fetchall()
    if not rows:
        raise LedgerError(f"key '{as_one_line(key)}': no bucket is known to have held it")
    if len(rows) > 1:
        raise LedgerError(
            f"key '{as_one_line(key)}': is in {', '.join(row[0] for row in rows)}: say which with --bucket"
        )
    return str(rows[0][0])


_COPIES = """
WITH own AS (
    SELECT o.object_id, o.etag, o.size_bytes, r.sha256
    FROM spectralize.objects AS o LEFT JOIN spectralize.recordings AS r USING (object_id)
    WHERE o.bucket = %(bucket)s AND o.key = %(key)s
)
SELECT DISTINCT o.bucket, o.key
FROM spectralize.objects AS o
LEFT JOIN spectralize.recordings AS r USING (object_id)
WHERE (o.bucket, o.key) <> (%(bucket)s, %(key)s) AND (%(copies)s OR o.forgotten_at IS NULL)
  AND (r.sha256 IN (SELECT sha256 FROM own)
       OR o.size_bytes > 0 AND (o.etag, o.size_bytes) IN (SELECT etag, size_bytes FROM own))
ORDER BY 1, 2
"""

_WHAT = """
WITH own AS (
    SELECT o.* FROM spectralize.objects AS o
    JOIN unnest(%(buckets)s::text[], %(keys)s::text[]) AS place (bucket, key)
      ON place.bucket = o.bucket AND place.key = o.key
)
SELECT (SELECT count(*) FROM own),
       (SELECT count(*) FROM own JOIN spectralize.recordings USING (object_id)),
       (SELECT count(*) FROM own JOIN spectralize.spectrograms USING (object_id) WHERE status <> 'expired'),
       (SELECT coalesce(sum(n_frames), 0)::bigint FROM own JOIN spectralize.spectrograms USING (object_id)
        WHERE status <> 'expired'),
       (SELECT coalesce(sum(decoded_duration_s), 0) / 3600 FROM own JOIN spectralize.recordings USING (object_id)),
       (SELECT coalesce(bool_and(forgotten_at IS NOT NULL), true) FROM own)
"""


def plan_forget(connection: Connection, bucket: str, key: str, *, copies: bool = False) -> Erasure:
    """Say what forgetting a key would erase. Changes nothing.

    Parameters
    ----------
    copies
        Include the other keys under which the same bytes were listed, in any bucket.

    Raises
    ------
    LedgerError
        If the bucket is not known to have held the key, or if there are copies and they are not included.
    """
    place = Place(bucket, key)
    known = connection.execute(
        "SELECT FROM spectralize.objects WHERE bucket = %s AND key = %s LIMIT 1", (bucket, key)
    ).fetchone()
    if known is None:
        raise LedgerError(f"{place}: not known to the store")
    others = [Place(*row) for row in connection.execute(_COPIES, {"bucket": bucket, "key": key, "copies": copies})]
    if others and not copies:
        named = ", ".join(str(other) for other in others)
        raise LedgerError(f"{place}: the same bytes are also in {named}: erase them too with --copies")
    places = (place, *others)
    values = {"buckets": [item.bucket for item in places], "keys": [item.key for item in places]}
    return Erasure(places, *fetch_row(connection, _WHAT, values))


_LOCK_OBJECTS = """
SELECT o.object_id FROM spectralize.objects AS o
JOIN unnest(%(buckets)s::text[], %(keys)s::text[]) AS place (bucket, key) ON place.bucket = o.bucket AND place.key = o.key
ORDER BY o.object_id FOR UPDATE OF o
"""

_LIVING = f"""
SELECT {DOOMED_COLUMNS}
FROM spectralize.spectrograms AS s
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
WHERE s.object_id = ANY (%s) AND s.status <> 'expired'
ORDER BY s.spectrogram_id
"""


def forget(connection: Connection, bucket: str, key: str, *, copies: bool = False) -> Erasure:
    """Erase a recording for good: all that was ever loaded under its key, and return what it was.

    Frames, hops and seconds of every object of the key go, its recordings with their tags, and its places in snapshots.
    The lines of the ledger stay, and so does the key, as a tombstone: nothing is loaded under it again, whether the object
    is still in S3 or is uploaded anew with other bytes. A load that is under way either ends first and is erased with the
    rest, or is refused. All of it is one transaction; what the caller has open is committed first. Doing it again
    changes nothing.

    Then the pages that held the rows are vacuumed; what somebody reads meanwhile stays in them, for autovacuum. What left
    the database before, as backups, exports and the server's write-ahead log, is out of reach here.

    Raises
    ------
    LedgerError
        As `plan_forget`.
    """
    connection.commit()
    with connection.transaction():
        lock_expiry(connection)
        erasure, object_ids = _lock_all(connection, bucket, key, copies=copies)
        doomed = [Doomed(*row) for row in connection.execute(_LIVING, (object_ids,))]
        ids = [item.spectrogram_id for item in doomed]
        lock_spectrograms(connection, ids)
        connection.execute(
            "DELETE FROM spectralize.snapshot_spectrograms AS pin USING spectralize.spectrograms AS s "
            "WHERE s.spectrogram_id = pin.spectrogram_id AND s.object_id = ANY (%s)",
            (object_ids,),
        )
        for item in doomed:
            delete_rows(connection, item)
        mark_expired(connection, ids, "forgotten")
        connection.execute("DELETE FROM spectralize.recordings WHERE object_id = ANY (%s)", (object_ids,))
        connection.execute(
            "UPDATE spectralize.objects SET forgotten_at = clock_timestamp() "
            "WHERE object_id = ANY (%s) AND forgotten_at IS NULL",
            (object_ids,),
        )
    _vacuum(connection, doomed)
    return erasure


def _lock_all(connection: Connection, bucket: str, key: str, *, copies: bool) -> tuple[Erasure, list[int]]:
    locked: tuple[tuple[Place, ...], list[int]] | None = None
    # Until nothing is new: an object of the key may have been listed, and even loaded, while the others were awaited.
    while True:
        erasure = plan_forget(connection, bucket, key, copies=copies)
        values = {"buckets": [item.bucket for item in erasure.places], "keys": [item.key for item in erasure.places]}
        found = erasure.places, [row[0] for row in connection.execute(_LOCK_OBJECTS, values)]
        if found == locked:
            return erasure, found[1]
        locked = found


_CHUNKS = """
SELECT chunk_schema, chunk_name FROM timescaledb_information.chunks
WHERE hypertable_schema = 'spectralize' AND range_start < %s AND range_end > %s
"""


#: How long a table is waited for that somebody else vacuums or alters.
_VACUUM_PATIENCE_MS = 10_000


def _vacuum(connection: Connection, doomed: Sequence[Doomed]) -> None:
    """Let the dead rows leave the pages of the tables that had them.

    Who vacuums or alters a table is awaited for a while (autovacuum gives way within a second), and then that table is left
    to autovacuum; so are rows that somebody who began to read before still sees.
    """
    tables: set[tuple[str, str]] = {(SCHEMA, "catalogue"), (SCHEMA, "recordings")}
    spans: set[tuple[datetime, datetime]] = {(item.until, item.recorded_at) for item in doomed}
    for span in spans:
        tables |= set(connection.execute(_CHUNKS, span).fetchall())
    connection.commit()
    was_autocommit = connection.autocommit
    connection.autocommit = True
    try:
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (str(_VACUUM_PATIENCE_MS),))
        for schema, table in sorted(tables):
            # Or it has been dropped meanwhile, with all that it held.
            with suppress(errors.LockNotAvailable, errors.UndefinedTable):
                connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier(schema, table)))
    finally:
        if not connection.closed:
            connection.execute("RESET lock_timeout")
            connection.autocommit = was_autocommit
