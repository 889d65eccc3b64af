"""The work list: listing minus ledger. Sensors and events only say when to look."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from spectralize import ledger
from spectralize.database import fetch_row
from spectralize.errors import LedgerError
from spectralize.keys import is_wanted, key_to_time
from spectralize.ledger import Batch, Run
from spectralize.listing import list_pages
from spectralize.manifest import Limits, Manifest, write_manifest
from spectralize.profiles import find_profile
from spectralize.sources import Source
from spectralize.tables import PASSING_REJECT_CLASSES, Counts, ListedObject, PlannedObject, PlannedProfile
from spectralize.version import CORE_VERSION

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Connection = psycopg.Connection[Any]

#: A planned pair needs no work if it has a spectrogram, or was rejected for good by this version of the core.
_IS_FINAL = """(
    EXISTS (SELECT FROM spectralize.spectrograms AS s
            WHERE s.object_id = o.object_id AND s.profile_id = wanted.profile_id)
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

_PLAN = """
INSERT INTO spectralize.batch_objects (batch_id, object_id, profile_id, generation)
SELECT %(batch_id)s, c.object_id, c.profile_id, CASE WHEN c.is_recompute THEN %(batch_id)s ELSE 0 END
FROM candidates AS c
JOIN (
    SELECT DISTINCT o.object_id, o.last_modified FROM candidates JOIN spectralize.objects AS o USING (object_id)
    WHERE is_settled ORDER BY o.last_modified, o.object_id LIMIT %(max_objects)s
) AS oldest USING (object_id)
"""

_PLANNED = """
SELECT o.object_id, o.bucket, o.key, o.etag, o.size_bytes, o.last_modified,
       array_agg(b.profile_id ORDER BY b.profile_id), array_agg(b.generation ORDER BY b.profile_id)
FROM spectralize.batch_objects AS b JOIN spectralize.objects AS o USING (object_id)
WHERE b.batch_id = %(batch_id)s
GROUP BY o.object_id ORDER BY o.last_modified, o.object_id
"""

_SAVE_PLAN = """
UPDATE spectralize.batches
SET state = 'planned', planned_at = clock_timestamp(), manifest_uri = %(uri)s, manifest_sha256 = %(sha256)s,
    listed = %(listed)s, unchanged = %(unchanged)s, planned = %(planned)s, unsettled = %(unsettled)s, ignored = %(ignored)s,
    over_cap = %(over_cap)s, planned_spectrograms = %(planned_spectrograms)s
WHERE batch_id = %(batch_id)s
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


@dataclass(frozen=True, slots=True)
class _Page:
    """One page of the listing: what the globs select, as the columns of one query, and how many they do not."""

    values: dict[str, object]
    n_ignored: int


def _pages(
    client: "S3Client", source: Source, common: dict[str, object], interval: tuple[datetime, datetime] | None
) -> Iterator[_Page]:
    for listed in list_pages(client, source):
        wanted = [item for item in listed if is_wanted(item.key, source)]
        ignored = [item for item in listed if not is_wanted(item.key, source)]
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
    source: Source, profile_ids: Sequence[int], interval: tuple[datetime, datetime] | None, *, force: bool
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


def has_work(connection: Connection, client: "S3Client", source: Source) -> bool:
    """Tell whether the source holds a settled object without a final outcome. Stops at the first page that has one."""
    ids = ledger.register_profiles(connection, [find_profile(name) for name in source.profiles])
    connection.commit()
    common = _common_values(source, list(ids.values()), None, force=False)
    return any(fetch_row(connection, _IS_WORK, page.values)[0] for page in _pages(client, source, common, None))


def plan_batch(
    connection: Connection,
    client: "S3Client",
    source: Source,
    run: Run,
    *,
    manifests: str,
    force: bool = False,
    max_objects: int | None = None,
) -> Batch:
    """Plan the batch of one DAG run and store its manifest.

    Scheduled, manual and event runs plan every settled object without a final outcome, whenever it was uploaded. Backfill
    runs plan exactly the objects whose `partition_at` lies in [start, end) of their interval. With `force`, objects that
    have a spectrogram are computed again, as a new generation.

    Repeatable: a batch that was planned already is returned as it is.

    Parameters
    ----------
    manifests
        `s3://bucket/prefix` under which the manifest is stored, as `<source>/<batch_id>.jsonl`.
    max_objects
        Cap for this batch, below the source's own.
    """
    if run.kind == "backfill" and run.interval is None:
        raise LedgerError(f"run {run.run_id} of {run.dag_id}: a backfill needs a data interval")
    interval = run.interval if run.kind == "backfill" else None
    profiles = [find_profile(name) for name in source.profiles]
    ids = ledger.register_profiles(connection, profiles)
    batch = ledger.open_batch(connection, source, run)
    connection.commit()
    if batch.state == "planned":
        return batch

    counts = _scan(
        connection, client, source, _common_values(source, list(ids.values()), interval, force=force), interval
    )
    cap = min(source.max_batch_objects, max_objects or source.max_batch_objects)
    with connection.transaction():
        state = fetch_row(
            connection, "SELECT state FROM spectralize.batches WHERE batch_id = %s FOR UPDATE", (batch.batch_id,)
        )[0]
        if state != "open":
            # Another task of this run, which ours was thought to have died before, has planned it meanwhile.
            return ledger.read_batch(connection, batch.batch_id)
        # What an earlier, interrupted planning of this try left behind.
        connection.execute("DELETE FROM spectralize.batch_objects WHERE batch_id = %s", (batch.batch_id,))
        n_pairs = connection.execute(_PLAN, {"batch_id": batch.batch_id, "max_objects": cap}).rowcount
        objects = _read_planned(connection, batch.batch_id, source, {id_: name for name, id_ in ids.items()})
        counts = replace(
            counts, planned=len(objects), over_cap=counts.over_cap - len(objects), planned_spectrograms=n_pairs
        )
        uri = f"{manifests}/{source.name}/{batch.batch_id}.jsonl"
        manifest = Manifest(
            batch_id=batch.batch_id,
            source=source.name,
            core_version=CORE_VERSION,
            limits=Limits(source.max_object_bytes, source.max_duration_s),
            profiles={profile.name: profile for profile in profiles},
            objects=objects,
        )
        sha256 = write_manifest(client, uri, manifest)
        connection.execute(_SAVE_PLAN, _plan_values(batch.batch_id, uri, sha256, counts))
    connection.commit()
    return ledger.read_batch(connection, batch.batch_id)


def _scan(
    connection: Connection,
    client: "S3Client",
    source: Source,
    common: dict[str, object],
    interval: tuple[datetime, datetime] | None,
) -> Counts:
    """Walk the listing page by page, note new objects and tombstones, and leave what needs work in `candidates`.

    The counts come back with every settled candidate still in `over_cap`.
    """
    started = datetime.now(UTC)
    connection.execute(_CREATE_SCRATCH)
    listed = ignored = 0
    for page in _pages(client, source, common, interval):
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


def _read_planned(connection: Connection, batch_id: int, source: Source, names: dict[int, str]) -> list[PlannedObject]:
    planned = []
    for object_id, bucket, key, etag, size_bytes, last_modified, profile_ids, generations in connection.execute(
        _PLANNED, {"batch_id": batch_id}
    ):
        recorded = key_to_time(key, source, last_modified)
        planned.append(
            PlannedObject(
                object_id=object_id,
                bucket=bucket,
                key=key,
                etag=etag,
                size_bytes=size_bytes,
                recorded_at=recorded.at,
                recorded_at_origin=recorded.origin,
                recorded_at_flag=recorded.flag,
                profiles=tuple(
                    PlannedProfile(profile_id, names[profile_id], generation)
                    for profile_id, generation in zip(profile_ids, generations, strict=True)
                ),
            )
        )
    return planned


def _plan_values(batch_id: int, uri: str, sha256: str, counts: Counts) -> dict[str, object]:
    return {
        "batch_id": batch_id, "uri": uri, "sha256": sha256, "listed": counts.listed, "unchanged": counts.unchanged,
        "planned": counts.planned, "unsettled": counts.unsettled, "ignored": counts.ignored, "over_cap": counts.over_cap,
        "planned_spectrograms": counts.planned_spectrograms,
    }  # fmt: skip
