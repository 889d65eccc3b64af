"""What lineage tells of a batch: what it read and wrote, how its objects fared, and how the gate's thresholds were met.

Sums of prefixes and tables, never a line per object: a batch may hold tens of thousands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any

import psycopg
from psycopg.rows import dict_row

from spectralize.tables import OUTCOMES, SCHEMA, Counts

#: All reading together. Lineage is told while a task waits for it, so it must not take long, whatever the database does.
READING_TIMEOUT_S = 4.0

#: The tables that a batch writes features into, as lineage lists them.
WRITTEN_TABLES = ("mel_frames", "waveform_frames", "mel_seconds", "recordings")

_BATCH = """
SELECT batch_id, source, dag_id, run_id, try AS try_number, kind, interval_start, interval_end, state, failure,
       gated_at IS NOT NULL AS is_gated, core_version, code_zip_sha256, manifest_uri,
       coalesce(listed, 0) AS listed, coalesce(unchanged, 0) AS unchanged, coalesce(planned, 0) AS planned,
       coalesce(unsettled, 0) AS unsettled, coalesce(ignored, 0) AS ignored, coalesce(over_cap, 0) AS over_cap,
       coalesce(planned_spectrograms, 0) AS planned_spectrograms
FROM spectralize.batches
"""

_OUTCOMES = """
SELECT outcome, reason_class, count(*) AS n FROM spectralize.batch_objects
WHERE batch_id = %(batch_id)s AND outcome IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
"""

_PROFILES = """
SELECT name, fingerprint FROM spectralize.profiles
WHERE profile_id IN (SELECT profile_id FROM spectralize.batch_objects WHERE batch_id = %(batch_id)s) ORDER BY name
"""

_READ = """
SELECT count(*)::bigint AS n_objects, coalesce(sum(size_bytes), 0)::bigint AS size_bytes FROM spectralize.objects
WHERE object_id IN (SELECT object_id FROM spectralize.batch_objects WHERE batch_id = %(batch_id)s)
"""

#: From what the spectrograms say of themselves: counting the rows of the hypertables would take as long as reading them.
#: Bytes are those of the values (a halfvec has 8 beside its numbers, a bytea 4), without row headers, indexes and compression.
#: A recording may be older than the batch, which then wrote only the spectrogram.
_WRITTEN = """
WITH written AS (
    SELECT s.*, p.parameters ->> 'waveform' = 'pcm' AS has_pcm
    FROM spectralize.spectrograms AS s JOIN spectralize.profiles AS p USING (profile_id) WHERE s.batch_id = %(batch_id)s
)
SELECT coalesce(sum(n_frames), 0)::bigint AS mel_frames,
       coalesce(sum(n_frames::bigint * (24 + 2 * n_mels)), 0)::bigint AS mel_frames_bytes,
       coalesce(sum(n_hops), 0)::bigint AS waveform_frames,
       coalesce(sum(n_hops::bigint * (28 + CASE WHEN has_pcm THEN 4 + 2 * hop_length ELSE 0 END)), 0)::bigint
           AS waveform_frames_bytes,
       coalesce(sum(n_seconds), 0)::bigint AS mel_seconds,
       coalesce(sum(n_seconds::bigint * (44 + 4 * n_mels)), 0)::bigint AS mel_seconds_bytes,
       (SELECT count(*)::bigint FROM spectralize.recordings AS r
        WHERE r.batch_id = %(batch_id)s AND r.object_id IN (
            SELECT object_id FROM spectralize.batch_objects WHERE batch_id = %(batch_id)s)) AS recordings,
       max(peak_db)::double precision AS peak_db
FROM written
"""

_COLUMNS = """
SELECT c.relname AS table_name, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What a batch wrote into one table: rows, the bytes of their values where known, and the table's columns with types."""

    name: str
    rows: int
    size_bytes: int | None
    columns: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """A batch as lineage tells of it."""

    batch_id: int
    source: str
    dag_id: str
    run_id: str
    try_number: int
    kind: str
    interval: tuple[datetime, datetime] | None
    state: str
    failure: str | None
    is_gated: bool
    core_version: str
    code_zip_sha256: str | None
    manifest_uri: str | None
    counts: Counts
    #: What was planned, in S3.
    n_objects: int
    size_bytes: int
    reject_classes: Mapping[str, int] = field(default_factory=dict)
    failure_classes: Mapping[str, int] = field(default_factory=dict)
    #: Name and fingerprint of each profile that was planned.
    profiles: tuple[tuple[str, str], ...] = ()
    tables: tuple[TableFacts, ...] = ()
    #: Highest cell of all it wrote, None if it wrote nothing.
    peak_db: float | None = None


def read_batch_facts(connection: psycopg.Connection[Any], batch_id: int) -> BatchFacts | None:
    """Read what there is to tell of a batch now, within `READING_TIMEOUT_S`; None if the ledger does not know it."""
    return _read(connection, "WHERE batch_id = %(batch_id)s", {"batch_id": batch_id})


def read_open_batch_facts(connection: psycopg.Connection[Any], dag_id: str, run_id: str) -> BatchFacts | None:
    """Read the batch of a run whose planning has not ended; None if there is none.

    An older try's batch is closed, and says nothing about this one.
    """
    where = "WHERE dag_id = %(dag_id)s AND run_id = %(run_id)s AND state = 'open'"
    return _read(connection, where, {"dag_id": dag_id, "run_id": run_id})


def _read(connection: psycopg.Connection[Any], where: str, values: dict[str, object]) -> BatchFacts | None:
    ends_at = monotonic() + READING_TIMEOUT_S
    # Sums of one moment, while the job goes on writing.
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:

        def fetch(query: str) -> list[dict[str, Any]]:
            left_ms = max(1, round(1000 * (ends_at - monotonic())))
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (str(left_ms),))
            return cursor.execute(query, values).fetchall()

        try:
            found = fetch(_BATCH + where)
        except psycopg.errors.UndefinedTable:
            # Nobody has migrated this database, so nothing was planned in it.
            raise psycopg.Rollback from None
        if not found:
            return None
        [batch] = found
        values |= {"batch_id": batch["batch_id"], "schema": SCHEMA, "tables": list(WRITTEN_TABLES)}
        outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        classes: dict[str, dict[str, int]] = {"rejected": {}, "failed": {}}
        for row in fetch(_OUTCOMES):
            outcomes[row["outcome"]] += row["n"]
            if row["outcome"] in classes:
                classes[row["outcome"]][row["reason_class"]] = row["n"]
        columns: dict[str, list[tuple[str, str]]] = {name: [] for name in WRITTEN_TABLES}
        for row in fetch(_COLUMNS):
            columns[row["table_name"]].append((row["name"], row["type"]))
        [read], [written] = fetch(_READ), fetch(_WRITTEN)
        sums = {name: batch.pop(name) for name in Counts.__dataclass_fields__ if name != "outcomes"}
        start, end = batch.pop("interval_start"), batch.pop("interval_end")
        return BatchFacts(
            **batch,
            **read,
            interval=(start, end) if start and end else None,
            counts=Counts(**sums, outcomes=outcomes),
            reject_classes=classes["rejected"],
            failure_classes=classes["failed"],
            profiles=tuple((row["name"], row["fingerprint"]) for row in fetch(_PROFILES)),
            tables=tuple(
                TableFacts(name, written[name], written.get(f"{name}_bytes"), tuple(columns[name]))
                for name in WRITTEN_TABLES
            ),
            peak_db=written["peak_db"],
        )
    return None
