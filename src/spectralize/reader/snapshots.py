"""Pinned snapshots: named sets of spectrograms that stay readable."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from spectralize.errors import ReadError, ServiceError

Connection = psycopg.Connection[Any]

#: What a spectrogram answers that has expired between being looked up and being pinned: see sql/migrations/0013.
_EXPIRED_SQLSTATE = "SF002"

#: Pinning begins anew if something it was about to pin expired; so often in a row means trouble of another kind.
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A name for what was current once. `n_spectrograms` counts what can still be read: all but what was forgotten."""

    snapshot_id: int
    name: str
    note: str | None
    created_at: datetime
    n_spectrograms: int


_SNAPSHOTS = """
SELECT n.snapshot_id, n.name, n.note, n.created_at,
       (SELECT count(*) FROM spectralize.snapshot_spectrograms AS pin WHERE pin.snapshot_id = n.snapshot_id)
FROM spectralize.snapshots AS n
"""

#: One statement, so one moment: exactly one spectrogram per key and profile.
_PIN = """
INSERT INTO spectralize.snapshot_spectrograms (snapshot_id, spectrogram_id)
SELECT %(snapshot)s, c.spectrogram_id FROM spectralize.current_spectrograms AS c
WHERE (%(ids)s::integer[] IS NULL OR c.spectrogram_id = ANY (%(ids)s))
"""


def list_snapshots(connection: Connection) -> list[Snapshot]:
    """Return every snapshot, the oldest first."""
    return [Snapshot(*row) for row in connection.execute(_SNAPSHOTS + "ORDER BY n.snapshot_id")]


def find_snapshot(connection: Connection, name: str) -> Snapshot | None:
    """Return the snapshot of that name, or None."""
    row = connection.execute(_SNAPSHOTS + "WHERE n.name = %s", (name,)).fetchone()
    return Snapshot(*row) if row else None


def pin(connection: Connection, name: str, *, note: str | None, spectrogram_ids: Sequence[int] | None) -> Snapshot:
    """Create a snapshot of everything current, or of those given that are; a name that exists is returned as it is.

    Raises
    ------
    ReadError
        If the name is empty, or nothing would be in the snapshot.
    ServiceError
        If spectrograms keep expiring while they are pinned.
    """
    if not name.strip() or not name.isprintable():
        raise ReadError(f"snapshot {name!r}: a name must have printable characters and at least one of them")
    for _ in range(_ATTEMPTS):
        try:
            with connection.transaction():
                _create(connection, name, note, spectrogram_ids)
            break
        except psycopg.Error as error:
            if error.sqlstate != _EXPIRED_SQLSTATE:
                raise
    else:
        raise ServiceError(f"snapshot {name!r}: spectrograms keep expiring while it is made; try again later")
    snapshot = find_snapshot(connection, name)
    if snapshot is None:
        raise ServiceError(f"snapshot {name!r} was dropped while it was made; try again")
    return snapshot


def _create(connection: Connection, name: str, note: str | None, spectrogram_ids: Sequence[int] | None) -> None:
    # Whoever comes second waits here for the first, and then finds its snapshot.
    row = connection.execute(
        "INSERT INTO spectralize.snapshots (name, note) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING RETURNING snapshot_id",
        (name, note),
    ).fetchone()
    if row is None:
        return
    ids = None if spectrogram_ids is None else list(spectrogram_ids)
    if not connection.execute(_PIN, {"snapshot": row[0], "ids": ids}).rowcount:
        raise ReadError(f"snapshot {name!r}: nothing is current that would be in it")


def drop(connection: Connection, name: str) -> bool:
    """Delete a snapshot, and tell whether there was one; what only it has kept is maintenance's from now on."""
    return connection.execute("DELETE FROM spectralize.snapshots WHERE name = %s", (name,)).rowcount > 0
