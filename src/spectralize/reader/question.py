"""What can be asked of the table of recordings, and how that is said in SQL. The catalogue is `c` in all of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from spectralize.errors import ReadError
from spectralize.reader.catalogue import Filters
from spectralize.reader.given import as_text, shown
from spectralize.tables import OUTCOMES, TAG_COLUMNS

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

_TEXTS = {"container", "codec", *(name for name, kind in TAG_COLUMNS.items() if kind == "text")}


#: The outcome of a recording for one profile, null if it was never tried.
OUTCOME_OF_PROFILE = """
CASE WHEN %(profile)s = ANY (c.loaded_for) THEN 'loaded' WHEN %(profile)s = ANY (c.partial_for) THEN 'partial'
     WHEN %(profile)s = ANY (c.rejected_for) THEN 'rejected' WHEN %(profile)s = ANY (c.failed_for) THEN 'failed' END
"""
#: The number of the profile that shows most of a recording.
FIRST_PROFILE = "(c.loaded_for || c.partial_for || c.rejected_for || c.failed_for)[1]"


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


def make_conditions(question: Question, outcome: str) -> tuple[list[sql.Composable], dict[str, Any]]:
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


def join_conditions(conditions: Sequence[sql.Composable]) -> sql.Composable:
    """Join conditions."""
    return sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")


def make_order(question: Question, outcome: str, *, is_backward: bool) -> sql.Composable:
    """Return the order that is asked for, or the same from its end."""
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
