"""Retention: whole chunks are dropped once nothing in them has to be kept, and the spectrograms in them expire."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from spectralize.database import fetch_row
from spectralize.errors import ConfigError, LedgerError, ServiceError, as_one_line
from spectralize.expiry import (
    N_EXAMPLES,
    delete_rows_between,
    lock_expiry,
    lock_spectrograms,
    locks_given_up,
    mark_expired,
)
from spectralize.tables import SCHEMA, TIME_COLUMNS

Connection = psycopg.Connection[Any]

#: Longest wait, in milliseconds, for a chunk that is in use: behind a lock that waits, readers and loaders wait too.
_LOCK_TIMEOUT_MS = 5_000

#: How often the verdict may be overtaken by loads before retention leaves it for another day.
_ATTEMPTS = 3

#: Where the rows of each spectrogram lie, table by table, and whether it may go. Spans end with the last row rather than
#: the last sample, so that a chunk in which nothing lies is not taken for one that is needed.
_SPANS = """
WITH rule AS (
    SELECT * FROM unnest(%(sources)s::text[], %(keeps)s::interval[]) AS rule (source, keep)
), computed AS (
    SELECT s.spectrogram_id, s.status <> 'expired' AS is_living,
           coalesce(
               s.recorded_at + make_interval(secs => s.n_samples::double precision / s.sr) + rule.keep < %(now)s
               AND NOT EXISTS (
                   SELECT FROM spectralize.snapshot_spectrograms AS pin WHERE pin.spectrogram_id = s.spectrogram_id
               ), false) AS is_expirable,
           s.recorded_at, s.n_frames, s.n_hops, s.n_seconds, s.hop_length, s.sr
    FROM spectralize.spectrograms AS s
    JOIN spectralize.batches AS b USING (batch_id)
    LEFT JOIN rule ON rule.source = b.source
), spans AS MATERIALIZED (
    SELECT c.spectrogram_id, c.is_living, c.is_expirable, part.name,
           c.recorded_at AS first_at, c.recorded_at + part.last_us * interval '1 microsecond' AS last_at
    FROM computed AS c
    CROSS JOIN LATERAL (VALUES
        ('mel_frames', c.n_frames, ((c.n_frames - 1)::bigint * c.hop_length * 1000000 + c.sr / 2) / c.sr),
        ('waveform_frames', c.n_hops, ((c.n_hops - 1)::bigint * c.hop_length * 1000000 + c.sr / 2) / c.sr),
        ('mel_seconds', c.n_seconds, (c.n_seconds - 1) * 1000000::bigint)
    ) AS part (name, n_rows, last_us)
    WHERE part.n_rows > 0
)
"""

#: Chunks that hold something and the spectrograms that leave them. Chunks are found by binary search among their starts:
#: to compare each span with each chunk took half a minute at 300 000 spectrograms, and a join with them, of which the
#: planner expects one, ten times that. Hence arrays, and joins with chunks only where few rows are left.
_VERDICT = (
    _SPANS
    + """
, chunks AS MATERIALIZED (
    SELECT hypertable_name AS name, chunk_schema, chunk_name, range_start, range_end,
           row_number() OVER (PARTITION BY hypertable_name ORDER BY range_start) AS number
    FROM timescaledb_information.chunks WHERE hypertable_schema = 'spectralize'
), starts AS (
    SELECT name, array_agg(range_start ORDER BY range_start) AS starts, array_agg(range_end ORDER BY range_start) AS ends
    FROM chunks GROUP BY name
), lying AS MATERIALIZED (
    SELECT spans.spectrogram_id, spans.is_living, spans.is_expirable, spans.name, touched.number
    FROM spans JOIN starts ON starts.name = spans.name
    CROSS JOIN LATERAL generate_series(
        greatest(width_bucket(spans.first_at, starts.starts), 1), width_bucket(spans.last_at, starts.starts)
    ) AS touched (number)
    WHERE starts.ends[touched.number] > spans.first_at
), doomed AS MATERIALIZED (
    SELECT name, number FROM lying GROUP BY name, number HAVING bool_and(is_expirable OR NOT is_living)
), leaving AS MATERIALIZED (
    SELECT DISTINCT spectrogram_id FROM lying JOIN doomed USING (name, number) WHERE is_living
), trimmed AS MATERIALIZED (
    SELECT name, number, array_agg(spectrogram_id ORDER BY spectrogram_id) AS ids
    FROM lying JOIN leaving USING (spectrogram_id)
    WHERE NOT EXISTS (SELECT FROM doomed WHERE doomed.name = lying.name AND doomed.number = lying.number)
    GROUP BY name, number
)
SELECT name, chunk_schema, chunk_name, range_start, range_end, true, '{}'::integer[] FROM chunks JOIN doomed USING (name, number)
UNION ALL
SELECT name, chunk_schema, chunk_name, range_start, range_end, false, ids FROM chunks JOIN trimmed USING (name, number)
UNION ALL
SELECT NULL, 'leaving', NULL, NULL, NULL, NULL, ARRAY(SELECT spectrogram_id FROM leaving ORDER BY 1)
UNION ALL
SELECT NULL, 'waiting', NULL, NULL, NULL, NULL,
       ARRAY(SELECT spectrogram_id FROM computed WHERE is_living AND is_expirable EXCEPT SELECT spectrogram_id FROM leaving)
ORDER BY 4, 1
"""
)

#: Asked once the chunks are gone, and nobody else can write into them.
_WERE_NEEDED = (
    _SPANS
    + """
, dropped AS (
    SELECT name, range_agg(tstzrange(range_start, range_end)) AS spans
    FROM unnest(%(tables)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS chunk (name, range_start, range_end)
    GROUP BY name
)
SELECT EXISTS (
    SELECT FROM spans JOIN dropped USING (name)
    WHERE spans.is_living AND tstzrange(spans.first_at, spans.last_at, '[]') && dropped.spans
      AND (NOT spans.is_expirable OR spans.spectrogram_id <> ALL (%(leaving)s::integer[]))
)
"""
)

_DROP = "SELECT count(*) FROM drop_chunks(%s::regclass, older_than => %s::timestamptz, newer_than => %s::timestamptz)"


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk and, if it stays, the spectrograms whose rows leave it."""

    table: str
    schema: str
    name: str
    start: datetime
    end: datetime
    leaving: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Chunks to drop, chunks that stay but lose some rows, spectrograms that expire, and those that must wait."""

    dropped: tuple[_Chunk, ...]
    trimmed: tuple[_Chunk, ...]
    leaving: tuple[int, ...]
    n_waiting: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Retention:
    """What retention took or, of a dry run, would take.

    Attributes
    ----------
    n_bytes
        Size on disk of the dropped chunks, indexes included.
    n_trimmed_rows
        Rows of expired spectrograms that lay in chunks which stay. A dry run does not count them.
    n_waiting
        Spectrograms that are old enough, but share all their chunks with some that are not.
    chunks, examples
        The first few chunks, and the first few spectrograms as `s3://bucket/key (profile)`.
    """

    is_dry_run: bool
    n_spectrograms: int
    hours: float
    n_chunks: int
    n_bytes: int
    n_trimmed_rows: int
    n_waiting: int
    chunks: tuple[str, ...]
    examples: tuple[str, ...]

    def __str__(self) -> str:
        would = "would be " if self.is_dry_run else ""
        named = f": {', '.join(self.examples)}" if self.examples else ""
        more = ", …" if self.n_spectrograms > len(self.examples) else ""
        return (
            f"{self.n_chunks} chunks {would}dropped, {self.n_bytes / 1e6:.1f} MB; {self.n_spectrograms} spectrograms "
            f"{would}expired, {self.hours:.2f} h{named}{more}; {self.n_waiting} wait for others in their chunks"
        )


class _OvertakenError(Exception):
    """Ends a transaction whose verdict no longer holds."""


def drop_expired_chunks(
    connection: Connection, keep: Mapping[str, timedelta], *, now: datetime | None = None, dry_run: bool = False
) -> Retention:
    """Drop the chunks in which nothing has to be kept any longer, and mark the spectrograms in them expired.

    A spectrogram may go when its source's time has run out, counted from the end of its recording, and it is in no
    snapshot. A chunk goes when every living spectrogram with rows in it may. Those spectrograms expire in the same
    transaction; what rows they have in neighbouring chunks that stay are deleted one by one. If they were kept instead,
    they would keep their other chunks, and those their spectrograms, and so on: where recordings run across the ends of
    chunks, nothing would ever go. What may go but lies only in chunks that stay, waits. Chunks that hold nothing
    but rows of expired spectrograms go too.

    What the caller has open is committed first.

    Parameters
    ----------
    keep
        Source name -> how long its frames are kept, ≥ 0. Other sources are kept for ever. The source of a spectrogram is
        that of the batch which made it.
    now
        When to judge by, time zone aware; the present by default.

    Raises
    ------
    ConfigError
        If a time to keep is negative.
    ServiceError
        If a load or a reader holds one of the chunks for longer than some seconds; nothing was changed.
    """
    for source, time in keep.items():
        if time < timedelta(0):
            raise ConfigError(f"source {source!r}: frames cannot be kept for {time}: it must not be negative")
    values = {"sources": list(keep), "keeps": list(keep.values()), "now": now or datetime.now(UTC)}
    for _ in range(_ATTEMPTS):
        connection.commit()
        verdict = _judge(connection, values)
        if dry_run or not verdict.dropped:
            done = _report(connection, verdict, is_dry_run=dry_run)
            connection.commit()
            return done
        connection.commit()
        try:
            with locks_given_up("retention: chunks of the store"), connection.transaction():
                return _carry_out(connection, verdict, values)
        except _OvertakenError:
            continue
    raise ServiceError("retention: loads keep changing the chunks that would go; nothing was changed, try again later")


def _judge(connection: Connection, values: dict[str, object]) -> _Verdict:
    # A plan made before loads and drops would not know the sizes; it runs once a week.
    rows = connection.execute(_VERDICT, values, prepare=False).fetchall()
    chunks = [
        (row[5], _Chunk(row[0], row[1], row[2], row[3], row[4], tuple(row[6]))) for row in rows if row[0] is not None
    ]
    ids = {row[1]: row[6] for row in rows if row[0] is None}
    return _Verdict(
        dropped=tuple(chunk for is_doomed, chunk in chunks if is_doomed),
        trimmed=tuple(chunk for is_doomed, chunk in chunks if not is_doomed),
        leaving=tuple(ids["leaving"]),
        n_waiting=len(ids["waiting"]),
    )


def _carry_out(connection: Connection, verdict: _Verdict, values: dict[str, object]) -> Retention:
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (str(_LOCK_TIMEOUT_MS),))
    lock_expiry(connection)
    lock_spectrograms(connection, verdict.leaving)
    # Before the chunks are locked, so that these are held for the least time.
    n_trimmed_rows = sum(
        delete_rows_between(connection, chunk.table, chunk.leaving, chunk.start, chunk.end) for chunk in verdict.trimmed
    )
    done = _report(connection, verdict, is_dry_run=False, n_trimmed_rows=n_trimmed_rows)
    for chunk in verdict.dropped:
        _drop(connection, chunk)
    if _were_needed(connection, verdict, values):
        raise _OvertakenError
    mark_expired(connection, verdict.leaving, "retention")
    return done


def _drop(connection: Connection, chunk: _Chunk) -> None:
    # Waits for loads into the chunk, readers of it, and then keeps them out until the transaction ends. Dropping first and
    # judging then gives the same as the other way round, for a transaction that is given up brings all of it back; but to
    # lock the chunk first, and the catalogue's rows about it by dropping, is the reverse of what a load does: a deadlock.
    n_dropped = fetch_row(connection, _DROP, (f"{SCHEMA}.{chunk.table}", chunk.end, chunk.start))[0]
    if n_dropped > 1:
        raise LedgerError(f"chunk {chunk.name} of {chunk.table}: {n_dropped} chunks were dropped in its place")


def _were_needed(connection: Connection, verdict: _Verdict, values: dict[str, object]) -> bool:
    """Tell whether a load that was awaited, or a snapshot, needs what was dropped: that shows only now."""
    chunks = {
        "tables": [chunk.table for chunk in verdict.dropped],
        "starts": [chunk.start for chunk in verdict.dropped],
        "ends": [chunk.end for chunk in verdict.dropped],
        "leaving": list(verdict.leaving),
    }
    return bool(fetch_row(connection, _WERE_NEEDED, values | chunks)[0])


_LEAVING = """
SELECT o.bucket, o.key, p.name
FROM spectralize.spectrograms AS s
JOIN spectralize.objects AS o USING (object_id) JOIN spectralize.profiles AS p USING (profile_id)
WHERE s.spectrogram_id = ANY (%s) ORDER BY s.spectrogram_id
"""

_HOURS = """
SELECT coalesce(sum(n_samples::double precision / sr), 0) / 3600 FROM spectralize.spectrograms WHERE spectrogram_id = ANY (%s)
"""

_SIZES = "SELECT chunk_name, total_bytes FROM chunks_detailed_size(%s::regclass)"


def _report(connection: Connection, verdict: _Verdict, *, is_dry_run: bool, n_trimmed_rows: int = 0) -> Retention:
    sizes: dict[str, int] = {}
    for table in TIME_COLUMNS if verdict.dropped else ():
        sizes |= dict(connection.execute(_SIZES, (f"{SCHEMA}.{table}",)).fetchall())
    examples = connection.execute(_LEAVING, (list(verdict.leaving[:N_EXAMPLES]),)).fetchall()
    return Retention(
        is_dry_run=is_dry_run,
        n_spectrograms=len(verdict.leaving),
        hours=fetch_row(connection, _HOURS, (list(verdict.leaving),))[0],
        n_chunks=len(verdict.dropped),
        n_bytes=sum(sizes.get(chunk.name, 0) for chunk in verdict.dropped),
        n_trimmed_rows=n_trimmed_rows,
        n_waiting=verdict.n_waiting,
        chunks=tuple(f"{chunk.table} {chunk.start:%Y-%m-%d}" for chunk in verdict.dropped[:N_EXAMPLES]),
        examples=tuple(f"s3://{bucket}/{as_one_line(key)} ({profile})" for bucket, key, profile in examples),
    )
