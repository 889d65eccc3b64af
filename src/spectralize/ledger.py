"""The ledger: batches, what each planned, and what became of every object."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from spectralize.database import fetch_row
from spectralize.errors import ConfigError, LedgerError
from spectralize.profiles import MelProfile
from spectralize.sources import Source
from spectralize.tables import OUTCOMES, BatchKind, Counts, Outcome, Timings
from spectralize.version import CORE_VERSION

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Run:
    """The DAG run that a batch belongs to. `interval` is [start, end), where the run has one."""

    dag_id: str
    run_id: str
    kind: BatchKind
    interval: tuple[datetime, datetime] | None = None
    parameters: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the ledger has it."""

    batch_id: int
    source: str
    state: str
    manifest_uri: str | None
    counts: Counts
    failure: str | None = None
    gated: bool = False


def register_profiles(connection: Connection, profiles: Sequence[MelProfile]) -> dict[str, int]:
    """Return the ids of profiles by name, storing those that are new.

    Raises
    ------
    ConfigError
        If a stored profile of that name has other parameters.
    """
    ids = {}
    for profile in profiles:
        connection.execute(
            "INSERT INTO spectralize.profiles (name, fingerprint, parameters) VALUES (%s, %s, %s) ON CONFLICT (name) DO NOTHING",
            (profile.name, profile.fingerprint, Jsonb(profile.parameters)),
        )
        profile_id, fingerprint = fetch_row(
            connection, "SELECT profile_id, fingerprint FROM spectralize.profiles WHERE name = %s", (profile.name,)
        )
        _refuse_changed(profile, fingerprint)
        ids[profile.name] = profile_id
    return ids


def find_profile_ids(connection: Connection, profiles: Sequence[MelProfile]) -> dict[str, int]:
    """Return the ids of profiles by name without storing any; a profile that was never used has a negative one.

    Raises
    ------
    ConfigError
        If a stored profile of that name has other parameters.
    """
    names = [profile.name for profile in profiles]
    stored = {
        name: (profile_id, fingerprint)
        for name, profile_id, fingerprint in connection.execute(
            "SELECT name, profile_id, fingerprint FROM spectralize.profiles WHERE name = ANY (%s)", (names,)
        )
    }
    ids = {}
    for number, profile in enumerate(profiles, start=1):
        profile_id, fingerprint = stored.get(profile.name, (-number, profile.fingerprint))
        _refuse_changed(profile, fingerprint)
        ids[profile.name] = profile_id
    return ids


def _refuse_changed(profile: MelProfile, fingerprint: str) -> None:
    if fingerprint != profile.fingerprint:
        raise ConfigError(
            f"profile {profile.name!r}: the database has it with other parameters; profiles never change: "
            "give the new parameters a new name"
        )


def open_batch(connection: Connection, source: Source, run: Run) -> Batch:
    """Return the run's open or planned batch, or open its next try.

    A retried planning task continues the batch it had; a run cleared after its batch was closed gets a new one, so that
    no history is overwritten.
    """
    with connection.transaction():
        # Two planning tasks of one run, one of them a zombie, must not open two batches.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{run.dag_id} {run.run_id}",))
        row = connection.execute(
            "SELECT batch_id, state, try FROM spectralize.batches WHERE dag_id = %s AND run_id = %s ORDER BY try DESC LIMIT 1",
            (run.dag_id, run.run_id),
        ).fetchone()
        if row is None or row[1] in {"success", "failed"}:
            start, end = run.interval or (None, None)
            row = fetch_row(
                connection,
                """
                INSERT INTO spectralize.batches
                    (source, dag_id, run_id, try, kind, interval_start, interval_end, core_version, parameters)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING batch_id
                """,
                (
                    source.name, run.dag_id, run.run_id, 1 + (row[2] if row else 0), run.kind, start, end, CORE_VERSION,
                    Jsonb(run.parameters),
                ),
            )  # fmt: skip
    return read_batch(connection, int(row[0]))


_BATCH = """
SELECT batch_id, source, state, manifest_uri, failure, gated_at IS NOT NULL,
       listed, unchanged, planned, unsettled, ignored, over_cap, planned_spectrograms
FROM spectralize.batches
"""


def read_batch(connection: Connection, batch_id: int) -> Batch:
    """Read one batch with its outcomes as they are now."""
    row = connection.execute(_BATCH + "WHERE batch_id = %s", (batch_id,)).fetchone()
    if row is None:
        raise LedgerError(f"batch {batch_id}: not in the ledger")
    outcomes = dict.fromkeys(OUTCOMES, 0) | dict(
        connection.execute(
            "SELECT outcome, count(*) FROM spectralize.batch_objects WHERE batch_id = %s AND outcome IS NOT NULL GROUP BY 1",
            (batch_id,),
        ).fetchall()
    )
    listed, unchanged, planned, unsettled, ignored, over_cap, planned_spectrograms = (value or 0 for value in row[6:])
    return Batch(
        batch_id=row[0],
        source=row[1],
        state=row[2],
        manifest_uri=row[3],
        failure=row[4],
        gated=row[5],
        counts=Counts(listed, unchanged, planned, unsettled, ignored, over_cap, planned_spectrograms, outcomes),
    )


def find_batch(connection: Connection, dag_id: str, run_id: str) -> Batch:
    """Read the newest batch of a DAG run."""
    row = connection.execute(
        "SELECT batch_id FROM spectralize.batches WHERE dag_id = %s AND run_id = %s ORDER BY try DESC LIMIT 1",
        (dag_id, run_id),
    ).fetchone()
    if row is None:
        raise LedgerError(f"run {run_id} of {dag_id}: no batch was planned for it")
    return read_batch(connection, int(row[0]))


def record_code(connection: Connection, batch_id: int, zip_sha256: str) -> None:
    """Note which zip of the core a batch is computed with."""
    connection.execute(
        "UPDATE spectralize.batches SET code_zip_sha256 = %s WHERE batch_id = %s AND closed_at IS NULL",
        (zip_sha256, batch_id),
    )


def read_code(connection: Connection, batch_id: int) -> str | None:
    """Return the sha256 of the zip that the batch's job was given last; None if the core was not shipped."""
    row = connection.execute(
        "SELECT code_zip_sha256 FROM spectralize.batches WHERE batch_id = %s", (batch_id,)
    ).fetchone()
    return row[0] if row else None


def hold_batch_open(connection: Connection, batch_id: int) -> None:
    """Keep the batch from being closed until this transaction ends; refuse one that is closed already."""
    row = connection.execute(
        "SELECT state FROM spectralize.batches WHERE batch_id = %s FOR SHARE", (batch_id,)
    ).fetchone()
    if row is None or row[0] != "planned":
        raise LedgerError(
            f"batch {batch_id} is {row[0] if row else 'unknown'}, not planned: nothing may be added to it"
        )


def find_undone(connection: Connection, batch_id: int, object_ids: Sequence[int]) -> set[int]:
    """Return those objects of which some profile has no outcome in this batch that another attempt would not change."""
    rows = connection.execute(
        "SELECT object_id FROM spectralize.batch_objects WHERE batch_id = %s AND object_id = ANY(%s) GROUP BY object_id "
        "HAVING NOT bool_and(outcome IN ('loaded', 'partial', 'rejected') IS TRUE)",
        (batch_id, list(object_ids)),
    ).fetchall()
    return {row[0] for row in rows}


@dataclass(frozen=True, slots=True)
class OutcomeLine:
    """What one attempt at one (object, profile) came to."""

    object_id: int
    profile_id: int
    outcome: Outcome
    reason_class: str | None
    reason: str | None
    spectrogram_id: int | None
    worker: str
    started_at: datetime
    timings: Timings
    #: Of the zip of the core that made the attempt; None if it was not shipped as one.
    code_zip_sha256: str | None = None


#: `loaded` and `partial` never turn into something else; `rejected` only into those; `failed` into anything. Written
#: with the row's own columns, so that it is judged anew when another attempt committed first.
_IMPROVES = """
(b.outcome IS NULL OR b.outcome = 'failed' OR (b.outcome = 'rejected' AND given.outcome IN ('loaded', 'partial')))
"""

_RECORD = """
WITH given AS (
    SELECT * FROM unnest(
        %(object_id)s::bigint[], %(profile_id)s::integer[], %(outcome)s::text[], %(reason_class)s::text[], %(reason)s::text[],
        %(spectrogram_id)s::integer[], %(worker)s::text[], %(started_at)s::timestamptz[],
        %(fetch_s)s::real[], %(decode_s)s::real[], %(mel_s)s::real[], %(load_s)s::real[], %(code_zip_sha256)s::text[]
    ) AS given (object_id, profile_id, outcome, reason_class, reason, spectrogram_id, worker, started_at,
                fetch_s, decode_s, mel_s, load_s, code_zip_sha256)
), changed AS (
    UPDATE spectralize.batch_objects AS b SET
        attempts = b.attempts + 1,
        outcome = CASE WHEN {improves} THEN given.outcome ELSE b.outcome END,
        reason_class = CASE WHEN {improves} THEN given.reason_class ELSE b.reason_class END,
        reason = CASE WHEN {improves} THEN given.reason ELSE b.reason END,
        spectrogram_id = CASE WHEN {improves} THEN given.spectrogram_id ELSE b.spectrogram_id END,
        fetch_s = CASE WHEN {improves} THEN given.fetch_s ELSE b.fetch_s END,
        decode_s = CASE WHEN {improves} THEN given.decode_s ELSE b.decode_s END,
        mel_s = CASE WHEN {improves} THEN given.mel_s ELSE b.mel_s END,
        load_s = CASE WHEN {improves} THEN given.load_s ELSE b.load_s END,
        ended_at = CASE WHEN {improves} THEN clock_timestamp() ELSE b.ended_at END
    FROM given
    WHERE b.batch_id = %(batch_id)s AND b.object_id = given.object_id AND b.profile_id = given.profile_id
    RETURNING b.object_id, b.profile_id, b.attempts
)
INSERT INTO spectralize.batch_object_attempts
    (batch_id, object_id, profile_id, attempt, outcome, reason_class, reason, worker, started_at, core_version,
     code_zip_sha256)
SELECT %(batch_id)s, object_id, profile_id, changed.attempts, given.outcome, given.reason_class, given.reason,
       given.worker, given.started_at, %(core_version)s, given.code_zip_sha256
FROM changed JOIN given USING (object_id, profile_id)
""".replace("{improves}", _IMPROVES.strip())

_TIMINGS = ("fetch_s", "decode_s", "mel_s", "load_s")


def record_outcomes(connection: Connection, batch_id: int, lines: Sequence[OutcomeLine]) -> None:
    """Write one attempt per line, with the code that made it, and, unless a better outcome stands already, the outcome.

    Raises
    ------
    LedgerError
        If one of them was not planned in this batch.
    """
    names = (
        "object_id", "profile_id", "outcome", "reason_class", "reason", "spectrogram_id", "worker", "started_at",
        "code_zip_sha256",
    )  # fmt: skip
    values: dict[str, object] = {name: [getattr(line, name) for line in lines] for name in names}
    values |= {name: [getattr(line.timings, name) for line in lines] for name in _TIMINGS}
    written = connection.execute(_RECORD, values | {"batch_id": batch_id, "core_version": CORE_VERSION}).rowcount
    if written != len(lines):
        raise LedgerError(f"batch {batch_id}: {len(lines) - written} of {len(lines)} outcomes were not planned in it")
