"""S3: the client, reads that refuse a changed object, and what its failures mean."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from spectralize.errors import ConfigError, FailedObjectError, RejectedObjectError, ServiceError, as_one_line

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "NoSuchBucket"}
_FORBIDDEN = {"AccessDenied", "403"} | _CREDENTIALS
_PASSING = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "TooManyRequests", "Throttling", "429"}

#: More than the threads of a worker that fetch at once.
_CONNECTIONS = 16

#: How often the body of one answer is asked for before the object, rather than S3, is thought to be the trouble.
_BODY_ATTEMPTS = 3


class ObjectVersion(Protocol):
    """One object as it was listed: reading it fails if the key holds another one by now."""

    @property
    def bucket(self) -> str:
        """Bucket."""

    @property
    def key(self) -> str:
        """Key."""

    @property
    def etag(self) -> str:
        """ETag without its quotes."""

    @property
    def size_bytes(self) -> int:
        """Size."""


def open_s3() -> "S3Client":
    """Return a client configured by the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_S3, …)."""
    # A server of one's own has no DNS name per bucket.
    style: Literal["path", "auto"] = "path" if os.environ.get("AWS_ENDPOINT_URL_S3") else "auto"
    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=_CONNECTIONS,
        s3={"addressing_style": style},
    )
    # A session of its own: the default one would keep the credentials of an earlier batch in a reused worker.
    try:
        return boto3.session.Session().client("s3", config=config)
    except ValueError as error:
        # An address that is none, such as one without http://.
        raise ConfigError(f"S3: AWS_ENDPOINT_URL_S3 = {os.environ.get('AWS_ENDPOINT_URL_S3')!r}: {error}") from error


def split_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


@contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """Turn S3's failures into one line that says which bucket or key, and whether a retry can help."""
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code == "NoSuchBucket":
            raise ConfigError(f"S3: {where}: there is no such bucket") from error
        if code in _FORBIDDEN:
            raise ConfigError(f"S3: {where}: access is refused ({code})") from error
        raise ServiceError(f"S3: {where}: {code}: {error}") from error
    except NoCredentialsError as error:
        raise ConfigError(f"S3: {where}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except BotoCoreError as error:
        raise ServiceError(f"S3: {where} is unreachable: {error}") from error


def fetch_range(client: "S3Client", planned: ObjectVersion, start: int, stop: int) -> bytes:
    """Read the bytes [start, stop) of one object, provided that it is still the one that was listed.

    Raises
    ------
    RejectedObjectError
        `vanished` if the key is gone, `changed` if it now holds another object.
    FailedObjectError
        If S3 answers, but not with this object: it is archived, encrypted with another key, forbidden, or comes garbled.
    ServiceError, ConfigError
        If S3 is away or refuses us altogether: not the object's fault.
    """
    where = f"s3://{planned.bucket}/{as_one_line(planned.key)}"
    with s3_errors(where):
        return _read_body(client, planned, start, stop)


def _read_body(client: "S3Client", planned: ObjectVersion, start: int, stop: int) -> bytes:
    is_whole = (start, stop) == (0, planned.size_bytes)
    options: dict[str, Any] = {} if is_whole else {"Range": f"bytes={start}-{stop - 1}"}
    for attempt in range(1, _BODY_ATTEMPTS + 1):
        try:
            response = client.get_object(Bucket=planned.bucket, Key=planned.key, IfMatch=f'"{planned.etag}"', **options)
        except ClientError as error:
            _judge_refusal(error)
            raise
        try:
            body = response["Body"].read()
        except (ResponseStreamingError, IncompleteReadError, ReadTimeoutError, FlexibleChecksumError) as error:
            # botocore retries requests, not the bodies of answers.
            if attempt == _BODY_ATTEMPTS:
                raise FailedObjectError(type(error).__name__, f"its bytes do not arrive whole: {error}") from error
            continue
        total = len(body) if is_whole else int(response["ContentRange"].rpartition("/")[2])
        if total != planned.size_bytes or len(body) != stop - start:
            raise RejectedObjectError("changed", f"the listing says {planned.size_bytes} bytes, S3 has {total}")
        return body
    raise AssertionError("unreachable")


def _judge_refusal(error: ClientError) -> None:
    """Raise what a refused GET means for this one object; return if it concerns more than that."""
    code = _code(error)
    if code in {"NoSuchKey", "404"}:
        raise RejectedObjectError("vanished", "the key is gone since it was listed") from error
    if code in {"PreconditionFailed", "412", "InvalidRange", "416"}:
        raise RejectedObjectError("changed", "the key was overwritten since it was listed") from error
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if 400 <= status < 500 and code not in _CREDENTIALS | _PASSING:
        raise FailedObjectError(
            code, f"S3 refuses to read it: {code}: {error.response['Error'].get('Message', '')}"
        ) from error


def find_versions(client: "S3Client", bucket: str, key: str) -> list[str | None]:
    """Return the versions of a key, delete markers included; [None] for the one object of a bucket without versions.

    Raises
    ------
    ServiceError, ConfigError
        If S3 is away or refuses us.
    """
    with s3_errors(f"s3://{bucket}/{as_one_line(key)}"):
        # A bucket that never had versions says nothing here.
        if client.get_bucket_versioning(Bucket=bucket).get("Status"):
            return [
                item["VersionId"]
                for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
                for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if item["Key"] == key
            ]
        try:
            client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _code(error) in {"NoSuchKey", "404"}:
                return []
            raise
    return [None]


def delete_versions(client: "S3Client", bucket: str, key: str) -> int:
    """Delete a key with all its versions and delete markers, and return how many there were.

    Raises
    ------
    ServiceError, ConfigError
        If S3 is away or refuses us.
    """
    versions = find_versions(client, bucket, key)
    with s3_errors(f"s3://{bucket}/{as_one_line(key)}"):
        for version in versions:
            if version is None:
                client.delete_object(Bucket=bucket, Key=key)
            else:
                client.delete_object(Bucket=bucket, Key=key, VersionId=version)
    return len(versions)
