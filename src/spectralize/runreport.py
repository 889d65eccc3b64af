"""What the ledger says about one DAG run: every try's batch, its sums and its objects, within bounds that suit a page."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from spectralize.lineage import read_batch_facts

#: Most batches of one run. A run that has been cleared more often shows its newest tries.
MAX_BATCHES = 20
#: Most objects that are shown of the newest batch, and of each that it has superseded.
MAX_LINES = 500
MAX_OLDER_LINES = 20
#: A page that takes longer than this is of no use, and the database has better to do.
STATEMENT_TIMEOUT_S = 10

_BATCHES = """
SELECT b.batch_id, b.source, b.try, b.kind, b.interval_start, b.interval_end, b.state, b.failure, b.parameters,
       b.listed, b.unchanged, b.planned, b.unsettled, b.ignored, b.over_cap, b.planned_spectrograms,
       coalesce(b.loaded, n.loaded) AS loaded, coalesce(b.partial, n.partial) AS partial,
       coalesce(b.rejected, n.rejected) AS rejected, coalesce(b.failed, n.failed) AS failed, n.lines,
       b.core_version, b.code_zip_sha256, b.manifest_uri, b.manifest_sha256, b.opened_at, b.planned_at, b.gated_at, b.closed_at,
       count(*) OVER () AS tries
FROM spectralize.batches AS b
CROSS JOIN LATERAL (
    SELECT count(*) AS lines,
           count(*) FILTER (WHERE outcome = 'loaded') AS loaded, count(*) FILTER (WHERE outcome = 'partial') AS partial,
           count(*) FILTER (WHERE outcome = 'rejected') AS rejected, count(*) FILTER (WHERE outcome = 'failed') AS failed
    FROM spectralize.batch_objects WHERE batch_id = b.batch_id
) AS n
WHERE b.dag_id = %s AND b.run_id = %s
ORDER BY b.try DESC LIMIT %s
"""

#: What needs somebody's attention comes first. The lines are chosen before they are joined, so that a batch of many
#: thousand objects costs one pass over its own lines.
_LINES = """
SELECT o.key, p.name AS profile, b.outcome, b.reason_class, coalesce(b.reason, s.reason) AS reason, b.attempts,
       r.decoded_duration_s AS duration_s, s.n_frames, b.spectrogram_id, encode(r.sha256, 'hex') AS sha256
FROM (
    SELECT *, CASE outcome WHEN 'failed' THEN 0 WHEN 'rejected' THEN 1 WHEN 'partial' THEN 2 WHEN 'loaded' THEN 3 ELSE 4 END
              AS urgency
    FROM spectralize.batch_objects WHERE batch_id = %s ORDER BY urgency, object_id, profile_id LIMIT %s
) AS b
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
LEFT JOIN spectralize.spectrograms AS s ON s.spectrogram_id = b.spectrogram_id
LEFT JOIN spectralize.recordings AS r ON r.object_id = s.object_id
ORDER BY b.urgency, o.key, p.name
"""


@dataclass(frozen=True, slots=True)
class RunReport:
    """The batches of one DAG run, newest try first; each has its lineage, its `lines`, and how many of them were `left_out`."""

    dag_id: str
    run_id: str
    batches: tuple[dict[str, Any], ...] = ()
    #: How often the run was planned; more than there are `batches` if the oldest are left out.
    n_tries: int = 0


def read_run(connection: psycopg.Connection[Any], dag_id: str, run_id: str, *, max_lines: int = MAX_LINES) -> RunReport:
    """Read the batches of a DAG run in one read-only transaction; none if the run has not been planned yet."""
    connection.read_only = True
    # Sums and lines of one moment, while the job goes on writing.
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", (f"{STATEMENT_TIMEOUT_S}s",))
        try:
            batches = cursor.execute(_BATCHES, (dag_id, run_id, MAX_BATCHES)).fetchall()
        except psycopg.errors.UndefinedTable:
            # Nobody has migrated this database, so nothing was planned in it.
            raise psycopg.Rollback from None
        for batch in batches:
            batch |= read_batch_facts(connection, batch["batch_id"])
            cursor.execute(_LINES, (batch["batch_id"], max_lines))
            batch["lines_shown"] = cursor.fetchall()
            batch["left_out"] = batch["lines"] - len(batch["lines_shown"])
            max_lines = min(max_lines, MAX_OLDER_LINES)
        return RunReport(dag_id, run_id, tuple(batches), batches[0]["tries"] if batches else 0)
    return RunReport(dag_id, run_id)
