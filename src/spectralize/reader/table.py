"""Recordings as a table: a page of them in any order, with the number of all that match.

Asks the catalogue, a table with a row per recording that the database keeps; see docs/decisions/0014-recordings-table.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spectralize.errors import ReadError
from spectralize.reader.question import (
    FIRST_PROFILE,
    OUTCOME_OF_PROFILE,
    SORTS,
    Question,
    join_conditions,
    make_conditions,
    make_order,
)
from spectralize.tables import OUTCOMES

Connection = psycopg.Connection[Any]

#: What few match is found once, and sorted; of more the first page is found sooner by looking again in the order asked for.
_FEW = 1_000

#: Nobody waits for longer than that.
_TIMEOUT = "10s"

_COUNT = """
SELECT outcome, count(*), {few} AS places
FROM (SELECT {outcome} AS outcome, c.ctid FROM spectralize.catalogue AS c WHERE {conditions}) AS matching
GROUP BY outcome
"""

#: Only the rows of the page are looked at whole: sorting all of them so would take three times as long.
_PAGE = """
WITH page AS MATERIALIZED (
    SELECT c.bucket, c.key, c.object_id FROM spectralize.catalogue AS c
    WHERE {conditions} ORDER BY {order} OFFSET %(offset)s LIMIT %(limit)s
)
SELECT c.object_id, c.bucket, c.key, {outcome} AS outcome, {columns}, p.name AS profile, s.spectrogram_id,
       coalesce(b.reason_class, CASE WHEN {outcome} = 'partial' THEN 'damaged' END) AS reason_class,
       coalesce(b.reason, s.reason) AS reason, o.tombstoned_at IS NOT NULL AS is_gone
FROM page JOIN spectralize.catalogue AS c USING (bucket, key, object_id)
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.profiles AS p ON p.profile_id = {profile}
LEFT JOIN LATERAL (
    SELECT s.spectrogram_id, s.reason FROM spectralize.spectrograms AS s
    WHERE s.object_id = c.object_id AND s.profile_id = p.profile_id AND s.status <> 'expired'
    ORDER BY (s.status = 'complete') DESC, s.generation DESC LIMIT 1
) AS s ON {outcome} IN ('loaded', 'partial')
LEFT JOIN LATERAL (
    SELECT b.reason_class, b.reason FROM spectralize.batch_objects AS b
    WHERE b.object_id = c.object_id AND b.profile_id = p.profile_id AND b.outcome IS NOT NULL
    ORDER BY b.batch_id DESC LIMIT 1
) AS b ON {outcome} IN ('rejected', 'failed')
ORDER BY {order}
"""

_COLUMNS = sql.SQL(", ").join(sql.Identifier("c", name) for name in SORTS if name not in ("key", "outcome"))
_OF_ROW = ("bucket", "key", "outcome", "profile", "spectrogram_id", "reason_class", "reason", "is_gone")


@dataclass(frozen=True, slots=True)
class Row:
    """A recording, or an object that became none, as a line of the table.

    Attributes
    ----------
    values
        By name of `SORTS`, as it is sorted.
    profile, spectrogram_id
        What there is to see of it, or the profile that it was refused for.
    reason_class, reason
        Why it is not all there.
    is_gone
        Whether no object of its key is listed any more.
    """

    id: int
    bucket: str
    key: str
    outcome: str
    values: Mapping[str, Any]
    profile: str
    spectrogram_id: int | None
    reason_class: str | None
    reason: str | None
    is_gone: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A page, where it begins, how many recordings match, and how many would with each outcome under the other filters."""

    rows: tuple[Row, ...]
    offset: int
    total: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Choices:
    """What there is to choose from."""

    profiles: tuple[str, ...]
    buckets: tuple[str, ...]
    formats: tuple[str, ...]
    n_recordings: int


def read_table(connection: Connection, question: Question) -> Table:
    """Answer a question, as of one moment.

    Raises
    ------
    ReadError
        If nothing in the store has the profile, or the answer takes too long.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT}'")
        # A page far from both ends sorts half of the store.
        connection.execute("SET LOCAL work_mem = '32MB'")
        try:
            return _answer(connection, question)
        except psycopg.errors.QueryCanceled as error:
            raise ReadError(f"that takes longer than {_TIMEOUT}: ask for fewer words") from error


def read_choices(connection: Connection) -> Choices:
    """Return what filters can choose from."""
    profiles = [name for (name,) in connection.execute("SELECT name FROM spectralize.profiles ORDER BY name")]
    buckets, formats, n_recordings = set(), set(), 0
    for bucket, container, codec, n in connection.execute(
        "SELECT bucket, container, codec, count(*) FROM spectralize.catalogue GROUP BY bucket, container, codec"
    ):
        buckets.add(bucket)
        formats |= {item for item in (container, codec) if item is not None}
        n_recordings += n
    return Choices(tuple(profiles), tuple(sorted(buckets)), tuple(sorted(formats)), n_recordings)


def _answer(connection: Connection, question: Question) -> Table:
    outcome, profile, values = _standing(connection, question.filters.profile)
    conditions, bound = make_conditions(question, outcome)
    values |= bound
    is_all = len(conditions) == 0
    few = "NULL" if is_all else f"CASE WHEN count(*) <= {_FEW} THEN array_agg(ctid)::text[] END"
    # Never prepared: a plan for any words would be worse, and planning takes a millisecond.
    counted = connection.execute(
        sql.SQL(_COUNT).format(few=sql.SQL(few), outcome=sql.SQL(outcome), conditions=join_conditions(conditions)),
        values, prepare=False,
    ).fetchall()  # fmt: skip
    counts = dict.fromkeys(OUTCOMES, 0) | {name: n for name, n, _ in counted}
    chosen = [(n, places) for name, n, places in counted if name in question.filters.outcomes]
    total = sum(n for n, _ in chosen)
    offset = min(question.offset, max(0, (total - 1) // question.limit * question.limit))
    n_rows = min(question.limit, total - offset)
    if not n_rows:
        return Table((), 0, 0, counts)
    if not is_all and total <= _FEW:
        # The transaction sees the same rows in the same places.
        conditions = [sql.SQL("c.ctid = ANY (%(places)s::tid[])")]
        values["places"] = [place for _, places in chosen for place in places]
    elif len(question.filters.outcomes) < len(OUTCOMES):
        conditions.append(sql.SQL(f"{outcome} = ANY (%(outcomes)s)"))
        values["outcomes"] = list(question.filters.outcomes)
    # The way from the end is the shorter one for half of the pages.
    is_backward = offset > total // 2
    values |= {"offset": total - offset - n_rows if is_backward else offset, "limit": n_rows}
    order = make_order(question, outcome, is_backward=is_backward)
    query = sql.SQL(_PAGE).format(
        order=order, outcome=sql.SQL(outcome), conditions=join_conditions(conditions), columns=_COLUMNS, profile=sql.SQL(profile)
    )  # fmt: skip
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = [_row(item) for item in cursor.execute(query, values, prepare=False)]
    return Table(tuple(reversed(rows) if is_backward else rows), offset, total, counts)


def _standing(connection: Connection, profile: str | None) -> tuple[str, str, dict[str, Any]]:
    """Return the outcome and the number of the profile that is shown, as expressions, and the values in them."""
    if profile is None:
        return "c.outcome", FIRST_PROFILE, {}
    names = dict(connection.execute("SELECT name, profile_id FROM spectralize.profiles ORDER BY name").fetchall())
    if profile not in names:
        raise ReadError(f"profile {profile!r}: nothing in the store has it; there are {', '.join(names) or 'none'}")
    return OUTCOME_OF_PROFILE.strip(), "%(profile)s", {"profile": names[profile]}


def _row(found: dict[str, Any]) -> Row:
    values = {name: found[name] for name in SORTS}
    return Row(id=found["object_id"], values=values, **{name: found[name] for name in _OF_ROW})
