"""What a batch will take: hours of audio, minutes of work and disk, from what the store has measured of earlier ones."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from spectralize.database import fetch_row
from spectralize.profiles import MelProfile

Connection = psycopg.Connection[Any]

#: Bytes per second of audio of common formats at usual settings.
USUAL_BYTES_PER_S: Mapping[str, float] = {
    "wav": 176_000, "aif": 176_000, "aiff": 176_000, "w64": 176_000, "flac": 90_000, "mp3": 20_000, "m4a": 20_000, "mp4": 20_000,
    "aac": 16_000, "wma": 16_000, "ogg": 16_000, "oga": 16_000, "opus": 12_000, "webm": 12_000,
}  # fmt: skip
OTHER_BYTES_PER_S = 40_000.0

#: What fetching, opening and recording an object takes beside its audio, as seconds of audio.
OVERHEAD_S = 6.0

#: Seconds of one core per second of audio where nothing was measured yet: 150 × real time.
_USUAL_WORK = 1 / 150

#: From the submission of a job until its first object.
_START_S = 15.0

#: A measurement of less audio than this, in seconds, says little.
_ENOUGH_S = 600.0

#: Rate that recordings of a profile with their own rate are taken to have.
_USUAL_SR_HZ = 44_100

#: Bytes of a row beside its values, with its share of the index (docs/decisions/0002).
_FRAME_BYTES, _HOP_BYTES, _SECOND_BYTES = 91, 88, 108

_MEASURED_RATES = """
SELECT coalesce(lower(substring(o.key FROM '\\.([^./]*)$')), '') AS suffix, sum(o.size_bytes)::float / sum(r.decoded_duration_s)
FROM (SELECT object_id, decoded_duration_s FROM spectralize.recordings ORDER BY object_id DESC LIMIT 20000) AS r
JOIN spectralize.objects AS o USING (object_id)
GROUP BY 1 HAVING sum(r.decoded_duration_s) >= %(enough_s)s
"""

#: Work of each object of the newest batches, once however many profiles it has, and how long the batches took.
_MEASURED_WORK = """
WITH newest AS (
    SELECT batch_id, extract(epoch FROM gated_at - planned_at) AS wall_s FROM spectralize.batches
    WHERE gated_at IS NOT NULL AND loaded > 0 ORDER BY batch_id DESC LIMIT 20
), work AS (
    SELECT b.batch_id, b.object_id, max(b.fetch_s + b.decode_s + b.mel_s + b.load_s) AS work_s
    FROM spectralize.batch_objects AS b JOIN newest USING (batch_id)
    WHERE b.outcome IN ('loaded', 'partial') GROUP BY 1, 2
), by_batch AS (
    SELECT work.batch_id, sum(work_s) AS work_s, sum(r.decoded_duration_s) AS audio_s, count(*) AS n_objects
    FROM work JOIN spectralize.recordings AS r USING (object_id) GROUP BY 1
)
SELECT coalesce(sum(work_s), 0)::float, coalesce(sum(audio_s), 0)::float, coalesce(sum(n_objects), 0)::bigint,
       coalesce(max(work_s / nullif(wall_s - %(start_s)s, 0)) FILTER (WHERE wall_s > 3 * %(start_s)s), 0)::float
FROM by_batch JOIN newest USING (batch_id)
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Objects of one format: how many, and their bytes together."""

    suffix: str
    n_objects: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What objects will take.

    Attributes
    ----------
    audio_s
        Seconds of audio in them.
    work_s
        Seconds on the clock, from the submission of the job.
    disk_bytes
        Growth of the database.
    """

    n_objects: int
    size_bytes: int
    audio_s: float
    work_s: float
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Rates:
    """What a second of audio takes.

    Attributes
    ----------
    bytes_per_s
        By suffix of the key, for those that differ from the usual.
    work
        Seconds of one core per second of audio.
    n_cores
        Cores that work at once.
    measured_s
        Seconds of audio these rates come from; 0 if all of them are the usual ones.
    """

    bytes_per_s: Mapping[str, float] = field(default_factory=dict)
    work: float = _USUAL_WORK
    n_cores: float = 1.0
    measured_s: float = 0.0

    def audio_s(self, group: Group) -> float:
        """Guess the seconds of audio in objects from their bytes."""
        usual = USUAL_BYTES_PER_S.get(group.suffix, OTHER_BYTES_PER_S)
        return group.size_bytes / self.bytes_per_s.get(group.suffix, usual)

    def forecast(self, groups: Iterable[Group], profiles: Sequence[MelProfile]) -> Forecast:
        """Say what these objects will take, computed with these profiles."""
        groups = list(groups)
        n_objects = sum(group.n_objects for group in groups)
        audio_s = sum(self.audio_s(group) for group in groups)
        work_s = (audio_s + OVERHEAD_S * n_objects) * self.work / self.n_cores
        return Forecast(
            n_objects=n_objects,
            size_bytes=sum(group.size_bytes for group in groups),
            audio_s=audio_s,
            work_s=work_s + _START_S if n_objects else 0.0,
            disk_bytes=round(audio_s * sum(_disk_bytes_per_s(profile) for profile in profiles)),
        )


def read_rates(connection: Connection, *, n_cores: float | None = None) -> Rates:
    """Read the rates of the newest batches from the ledger; the usual ones stand in for what it has too little of.

    Parameters
    ----------
    n_cores
        Cores that the job will have. Left out: as many as worked at once in the best of those batches, or this machine's.
    """
    values = {"enough_s": _ENOUGH_S, "start_s": _START_S}
    measured = dict(connection.execute(_MEASURED_RATES, values).fetchall())
    work_s, audio_s, n_objects, seen_cores = fetch_row(connection, _MEASURED_WORK, values)
    if n_cores is None:
        n_cores = max(1.0, seen_cores) if seen_cores else float(os.cpu_count() or 1)
    rates = Rates(bytes_per_s=measured, n_cores=n_cores)
    if audio_s < _ENOUGH_S:
        return rates
    return replace(rates, work=work_s / (audio_s + OVERHEAD_S * n_objects), measured_s=audio_s)


def _disk_bytes_per_s(profile: MelProfile) -> float:
    """Bytes on disk per second of audio."""
    sr = _USUAL_SR_HZ if profile.sr == "native" else profile.sr
    frame = 2 * profile.n_mels + _FRAME_BYTES
    hop = {"off": 0, "envelope": _HOP_BYTES, "pcm": _HOP_BYTES + 2 * profile.hop_length}[profile.waveform]
    return sr / profile.hop_length * (frame + hop) + 4 * profile.n_mels + _SECOND_BYTES
