"""Which recordings there are: what can be asked for, and the queries that find it."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from numbers import Number
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spectralize.errors import ReadError
from spectralize.reader.given import as_list, as_seconds, as_text, shown
from spectralize.reader.spectrograms import Spectrogram
from spectralize.tables import OUTCOMES, TAG_COLUMNS

Connection = psycopg.Connection[Any]

#: Recordings fetched at a time while one iterates over all.
PAGE = 1_000

#: What free text is looked for in, beside the key: the tags that people name recordings by, and all without a column.
_TEXT_COLUMNS = ("title", "artist", "album", "albumartist", "composer", "genre", "comment", "year")

#: Objects that a page looks at first: more would cost those who want the first few, fewer those who iterate.
_FIRST_RANGE = 1_000

#: Bucket, key and id of the last object that was looked at.
Position = tuple[str, str, int]

Instant = datetime | date | str


@dataclass(frozen=True, slots=True)
class Found:
    """One recording, or an object that became none, as a row says it."""

    id: int
    uid: str
    bucket: str
    key: str
    etag: str
    size_bytes: int
    last_modified: datetime
    tombstoned_at: datetime | None
    sha256: str | None
    tags: dict[str, Any]
    container: str | None
    declared_codec: str | None
    declared_duration_s: float | None
    declared_samplerate_hz: int | None
    declared_channels: int | None
    decoded_codec: str | None
    decoded_duration_s: float | None
    decoded_samplerate_hz: int | None
    decoded_channels: int | None
    #: By profile.
    spectrograms: dict[str, Spectrogram]
    #: By profile: outcome, class and reason, where there is no spectrogram.
    refusals: dict[str, tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Filters:
    """What to look for; see `Store.recordings`."""

    text: str | None = None
    bucket: str | None = None
    key_prefix: str | None = None
    tags: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    recorded_from: datetime | None = None
    recorded_to: datetime | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    outcomes: tuple[str, ...] = ("loaded", "partial")
    profile: str | None = None


def make_filters(
    *,
    text: str | None,
    bucket: str | None,
    key_prefix: str | None,
    tags: Mapping[str, Any] | None,
    recorded_from: Instant | None,
    recorded_to: Instant | None,
    min_duration_s: float | None,
    max_duration_s: float | None,
    outcome: str | Sequence[str],
    profile: str | None,
) -> Filters:
    """Check what was asked for.

    Raises
    ------
    ReadError
        If it can match nothing: a time without zone, an outcome that there is not, bounds the wrong way round.
    """
    outcomes = (outcome,) if isinstance(outcome, str) else tuple(as_list("outcome", outcome))
    for item in outcomes:
        if not isinstance(item, str) or item not in OUTCOMES:
            raise ReadError(f"outcome = {shown(repr(item))}: must be one of {', '.join(OUTCOMES)}")
    if not outcomes:
        raise ReadError(f"outcome: name at least one of {', '.join(OUTCOMES)}")
    start, end = _instant("recorded_from", recorded_from), _instant("recorded_to", recorded_to)
    if start and end and end <= start:
        raise ReadError(f"recorded_to = {end.isoformat()}: must be after recorded_from, {start.isoformat()}")
    shortest_s, longest_s = _length("min_duration_s", min_duration_s), _length("max_duration_s", max_duration_s)
    if shortest_s is not None and longest_s is not None and longest_s < shortest_s:
        raise ReadError(f"max_duration_s = {longest_s:g}: must not be below min_duration_s, {shortest_s:g}")
    if not isinstance(tags, Mapping | None):
        raise ReadError(f"tags = {shown(tags)}: must be tag names and their values, as in {{'genre': 'jazz'}}")
    wanted = [(as_text("name of a tag", name), _tag_values(name, values)) for name, values in (tags or {}).items()]
    for name, value in (("text", text), ("bucket", bucket), ("key_prefix", key_prefix), ("profile", profile)):
        if value is not None:
            as_text(name, value)
    return Filters(text, bucket, key_prefix, tuple(wanted), start, end, shortest_s, longest_s, outcomes, profile)


def _length(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = as_seconds(name, value)
    if not number >= 0:
        raise ReadError(f"{name} = {number:g}: must be 0 s or more")
    return number


def _tag_values(name: str, values: Any) -> tuple[str | Number, ...]:
    is_one = isinstance(values, str | bytes | Mapping | Number) or not isinstance(values, Iterable)
    found = (values,) if is_one else tuple(values)
    for value in found:
        if isinstance(value, str):
            as_text(f"tag {name}", value)
        elif not isinstance(value, Number):
            raise ReadError(f"tag {name} = {shown(value)}: must be text or a number, or several of them")
    if not found:
        raise ReadError(f"tag {name}: name at least one value")
    return found


def _instant(name: str, value: Instant | None) -> datetime | None:
    if value is None:
        return None
    expected = "must be a time such as 2024-05-01 or 2024-05-01T12:00:00Z"
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ReadError(f"{name} = {shown(repr(value))}: {expected}") from error
    if not isinstance(at, date):
        raise ReadError(f"{name} = {shown(value)}: {expected}, or Python's date or datetime")
    is_day = not isinstance(at, datetime) or (isinstance(value, str) and len(value) == len("2024-05-01"))
    if is_day:
        return datetime.combine(at, time(), UTC)
    # pandas' NaT, too, is a datetime without zone.
    if not isinstance(at, datetime) or at.tzinfo is None or at.utcoffset() is None:
        raise ReadError(f"{name} = {value}: has no time zone; write 2024-05-01T12:00:00+00:00, or a day alone for UTC")
    try:
        # Two times in one zone would be compared by its clocks, which are put back in autumn.
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ReadError(f"{name} = {value}: is outside the calendar in UTC") from error


#: One row per spectrogram that readers may see: of the store as it is, or of a snapshot.
_VISIBLE = {
    False: """
    SELECT c.bucket, c.key, c.object_id, c.spectrogram_id, c.profile, c.recorded_at,
           CASE c.status WHEN 'complete' THEN 'loaded' ELSE 'partial' END AS outcome,
           NULL::text AS reason_class, NULL::text AS reason
    FROM spectralize.current_spectrograms AS c
    """,
    True: """
    SELECT o.bucket, o.key, s.object_id, s.spectrogram_id, p.name AS profile, s.recorded_at,
           CASE s.status WHEN 'complete' THEN 'loaded' ELSE 'partial' END AS outcome,
           NULL::text AS reason_class, NULL::text AS reason
    FROM spectralize.snapshot_spectrograms AS pin
    JOIN spectralize.spectrograms AS s USING (spectrogram_id)
    JOIN spectralize.objects AS o USING (object_id)
    JOIN spectralize.profiles AS p USING (profile_id)
    WHERE pin.snapshot_id = %(snapshot)s AND s.status <> 'expired'
    """,
}

#: What readers see nothing of: the newest object of its key, refused for a profile.
_REFUSED = """
    SELECT bucket, key, object_id, NULL::integer AS spectrogram_id, profile, partition_at AS recorded_at, outcome,
           reason_class, reason
    FROM spectralize.current_outcomes WHERE outcome IN ('rejected', 'failed')
"""

#: Of some objects: their living spectrograms, the best per profile. That of an overwritten object can be read until
#: maintenance removes it.
_VISIBLE_OF_OBJECTS = """
    SELECT * FROM (
        SELECT DISTINCT ON (s.object_id, s.profile_id)
               o.bucket, o.key, s.object_id, s.spectrogram_id, p.name AS profile, s.recorded_at,
               CASE s.status WHEN 'complete' THEN 'loaded' ELSE 'partial' END AS outcome,
               NULL::text AS reason_class, NULL::text AS reason
        FROM spectralize.spectrograms AS s
        JOIN spectralize.objects AS o USING (object_id)
        JOIN spectralize.profiles AS p USING (profile_id)
        WHERE s.object_id = ANY (%(ids)s) AND s.status <> 'expired'
        ORDER BY s.object_id, s.profile_id, (s.status = 'complete') DESC, s.generation DESC
    ) AS living
"""

#: Of some objects: the last outcome of each profile that has no spectrogram.
_REFUSED_OF_OBJECTS = """
    SELECT * FROM (
        SELECT DISTINCT ON (b.object_id, b.profile_id)
               o.bucket, o.key, b.object_id, NULL::integer AS spectrogram_id, p.name AS profile,
               o.partition_at AS recorded_at, b.outcome, b.reason_class, b.reason
        FROM spectralize.batch_objects AS b
        JOIN spectralize.objects AS o USING (object_id)
        JOIN spectralize.profiles AS p USING (profile_id)
        WHERE b.object_id = ANY (%(ids)s) AND b.outcome IS NOT NULL
        ORDER BY b.object_id, b.profile_id, b.batch_id DESC
    ) AS last WHERE outcome IN ('rejected', 'failed')
"""

_PAGE = """
SELECT o.object_id, o.uid::text, o.bucket, o.key, o.etag, o.size_bytes, o.last_modified, o.tombstoned_at,
       encode(r.sha256, 'hex') AS sha256, {tags}, r.tags AS other_tags, r.container, r.declared_codec,
       r.declared_duration_s, r.declared_samplerate_hz, r.declared_channels, r.decoded_codec, r.decoded_duration_s,
       r.decoded_samplerate_hz, r.decoded_channels, found.ids, found.refusals
FROM (
    SELECT bucket, key, object_id, array_agg(spectrogram_id) FILTER (WHERE spectrogram_id IS NOT NULL) AS ids,
           jsonb_object_agg(profile, jsonb_build_array(outcome, reason_class, reason))
               FILTER (WHERE spectrogram_id IS NULL) AS refusals
    FROM ({standing}) AS standing
    WHERE {of_keys}
    GROUP BY bucket, key, object_id
    HAVING bool_or({of_standing})
) AS found
JOIN spectralize.objects AS o USING (object_id)
LEFT JOIN spectralize.recordings AS r USING (object_id)
WHERE {of_recordings}
"""

_SPECTROGRAMS = """
SELECT s.object_id, s.spectrogram_id, p.name, p.fingerprint, p.parameters, s.generation, s.batch_id, s.status, s.reason, s.sr,
       s.hop_length, s.n_mels, s.n_samples, s.n_frames, s.n_hops, s.n_seconds, s.peak_db, s.recorded_at,
       s.recorded_at_origin, s.recorded_at_flag, s.core_version, s.library_versions, s.loaded_at
FROM spectralize.spectrograms AS s JOIN spectralize.profiles AS p USING (profile_id)
WHERE s.spectrogram_id = ANY (%s) ORDER BY p.name
"""

#: The buckets there are, one index probe each: a key alone is then looked up by the index of (bucket, key).
_BUCKETS = """
WITH RECURSIVE buckets AS (
    (SELECT bucket FROM spectralize.objects ORDER BY bucket LIMIT 1)
    UNION ALL
    SELECT (SELECT o.bucket FROM spectralize.objects AS o WHERE o.bucket > b.bucket ORDER BY o.bucket LIMIT 1)
    FROM buckets AS b WHERE b.bucket IS NOT NULL
)
SELECT bucket FROM buckets WHERE bucket IS NOT NULL
"""

#: The objects of a key, the one to read first: what has something to read before what has not, then the newest.
_OBJECTS_OF_KEY = """
SELECT o.object_id
FROM spectralize.objects AS o
LEFT JOIN ({standing}) AS standing ON standing.object_id = o.object_id AND standing.bucket = o.bucket AND standing.key = o.key
WHERE o.bucket = %(bucket)s AND o.key = %(key)s
ORDER BY (standing.object_id IS NOT NULL) DESC, o.last_modified DESC, o.listed_since DESC, o.object_id DESC LIMIT 1
"""


class Catalogue:
    """Looks recordings up, in the store as it is or in one of its snapshots."""

    def __init__(self, snapshot_id: int | None = None) -> None:
        self._snapshot_id = snapshot_id

    def page(self, connection: Connection, filters: Filters, *, after: Found | None, limit: int) -> list[Found]:
        """Return the next recordings in the order of bucket and key; each as of one moment.

        The views would sort the whole store for the first few. So keys are looked at a range at a time, each range larger
        than the one before: what many match is found at once, what few match costs little more than one look at all.
        """
        found: list[Found] = []
        start = None if after is None else (after.bucket, after.key, after.id)
        n_objects = max(_FIRST_RANGE, 2 * limit)
        while True:
            until = self._key_beyond(connection, filters, start, n_objects)
            query, values = self._query(filters, start, until)
            query = sql.SQL("{} ORDER BY found.bucket, found.key, found.object_id LIMIT %(limit)s").format(query)
            found += self._fetch(connection, query, values | {"limit": limit - len(found)})
            if until is None or len(found) >= limit:
                return found
            # Every object of that key: ids begin at 1.
            start = (*until, 0)
            n_objects *= 4

    def _key_beyond(
        self, connection: Connection, filters: Filters, start: Position | None, n_objects: int
    ) -> tuple[str, str] | None:
        """Return the bucket and key of the object so many places on, or None if there are fewer."""
        conditions, values = _key_conditions(filters, start, None)
        query = sql.SQL(
            "SELECT bucket, key FROM spectralize.objects WHERE {} ORDER BY bucket, key OFFSET %(n)s LIMIT 1"
        ).format(conditions)
        row = connection.execute(query, values | {"n": n_objects}, prepare=False).fetchone()
        return (str(row[0]), str(row[1])) if row else None

    def count(self, connection: Connection, filters: Filters) -> int:
        """Count recordings."""
        query, values = self._query(filters, None, None)
        row = connection.execute(sql.SQL("SELECT count(*) FROM ({}) AS all_of_them").format(query), values).fetchone()
        return int(row[0]) if row else 0

    def by_id(self, connection: Connection, ids: Sequence[int]) -> dict[int, Found]:
        """Look recordings up by their ids; those that are not there are left out."""
        visible = _VISIBLE[True] if self._snapshot_id is not None else _VISIBLE_OF_OBJECTS
        query = sql.SQL(_PAGE).format(
            tags=_TAGS,
            standing=sql.SQL(f"{visible} UNION ALL {_REFUSED_OF_OBJECTS}"),
            of_keys=sql.SQL("object_id = ANY (%(ids)s)"),
            of_standing=sql.SQL("true"),
            of_recordings=sql.SQL("true"),
        )
        found = self._fetch(connection, query, {"ids": list(ids), "snapshot": self._snapshot_id})
        return {item.id: item for item in found}

    def id_of_uid(self, connection: Connection, uid: str) -> int | None:
        """Return the id of the object with that uid."""
        row = connection.execute("SELECT object_id FROM spectralize.objects WHERE uid = %s", (uid,)).fetchone()
        return int(row[0]) if row else None

    def ids_of_key(self, connection: Connection, bucket: str | None, key: str) -> dict[str, int]:
        """Return by bucket the id of the object that holds what can be read of a key, or else of its newest object."""
        buckets = [bucket] if bucket is not None else [name for (name,) in connection.execute(_BUCKETS)]
        query = sql.SQL(_OBJECTS_OF_KEY).format(standing=sql.SQL(_VISIBLE[self._snapshot_id is not None]))
        ids = {}
        for name in buckets:
            values = {"bucket": name, "key": key, "snapshot": self._snapshot_id}
            row = connection.execute(query, values).fetchone()
            if row:
                ids[name] = int(row[0])
        return ids

    def profiles(self, connection: Connection) -> list[str]:
        """Return the names of the profiles that were ever computed."""
        return [name for (name,) in connection.execute("SELECT name FROM spectralize.profiles ORDER BY name")]

    def _query(
        self, filters: Filters, start: Position | None, until: tuple[str, str] | None
    ) -> tuple[sql.Composed, dict[str, Any]]:
        standing = _VISIBLE[self._snapshot_id is not None]
        if self._snapshot_id is None and {"rejected", "failed"} & set(filters.outcomes):
            standing += f"UNION ALL {_REFUSED}"
        of_keys, values = _key_conditions(filters, start, until)
        values |= {"snapshot": self._snapshot_id, "outcomes": list(filters.outcomes)}
        of_standing = ["outcome = ANY (%(outcomes)s)"]
        for condition, name, value in (
            ("profile = %(profile)s", "profile", filters.profile),
            ("recorded_at >= %(from)s", "from", filters.recorded_from),
            ("recorded_at < %(to)s", "to", filters.recorded_to),
        ):
            if value is not None:
                of_standing.append(condition)
                values[name] = value
        of_recordings, bound = _recording_conditions(filters)
        query = sql.SQL(_PAGE).format(
            tags=_TAGS,
            standing=sql.SQL(standing),
            of_keys=of_keys,
            of_standing=sql.SQL(" AND ".join(of_standing)),
            of_recordings=of_recordings,
        )
        return query, values | bound

    def _fetch(self, connection: Connection, query: sql.Composed, values: dict[str, Any]) -> list[Found]:
        # Plans for any bounds would be worse than planning each time, which takes a millisecond.
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query, values, prepare=False).fetchall()
            ids = [number for row in rows for number in row["ids"] or ()]
            spectrograms: dict[int, dict[str, Spectrogram]] = {}
            for object_id, *columns in connection.execute(_SPECTROGRAMS, (ids,)) if ids else ():
                spectrogram = Spectrogram(*columns)
                spectrograms.setdefault(object_id, {})[spectrogram.profile] = spectrogram
        return [_found(row, spectrograms.get(row["object_id"], {})) for row in rows]


_TAGS = sql.SQL(", ").join(sql.Identifier("r", name) for name in TAG_COLUMNS)


def _key_conditions(
    filters: Filters, start: Position | None, until: tuple[str, str] | None
) -> tuple[sql.SQL, dict[str, Any]]:
    """Return what bounds the keys: of objects, and of the views, which take it in before they sort."""
    conditions = ["true"]
    values: dict[str, Any] = {}
    if start is not None:
        # The second follows from the first, but the views know their rows by bucket and key.
        conditions += ["(bucket, key, object_id) > (%(b)s, %(k)s, %(o)s)", "(bucket, key) >= (%(b)s, %(k)s)"]
        values |= dict(zip("bko", start, strict=True))
    if until is not None:
        conditions.append("(bucket, key) < (%(until_bucket)s, %(until_key)s)")
        values |= {"until_bucket": until[0], "until_key": until[1]}
    if filters.bucket is not None:
        conditions.append("bucket = %(bucket)s")
        values["bucket"] = filters.bucket
    if filters.key_prefix is not None:
        conditions.append("starts_with(key, %(prefix)s)")
        values["prefix"] = filters.key_prefix
    return sql.SQL(" AND ".join(conditions)), values


def _recording_conditions(filters: Filters) -> tuple[sql.Composed, dict[str, Any]]:
    conditions: list[sql.Composable] = [sql.SQL("true")]
    values: dict[str, Any] = {}
    for number, word in enumerate((filters.text or "").split()):
        values[f"word{number}"] = "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"
        conditions.append(sql.SQL("{} ILIKE {}").format(_TEXT, sql.Placeholder(f"word{number}")))
    for number, (name, wanted) in enumerate(filters.tags):
        others, texts = f"tag{number}", [str(value) for value in wanted]
        values |= {others: texts, f"name{number}": name}
        in_others = sql.SQL("r.tags -> {} ?| {}").format(sql.Placeholder(f"name{number}"), sql.Placeholder(others))
        if name not in TAG_COLUMNS:
            conditions.append(in_others)
            continue
        if TAG_COLUMNS[name] != "text":
            values[others] = [_number(name, value) for value in wanted]
            conditions.append(sql.SQL("{} = ANY ({})").format(sql.Identifier("r", name), sql.Placeholder(others)))
            continue
        # A second artist or genre is among the others, under the name of its column.
        column = sql.SQL("{} = ANY ({})").format(sql.Identifier("r", name), sql.Placeholder(others))
        conditions.append(sql.SQL("({} OR {})").format(column, in_others))
    if filters.min_duration_s is not None:
        conditions.append(sql.SQL("r.decoded_duration_s >= %(shortest)s"))
        values["shortest"] = filters.min_duration_s
    if filters.max_duration_s is not None:
        conditions.append(sql.SQL("r.decoded_duration_s <= %(longest)s"))
        values["longest"] = filters.max_duration_s
    return sql.SQL(" AND ").join(conditions), values


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
        if math.isfinite(number):
            return number
        raise ValueError(number)
    except (TypeError, ValueError, OverflowError) as error:
        raise ReadError(f"tag {name} = {shown(repr(value))}: must be a number") from error


_TEXT = sql.SQL("concat_ws(' ', o.key, {}, r.tags::text)").format(
    sql.SQL(", ").join(sql.Identifier("r", name) for name in _TEXT_COLUMNS)
)


def _found(row: dict[str, Any], spectrograms: dict[str, Spectrogram]) -> Found:
    tags = {name: row.pop(name) for name in TAG_COLUMNS}
    tags = {name: value for name, value in tags.items() if value is not None}
    for name, others in (row.pop("other_tags") or {}).items():
        tags[name] = [tags[name], *others] if name in tags else others
    refusals = {name: tuple(why) for name, why in (row.pop("refusals") or {}).items()}
    del row["ids"]
    # What has a spectrogram was not refused, though a later batch may have failed to compute it again.
    return Found(
        id=row.pop("object_id"), **row, tags=tags, spectrograms=spectrograms,
        refusals={name: why for name, why in refusals.items() if name not in spectrograms},
    )  # fmt: skip
