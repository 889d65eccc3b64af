"""A sample of the store held against its objects: fetched and decoded again, and computed again by the core and by librosa.

`verify` shows that the rows agree with each other; this shows that they are the right ones. It needs S3 and the extra
`audio`. Memory is bounded by a block of rows and a minute of samples, whatever the length of a recording.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
from botocore.config import Config
from botocore.exceptions import ClientError
from psycopg.rows import dict_row

from spectralize.comparison import LIMITS, STATEMENTS, Comparison, Sampled, UnreadableError
from spectralize.features import FeatureSummary
from spectralize.objectfile import open_objects
from spectralize.profiles import MelProfile
from spectralize.s3 import s3_errors
from spectralize.tables import PlannedObject, PlannedProfile
from spectralize.verify import Finding, make_finding

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Connection = psycopg.Connection[Any]

#: Chosen by a hash, so that a seed chooses the same ones again. What S3 no longer has under its key is of no use.
_CHOOSE = """
WITH chosen AS (
    SELECT c.spectrogram_id, md5(c.spectrogram_id::text || ' ' || %(seed)s::text) AS place
    FROM spectralize.current_spectrograms AS c
    JOIN spectralize.objects AS o USING (object_id)
    WHERE o.tombstoned_at IS NULL
      AND NOT EXISTS (
          SELECT FROM spectralize.objects AS n
          WHERE n.bucket = o.bucket AND n.key = o.key
            AND (n.last_modified, n.listed_since, n.object_id) > (o.last_modified, o.listed_since, o.object_id)
      )
    ORDER BY place LIMIT %(n)s
)
SELECT s.*, o.bucket, o.key, o.etag, o.size_bytes, r.sha256, r.decoded_samplerate_hz, r.decoded_channels, r.decoded_samples,
       p.name AS profile, p.parameters
FROM chosen
JOIN spectralize.spectrograms AS s USING (spectrogram_id)
JOIN spectralize.objects AS o USING (object_id)
JOIN spectralize.recordings AS r USING (object_id)
JOIN spectralize.profiles AS p USING (profile_id)
ORDER BY chosen.place
"""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What a sample has shown.

    Attributes
    ----------
    findings
        As of `verify_store`, one per name in `STATEMENTS`.
    n_sampled
        Spectrograms that were chosen.
    n_rows, n_equal_rows
        Stored rows that were compared with fresh ones, and those that equal them to the last bit.
    unread
        Those whose object could not be fetched, and why: it may have gone or changed since it was listed; or whose profile
        is not one that this version can compute.
    """

    findings: tuple[Finding, ...]
    seed: int
    n_sampled: int
    n_rows: int
    n_equal_rows: int
    unread: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        read = f"{self.n_sampled - len(self.unread)} of {self.n_sampled} spectrograms computed anew (seed {self.seed})"
        return f"{read}; of {self.n_rows} rows, {self.n_equal_rows} are the same to the last bit"


def recheck_sample(
    connection: Connection,
    client: "S3Client",
    *,
    n: int,
    seed: int,
    ask_first: bool = False,
    on_object: Callable[[str, int, int], None] | None = None,
) -> Recheck:
    """Compare some current spectrograms with what their objects give today.

    Parameters
    ----------
    n
        How many spectrograms; fewer if there are not as many whose object is still listed.
    seed
        Which: the same store and seed give the same ones.
    ask_first
        Give up within seconds if S3 is away, instead of trying for half a minute.
    on_object
        Called before each with what it is, how many were before it, and how many there are.

    Raises
    ------
    ServiceError, ConfigError
        If S3 is away or refuses us.
    """
    sampled, unread = _choose(connection, n, seed)
    n_sampled = len(sampled) + len(unread)
    if ask_first:
        for bucket in sorted({item.planned.bucket for item in sampled}):
            _ask(client, bucket)
    breaches: dict[str, list[tuple[object, object]]] = {name: [] for name in STATEMENTS}
    n_rows = n_equal_rows = 0
    files = open_objects(client, [item.planned for item in sampled], max_object_bytes=LIMITS.max_object_bytes)
    for number, (item, (_, file)) in enumerate(zip(sampled, files, strict=True)):
        if on_object is not None:
            on_object(item.what, number, len(sampled))
        comparison = Comparison(connection, item)
        try:
            comparison.run(file)
        except UnreadableError as error:
            unread.append((item.what, str(error)))
            continue
        n_rows += comparison.n_rows
        n_equal_rows += comparison.n_equal_rows
        for name, parts in comparison.breaches.items():
            if parts:
                breaches[name].append((item.what, "; ".join(parts) + item.other_versions))
    findings = tuple(make_finding(name, statement, breaches[name]) for name, statement in STATEMENTS.items())
    return Recheck(findings, seed, n_sampled, n_rows, n_equal_rows, tuple(unread))


def _ask(client: "S3Client", bucket: str) -> None:
    hasty = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
    # A refusal is an answer: who may not ask for a bucket may still read its objects.
    with s3_errors(f"s3://{bucket}"), suppress(ClientError):
        boto3.session.Session().client("s3", config=client.meta.config.merge(hasty)).head_bucket(Bucket=bucket)


def _choose(connection: Connection, n: int, seed: int) -> tuple[list[Sampled], list[tuple[str, str]]]:
    """Return what was chosen, and apart from it what cannot be computed, with the reason."""
    sampled: list[Sampled] = []
    unread: list[tuple[str, str]] = []
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_CHOOSE, {"n": n, "seed": seed}):
            try:
                sampled.append(_read_sampled(row))
            except (TypeError, ValueError):
                unread.append(
                    (f"spectrogram {row['spectrogram_id']}", f"profile {row['profile']} is none of this version")
                )
    return sampled, unread


def _read_sampled(row: dict[str, Any]) -> Sampled:
    planned = PlannedObject(
        row["object_id"], row["bucket"], row["key"], row["etag"], row["size_bytes"],
        row["recorded_at"], row["recorded_at_origin"], row["recorded_at_flag"],
        (PlannedProfile(row["profile_id"], row["profile"], row["generation"]),),
    )  # fmt: skip
    return Sampled(
        row["spectrogram_id"],
        planned,
        MelProfile.model_validate({**row["parameters"], "name": row["profile"]}),
        bytes(row["sha256"]),
        {name: row[name] for name in ("decoded_samplerate_hz", "decoded_channels", "decoded_samples")},
        FeatureSummary(**{field.name: row[field.name] for field in fields(FeatureSummary)}),
        row["library_versions"] | {"spectralize": row["core_version"]},
    )
