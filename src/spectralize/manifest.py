"""The manifest of a batch: JSON lines in S3, a header and then one line per object.

XCom carries only its address: a batch may hold tens of thousands of objects, and keys are hostile text.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from spectralize.errors import LedgerError
from spectralize.profiles import MelProfile
from spectralize.s3 import s3_errors, split_uri
from spectralize.tables import Limits, PlannedObject, PlannedProfile

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


@dataclass(frozen=True, slots=True)
class Manifest:
    """A batch's work: self-contained, so that the job needs neither the configuration nor Airflow."""

    batch_id: int
    source: str
    core_version: str
    limits: Limits
    profiles: dict[str, MelProfile]
    objects: list[PlannedObject]


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as UTF-8 JSON lines."""
    header = {
        "batch_id": manifest.batch_id,
        "source": manifest.source,
        "core_version": manifest.core_version,
        "limits": asdict(manifest.limits),
        "profiles": {name: profile.parameters for name, profile in manifest.profiles.items()},
        "objects": len(manifest.objects),
    }
    lines = [json.dumps(header)]
    for planned in manifest.objects:
        lines.append(json.dumps(asdict(planned) | {"recorded_at": planned.recorded_at.isoformat()}))
    return ("\n".join(lines) + "\n").encode()


def _decode_object(line: str) -> PlannedObject:
    fields = json.loads(line)
    fields["recorded_at"] = datetime.fromisoformat(fields["recorded_at"])
    fields["profiles"] = tuple(PlannedProfile(**profile) for profile in fields["profiles"])
    return PlannedObject(**fields)


def decode_manifest(data: bytes) -> Manifest:
    """Read what `encode_manifest` wrote; a cut-off manifest is refused."""
    # split on "\n" alone: str.splitlines would also split at characters that JSON leaves bare in keys.
    lines: Iterable[str] = data.decode().removesuffix("\n").split("\n")
    first, *rest = lines
    header = json.loads(first)
    if len(rest) != header["objects"]:
        raise LedgerError(f"manifest of batch {header['batch_id']}: {len(rest)} objects, announced {header['objects']}")
    return Manifest(
        batch_id=header["batch_id"],
        source=header["source"],
        core_version=header["core_version"],
        limits=Limits(**header["limits"]),
        profiles={
            name: MelProfile.model_validate({**parameters, "name": name})
            for name, parameters in header["profiles"].items()
        },
        objects=[_decode_object(line) for line in rest],
    )


def write_manifest(client: "S3Client", uri: str, manifest: Manifest) -> str:
    """Store a manifest and return the sha256 of its bytes."""
    data = encode_manifest(manifest)
    bucket, key = split_uri(uri)
    with s3_errors(uri):
        client.put_object(Bucket=bucket, Key=key, Body=data, ContentType="application/x-ndjson")
    return hashlib.sha256(data).hexdigest()


def read_manifest(client: "S3Client", uri: str) -> Manifest:
    """Read a manifest back."""
    bucket, key = split_uri(uri)
    with s3_errors(uri):
        data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return decode_manifest(data)
