"""What a source holds that the ledger has no final outcome for: its listing, read page by page against the database.

Sensors and events only say when to look; what there is to do is always listing minus ledger.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from spectralize.database import fetch_row
from spectralize.keys import is_wanted, key_to_time
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
#: this version of the core. One that was removed as superseded is wanted again if its content returns under the key.
_IS_FINAL = """(
    EXISTS (SELECT FROM spectralize.spectrograms AS s
            WHERE s.object_id = o.object_id AND s.profile_id = wanted.profile_id
              AND s.expired_because IS DISTINCT FROM 'superseded')
    OR EXISTS (SELECT FROM spectralize.batch_objects AS r JOIN spectralize.batches AS b USING (batch_id)
               WHERE r.object_id = o.object_id AND r.profile_id = wanted.profile_id AND r.outcome = 'rejected'
                 AND r.reason_class <> ALL (%(passing)s) AND b.core_version = %(core_version)s)
)"""

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
          WHERE p.bucket = o.bucket AND p.key = o.key AND p.listed_since > o.listed_since
      )
)
ON CONFLICT (bucket, key, etag, size_bytes) DO UPDATE
SET last_modified = greatest(objects.last_modified, excluded.last_modified), tombstoned_at = NULL,
    listed_since = clock_timestamp()
"""

_CREATE_SCRATCH = """
CREATE TEMPORARY TABLE IF NOT EXISTS listed_keys (key text COLLATE "C" PRIMARY KEY);
CREATE TEMPORARY TABLE IF NOT EXISTS candidates (object_id bigint, profile_id integer, is_settled boolean, is_recompute boolean);
TRUNCATE listed_keys, candidates;
"""

_ADD_CANDIDATES = f"""
INSERT INTO candidates (object_id, profile_id, is_settled, is_recompute)
SELECT o.object_id, wanted.profile_id, o.last_modified <= %(settled_before)s,
       EXISTS (SELECT FROM spectralize.spectrograms AS s
               WHERE s.object_id = o.object_id AND s.profile_id = wanted.profile_id)
FROM {_PAGE}
JOIN spectralize.objects AS o
  ON o.bucket = %(bucket)s AND o.key = page.key AND o.etag = page.etag AND o.size_bytes = page.size_bytes
CROSS JOIN unnest(%(profile_ids)s::integer[]) AS wanted (profile_id)
WHERE (%(start)s::timestamptz IS NULL OR (o.partition_at >= %(start)s AND o.partition_at < %(end)s))
  AND (%(force)s OR NOT {_IS_FINAL})
"""

_COUNT_LISTED = f"""
SELECT count(*) FROM {_PAGE}
JOIN spectralize.objects AS o
  ON o.bucket = %(bucket)s AND o.key = page.key AND o.etag = page.etag AND o.size_bytes = page.size_bytes
WHERE %(start)s::timestamptz IS NULL OR (o.partition_at >= %(start)s AND o.partition_at < %(end)s)
"""

_TOMBSTONE = """
UPDATE spectralize.objects SET tombstoned_at = clock_timestamp()
WHERE bucket = %(bucket)s AND starts_with(key, %(prefix)s) AND tombstoned_at IS NULL AND first_seen_at < %(started)s
  AND NOT EXISTS (SELECT FROM listed_keys WHERE listed_keys.key = objects.key)
"""

_COUNT_CANDIDATES = """
SELECT count(DISTINCT object_id), count(DISTINCT object_id) FILTER (WHERE NOT is_settled) FROM candidates
"""

_IS_WORK = f"""
SELECT EXISTS (
    SELECT FROM {_PAGE}
    LEFT JOIN spectralize.objects AS o
      ON o.bucket = %(bucket)s AND o.key = page.key AND o.etag = page.etag AND o.size_bytes = page.size_bytes
    CROSS JOIN unnest(%(profile_ids)s::integer[]) AS wanted (profile_id)
    WHERE page.last_modified <= %(settled_before)s AND (o.object_id IS NULL OR NOT {_IS_FINAL})
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
    n_ignored: int


def _pages(
    connection: Connection, client: "S3Client", source: Source, common: dict[str, object], interval: Interval | None
) -> Iterator[_Page]:
    for listed in list_pages(client, source):
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
        # Also those that are ignored: a key is gone only if no source can see it. NUL no text column can hold.
        seen = {"listed_keys": [item.key for item in listed if "\x00" not in item.key]}
        yield _Page(common | seen | _page_values(wanted, source), len(ignored))


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
    return {
        "bucket": source.bucket,
        "prefix": source.prefix,
        "profile_ids": list(profile_ids),
        "settled_before": datetime.now(UTC) - timedelta(seconds=source.settle_s),
        "passing": list(PASSING_REJECT_CLASSES),
        "core_version": CORE_VERSION,
        "start": interval[0] if interval else None,
        "end": interval[1] if interval else None,
        "force": force,
    }


def has_work(connection: Connection, client: "S3Client", source: Source, profile_ids: Sequence[int]) -> bool:
    """Tell whether the source holds a settled object without a final outcome. Stops at the first page that has one."""
    common = _common_values(source, profile_ids, None, force=False)
    return any(
        fetch_row(connection, _IS_WORK, page.values)[0] for page in _pages(connection, client, source, common, None)
    )


def scan(
    connection: Connection,
    client: "S3Client",
    source: Source,
    profile_ids: Sequence[int],
    *,
    interval: Interval | None,
    force: bool,
) -> Counts:
    """Walk the listing, note new objects and tombstones, and leave what needs work in the temporary table `candidates`.

    Parameters
    ----------
    interval
        Consider only objects whose `partition_at` lies in it.
    force
        What has a final outcome needs work too.

    Returns
    -------
    The counts of the listing, with every settled candidate still in `over_cap`.
    """
    common = _common_values(source, profile_ids, interval, force=force)
    started = datetime.now(UTC)
    connection.execute(_CREATE_SCRATCH)
    listed = ignored = 0
    for page in _pages(connection, client, source, common, interval):
        connection.execute(_SEE, page.values)
        connection.execute(
            "INSERT INTO listed_keys SELECT unnest(%(listed_keys)s::text[]) ON CONFLICT DO NOTHING", page.values
        )
        connection.execute(_ADD_CANDIDATES, page.values)
        listed += fetch_row(connection, _COUNT_LISTED, page.values)[0] + page.n_ignored
        ignored += page.n_ignored
        # Page by page, so that two planners of overlapping prefixes never wait long for each other.
        connection.commit()
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
