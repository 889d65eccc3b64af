"""What the store holds and what it takes on disk, for operators and their dashboards."""

from dataclasses import dataclass
from typing import Any

import psycopg

from spectralize.database import fetch_row
from spectralize.tables import SCHEMA, TIME_COLUMNS


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: hypertables with their chunks, and the rows that living spectrograms account for."""

    name: str
    n_rows: int
    n_bytes: int
    n_chunks: int = 0
    #: ISO 8601: where the oldest chunk begins and the newest ends.
    oldest: str | None = None
    newest: str | None = None


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What the store holds and takes. Ready for `dataclasses.asdict` and JSON.

    Attributes
    ----------
    expired
        Spectrograms that have lost their frames, by reason.
    hours
        Audio with living spectrograms, each recording once.
    half_bytes
        What the living Mel vectors alone take in half precision.
    disk_vs_half
        Bytes on disk of mel_frames, indexes included, per byte of `half_bytes`; None while there are none.
    """

    n_living: int
    n_current: int
    n_in_snapshots: int
    expired: dict[str, int]
    n_recordings: int
    n_forgotten: int
    hours: float
    half_bytes: int
    disk_bytes: int
    disk_vs_half: float | None
    tables: tuple[TableReport, ...]

    def __str__(self) -> str:
        expired = ", ".join(f"{count} {reason}" for reason, count in self.expired.items() if count) or "none"
        ratio = "" if self.disk_vs_half is None else f", mel_frames {self.disk_vs_half:.2f} × its half-precision values"
        return (
            f"{self.n_living} living spectrograms, {self.n_current} of them current, {self.hours:.2f} h; expired: {expired}; "
            f"{self.disk_bytes / 1e6:.1f} MB on disk{ratio}"
        )


_COUNTS = """
SELECT count(*) FILTER (WHERE status <> 'expired'),
       count(*) FILTER (WHERE expired_because = 'retention'),
       count(*) FILTER (WHERE expired_because = 'superseded'),
       count(*) FILTER (WHERE expired_because = 'forgotten'),
       coalesce(sum(n_frames) FILTER (WHERE status <> 'expired'), 0)::bigint,
       coalesce(sum(n_hops) FILTER (WHERE status <> 'expired'), 0)::bigint,
       coalesce(sum(n_seconds) FILTER (WHERE status <> 'expired'), 0)::bigint,
       coalesce(sum(2::bigint * n_frames * n_mels) FILTER (WHERE status <> 'expired'), 0)::bigint,
       (SELECT count(*) FROM spectralize.current_spectrograms),
       (SELECT count(DISTINCT spectrogram_id) FROM spectralize.snapshot_spectrograms),
       (SELECT count(*) FROM spectralize.recordings),
       (SELECT count(DISTINCT (bucket, key)) FROM spectralize.objects WHERE forgotten_at IS NOT NULL),
       (SELECT coalesce(sum(decoded_duration_s), 0) / 3600 FROM spectralize.recordings AS r
        WHERE EXISTS (SELECT FROM spectralize.spectrograms AS l WHERE l.object_id = r.object_id AND l.status <> 'expired'))
FROM spectralize.spectrograms
"""

_HYPERTABLE = """
SELECT hypertable_size(%(name)s::regclass), count(*), min(range_start), max(range_end)
FROM timescaledb_information.chunks
WHERE hypertable_schema = 'spectralize' AND hypertable_name = %(table)s
"""

#: Rows as the last ANALYZE or VACUUM counted them; exact would be a scan of the ledger.
_PLAIN_TABLES = """
SELECT c.relname, greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'spectralize' AND c.relkind = 'r' AND c.relname <> ALL (%s)
ORDER BY pg_total_relation_size(c.oid) DESC, c.relname
"""


def report_store(connection: psycopg.Connection[Any]) -> StoreReport:
    """Count what the store holds, and what it takes on disk.

    Spectrograms are counted; the rows of a hypertable are those that its living spectrograms account for, which `verify`
    proves; the rows of other tables are the server's estimates.
    """
    (
        n_living, retention, superseded, forgotten, n_frames, n_hops, n_seconds, half_bytes, n_current, n_in_snapshots,
        n_recordings, n_forgotten, hours,
    ) = fetch_row(connection, _COUNTS)  # fmt: skip
    rows = {"mel_frames": n_frames, "waveform_frames": n_hops, "mel_seconds": n_seconds}
    tables = []
    for table in TIME_COLUMNS:
        n_bytes, n_chunks, oldest, newest = fetch_row(
            connection, _HYPERTABLE, {"name": f"{SCHEMA}.{table}", "table": table}
        )
        tables.append(
            TableReport(
                table, rows[table], int(n_bytes), n_chunks,
                oldest.isoformat() if oldest else None, newest.isoformat() if newest else None,
            )
        )  # fmt: skip
    tables += [TableReport(*row) for row in connection.execute(_PLAIN_TABLES, (list(TIME_COLUMNS),))]
    mel_bytes = tables[0].n_bytes
    return StoreReport(
        n_living=n_living,
        n_current=n_current,
        n_in_snapshots=n_in_snapshots,
        expired={"retention": retention, "superseded": superseded, "forgotten": forgotten},
        n_recordings=n_recordings,
        n_forgotten=n_forgotten,
        hours=round(hours, 4),
        half_bytes=half_bytes,
        disk_bytes=sum(table.n_bytes for table in tables),
        disk_vs_half=round(mel_bytes / half_bytes, 3) if half_bytes else None,
        tables=tuple(tables),
    )
