"""Create the buckets that config/sources.toml names, where they are missing."""

from spectralize.s3 import open_s3, s3_errors, split_uri
from spectralize.sources import load_sources

sources = load_sources()
wanted = {source.bucket for source in sources.sources.values()} | {split_uri(sources.manifests)[0]}

client = open_s3()
with s3_errors("create buckets"):
    present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in sorted(wanted - present):
        client.create_bucket(Bucket=name)
        print(f"created bucket {name}")
