"""The ledger a page at a time: its batches, and the lines of one. What a page costs does not grow with the ledger."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import psycopg
from psycopg.rows import dict_row

from spectralize.database import fetch_row

Connection = psycopg.Connection[Any]

STATES = ("open", "planned", "success", "failed")
KINDS = ("scheduled", "manual", "event", "backfill", "reprocess")

#: What needs somebody's attention comes first; None is what nothing has become of yet.
ORDER: tuple[str | None, ...] = ("failed", "rejected", "partial", None, "loaded")

#: Tries of one run that are listed, newest first.
_MOST_TRIES = 20

_MATCHING = """
FROM spectralize.batches
WHERE (%(source)s::text IS NULL OR source = %(source)s) AND (%(state)s::text IS NULL OR state = %(state)s)
"""

#: A closed batch has its counts; the lines of the others are counted. The page is chosen first, so that only its own are.
_BATCHES = """
SELECT b.batch_id, b.source, b.dag_id, b.run_id, b.try, b.kind, b.state, b.failure, b.interval_start, b.interval_end,
       b.planned_spectrograms, coalesce(b.loaded, n.loaded) AS loaded, coalesce(b.partial, n.partial) AS partial,
       coalesce(b.rejected, n.rejected) AS rejected, coalesce(b.failed, n.failed) AS failed,
       b.opened_at, b.planned_at, b.gated_at, b.closed_at, now() AS read_at
FROM (SELECT * {matching} ORDER BY batch_id DESC LIMIT %(limit)s OFFSET %(offset)s) AS b
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE outcome = 'loaded') AS loaded, count(*) FILTER (WHERE outcome = 'partial') AS partial,
           count(*) FILTER (WHERE outcome = 'rejected') AS rejected, count(*) FILTER (WHERE outcome = 'failed') AS failed
    FROM spectralize.batch_objects WHERE batch_id = b.batch_id AND b.closed_at IS NULL
) AS n
ORDER BY b.batch_id DESC
""".replace("{matching}", _MATCHING)

#: One probe of the index per source, where DISTINCT would read every batch.
_SOURCES = """
WITH RECURSIVE sources AS (
    (SELECT source FROM spectralize.batches ORDER BY source LIMIT 1)
    UNION ALL
    SELECT (SELECT b.source FROM spectralize.batches AS b WHERE b.source > s.source ORDER BY b.source LIMIT 1)
    FROM sources AS s WHERE s.source IS NOT NULL
)
SELECT source FROM sources WHERE source IS NOT NULL LIMIT 500
"""

#: What several profiles computed of one recording is as much audio as one did.
_AUDIO = """
SELECT batch_id, sum(audio_s), count(*)
FROM (
    SELECT batch_id, object_id, max(n_samples::double precision / sr) AS audio_s
    FROM spectralize.spectrograms WHERE batch_id = ANY (%s) GROUP BY batch_id, object_id
) AS of_objects GROUP BY batch_id
"""

_CLASSES = """
SELECT outcome, reason_class, count(*) AS n FROM spectralize.batch_objects WHERE batch_id = %s GROUP BY 1, 2
ORDER BY n DESC, reason_class
"""

#: Along the primary key, and joined when they are chosen.
_LINES = """
SELECT o.object_id, o.bucket, o.key, p.name AS profile, b.outcome, b.reason_class, coalesce(b.reason, s.reason) AS reason,
       b.attempts, b.fetch_s, b.decode_s, b.mel_s, b.load_s, b.spectrogram_id
FROM (
    SELECT * FROM spectralize.batch_objects
    WHERE batch_id = %(batch_id)s AND outcome IS NOT DISTINCT FROM %(outcome)s
    ORDER BY batch_id, object_id, profile_id LIMIT %(limit)s OFFSET %(offset)s
) AS b
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
LEFT JOIN spectralize.spectrograms AS s ON s.spectrogram_id = b.spectrogram_id
ORDER BY b.object_id, b.profile_id
"""

_TRIES = """
SELECT t.batch_id, t.try, t.state FROM spectralize.batches AS t
WHERE t.dag_id = %s AND t.run_id = %s ORDER BY t.try DESC LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Batches, newest first: those of one page, how many there are in all, and the sources that have any."""

    batches: tuple[dict[str, Any], ...]
    total: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LineCounts:
    """How the lines of a batch fared: by outcome (None: pending), and of those that were refused by class."""

    outcomes: Mapping[str | None, int]
    #: (outcome, class, how many), the most frequent first.
    classes: tuple[tuple[str, str, int], ...]

    def of(self, outcomes: Iterable[str | None]) -> int:
        """Return how many lines have one of these outcomes."""
        return sum(self.outcomes.get(outcome, 0) for outcome in outcomes)


class AudioSums:
    """Seconds of audio and recordings of batches that are closed: these no longer change, so they are summed up once."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[tuple[object, int], tuple[float, int]] = OrderedDict()
        self._lock = Lock()

    def read(self, connection: Connection, batches: Iterable[Mapping[str, Any]]) -> dict[int, tuple[float, int]]:
        """Return (seconds, recordings) of each batch; nothing of those that computed none."""
        store = connection.info.host, connection.info.port, connection.info.dbname
        wanted = {batch["batch_id"]: batch["closed_at"] is not None for batch in batches}
        with self._lock:
            found = {batch: self._known[store, batch] for batch in wanted if (store, batch) in self._known}
        missing = [batch for batch in wanted if batch not in found]
        if missing:
            read = {batch: (float(audio_s), n) for batch, audio_s, n in connection.execute(_AUDIO, (missing,))}
            found |= read
            with self._lock:
                for batch in missing:
                    if wanted[batch]:
                        self._known[store, batch] = read.get(batch, (0.0, 0))
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        return {batch: audio for batch, audio in found.items() if audio[1]}


#: Of this process.
AUDIO_SUMS = AudioSums()


def read_batch_page(
    connection: Connection, *, source: str | None = None, state: str | None = None, limit: int = 50, offset: int = 0
) -> BatchPage:
    """Read a page of the batches of a source and in a state, each with `audio_s` and `n_recordings`; None means any."""
    values = {"source": source, "state": state, "limit": limit, "offset": offset}
    with connection.cursor(row_factory=dict_row) as cursor:
        batches = cursor.execute(_BATCHES, values).fetchall()
    audio = AUDIO_SUMS.read(connection, batches)
    for batch in batches:
        batch["audio_s"], batch["n_recordings"] = audio.get(batch["batch_id"], (0.0, 0))
    return BatchPage(
        tuple(batches),
        fetch_row(connection, "SELECT count(*)" + _MATCHING, values)[0],
        tuple(row[0] for row in connection.execute(_SOURCES)),
    )


def read_line_counts(connection: Connection, batch_id: int) -> LineCounts:
    """Count the lines of a batch by outcome and class: one pass over them, and nothing of them leaves the server."""
    outcomes: dict[str | None, int] = {}
    classes = []
    for outcome, reason_class, n in connection.execute(_CLASSES, (batch_id,)):
        outcomes[outcome] = outcomes.get(outcome, 0) + n
        if outcome in {"rejected", "failed"}:
            classes.append((outcome, reason_class, n))
    return LineCounts(outcomes, tuple(classes))


def read_lines(
    connection: Connection,
    batch_id: int,
    counts: LineCounts,
    outcomes: Iterable[str | None],
    *,
    limit: int,
    offset: int,
) -> list[dict[str, Any]]:
    """Read a page of a batch's lines with these outcomes, in this order, and within an outcome in that of the objects.

    Sorting all lines for every page would cost by the size of the batch: as it is known how many there are of each outcome,
    each is read along the primary key from where the page begins.
    """
    lines: list[dict[str, Any]] = []
    with connection.cursor(row_factory=dict_row) as cursor:
        for outcome in outcomes:
            n = counts.of([outcome])
            if offset < n and limit > len(lines):
                values = {"batch_id": batch_id, "outcome": outcome, "limit": limit - len(lines), "offset": offset}
                lines += cursor.execute(_LINES, values).fetchall()
            offset = max(0, offset - n)
    return lines


def read_tries(connection: Connection, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    """Return the batches of a run, newest try first: a run that is cleared is planned anew."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_TRIES, (dag_id, run_id, _MOST_TRIES)).fetchall()
