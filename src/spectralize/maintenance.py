"""The weekly care of the store: what `maintain_timescale` does, one function per task.

What takes spectrograms away has modules of its own: `expiry` (superseded ones) and `retention` (old ones). So has the
report, `storereport`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from spectralize.database import fetch_row
from spectralize.errors import ConfigError, LedgerError
from spectralize.expiry import N_EXAMPLES, locks_given_up, remove_superseded
from spectralize.retention import drop_expired_chunks
from spectralize.storereport import report_store
from spectralize.tables import SCHEMA, TIME_COLUMNS

__all__ = ["convert_to_columnstore", "drop_expired_chunks", "remove_superseded", "repair_indexes", "report_store"]

Connection = psycopg.Connection[Any]

#: Longest wait, in milliseconds, for an index or chunk that is in use: behind a lock that waits, loaders wait too.
_LOCK_TIMEOUT_MS = 5_000

_OLD_CHUNKS = """
SELECT hypertable_name, chunk_schema, chunk_name, range_start
FROM timescaledb_information.chunks
WHERE hypertable_schema = 'spectralize' AND NOT is_compressed AND range_end <= %s
ORDER BY range_start, hypertable_name
"""

_HAS_COLUMNSTORE = """
SELECT count(*) > 0 FROM timescaledb_information.hypertables
WHERE hypertable_schema = 'spectralize' AND hypertable_name = %s AND compression_enabled
"""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What went into the columnstore or, of a dry run, what would.

    Attributes
    ----------
    left_out
        Why nothing was looked at, where the server's licence has no columnstore.
    bytes_before, bytes_after
        Size on disk of these chunks, indexes included; of a dry run both are the present size.
    chunks
        The first few.
    """

    is_dry_run: bool
    left_out: str | None
    n_chunks: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    chunks: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.left_out:
            return f"columnstore left out: {self.left_out}"
        would = "would be " if self.is_dry_run else ""
        sizes = f"{self.bytes_before / 1e6:.1f} MB"
        if not self.is_dry_run:
            sizes += f" before, {self.bytes_after / 1e6:.1f} MB after"
        named = f": {', '.join(self.chunks)}" if self.chunks else ""
        return f"{self.n_chunks} chunks {would}converted to columnstore, {sizes}{named}"


def convert_to_columnstore(connection: Connection, *, after: timedelta, dry_run: bool = False) -> Conversion:
    """Store chunks that ended longer than `after` ago by column, compressed, if the server's licence allows it.

    Each chunk is converted in a transaction of its own; what the caller has open is committed first. Rows that are loaded
    into a converted chunk later stay beside its columns.

    Parameters
    ----------
    after
        ≥ 0, since the end of the chunk's range.

    Raises
    ------
    ConfigError
        If `after` is negative.
    ServiceError
        If a load or a reader holds one of the chunks for longer than some seconds; the chunks before it stay converted.
    """
    if after < timedelta(0):
        raise ConfigError(f"after = {after}: must not be negative")
    connection.commit()
    licence = fetch_row(connection, "SHOW timescaledb.license")[0]
    if licence != "timescale":
        connection.commit()
        return Conversion(dry_run, f"the server's timescaledb.license is {licence!r}, columnstore needs 'timescale'")
    chunks = connection.execute(_OLD_CHUNKS, (datetime.now(UTC) - after,)).fetchall()
    names = [chunk for _, _, chunk, _ in chunks]
    before = _chunk_bytes(connection, names)
    connection.commit()
    if not dry_run:
        if chunks:
            for table, column in TIME_COLUMNS.items():
                _enable_columnstore(connection, table, column)
        for table, schema, chunk, start in chunks:
            with locks_given_up(f"chunk {start:%Y-%m-%d} of {table}"), connection.transaction():
                _limit_waiting(connection)
                connection.execute(
                    sql.SQL("CALL convert_to_columnstore({}::regclass)").format(
                        sql.Literal(sql.Identifier(schema, chunk).as_string(connection))
                    )
                )
    after_bytes = _chunk_bytes(connection, names)
    connection.commit()
    shown = tuple(f"{table} {start:%Y-%m-%d}" for table, _, _, start in chunks[:N_EXAMPLES])
    return Conversion(dry_run, None, len(chunks), before, after_bytes, shown)


def _enable_columnstore(connection: Connection, table: str, column: str) -> None:
    with locks_given_up(table), connection.transaction():
        if fetch_row(connection, _HAS_COLUMNSTORE, (table,))[0]:
            return
        _limit_waiting(connection)
        # By spectrogram and in the order of time: how readers ask, and how neighbouring rows are alike.
        connection.execute(
            sql.SQL(
                "ALTER TABLE {} SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = 'spectrogram_id', "
                "timescaledb.orderby = {})"
            ).format(sql.Identifier(SCHEMA, table), sql.Literal(column))
        )


def _limit_waiting(connection: Connection) -> None:
    connection.execute("SELECT set_config('lock_timeout', %s, true)", (str(_LOCK_TIMEOUT_MS),))


def _chunk_bytes(connection: Connection, names: list[str]) -> int:
    if not names:
        return 0
    return sum(
        fetch_row(
            connection,
            "SELECT coalesce(sum(total_bytes), 0)::bigint FROM chunks_detailed_size(%s::regclass) WHERE chunk_name = ANY (%s)",
            (f"{SCHEMA}.{table}", names),
        )[0]
        for table in TIME_COLUMNS
    )


_INVALID_INDEXES = """
SELECT n.nspname, c.relname
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_namespace AS tn ON tn.oid = t.relnamespace
WHERE NOT i.indisvalid
  AND (tn.nspname = 'spectralize' OR EXISTS (
      SELECT FROM timescaledb_information.chunks AS k
      WHERE k.hypertable_schema = 'spectralize' AND k.chunk_schema = tn.nspname AND k.chunk_name = t.relname))
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Repair:
    """The indexes that were invalid and are valid again."""

    indexes: tuple[str, ...]

    def __str__(self) -> str:
        return f"rebuilt {', '.join(self.indexes)}" if self.indexes else "every index is valid"


def repair_indexes(connection: Connection) -> Repair:
    """Rebuild the invalid indexes of the schema and of its hypertables' chunks: what an interrupted build leaves.

    One transaction per index; what the caller has open is committed first. Loads into the index's table wait meanwhile.

    Raises
    ------
    ServiceError
        If a load or a reader holds the table for longer than some seconds; the indexes before it stay rebuilt.
    LedgerError
        If an index cannot be rebuilt, as a unique one over rows that are not.
    """
    connection.commit()
    names = connection.execute(_INVALID_INDEXES).fetchall()
    connection.commit()
    for schema, index in names:
        try:
            with locks_given_up(f"index {index}"), connection.transaction():
                _limit_waiting(connection)
                connection.execute(sql.SQL("REINDEX INDEX {}").format(sql.Identifier(schema, index)))
        except psycopg.errors.IntegrityError as error:
            line = str(error).strip().splitlines()[0]
            raise LedgerError(f"index {schema}.{index} cannot be rebuilt: {line}; mend the rows, or drop it") from error
    return Repair(tuple(f"{schema}.{index}" for schema, index in names))
