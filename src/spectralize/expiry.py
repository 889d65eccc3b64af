"""Taking the rows of spectrograms away: what retention, superseding and forgetting have in common."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import psycopg
from psycopg import sql

from spectralize.errors import ConfigError, ServiceError, as_one_line
from spectralize.tables import SCHEMA, TIME_COLUMNS

Connection = psycopg.Connection[Any]

Because = Literal["retention", "superseded", "forgotten"]

#: The advisory lock that lets one transaction at a time expire spectrograms, so that two never take each other's last one.
#: Changing it lets an old and a new version do so at once.
_LOCK = 0x5BEC_7A12

#: Keys named in a report; the counts are always whole.
N_EXAMPLES = 5

#: Spectrograms are removed together until they have so many rows: transactions stay short.
_GROUP_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Doomed:
    """A living spectrogram that is to lose its rows. All of them lie in [recorded_at, until)."""

    spectrogram_id: int
    bucket: str
    key: str
    profile: str
    recorded_at: datetime
    until: datetime
    n_rows: int
    duration_s: float

    @property
    def name(self) -> str:
        """Where it comes from, as one printable line."""
        return f"s3://{self.bucket}/{as_one_line(self.key)} ({self.profile})"


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed or, of a dry run, what would be.

    Attributes
    ----------
    n_rows
        Mel frames, hops of the waveform and seconds together.
    examples
        The first few, as `s3://bucket/key (profile)`.
    """

    is_dry_run: bool
    n_spectrograms: int
    n_rows: int
    hours: float
    examples: tuple[str, ...]

    def __str__(self) -> str:
        done = "would be removed" if self.is_dry_run else "removed"
        named = f": {', '.join(self.examples)}" if self.examples else ""
        more = ", …" if self.n_spectrograms > len(self.examples) else ""
        return f"{self.n_spectrograms} superseded spectrograms {done}, {self.hours:.2f} h with {self.n_rows} rows{named}{more}"


#: Every column of `Doomed`; `s` is the spectrogram, `o` its object and `p` its profile.
DOOMED_COLUMNS = """
    s.spectrogram_id, o.bucket, o.key, p.name, s.recorded_at,
    s.recorded_at + greatest(
        ceil(greatest(s.n_frames, s.n_hops)::bigint * s.hop_length * 1000000.0 / s.sr) * interval '1 microsecond',
        s.n_seconds * interval '1 second'
    ),
    s.n_frames::bigint + s.n_hops + s.n_seconds, s.n_samples::double precision / s.sr
"""

#: Since when it is superseded: since the current one was loaded or, where an earlier object of the key has returned, since
#: that was listed again. An upload of the same bytes also counts as a return, which lengthens the grace. The current one is
#: looked up key by key, and only for keys that have several: the view as a whole would be sorted for every transaction.
_SUPERSEDED = f"""
SELECT {DOOMED_COLUMNS}
FROM spectralize.spectrograms AS s
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
CROSS JOIN LATERAL (
    SELECT v.spectrogram_id, v.object_id, v.loaded_at FROM spectralize.current_spectrograms AS v
    WHERE v.bucket = o.bucket AND v.key = o.key AND v.profile_id = s.profile_id OFFSET 0
) AS c
JOIN spectralize.objects AS newest ON newest.object_id = c.object_id
WHERE s.status <> 'expired' AND c.spectrogram_id <> s.spectrogram_id
  AND EXISTS (
      SELECT FROM spectralize.objects AS same JOIN spectralize.spectrograms AS other USING (object_id)
      WHERE same.bucket = o.bucket AND same.key = o.key AND other.profile_id = s.profile_id
        AND other.spectrogram_id <> s.spectrogram_id AND other.status <> 'expired'
  )
  AND (%(ids)s::integer[] IS NULL OR s.spectrogram_id = ANY (%(ids)s))
  AND greatest(c.loaded_at, s.loaded_at,
               CASE WHEN c.object_id <> s.object_id THEN newest.listed_since END) <= now() - %(grace)s::interval
  AND NOT EXISTS (
      SELECT FROM spectralize.snapshot_spectrograms AS pin WHERE pin.spectrogram_id = s.spectrogram_id
  )
ORDER BY s.spectrogram_id
"""


def remove_superseded(connection: Connection, *, grace: timedelta, dry_run: bool = False) -> Removal:
    """Remove the rows of spectrograms that another one has replaced for longer than `grace`, and mark them expired.

    What is current is what the view `current_spectrograms` says: an older generation of the same object is superseded,
    as are all spectrograms of an overwritten object, also a complete one by a partial one of the newer object. The
    current one itself always stays, and so does what is in a snapshot.

    Works in short transactions, a few spectrograms each; what the caller has open is committed first. An interrupted run
    is continued by the next.

    Parameters
    ----------
    grace
        How long a superseded spectrogram is kept, ≥ 0, since the current one was loaded or became current again.

    Raises
    ------
    ConfigError
        If `grace` is negative.
    """
    if grace < timedelta(0):
        raise ConfigError(f"grace = {grace}: must not be negative")
    connection.commit()
    found = _find_superseded(connection, grace)
    connection.commit()
    if dry_run:
        return _summarise(found, is_dry_run=True, n_rows=sum(item.n_rows for item in found))
    removed: list[Doomed] = []
    n_rows = 0
    for group in _groups(found):
        with connection.transaction():
            lock_expiry(connection)
            lock_spectrograms(connection, [item.spectrogram_id for item in group])
            # Judged anew: another one may have become current, or been put in a snapshot, since the list was made.
            still = _find_superseded(connection, grace, [item.spectrogram_id for item in group])
            n_rows += sum(delete_rows(connection, item) for item in still)
            mark_expired(connection, [item.spectrogram_id for item in still], "superseded")
        removed += still
    return _summarise(removed, is_dry_run=False, n_rows=n_rows)


def _find_superseded(connection: Connection, grace: timedelta, ids: Sequence[int] | None = None) -> list[Doomed]:
    rows = connection.execute(_SUPERSEDED, {"grace": grace, "ids": None if ids is None else list(ids)})
    return [Doomed(*row) for row in rows]


def _groups(found: Sequence[Doomed]) -> Iterator[list[Doomed]]:
    group: list[Doomed] = []
    for item in found:
        group.append(item)
        if sum(member.n_rows for member in group) >= _GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group


def _summarise(found: Sequence[Doomed], *, is_dry_run: bool, n_rows: int) -> Removal:
    hours = sum(item.duration_s for item in found) / 3600
    return Removal(is_dry_run, len(found), n_rows, hours, tuple(item.name for item in found[:N_EXAMPLES]))


def lock_expiry(connection: Connection) -> None:
    """Let no other transaction expire anything until this one ends. The first lock that one takes, so that none deadlock."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def lock_spectrograms(connection: Connection, ids: Sequence[int]) -> None:
    """Let no other transaction put these in a snapshot until this one ends."""
    connection.execute(
        "SELECT FROM spectralize.spectrograms WHERE spectrogram_id = ANY (%s) ORDER BY spectrogram_id FOR UPDATE",
        (list(ids),),
    )


def delete_rows(connection: Connection, doomed: Doomed) -> int:
    """Delete all frames, hops and seconds of one spectrogram and return how many there were."""
    return sum(
        delete_rows_between(connection, table, [doomed.spectrogram_id], doomed.recorded_at, doomed.until)
        for table in TIME_COLUMNS
    )


def delete_rows_between(
    connection: Connection, table: str, ids: Sequence[int], start: datetime, until: datetime
) -> int:
    """Delete the rows of some spectrograms in [start, until) from one hypertable and return how many there were."""
    statement = sql.SQL("DELETE FROM {} WHERE spectrogram_id = ANY (%s) AND {column} >= %s AND {column} < %s").format(
        sql.Identifier(SCHEMA, table), column=sql.Identifier(TIME_COLUMNS[table])
    )
    # Never prepared: a plan for any bounds would open, and lock, every chunk.
    return connection.execute(statement, (list(ids), start, until), prepare=False).rowcount


def mark_expired(connection: Connection, ids: Sequence[int], because: Because) -> None:
    """Write that these living spectrograms have lost their rows, and why."""
    connection.execute(
        "UPDATE spectralize.spectrograms SET status = 'expired', expired_at = clock_timestamp(), expired_because = %s "
        "WHERE spectrogram_id = ANY (%s) AND status <> 'expired'",
        (because, list(ids)),
    )


@contextmanager
def locks_given_up(what: str) -> Iterator[None]:
    """Turn a lock that was not to be had in time into one line that says what is in use."""
    try:
        yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected) as error:
        raise ServiceError(f"{what}: in use by a load or a reader; nothing was changed, try again later") from error
