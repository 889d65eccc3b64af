"""Recordings into the database: recording, claim, frames, roll-ups and ledger, in one transaction.

Tiny objects share a transaction. A long recording streams into one of its own while it is still being decoded.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, cast

import psycopg
from psycopg.types.json import Jsonb

from spectralize import ledger
from spectralize.binarycopy import HEADER, TRAILER, RowBlock
from spectralize.database import fetch_row
from spectralize.errors import LedgerError, RejectedObjectError
from spectralize.extract import Extraction, library_versions
from spectralize.features import FeatureSummary
from spectralize.isolate import Done, Event, Part, Refused
from spectralize.ledger import OutcomeLine
from spectralize.tables import (
    FORGOTTEN_SQLSTATE,
    REJECT_CLASSES,
    TAG_COLUMNS,
    TIME_COLUMNS,
    Outcome,
    PlannedObject,
    PlannedProfile,
)
from spectralize.tags import clean_text
from spectralize.version import CORE_VERSION

Connection = psycopg.Connection[Any]

#: Longer reasons are cut.
_MAX_REASON = 1_000

_TAG_NAMES = tuple(TAG_COLUMNS)

_INSERT_RECORDING = f"""
INSERT INTO spectralize.recordings (
    object_id, sha256, {", ".join(_TAG_NAMES)}, tags, pictures, container,
    declared_codec, declared_duration_s, declared_samplerate_hz, declared_channels,
    decoded_codec, decoded_duration_s, decoded_samples, decoded_samplerate_hz, decoded_channels, batch_id
) VALUES ({", ".join(["%s"] * (len(_TAG_NAMES) + 15))})
ON CONFLICT (object_id) DO NOTHING
"""

_CLAIM = """
INSERT INTO spectralize.spectrograms (
    {spectrogram_id}object_id, profile_id, generation, batch_id, status, reason, sr, hop_length, n_mels,
    n_samples, n_frames, n_hops, n_seconds, peak_db, recorded_at, recorded_at_origin, recorded_at_flag,
    core_version, library_versions
) {overriding}VALUES ({values}%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (object_id, profile_id, generation) DO NOTHING
RETURNING spectrogram_id
"""
_CLAIM_NEXT = _CLAIM.format(spectrogram_id="", overriding="", values="")
_CLAIM_GIVEN = _CLAIM.format(spectrogram_id="spectrogram_id, ", overriding="OVERRIDING SYSTEM VALUE ", values="%s, ")

_CLAIMED = """
SELECT spectrogram_id, status, reason FROM spectralize.spectrograms
WHERE object_id = %s AND profile_id = %s AND generation = %s
"""

_NEXT_ID = "SELECT nextval(pg_get_serial_sequence('spectralize.spectrograms', 'spectrogram_id'))::integer"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which batch works, where, and with which zip of the core: what an attempt leaves in the ledger."""

    batch_id: int
    worker: str
    code_zip_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One object as extracted, or why not, and since when it was worked on."""

    planned: PlannedObject
    event: Done | Refused
    started_at: datetime

    @property
    def n_bytes(self) -> int:
        """Size of its rows."""
        return sum(len(block.data) for _, block in self.event.rows) if isinstance(self.event, Done) else 0

    def only(self, profile: PlannedProfile) -> "Result":
        """Return the same for one profile."""
        return replace(self, planned=replace(self.planned, profiles=(profile,)))


class _RefusedError(Exception):
    """Ends the transaction of an object whose extraction ended badly half-way."""

    def __init__(self, event: Refused) -> None:
        super().__init__(event.reason)
        self.event = event


def load_group(connection: Connection, attempt: Attempt, results: Sequence[Result]) -> list[Outcome]:
    """Write whole objects with all their profiles in one transaction, or nothing; one outcome per profile.

    Safe to repeat and to run twice at once: the unique claim makes the second one wait, find the first one's spectrogram
    and write only its own ledger line.

    Raises
    ------
    LedgerError
        If the batch has been closed meanwhile: a driver that outlived its run changes nothing.
    """
    started = time.perf_counter()
    # In the order of their ids, so that two groups with some objects in common do not wait for each other for ever.
    results = sorted(results, key=lambda result: result.planned.object_id)
    done = [(result.planned, result.event) for result in results if isinstance(result.event, Done)]
    with connection.transaction():
        ledger.hold_batch_open(connection, attempt.batch_id)
        claims = _claim_all(connection, attempt, done)
        new = {key: claim.spectrogram_id for key, claim in claims.items() if claim.is_new}
        _copy(connection, _rows_of(done, new))
        # Each object's share of the time.
        load_s = (time.perf_counter() - started) / len(results)
        lines = [line for result in results for line in _lines(attempt, result, claims, load_s)]
        ledger.record_outcomes(connection, attempt.batch_id, lines)
    return [line.outcome for line in lines]


def load_stream(
    connection: Connection,
    attempt: Attempt,
    planned: PlannedObject,
    first: Part,
    events: Iterable[tuple[PlannedObject, Event]],
    started_at: datetime,
) -> list[Outcome]:
    """Write one object in a transaction of its own while it is being extracted; one outcome per profile.

    Its frames need an id before there is anything to claim, so the claim is guarded by a lock on the object, and the row
    itself comes last.
    """
    copied_s = 0.0
    try:
        with connection.transaction():
            ledger.hold_batch_open(connection, attempt.batch_id)
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"spectralize object {planned.object_id}",)
            )
            ids = {
                profile.name: int(fetch_row(connection, _NEXT_ID)[0])
                for profile in planned.profiles
                if _find_claim(connection, planned, profile) is None
            }
            event: Event = first
            for event in _own_events(first, events):
                started = time.perf_counter()
                if isinstance(event, Refused):
                    raise _RefusedError(event)
                _copy(connection, ((block, ids[name]) for name, block in event.rows if name in ids))
                copied_s += time.perf_counter() - started
            if not isinstance(event, Done):
                raise TypeError(f"the events of {planned.key!r} end with {event!r}")
            claims = _claim_given(connection, attempt, planned, event.extraction, ids)
            result = Result(planned, event, started_at)
            lines = _lines(attempt, result, claims, copied_s)
            ledger.record_outcomes(connection, attempt.batch_id, lines)
    except _RefusedError as error:
        return load_group(connection, attempt, [Result(planned, error.event, started_at)])
    return [line.outcome for line in lines]


def record_failure(
    connection: Connection, attempt: Attempt, planned: PlannedObject, error: Exception, started_at: datetime
) -> list[Outcome]:
    """Write that an object could not be loaded, and why: failed, or rejected if it was forgotten meanwhile."""
    if is_forgotten(error):
        refused = Refused(True, "forgotten", REJECT_CLASSES["forgotten"])
    else:
        first_line = (str(error).splitlines() or [""])[0]
        refused = Refused(False, type(error).__name__, first_line or repr(error))
    return load_group(connection, attempt, [Result(planned, refused, started_at)])


def is_forgotten(error: Exception) -> bool:
    """Tell whether the database refused a recording because its key was forgotten: no other attempt would change that."""
    return isinstance(error, psycopg.Error) and error.sqlstate == FORGOTTEN_SQLSTATE


def _own_events(first: Part, events: Iterable[tuple[PlannedObject, Event]]) -> Iterator[Event]:
    yield first
    for _, event in events:
        yield event
        if not isinstance(event, Part):
            return


@dataclass(frozen=True, slots=True)
class _Claim:
    """A spectrogram that exists now; `is_new` if its rows are ours to write."""

    spectrogram_id: int
    status: str
    reason: str | None
    is_new: bool


_Key = tuple[int, str]


def _claim_all(
    connection: Connection, attempt: Attempt, done: Sequence[tuple[PlannedObject, Done]]
) -> dict[_Key, _Claim]:
    """Insert the recordings and claim every spectrogram that was computed."""
    if not done:
        return {}
    wanted = [
        (planned, profile, event.extraction, summary)
        for planned, event in done
        for profile in planned.profiles
        if isinstance(summary := event.extraction.features[profile.name], FeatureSummary)
    ]
    claims: dict[_Key, _Claim] = {}
    with connection.cursor() as cursor:
        # Each executemany is one round trip.
        cursor.executemany(
            _INSERT_RECORDING, [_recording(attempt, planned, event.extraction) for planned, event in done]
        )
        if wanted:
            cursor.executemany(_CLAIM_NEXT, [_spectrogram(attempt, *item) for item in wanted], returning=True)
        for planned, profile, extraction, _ in wanted:
            row = cursor.fetchone()
            if row is not None:
                defect = extraction.audio.defect
                claims[planned.object_id, profile.name] = _Claim(row[0], _status(extraction), defect, is_new=True)
            cursor.nextset()
    for planned, profile, *_ in wanted:
        if (planned.object_id, profile.name) not in claims:
            # The holder of the claim has committed, or the insert would have won.
            claim = _find_claim(connection, planned, profile)
            if claim is None:
                raise LedgerError(f"object {planned.object_id}: its claim was refused, yet nobody holds it")
            claims[planned.object_id, profile.name] = claim
    return claims


def _claim_given(
    connection: Connection, attempt: Attempt, planned: PlannedObject, extraction: Extraction, ids: dict[str, int]
) -> dict[_Key, _Claim]:
    """Insert the recording and the spectrograms whose rows have been written under ids of ours."""
    connection.execute(_INSERT_RECORDING, _recording(attempt, planned, extraction))
    claims: dict[_Key, _Claim] = {}
    for profile in planned.profiles:
        summary = extraction.features[profile.name]
        spectrogram_id = ids.get(profile.name)
        is_claimed = False
        if spectrogram_id is not None and isinstance(summary, FeatureSummary):
            values = (spectrogram_id, *_spectrogram(attempt, planned, profile, extraction, summary))
            is_claimed = connection.execute(_CLAIM_GIVEN, values).fetchone() is not None
        if spectrogram_id is not None and not is_claimed:
            # Rejected half-way, or claimed by one who does not take our lock.
            for table, column in TIME_COLUMNS.items():
                connection.execute(
                    f"DELETE FROM spectralize.{table} WHERE spectrogram_id = %s AND {column} >= %s",
                    (spectrogram_id, planned.recorded_at),
                )
        claim = _find_claim(connection, planned, profile)
        if claim is not None:
            claims[planned.object_id, profile.name] = claim
    return claims


def _find_claim(connection: Connection, planned: PlannedObject, profile: PlannedProfile) -> _Claim | None:
    row = connection.execute(_CLAIMED, (planned.object_id, profile.profile_id, profile.generation)).fetchone()
    return None if row is None else _Claim(row[0], row[1], row[2], is_new=False)


def _status(extraction: Extraction) -> str:
    return "partial" if extraction.audio.defect else "complete"


def _lines(attempt: Attempt, result: Result, claims: dict[_Key, _Claim], load_s: float) -> list[OutcomeLine]:
    planned, event = result.planned, result.event
    timings = replace(event.timings, load_s=load_s)
    lines = []
    for profile in planned.profiles:
        outcome: Outcome
        reason_class = reason = spectrogram_id = None
        claim = claims.get((planned.object_id, profile.name))
        if claim is not None:
            spectrogram_id = claim.spectrogram_id
            outcome = "partial" if claim.status == "partial" else "loaded"
            if outcome == "partial":
                reason_class, reason = "damaged", claim.reason
        elif isinstance(event, Refused):
            outcome, reason_class, reason = (
                "rejected" if event.is_rejected else "failed",
                event.reason_class,
                event.reason,
            )
        else:
            refusal = cast(RejectedObjectError, event.extraction.features[profile.name])
            outcome, reason_class, reason = "rejected", refusal.reason_class, refusal.reason
        reason = None if reason is None else clean_text(reason)[:_MAX_REASON]
        lines.append(
            OutcomeLine(
                planned.object_id, profile.profile_id, outcome, reason_class, reason, spectrogram_id,
                attempt.worker, result.started_at, timings, attempt.code_zip_sha256,
            )
        )  # fmt: skip
    return lines


def _recording(attempt: Attempt, planned: PlannedObject, extraction: Extraction) -> tuple[object, ...]:
    audio, tags = extraction.audio, extraction.tags
    return (
        planned.object_id,
        extraction.sha256,
        *(tags.columns[name] for name in _TAG_NAMES),
        Jsonb(tags.other),
        Jsonb([asdict(picture) for picture in tags.pictures]),
        audio.container,
        audio.declared_codec,
        audio.declared_duration_s,
        audio.declared_samplerate_hz,
        audio.declared_channels,
        audio.codec,
        audio.duration_s,
        audio.n_samples,
        audio.sr,
        audio.channels,
        attempt.batch_id,
    )


def _spectrogram(
    attempt: Attempt, planned: PlannedObject, profile: PlannedProfile, extraction: Extraction, summary: FeatureSummary
) -> tuple[object, ...]:
    return (
        planned.object_id,
        profile.profile_id,
        profile.generation,
        attempt.batch_id,
        _status(extraction),
        extraction.audio.defect,
        summary.sr,
        summary.hop_length,
        summary.n_mels,
        summary.n_samples,
        summary.n_frames,
        summary.n_hops,
        summary.n_seconds,
        summary.peak_db,
        planned.recorded_at,
        planned.recorded_at_origin,
        planned.recorded_at_flag,
        CORE_VERSION,
        Jsonb(library_versions()),
    )


def _rows_of(done: Sequence[tuple[PlannedObject, Done]], ids: dict[_Key, int]) -> Iterator[tuple[RowBlock, int]]:
    for planned, event in done:
        for name, block in event.rows:
            spectrogram_id = ids.get((planned.object_id, name))
            if spectrogram_id is not None:
                yield block, spectrogram_id


def _copy(connection: Connection, rows: Iterable[tuple[RowBlock, int]]) -> None:
    """Write encoded rows under their ids, one COPY per table and list of columns."""
    copies: dict[tuple[str, tuple[str, ...]], list[tuple[RowBlock, int]]] = {}
    for block, spectrogram_id in rows:
        copies.setdefault((block.table, block.columns), []).append((block, spectrogram_id))
    for (table, columns), blocks in copies.items():
        # Table and column names are constants of ours; values travel in the binary rows.
        statement = f"COPY spectralize.{table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(HEADER)
            for block, spectrogram_id in blocks:
                copy.write(block.with_spectrogram(spectrogram_id))
            copy.write(TRAILER)
