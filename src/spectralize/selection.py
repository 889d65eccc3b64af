"""What to compute again: a selection of (object, profile) pairs by what the ledger knows of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import psycopg

from spectralize.database import fetch_row
from spectralize.errors import ConfigError
from spectralize.keys import is_wanted, matches_glob
from spectralize.sources import Source
from spectralize.tables import OUTCOMES, REJECT_CLASSES, Counts
from spectralize.worklist import CREATE_SCRATCH, IS_RECOMPUTE, TRIED_IN

Connection = psycopg.Connection[Any]

#: Rows that are held in memory at a time.
_PAGE_ROWS = 5_000

#: Of each key the object that is listed now. `line` is the newest one with an outcome: where the pair stands.
_SELECT = f"""
SELECT o.key, o.object_id, wanted.profile_id, o.size_bytes, o.last_modified, {IS_RECOMPUTE} AS is_recompute,
       {TRIED_IN} AS tried_in
FROM spectralize.objects AS o
CROSS JOIN unnest(%(profile_ids)s::integer[]) AS wanted (profile_id)
LEFT JOIN LATERAL (
    SELECT b.outcome, b.reason_class, b.batch_id FROM spectralize.batch_objects AS b
    WHERE b.object_id = o.object_id AND b.profile_id = wanted.profile_id AND b.outcome IS NOT NULL
    ORDER BY b.batch_id DESC LIMIT 1
) AS line ON true
WHERE o.bucket = %(bucket)s AND starts_with(o.key, %(root)s) AND o.tombstoned_at IS NULL AND o.forgotten_at IS NULL
  AND NOT EXISTS (SELECT FROM spectralize.objects AS p
                  WHERE p.bucket = o.bucket AND p.key = o.key AND p.listed_since > o.listed_since)
  AND (%(start)s::timestamptz IS NULL OR o.partition_at >= %(start)s)
  AND (%(end)s::timestamptz IS NULL OR o.partition_at < %(end)s)
  AND (%(batch_id)s::bigint IS NULL OR EXISTS (
      SELECT FROM spectralize.batch_objects AS b
      WHERE b.batch_id = %(batch_id)s AND b.object_id = o.object_id AND b.profile_id = wanted.profile_id))
  AND (%(outcomes)s::text[] IS NULL OR line.outcome = ANY (%(outcomes)s))
  AND (%(reject_class)s::text IS NULL OR line.reason_class = %(reject_class)s)
  AND (%(older_than)s::integer[] IS NULL OR %(older_than)s::integer[] > string_to_array(coalesce(
      (SELECT s.core_version FROM spectralize.spectrograms AS s
       WHERE s.object_id = o.object_id AND s.profile_id = wanted.profile_id ORDER BY s.batch_id DESC LIMIT 1),
      (SELECT b.core_version FROM spectralize.batches AS b WHERE b.batch_id = line.batch_id)), '.')::integer[])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which pairs of a source are done again. A field left at None selects all; several must hold together.

    Attributes
    ----------
    start, end
        `partition_at` lies in [start, end).
    key_glob
        On the whole key, letter case ignored; `*` also matches `/`.
    batch_id
        The pair was planned in this batch.
    outcomes, reject_class
        Where the pair stands now: its newest outcome, whichever batch brought it, and the class of its reason.
    core_version_older_than
        Its newest spectrogram, or its rejection, came from a core before this version, such as 0.3.0.
    """

    start: datetime | None = None
    end: datetime | None = None
    key_glob: str | None = None
    batch_id: int | None = None
    outcomes: tuple[str, ...] | None = None
    reject_class: str | None = None
    core_version_older_than: str | None = None

    def __post_init__(self) -> None:
        if self.start and self.end and self.start >= self.end:
            raise ConfigError(f"end = {self.end:%Y-%m-%d}: must be after start ({self.start:%Y-%m-%d})")
        unknown = sorted(set(self.outcomes or ()) - set(OUTCOMES))
        if unknown:
            raise ConfigError(f"outcome = {unknown[0]!r}: must be one of {', '.join(OUTCOMES)}")
        if self.reject_class is not None and self.reject_class not in REJECT_CLASSES:
            raise ConfigError(f"reject_class = {self.reject_class!r}: must be one of {', '.join(REJECT_CLASSES)}")
        if self.core_version_older_than is not None and not re.fullmatch(
            r"\d{1,6}(\.\d{1,6}){0,3}", self.core_version_older_than
        ):
            raise ConfigError(
                f"core_version_older_than = {self.core_version_older_than!r}: must be a version such as 0.3.0"
            )

    @classmethod
    def from_form(cls, form: Mapping[str, Any]) -> "Selection":
        """Read what someone typed into a form: empty fields select all, and the last day is meant as a whole.

        Raises
        ------
        ConfigError
            For a value that is none, such as a date that does not exist.
        """
        first, last = _day(form, "first_day"), _day(form, "last_day")
        if first and last and last < first:
            raise ConfigError(f"last_day = {last:%Y-%m-%d}: is before first_day ({first:%Y-%m-%d})")
        return cls(
            start=first,
            end=_day(form, "last_day", later=timedelta(days=1)),
            key_glob=form.get("key_glob") or None,
            batch_id=form.get("batch_id"),
            outcomes=tuple(form.get("outcomes") or ()) or None,
            reject_class=form.get("reject_class") or None,
            core_version_older_than=form.get("core_version_older_than") or None,
        )


def _day(form: Mapping[str, Any], name: str, later: timedelta = timedelta()) -> datetime | None:
    value = form.get(name)
    try:
        return datetime.combine(date.fromisoformat(value), time(), UTC) + later if value else None
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} = {value!r}: must be a date such as 2024-06-01") from error


def select(connection: Connection, source: Source, profile_ids: Sequence[int], selection: Selection) -> Counts:
    """Leave the selected pairs in the temporary table `candidates`, as a scan of the listing does.

    Only objects that the last listing showed: what is gone, or was overwritten, cannot be read again.

    Returns
    -------
    The counts of a batch in which all of them are still `over_cap`.
    """
    older = selection.core_version_older_than
    values = {
        "bucket": source.bucket,
        "root": source.root,
        "profile_ids": list(profile_ids),
        "start": selection.start,
        "end": selection.end,
        "batch_id": selection.batch_id,
        "outcomes": list(selection.outcomes) if selection.outcomes else None,
        "reject_class": selection.reject_class,
        "older_than": [int(part) for part in older.split(".")] if older else None,
    }
    connection.execute(CREATE_SCRATCH)
    # On the server, so that a source of a million objects does not come to this process at once.
    with connection.cursor(name="selected") as rows, connection.cursor() as cursor:
        rows.execute(_SELECT, values)
        while page := rows.fetchmany(_PAGE_ROWS):
            # The globs of a source and of a form mean the same, so both are judged here.
            found = [row for row in page if _is_selected(row[0], source, selection)]
            cursor.executemany("INSERT INTO candidates VALUES (%s, %s, %s, %s, %s, true, %s, %s)", found)
    [n_objects] = fetch_row(connection, "SELECT count(DISTINCT object_id) FROM candidates")
    connection.commit()
    return Counts(listed=n_objects, over_cap=n_objects)


def _is_selected(key: str, source: Source, selection: Selection) -> bool:
    return is_wanted(key, source) and (selection.key_glob is None or matches_glob(key, selection.key_glob))
