"""A Spark driver that stays: it runs the job's own `compute_batch` for one batch after another.

What is paid once, the start of the JVM and of the session, is so left out of the figure, and stated by its side.
Started by `job.Driver`, with the environment of the stack and PYSPARK_SUBMIT_ARGS; reads a line of JSON per batch from
stdin and answers with one on stdout.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from time import perf_counter
from types import ModuleType

from pyspark import cloudpickle
from pyspark.sql import SparkSession

from local.paths import REPO
from spectralize.manifest import read_manifest
from spectralize.s3 import open_s3

JOB = REPO / "spark_jobs" / "mel_spectrogram.py"


def load_job() -> ModuleType:
    """Import the job; its functions travel to the executors by value, as those of a submitted script do."""
    spec = importlib.util.spec_from_file_location(JOB.stem, JOB)
    if spec is None or spec.loader is None:
        raise ImportError(f"{JOB}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[JOB.stem] = module
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    return module


def main() -> None:
    """Answer until stdin ends."""
    started = perf_counter()
    spark = SparkSession.builder.appName("spectralize bench").getOrCreate()
    job = load_job()
    _answer(session_s=perf_counter() - started)
    for line in sys.stdin:
        command = json.loads(line)
        os.environ["SPECTRALIZE_DSN"] = command["dsn"]
        started = perf_counter()
        # Read within the time that counts: the job does, too.
        outcomes = job.compute_batch(spark, read_manifest(open_s3(), command["manifest"]))
        _answer(wall_s=perf_counter() - started, outcomes=dict(outcomes))
    spark.stop()


def _answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
