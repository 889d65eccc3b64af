"""What a source holds that the ledger has no final outcome for: its listing, read page by page against the database.

Sensors and events only say when to look; what there is to do is always listing minus ledger.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from spectralize.database import fetch_row
from spectralize.keys import is_storable, is_wanted, key_to_time
from spectralize.listing import list_pages
from spectralize.sources import Source
from spectralize.tables import PASSING_REJECT_CLASSES, Counts, ListedObject
from spectralize.version import CORE_VERSION

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Connection = psycopg.Connection[Any]

#: [start, end) of a backfill's data interval.
Interval = tuple[datetime, datetime]

#: A planned pair needs no work if it has a spectrogram, or had one until its retention ran out, or was rejected for good by
#: this version of the core the last time. One that was removed as superseded is wanted again if its content returns
#: under the key.
_IS_FINAL = """(
    EXISTS (SELECT FROM spectralize.spectrograms AS s
            WHERE s.object_id = o.object_id AND s.profile_id = wanted.profile_id
              AND s.expired_because IS DISTINCT FROM 'superseded' OFFSET 0)
    OR (SELECT r.outcome = 'rejected' AND r.reason_class <> ALL (%(passing)s) AND b.core_version = %(core_version)s
        FROM spectralize.batch_objects AS r JOIN spectralize.batches AS b USING (batch_id)
        WHERE r.object_id = o.object_id AND r.profile_id = wanted.profile_id AND r.outcome IS NOT NULL
        ORDER BY r.batch_id DESC LIMIT 1) IS TRUE
)"""

#: Whether a pair has a claim already, so that computing it again takes a new generation.
IS_RECOMPUTE = """EXISTS (SELECT FROM spectralize.spectrograms AS s
                        WHERE s.object_id = o.object_id AND s.profile_id = wanted.profile_id OFFSET 0)"""

#: The batch that tried a pair last, whatever came of it; 0 if none has.
TRIED_IN = """coalesce((SELECT max(l.batch_id) FROM spectralize.batch_objects AS l
                        WHERE l.object_id = o.object_id AND l.profile_id = wanted.profile_id AND l.outcome IS NOT NULL), 0)"""

_PAGE = """unnest(%(keys)s::text[], %(etags)s::text[], %(sizes)s::bigint[], %(modified)s::timestamptz[],
               %(partitions)s::timestamptz[], %(origins)s::text[])
           AS page (key, etag, size_bytes, last_modified, partition_at, partition_origin)"""

_SEE = f"""
INSERT INTO spectralize.objects (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin)
SELECT %(bucket)s, page.* FROM {_PAGE}
WHERE NOT EXISTS (
    SELECT FROM spectralize.objects AS o
    WHERE o.bucket = %(bucket)s AND o.key = page.key AND o.etag = page.etag AND o.size_bytes = page.size_bytes
      AND o.last_modified >= page.last_modified AND o.tombstoned_at IS NULL
      AND NOT EXISTS (
          SELECT FROM spectralize.objects AS p
          WHERE p.bucket = o.bucket AND p.key = o.key AND p.listed_since > o.listed_since OFFSET 0
      ) OFFSET 0
)
ON CONFLICT (bucket, key, etag, size_bytes) DO UPDATE
SET last_modified = greatest(objects.last_modified, excluded.last_modified), tombstoned_at = NULL,
    listed_since = clock_timestamp()
"""

CREATE_SCRATCH = """
CREATE TEMPORARY TABLE IF NOT EXISTS listed_keys (key text COLLATE "C" PRIMARY KEY);
CREATE TEMPORARY TABLE IF NOT EXISTS candidates (
    key text COLLATE "C", object_id bigint, profile_id integer, size_bytes bigint, last_modified timestamptz,
    is_settled boolean, is_recompute boolean, tried_in bigint
);
TRUNCATE listed_keys, candidates;
"""

#: The first objects of a batch: what was never tried, by age, and then what was tried longest ago, so that nothing that
#: fails, or is rejected, again and again stands in the way of the rest.
FIRST = """
SELECT key, object_id, size_bytes FROM candidates WHERE is_settled
GROUP BY key, object_id, size_bytes, last_modified ORDER BY min(tried_in), last_modified, object_id, key
LIMIT %(max_objects)s
"""

#: The page beside what the ledger has of it: nothing, for an object that it has not seen yet.
_KNOWN = f"""{_PAGE}
LEFT JOIN spectralize.objects AS o
  ON o.bucket = %(bucket)s AND o.key = page.key AND o.etag = page.etag AND o.size_bytes = page.size_bytes"""

_IN_INTERVAL = """(%(start)s::timestamptz IS NULL
    OR (coalesce(o.partition_at, page.partition_at) >= %(start)s AND coalesce(o.partition_at, page.partition_at) < %(end)s))"""

#: Unchanged for long enough: by S3's clock, or since the ledger saw it first, should S3's clock be ahead.
#: An object that returns under its key (A, B, A) begins anew, here as in _SEE.
_IS_SETTLED = """(coalesce(
    CASE WHEN o.tombstoned_at IS NULL AND o.last_modified >= page.last_modified AND NOT EXISTS (
             SELECT FROM spectralize.objects AS p
             WHERE p.bucket = o.bucket AND p.key = o.key AND p.listed_since > o.listed_since OFFSET 0)
         THEN least(o.last_modified, o.listed_since) ELSE greatest(o.last_modified, page.last_modified) END,
    page.last_modified) <= %(settled_before)s::timestamptz)"""

_ADD_CANDIDATES = f"""
INSERT INTO candidates (key, object_id, profile_id, size_bytes, last_modified, is_settled, is_recompute,
                        tried_in)
SELECT page.key, o.object_id, wanted.profile_id, page.size_bytes, greatest(o.last_modified, page.last_modified),
       {_IS_SETTLED}, {IS_RECOMPUTE}, {TRIED_IN}
FROM {_KNOWN}
CROSS JOIN unnest(%(profile_ids)s::integer[]) AS wanted (profile_id)
WHERE {_IN_INTERVAL} AND (%(force)s OR NOT {_IS_FINAL})
"""

_COUNT_LISTED = f"SELECT count(*) FROM {_KNOWN} WHERE {_IN_INTERVAL}"

_TOMBSTONE = """
UPDATE spectralize.objects SET tombstoned_at = clock_timestamp()
WHERE bucket = %(bucket)s AND starts_with(key, %(root)s) AND tombstoned_at IS NULL AND first_seen_at < %(started)s
  AND NOT EXISTS (SELECT FROM listed_keys WHERE listed_keys.key = objects.key)
"""

_COUNT_CANDIDATES = """
SELECT count(DISTINCT key), count(DISTINCT key) FILTER (WHERE NOT is_settled) FROM candidates
"""

_IS_WORK = f"""
SELECT EXISTS (
    SELECT FROM {_KNOWN}
    CROSS JOIN unnest(%(profile_ids)s::integer[]) AS wanted (profile_id)
    WHERE {_IS_SETTLED} AND NOT {_IS_FINAL}
)
"""

#: Keys of forgotten recordings: nothing is loaded under them again, whatever their bytes.
_FORGOTTEN = """
SELECT key FROM spectralize.objects WHERE bucket = %s AND key = ANY (%s) AND forgotten_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class _Page:
    """One page of the listing: what is wanted, as the columns of one query, and how many objects are not."""

    values: dict[str, object]
    n_keys: int
    n_ignored: int


def _pages(
    connection: Connection,
    client: "S3Client",
    source: Source,
    prefix: str,
    common: dict[str, object],
    interval: Interval | None,
) -> Iterator[_Page]:
    for listed in list_pages(client, source.bucket, prefix):
        selected = [item for item in listed if is_wanted(item.key, source)]
        forgotten = {row[0] for row in connection.execute(_FORGOTTEN, (source.bucket, [item.key for item in selected]))}
        wanted = [item for item in selected if item.key not in forgotten]
        ignored = [item for item in listed if item.key in forgotten or not is_wanted(item.key, source)]
        if interval:
            ignored = [
                item
                for item in ignored
                if interval[0] <= key_to_time(item.key, source, item.last_modified).at < interval[1]
            ]
        # Also those that are ignored: a key is gone only if no source can see it.
        seen = {"listed_keys": [item.key for item in listed if is_storable(item.key)]}
        yield _Page(common | seen | _page_values(wanted, source), len(listed), len(ignored))


def _page_values(wanted: Sequence[ListedObject], source: Source) -> dict[str, object]:
    times = [key_to_time(item.key, source, item.last_modified) for item in wanted]
    return {
        "keys": [item.key for item in wanted],
        "etags": [item.etag for item in wanted],
        "sizes": [item.size_bytes for item in wanted],
        "modified": [item.last_modified for item in wanted],
        "partitions": [time.at for time in times],
        "origins": [time.origin for time in times],
    }


def _common_values(
    source: Source, profile_ids: Sequence[int], interval: Interval | None, *, force: bool
) -> dict[str, object]:
    now = datetime.now(UTC)
    return {
        "bucket": source.bucket,
        "root": source.root,
        "profile_ids": list(profile_ids),
        # Where nothing has to settle, clocks that disagree must not make anything wait.
        "settled_before": now - timedelta(seconds=source.settle_s) if source.settle_s else "infinity",
        "passing": list(PASSING_REJECT_CLASSES),
        "core_version": CORE_VERSION,
        "start": interval[0] if interval else None,
        "end": interval[1] if interval else None,
        "force": force,
    }


#: A page is a thousand keys, each found by its index. Left to itself PostgreSQL goes by what it last knew of the tables: while
#: a large bucket is adopted that is "empty", and every page would read all that came before it. For the same reason the
#: subqueries above end with OFFSET 0: it keeps them from becoming joins over whole tables.
_BY_INDEX = """
SELECT set_config(name, value, false) FROM (VALUES
    ('enable_seqscan', %(enabled)s), ('enable_hashjoin', %(enabled)s), ('enable_mergejoin', %(enabled)s),
    ('plan_cache_mode', %(plan_cache_mode)s)
) AS setting (name, value)
"""


@contextmanager
def _by_index(connection: Connection) -> Iterator[None]:
    """Have the statements inside go by index; nothing may be open in the connection."""
    connection.execute(_BY_INDEX, {"enabled": "off", "plan_cache_mode": "force_custom_plan"})
    connection.commit()
    try:
        yield
    finally:
        if not connection.closed:
            connection.rollback()
            connection.execute(_BY_INDEX, {"enabled": "on", "plan_cache_mode": "auto"})
            connection.commit()


def has_work(
    connection: Connection,
    client: "S3Client",
    source: Source,
    profile_ids: Sequence[int],
    *,
    prefixes: Sequence[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Tell whether the source holds a settled object without a final outcome. Stops at the first page that has one.

    Parameters
    ----------
    prefixes
        Look only there, instead of at the whole source.
    stop
        Asked after each page; True ends the looking, without a finding.
    """
    common = _common_values(source, profile_ids, None, force=False)
    with _by_index(connection):
        for prefix in [source.root] if prefixes is None else prefixes:
            for page in _pages(connection, client, source, prefix, common, None):
                if fetch_row(connection, _IS_WORK, page.values)[0]:
                    return True
                # No snapshot is held over the minutes that a listing may take.
                connection.rollback()
                if stop():
                    return False
    return False


def scan(
    connection: Connection,
    client: "S3Client",
    source: Source,
    profile_ids: Sequence[int],
    *,
    interval: Interval | None,
    force: bool,
    is_dry: bool = False,
    on_page: Callable[[int], None] = lambda _: None,
) -> Counts:
    """Walk the listing, note new objects and tombstones, and leave what needs work in the temporary table `candidates`.

    Parameters
    ----------
    interval
        Consider only objects whose `partition_at` lies in it.
    force
        What has a final outcome needs work too.
    is_dry
        Only look: the ledger is read and not written.
    on_page
        Called after each page with the number of keys listed so far.

    Returns
    -------
    The counts of the listing, with every settled candidate still in `over_cap`.
    """
    common = _common_values(source, profile_ids, interval, force=force)
    started = datetime.now(UTC)
    connection.execute(CREATE_SCRATCH)
    listed = ignored = n_keys = 0
    with _by_index(connection):
        for page in _pages(connection, client, source, source.root, common, interval):
            if not is_dry:
                connection.execute(_SEE, page.values)
                connection.execute(
                    "INSERT INTO listed_keys SELECT unnest(%(listed_keys)s::text[]) ON CONFLICT DO NOTHING", page.values
                )
            connection.execute(_ADD_CANDIDATES, page.values)
            listed += fetch_row(connection, _COUNT_LISTED, page.values)[0] + page.n_ignored
            ignored += page.n_ignored
            # Page by page, so that two planners of overlapping prefixes never wait long for each other.
            connection.commit()
            n_keys += page.n_keys
            on_page(n_keys)
    if not is_dry:
        connection.execute(_TOMBSTONE, common | {"started": started})
    n_candidates, n_unsettled = fetch_row(connection, _COUNT_CANDIDATES)
    connection.commit()
    return Counts(
        listed=listed,
        unchanged=listed - ignored - n_candidates,
        unsettled=n_unsettled,
        ignored=ignored,
        over_cap=n_candidates - n_unsettled,
    )
