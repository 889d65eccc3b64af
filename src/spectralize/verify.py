"""The invariants of ledger and frames: one query each in `sql/verify/`, which returns what breaks it."""

from dataclasses import dataclass
from typing import Any

import psycopg

from spectralize.resources import resource_folder

#: Breaches shown per invariant; the count is always whole.
_SHOWN = 10


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


def verify_store(connection: psycopg.Connection[Any], *, own_transaction: bool = True) -> list[Finding]:
    """Check every invariant, in one snapshot, so that a load that is under way breaks none.

    Parameters
    ----------
    own_transaction
        False checks inside the transaction that the caller has open, with its isolation.

    Returns
    -------
    One finding per invariant, in the order of their files; `n_breaches` is 0 where it holds.
    """
    if not own_transaction:
        return _check_all(connection)
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    try:
        return _check_all(connection)
    finally:
        connection.rollback()
        connection.isolation_level = None
        connection.read_only = None


def _check_all(connection: psycopg.Connection[Any]) -> list[Finding]:
    findings = []
    for file in sorted((resource_folder("sql") / "verify").iterdir(), key=lambda item: item.name):
        query = file.read_text(encoding="utf-8")
        statement = " ".join(line.removeprefix("--").strip() for line in query.splitlines() if line.startswith("--"))
        rows = connection.execute(query).fetchall()
        breaches = tuple(Breach(str(what), str(breach)) for what, breach in rows[:_SHOWN])
        findings.append(Finding(file.name.removesuffix(".sql")[3:], statement, len(rows), breaches))
    return findings
