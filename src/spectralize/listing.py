"""What a source's prefix holds now: every page, by continuation tokens."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spectralize.s3 import s3_errors
from spectralize.tables import ListedObject

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

PAGE_SIZE = 1000


def list_pages(client: "S3Client", bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
    """Yield the listing of a prefix page by page, in key order.

    Never starts after a watermark: a late upload may have a key smaller than all that are known.
    """
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": PAGE_SIZE}
    )
    with s3_errors(f"s3://{bucket}/{prefix}"):
        for page in pages:
            yield [
                ListedObject(
                    key=item["Key"],
                    etag=item["ETag"].strip('"'),
                    size_bytes=item["Size"],
                    last_modified=item["LastModified"],
                )
                for item in page.get("Contents", [])
            ]
