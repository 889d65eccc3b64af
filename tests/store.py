"""What a test does with a store: put objects, run batches without Airflow and Spark, compare contents."""

import hashlib
import io
import os
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import soundfile

from spectralize import gate
from spectralize.database import connect
from spectralize.ledger import Batch, Run, read_code
from spectralize.manifest import Manifest, read_manifest
from spectralize.planner import plan_batch
from spectralize.sources import Source
from spectralize.status import read_batch_lines
from spectralize.verify import verify_store
from spectralize.worker import Work, run_slice

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client


def make_samples(seconds: float = 1.0, *, sr: int = 22_050, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise with a tone, shape (n_samples, channels), within ±0.5."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * sr)) / sr
    tone = 0.3 * np.sin(2 * np.pi * (220.0 + 110.0 * seed) * t)
    return (tone[:, None] + 0.03 * rng.standard_normal((len(t), channels))).astype(np.float32)


def encode(y: np.ndarray, sr: int = 22_050, container: str = "WAV", subtype: str | None = None) -> bytes:
    """Write samples with libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, y, sr, format=container, subtype=subtype)
    return buffer.getvalue()


def wav(seconds: float = 1.0, *, seed: int = 0) -> bytes:
    """A mono 16-bit wav."""
    return encode(make_samples(seconds, seed=seed))


@dataclass(slots=True)
class Store:
    """One test's bucket and database."""

    dsn: str
    connection: psycopg.Connection[Any]
    client: "S3Client"
    source: Source
    runs: list[Run] = field(default_factory=list)

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.source.bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.source.bucket, Key=key)

    def run(self, **changes: Any) -> Run:
        """A run of this test's own DAG, manual unless told otherwise."""
        run = replace(Run(f"ingest_{self.source.bucket}", f"run_{uuid.uuid4().hex[:8]}", "manual"), **changes)
        self.runs.append(run)
        return run

    def plan(self, run: Run | None = None, **options: Any) -> Batch:
        manifests = f"s3://{self.source.bucket}-manifests"
        return plan_batch(self.connection, self.client, self.source, run or self.run(), manifests=manifests, **options)

    def manifest(self, batch: Batch) -> Manifest:
        assert batch.manifest_uri
        return read_manifest(self.client, batch.manifest_uri)

    def work(self, manifest: Manifest) -> Work:
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        # As the driver does, with a connection of its own.
        with connect(self.dsn) as connection:
            code = read_code(connection, manifest.batch_id)
        return Work(manifest.batch_id, self.dsn, manifest.profiles, manifest.limits, environment, code)

    def compute(self, batch: Batch) -> Counter[str]:
        """Do a planned batch's work in this process, as one executor would."""
        manifest = self.manifest(batch)
        return run_slice(self.work(manifest), manifest.objects)

    def finish(self, batch: Batch) -> Batch:
        """Gate and close."""
        gate.gate_batch(self.connection, batch.batch_id, self.source)
        return gate.close_batch(self.connection, batch.batch_id, self.source)

    def ingest(self, **options: Any) -> Batch:
        """One whole batch."""
        batch = self.plan(**options)
        self.compute(batch)
        return self.finish(batch)

    def outcomes(self, batch: Batch) -> dict[str, tuple[str | None, str | None]]:
        """Outcome and reason class of each key of a batch."""
        lines = read_batch_lines(self.connection, batch.batch_id)
        self.connection.commit()
        return {line["key"]: (line["outcome"], line["reason_class"]) for line in lines}

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        rows = self.connection.execute(query, values or None).fetchall()  # type: ignore[call-overload]
        self.connection.commit()
        return rows

    def breaches(self) -> dict[str, list[str]]:
        """What `verify` finds: nothing, unless a test broke it."""
        return {
            finding.name: [breach.breach for breach in finding.breaches]
            for finding in verify_store(self.connection)
            if finding.n_breaches
        }


#: Per current spectrogram: what it is, and a digest of every row that belongs to it, ids left out.
CONTENT = """
SELECT c.bucket, c.key, c.etag, c.profile, c.generation, c.status, c.n_samples, c.n_frames, c.n_hops, c.n_seconds,
       c.peak_db, c.recorded_at,
       (SELECT md5(string_agg(frame_index || ' ' || mel::text, ',' ORDER BY frame_index))
        FROM spectralize.mel_frames AS f WHERE f.spectrogram_id = c.spectrogram_id),
       (SELECT md5(string_agg(concat_ws(' ', frame_index, min, max, rms, pcm), ',' ORDER BY frame_index))
        FROM spectralize.waveform_frames AS f WHERE f.spectrogram_id = c.spectrogram_id),
       (SELECT md5(string_agg(concat_ws(' ', second_index, n_frames, rms, peak, mel_mean, mel_std), ',' ORDER BY second_index))
        FROM spectralize.mel_seconds AS f WHERE f.spectrogram_id = c.spectrogram_id)
FROM spectralize.current_spectrograms AS c
WHERE c.bucket = %s ORDER BY 1, 2, 4
"""


def digest(rows: list[tuple[Any, ...]]) -> str:
    """One checksum of many rows."""
    return hashlib.sha256(repr(rows).encode()).hexdigest()
