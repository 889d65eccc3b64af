"""Planning a batch: the oldest of what needs work, as ledger lines and as a manifest."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from spectralize import ledger, worklist
from spectralize.database import fetch_row
from spectralize.errors import LedgerError
from spectralize.keys import key_to_time
from spectralize.ledger import Batch, Run
from spectralize.manifest import Manifest, write_manifest
from spectralize.profiles import find_profile
from spectralize.selection import Selection, select
from spectralize.sources import Source
from spectralize.tables import Counts, Limits, PlannedObject, PlannedProfile
from spectralize.version import CORE_VERSION

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Connection = psycopg.Connection[Any]

_PLAN = f"""
INSERT INTO spectralize.batch_objects (batch_id, object_id, profile_id, generation)
SELECT %(batch_id)s, c.object_id, c.profile_id, CASE WHEN c.is_recompute THEN %(batch_id)s ELSE 0 END
FROM candidates AS c
JOIN ({worklist.FIRST}) AS first USING (object_id)
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


def has_work(
    connection: Connection,
    client: "S3Client",
    source: Source,
    *,
    prefixes: Sequence[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Tell whether a batch planned now would have anything to do. Reads only; see `worklist.has_work`."""
    ids = ledger.find_profile_ids(connection, [find_profile(name) for name in source.profiles])
    return worklist.has_work(connection, client, source, list(ids.values()), prefixes=prefixes, stop=stop)


def plan_batch(
    connection: Connection,
    client: "S3Client",
    source: Source,
    run: Run,
    *,
    manifests: str,
    force: bool = False,
    max_objects: int | None = None,
    selection: Selection | None = None,
    profile: str | None = None,
) -> Batch:
    """Plan the batch of one DAG run and store its manifest.

    Scheduled, manual and event runs plan every settled object without a final outcome, whenever it was uploaded. Backfill
    runs plan exactly the objects whose `partition_at` lies in [start, end) of their interval. With `force`, objects that
    have a spectrogram are computed again, as a new generation. With a `selection`, what it selects from the ledger is
    computed again, and nothing is listed.

    Repeatable: a batch that was planned already is returned as it is.

    Parameters
    ----------
    manifests
        `s3://bucket/prefix` under which the manifest is stored, as `<source>/<batch_id>.jsonl`.
    max_objects
        Cap for this batch, below the source's own. Oldest first; what is computed again, in the order in which it was
        tried last, so that capped runs one after the other come to everything.
    profile
        Compute this one instead of the source's.
    """
    if run.kind == "backfill" and run.interval is None:
        raise LedgerError(f"run {run.run_id} of {run.dag_id}: a backfill needs a data interval")
    interval = run.interval if run.kind == "backfill" else None
    profiles = [find_profile(name) for name in ([profile] if profile else source.profiles)]
    ids = ledger.register_profiles(connection, profiles)
    batch = ledger.open_batch(connection, source, run)
    connection.commit()
    if batch.state == "planned":
        return batch

    if selection is None:
        counts = worklist.scan(connection, client, source, list(ids.values()), interval=interval, force=force)
    else:
        counts = select(connection, source, list(ids.values()), selection)
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
            limits=Limits(source.max_object_bytes, source.max_duration_s, source.max_channels, source.max_decode_s),
            profiles={found.name: found for found in profiles},
            objects=objects,
        )
        sha256 = write_manifest(client, uri, manifest)
        connection.execute(_SAVE_PLAN, _plan_values(batch.batch_id, uri, sha256, counts))
    connection.commit()
    return ledger.read_batch(connection, batch.batch_id)


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
