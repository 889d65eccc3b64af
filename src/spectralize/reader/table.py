"""Recordings as a table: a page of them in any order, with the number of all that match; see docs/decisions/0014-recordings-table.md.

Asks the catalogue, a table that holds a row per recording, and which the database keeps as the ledger changes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spectralize.errors import ReadError
from spectralize.reader.catalogue import Filters
from spectralize.reader.given import as_text, shown
from spectralize.tables import OUTCOMES, TAG_COLUMNS

Connection = psycopg.Connection[Any]

#: A page may have so many rows.
MOST_ROWS = 100
#: Each word costs a look at all texts.
LONGEST_TEXT = 200

#: What is shown of a recording, and can be sorted by, before the tags that the file declares; by column of the catalogue.
FACTS = (
    "key", "outcome", "recorded_at", "duration_s", "size_bytes", "samplerate_hz", "n_channels", "container", "codec",
    "last_modified",
)  # fmt: skip
SORTS = (*FACTS, *TAG_COLUMNS)

#: What few match is found once, and sorted; of more the first page is found sooner by looking again in the order asked for.
_FEW = 1_000

#: Nobody waits for longer than that.
_TIMEOUT = "10s"

_TEXTS = {"container", "codec", *(name for name, kind in TAG_COLUMNS.items() if kind == "text")}


@dataclass(frozen=True, slots=True)
class Question:
    """Which recordings, and which page of them in which order.

    Attributes
    ----------
    filters
        Of `make_filters`; words are looked for as there. An outcome is that of the profile, if one is named, and else the best
        of any profile: each recording has one.
    formats
        Containers or codecs of which one must match.
    sort
        One of `SORTS`. What has no value there comes last, whichever way; equal ones are in the order of their keys.
    offset, limit
        Beyond the end, the last page that there is.
    """

    filters: Filters
    formats: tuple[str, ...] = ()
    sort: str = "key"
    is_descending: bool = False
    offset: int = 0
    limit: int = 25

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if self.sort not in SORTS:
            raise ReadError(f"sort = {shown(repr(self.sort))}: must be one of {', '.join(SORTS)}")
        if not 1 <= self.limit <= MOST_ROWS:
            raise ReadError(f"limit = {shown(self.limit)}: must be 1 to {MOST_ROWS} rows")
        if not 0 <= self.offset < 1 << 60:
            raise ReadError(f"offset = {shown(self.offset)}: must be 0 or more")
        if len(self.filters.text or "") > LONGEST_TEXT:
            raise ReadError(f"text of {len(self.filters.text or '')} characters: must be {LONGEST_TEXT} at most")
        if self.filters.tags or self.filters.key_prefix is not None:
            raise ReadError("a table is not filtered by single tags or the beginning of keys: text looks in both")
        for item in self.formats:
            as_text("format", item)


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

_OF_PROFILE = """
CASE WHEN %(profile)s = ANY (c.loaded_for) THEN 'loaded' WHEN %(profile)s = ANY (c.partial_for) THEN 'partial'
     WHEN %(profile)s = ANY (c.rejected_for) THEN 'rejected' WHEN %(profile)s = ANY (c.failed_for) THEN 'failed' END
"""
_FIRST_PROFILE = "(c.loaded_for || c.partial_for || c.rejected_for || c.failed_for)[1]"


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
    conditions, bound = _conditions(question, outcome)
    values |= bound
    is_all = len(conditions) == 0
    few = "NULL" if is_all else f"CASE WHEN count(*) <= {_FEW} THEN array_agg(ctid::text) END"
    # Never prepared: a plan for any words would be worse, and planning takes a millisecond.
    counted = connection.execute(
        sql.SQL(_COUNT).format(few=sql.SQL(few), outcome=sql.SQL(outcome), conditions=_all_of(conditions)),
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
    query = sql.SQL(_PAGE).format(
        order=_order(question, outcome, is_backward=is_backward), outcome=sql.SQL(outcome), conditions=_all_of(conditions),
        columns=_COLUMNS, profile=sql.SQL(profile),
    )  # fmt: skip
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = [_row(item) for item in cursor.execute(query, values, prepare=False)]
    return Table(tuple(reversed(rows) if is_backward else rows), offset, total, counts)


def _standing(connection: Connection, profile: str | None) -> tuple[str, str, dict[str, Any]]:
    """Return the outcome and the number of the profile that is shown, as expressions, and the values in them."""
    if profile is None:
        return "c.outcome", _FIRST_PROFILE, {}
    names = dict(connection.execute("SELECT name, profile_id FROM spectralize.profiles ORDER BY name").fetchall())
    if profile not in names:
        raise ReadError(f"profile {profile!r}: nothing in the store has it; there are {', '.join(names) or 'none'}")
    return _OF_PROFILE.strip(), "%(profile)s", {"profile": names[profile]}


def _conditions(question: Question, outcome: str) -> tuple[list[sql.Composable], dict[str, Any]]:
    """Return what all but the outcome ask for."""
    filters = question.filters
    conditions: list[sql.Composable] = []
    values: dict[str, Any] = {}
    for condition, name, value in (
        ("c.bucket = %(bucket)s", "bucket", filters.bucket),
        ("c.recorded_at >= %(from)s", "from", filters.recorded_from),
        ("c.recorded_at < %(to)s", "to", filters.recorded_to),
        ("c.duration_s >= %(shortest)s", "shortest", filters.min_duration_s),
        ("c.duration_s <= %(longest)s", "longest", filters.max_duration_s),
        ("(c.container = ANY (%(formats)s) OR c.codec = ANY (%(formats)s))", "formats", list(question.formats) or None),
    ):
        if value is not None:
            conditions.append(sql.SQL(condition))
            values[name] = value
    if filters.profile is not None:
        conditions.append(sql.SQL(f"({outcome}) IS NOT NULL"))
    # What costs most comes last: the database keeps the order.
    for number, word in enumerate(_words(filters.text or "")):
        values[f"word{number}"] = "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"
        conditions.append(sql.SQL(f'c.words LIKE lower(%(word{number})s COLLATE "C")'))
    return conditions, values


def _words(text: str) -> list[str]:
    """Return the words to look for, longest first, without those that a longer one has in it."""
    words: list[str] = []
    for word in sorted(set(text.split()), key=len, reverse=True):
        if not any(word in longer for longer in words):
            words.append(word)
    return words


def _all_of(conditions: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")


def _order(question: Question, outcome: str, *, is_backward: bool) -> sql.Composable:
    column = sql.Identifier("c", question.sort)
    terms: list[tuple[sql.Composable, bool]]
    if question.sort == "key":
        terms = [(sql.Identifier("c", name), question.is_descending) for name in ("bucket", "key", "object_id")]
    else:
        by: list[sql.Composable] = [column]
        if question.sort in _TEXTS:
            # What differs in its capitals only stays together. By bytes: many times faster than as the server's language has it.
            by = [sql.SQL('lower({} COLLATE "C")').format(column), sql.SQL('{} COLLATE "C"').format(column)]
        elif question.sort == "outcome":
            by = [sql.SQL(f"array_position('{{{','.join(OUTCOMES)}}}'::text[], {outcome})")]
        terms = [(item, question.is_descending) for item in by]
        terms += [(sql.Identifier("c", name), False) for name in ("bucket", "key", "object_id")]
    nulls = sql.SQL("FIRST" if is_backward else "LAST")
    parts = []
    for number, (term, is_descending) in enumerate(terms):
        way = sql.SQL("DESC" if is_descending != is_backward else "ASC")
        # Where there can be none, saying so would keep the index from being used.
        where = sql.SQL(" NULLS {}").format(nulls) if number == 0 and question.sort != "key" else sql.SQL("")
        parts.append(sql.SQL("{} {}{}").format(term, way, where))
    return sql.SQL(", ").join(parts)


_COLUMNS = sql.SQL(", ").join(sql.Identifier("c", name) for name in SORTS if name not in ("key", "outcome"))


def _row(found: dict[str, Any]) -> Row:
    return Row(
        id=found["object_id"],
        values={name: found[name] for name in SORTS},
        **{
            name: found[name]
            for name in (
                "bucket", "key", "outcome", "profile", "spectrogram_id", "reason_class", "reason", "is_gone",
            )  # fmt: skip
        },
    )
