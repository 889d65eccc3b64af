"""What the address of the table of recordings says, and the question that it asks of the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Any

from spectralize.errors import ReadError
from spectralize.explorer.visits import write_query
from spectralize.reader.catalogue import make_filters
from spectralize.reader.question import LONGEST_TEXT, SORTS, Question
from spectralize.tables import OUTCOMES

PER_PAGE = (25, 50, 100)

#: Columns that can be chosen: the key is always there.
COLUMNS = tuple(name for name in SORTS if name != "key")
DEFAULT_COLUMNS = ("outcome", "recorded_at", "duration_s", "title", "artist", "size_bytes", "codec")

#: Beyond this there is no page of any store.
_LAST_PAGE = 10_000_000
_MOST_FORMATS = 20


@dataclass(frozen=True, slots=True)
class Listing:
    """What somebody looks for, and how they want to see it; as it stands in the address.

    Attributes
    ----------
    q
        Words.
    since, until
        Days, both inclusive, as 2024-05-01.
    shortest, longest
        Seconds.
    column
        In the order in which they were chosen.
    desc
        Whether the order of `sort` is the other way round.
    page, per
        Counted from 1; rows of each.
    """

    q: str = ""
    outcome: tuple[str, ...] = ()
    profile: str = ""
    format: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    shortest: float | None = None
    longest: float | None = None
    column: tuple[str, ...] = DEFAULT_COLUMNS
    sort: str = "key"
    desc: bool = False
    page: int = 1
    per: int = PER_PAGE[0]

    @classmethod
    def of(cls, query: Mapping[str, tuple[str, ...]]) -> Listing:
        """Read an address; what means nothing counts as not said."""

        def first(name: str) -> str:
            return next(iter(query.get(name, ())), "").strip()

        per = _number(first("per"))
        return cls(
            # PostgreSQL knows no text with a NUL in it.
            q=" ".join(first("q")[:LONGEST_TEXT].replace("\0", " ").split()),
            outcome=tuple(item for item in OUTCOMES if item in query.get("outcome", ())),
            profile=first("profile"),
            format=tuple(dict.fromkeys(query.get("format", ())))[:_MOST_FORMATS],
            since=_day(first("since")),
            until=_day(first("until")),
            shortest=_number(first("shortest")),
            longest=_number(first("longest")),
            column=_columns(query["column"]) if "column" in query else DEFAULT_COLUMNS,
            sort=first("sort") if first("sort") in SORTS else "key",
            desc=first("desc") == "1",
            page=min(max(int(_number(first("page")) or 1), 1), _LAST_PAGE),
            per=int(per) if per in PER_PAGE else PER_PAGE[0],
        )

    @property
    def search(self) -> str:
        """What stands behind the path: only what differs from what is there anyway."""
        plain = Listing()
        values: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value != getattr(plain, item.name):
                # In full: the fields are set to what the address says.
                text = str(value).removesuffix(".0") if isinstance(value, float) else value
                values[item.name] = 1 if value is True else text
        if "column" in values:
            # No column at all must be told from the ones that are shown unless others are asked for.
            values["column"] = list(self.column) or "none"
        return write_query(values)

    @property
    def unfiltered(self) -> Listing:
        """The same view of all recordings."""
        return Listing(column=self.column, sort=self.sort, desc=self.desc, per=self.per)

    @property
    def is_filtered(self) -> bool:
        """Tell whether some recordings may be left out."""
        return replace(self, page=1) != self.unfiltered

    def sorted_by(self, column: str) -> Listing:
        """Return what a touch of a column's head asks for: its order, and at the second touch the other way round."""
        return replace(self, sort=column, desc=self.sort == column and not self.desc, page=1)

    def question(self) -> Question:
        """Return what is asked of the store.

        Raises
        ------
        ReadError
            If it can match nothing, as bounds the wrong way round.
        """
        if self.since and self.until and self.until < self.since:
            raise ReadError(f"Recorded until {self.until}: must not be before {self.since}")
        if self.shortest is not None and self.longest is not None and self.longest < self.shortest:
            raise ReadError(f"Longest, {self.longest:g} s: must not be below shortest, {self.shortest:g} s")
        filters = make_filters(
            text=self.q or None,
            bucket=None,
            key_prefix=None,
            tags=None,
            recorded_from=self.since or None,
            recorded_to=date.fromisoformat(self.until) + timedelta(days=1) if self.until else None,
            min_duration_s=self.shortest,
            max_duration_s=self.longest,
            outcome=self.outcome or OUTCOMES,
            profile=self.profile or None,
        )
        return Question(filters, self.format, self.sort, self.desc, (self.page - 1) * self.per, self.per)


def _columns(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name in COLUMNS)


def _day(text: str) -> str:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return ""
    # The day after the last one there is none.
    return day.isoformat() if date.min < day < date.max else ""


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and 0 <= number <= 1e12 else None
