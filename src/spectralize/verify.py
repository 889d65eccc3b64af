"""The invariants of the store: most are one query each in `sql/verify/`, which returns what breaks it.

What needs the objects themselves, a sample of them, is in `recheck`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from spectralize.migrations import read_migrations
from spectralize.resources import resource_folder
from spectralize.tables import SCHEMA, TIME_COLUMNS

Connection = psycopg.Connection[Any]

#: Breaches shown per invariant; the count is always whole.
_SHOWN = 10

#: Parameters of a profile that are no whole numbers: JSON and jsonb do not agree on how to write 1e16.
_FLOATS = ("amin", "fmax", "fmin", "power")

#: Errors by which a query says that the store is not what it takes it for: values that cannot be, damaged pages, and tables,
#: columns or functions that are gone.
_BREAKING_STATES = ("22", "XX", "42P01", "42703", "42883", "3F000")

#: The invariant without which the others cannot be judged.
MIGRATIONS = "migrations_are_this_versions"


@dataclass(frozen=True, slots=True)
class Breach:
    """One row that breaks an invariant: where, and how."""

    what: str
    breach: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant and what breaks it: the count, and the first few."""

    name: str
    statement: str
    n_breaches: int
    breaches: tuple[Breach, ...]


def make_finding(name: str, statement: str, rows: Sequence[tuple[object, object]]) -> Finding:
    """Count what breaks an invariant, and keep the first few."""
    breaches = tuple(Breach(str(what), str(breach)) for what, breach in rows[:_SHOWN])
    return Finding(name, statement, len(rows), breaches)


@dataclass(frozen=True, slots=True)
class _Invariant:
    name: str
    statement: str
    find: Callable[[Connection], Iterable[tuple[object, object]]]


#: Takes the name of the invariant that is being checked, how many have been before it, and how many there are.
OnCheck = Callable[[str, int, int], None]


def verify_store(
    connection: Connection, *, own_transaction: bool = True, on_check: OnCheck | None = None
) -> list[Finding]:
    """Check every invariant, in one snapshot, so that a load that is under way breaks none.

    Of a store with other migrations than this version's only that much is found: the other invariants are those of another
    schema.

    Parameters
    ----------
    own_transaction
        False checks inside the transaction that the caller has open, with its isolation.
    on_check
        Called before each invariant.

    Returns
    -------
    One finding per invariant, in the order of their files; `n_breaches` is 0 where it holds.
    """
    if not own_transaction:
        return _check_all(connection, on_check)
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    try:
        with connection.transaction():
            _hold_chunks(connection)
            return _check_all(connection, on_check)
    finally:
        connection.rollback()
        connection.isolation_level = None
        connection.read_only = None


def invariant_names() -> list[str]:
    """Return the names of what `verify_store` checks, in order."""
    return [invariant.name for invariant in _invariants()]


def _hold_chunks(connection: Connection) -> None:
    """Let no chunk be dropped meanwhile: it would be gone at once, while the snapshot still has its spectrograms as living.

    This must come before the snapshot, which the first query takes and LOCK does not. Reading takes the same lock, table by
    table, so that nobody waits longer than they would.
    """
    tables = sql.SQL(", ").join(sql.Identifier(SCHEMA, table) for table in TIME_COLUMNS)
    # A table that is not there is the business of the invariants.
    with suppress(psycopg.errors.UndefinedTable), connection.transaction():
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(tables))


def _check_all(connection: Connection, on_check: OnCheck | None) -> list[Finding]:
    findings: list[Finding] = []
    invariants = _invariants()
    for number, invariant in enumerate(invariants):
        if on_check is not None:
            on_check(invariant.name, number, len(invariants))
        findings.append(make_finding(invariant.name, invariant.statement, _find(connection, invariant)))
        if invariant.name == MIGRATIONS and _is_of_another_version(connection):
            break
    return findings


def _find(connection: Connection, invariant: _Invariant) -> list[tuple[object, object]]:
    try:
        with connection.transaction():
            return list(invariant.find(connection))
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith(_BREAKING_STATES):
            raise
        line = str(error).strip().splitlines()[0]
        return [("the query", f"cannot be answered: {line}")]


def _invariants() -> list[_Invariant]:
    files = sorted((resource_folder("sql") / "verify").iterdir(), key=lambda item: item.name)
    return [
        _Invariant(
            MIGRATIONS,
            "The migrations that made the schema are those of this version, to the letter.",
            _find_migrations,
        ),
        _Invariant(
            "profiles_are_unchanged",
            "The fingerprint of each profile is the sha256 of its parameters as canonical JSON.",
            _find_profiles,
        ),
        *(_read_invariant(file.name, file.read_text(encoding="utf-8")) for file in files),
    ]


def _read_invariant(file_name: str, query: str) -> _Invariant:
    statement = " ".join(line.removeprefix("--").strip() for line in query.splitlines() if line.startswith("--"))
    return _Invariant(
        file_name.removesuffix(".sql")[3:], statement, lambda connection: connection.execute(query).fetchall()
    )


def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    rows = connection.execute("SELECT version, name, checksum FROM spectralize.schema_migrations ORDER BY version")
    return {version: (name, checksum) for version, name, checksum in rows}


def _find_migrations(connection: Connection) -> Iterable[tuple[object, object]]:
    known = {migration.version: migration for migration in read_migrations()}
    applied = _applied(connection)
    for version in sorted(known.keys() | applied.keys()):
        if version not in known:
            yield applied[version][0], "this version of spectralize has no such migration: upgrade spectralize"
        elif version not in applied:
            yield known[version].name, "has not been applied: run spectralize migrate"
        elif applied[version] != (known[version].name, known[version].checksum):
            name, checksum = applied[version]
            ours = known[version]
            yield (
                name,
                f"was applied with sha256 {checksum[:12]}…, {ours.name} of this version has {ours.checksum[:12]}…: "
                "released migrations do not change",
            )


def _is_of_another_version(connection: Connection) -> bool:
    try:
        with connection.transaction():
            return _applied(connection).keys() != {migration.version for migration in read_migrations()}
    except psycopg.errors.UndefinedTable:
        return True


def _find_profiles(connection: Connection) -> Iterable[tuple[object, object]]:
    rows = connection.execute("SELECT name, fingerprint, parameters FROM spectralize.profiles ORDER BY profile_id")
    for name, fingerprint, parameters in rows.fetchall():
        expected = _fingerprint(parameters)
        if fingerprint != expected:
            yield f"profile {name}", f"its fingerprint is {fingerprint[:12]}…, its parameters make {expected[:12]}…"


def _fingerprint(parameters: Any) -> str:
    """Do as `MelProfile.fingerprint` does, with the parameters that are stored: another version may have had others."""
    if isinstance(parameters, dict):
        parameters = {
            name: float(value) if name in _FLOATS and type(value) is int else value
            for name, value in parameters.items()
        }
    canonical = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
