"""Compute the Mel-spectrograms of one batch: the job that Airflow submits.

Reads the batch's manifest from S3, cuts it into slices of equal bytes and has the executors fetch, decode, compute and
load object by object. Idempotent: submit it again at any moment, or twice at once, and the tables come out the same.

    spark-submit --py-files spectralize-….zip spark_jobs/mel_spectrogram.py s3://…/manifest.jsonl

Configuration comes from the environment of the driver (SPECTRALIZE_DSN, AWS_*) and reaches the executors inside the
closure, never on a command line. Exit code 1 and one line on stderr if S3 or the database is away.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from spectralize.database import connect, resolve_dsn
from spectralize.errors import ServiceError, SpectralizeError
from spectralize.ledger import hold_batch_open, read_code
from spectralize.manifest import Manifest, read_manifest
from spectralize.s3 import open_s3
from spectralize.tables import PlannedObject
from spectralize.worker import Work, run_slice, slice_objects

#: What the executors inherit of the driver's environment.
_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "NUMBA_CACHE_DIR",
)


def compute_batch(spark: SparkSession, manifest: Manifest, code_zip_sha256: str | None) -> Counter[str]:
    """Run every slice of the batch and return how many (object, profile) pairs came to each outcome."""
    context = spark.sparkContext
    work = Work(
        batch_id=manifest.batch_id,
        dsn=resolve_dsn(),
        profiles=manifest.profiles,
        limits=manifest.limits,
        environment={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        code_zip_sha256=code_zip_sha256,
    )
    slices = slice_objects(manifest.objects, context.defaultParallelism)
    context.setJobDescription(f"batch {manifest.batch_id} of {manifest.source}: {len(manifest.objects)} objects")

    def compute(partition: Iterable[list[PlannedObject]]) -> Iterator[Counter[str]]:
        for objects in partition:
            yield run_slice(work, objects)

    total: Counter[str] = Counter()
    for counts in context.parallelize(slices, max(1, len(slices))).mapPartitions(compute).collect():
        total.update(counts)
    return total


def main() -> int:
    """Parse the command line, run the job, report in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", help="address of the manifest, s3://bucket/key")
    uri = parser.parse_args().manifest
    try:
        manifest = read_manifest(open_s3(), uri)
        # Before Spark starts, so that a database that is away, or a batch that is closed, is one line and not a stack trace.
        with connect(application=f"spectralize batch {manifest.batch_id}") as connection:
            hold_batch_open(connection, manifest.batch_id)
            # Noted just before this job was submitted, so it is the zip that this driver and its executors run.
            code_zip_sha256 = read_code(connection, manifest.batch_id)
        spark = SparkSession.builder.appName(f"spectralize batch {manifest.batch_id}").getOrCreate()
        try:
            counts = compute_batch(spark, manifest, code_zip_sha256)
        finally:
            spark.stop()
    except ServiceError as error:
        print(f"mel_spectrogram: {error}", file=sys.stderr)
        return 1
    except SpectralizeError as error:
        # Airflow does not try again what says so.
        print(f"mel_spectrogram: permanent: {error}", file=sys.stderr)
        return 1
    except (PySparkException, Py4JError) as error:
        print(f"mel_spectrogram: {_root_line(error)}", file=sys.stderr)
        return 1
    print(f"mel_spectrogram: batch {manifest.batch_id} of {manifest.source}: {dict(counts)}")
    return 0


def _root_line(error: Exception) -> str:
    """Find our own error in Spark's long report of a failed stage."""
    for line in str(error).splitlines():
        if line.strip().startswith("spectralize.errors."):
            kind, _, message = line.strip().partition(": ")
            return message if kind.endswith(".ServiceError") else f"permanent: {message}"
    if "Python worker exited unexpectedly" in str(error):
        return "a Python worker died four times on the same slice, by a signal or for want of memory: see its task in the log"
    return (str(error).splitlines() or [repr(error)])[0]


if __name__ == "__main__":
    sys.exit(main())
