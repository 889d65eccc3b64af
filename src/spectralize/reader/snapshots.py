"""Pinned snapshots: named sets of spectrograms that stay readable."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from spectralize.errors import ReadError, ServiceError
from spectralize.reader.given import as_text, shown

Connection = psycopg.Connection[Any]

#: What a spectrogram answers that has expired between being looked up and being pinned: see sql/migrations/0013.
_EXPIRED_SQLSTATE = "SF002"

#: Names are typed, and stand in an index.
_MAX_CHARACTERS = 200

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
    as_text("snapshot", name)
    row = connection.execute(_SNAPSHOTS + "WHERE n.name = %s", (name,)).fetchone()
    return Snapshot(*row) if row else None


def is_there(connection: Connection, snapshot_id: int) -> bool:
    """Tell whether a snapshot has not been dropped."""
    query = "SELECT FROM spectralize.snapshots WHERE snapshot_id = %s"
    return connection.execute(query, (snapshot_id,)).fetchone() is not None


def pin(connection: Connection, name: str, *, note: str | None, spectrogram_ids: Sequence[int] | None) -> Snapshot:
    """Create a snapshot of everything current, or of those given that are; a name that exists is returned as it is.

    Raises
    ------
    ReadError
        If the name is empty or endless, or not all of what is given could be in the snapshot, or nothing.
    ServiceError
        If spectrograms keep expiring while they are pinned.
    """
    if not name.strip() or not name.isprintable() or len(name) > _MAX_CHARACTERS:
        raise ReadError(
            f"snapshot {shown(name)!r}: a name must have printable characters, at least one and at most {_MAX_CHARACTERS}"
        )
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
    ids = None if spectrogram_ids is None else list(set(spectrogram_ids))
    n_pinned = connection.execute(_PIN, {"snapshot": row[0], "ids": ids}).rowcount
    if not n_pinned:
        raise ReadError(f"snapshot {name!r}: nothing is current that would be in it")
    if ids is not None and n_pinned < len(ids):
        raise ReadError(
            f"snapshot {name!r}: {len(ids) - n_pinned} of the {len(ids)} spectrograms given are no longer current: look the "
            "recordings up again"
        )


def drop(connection: Connection, name: str) -> bool:
    """Delete a snapshot, and tell whether there was one; what only it has kept is maintenance's from now on."""
    as_text("snapshot", name)
    return connection.execute("DELETE FROM spectralize.snapshots WHERE name = %s", (name,)).rowcount > 0
