"""The vocabulary shared by schema, job and readers. Light: safe to import while DAGs are parsed."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

SCHEMA = "spectralize"

Outcome = Literal["loaded", "partial", "rejected", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("loaded", "partial", "rejected", "failed")

BatchKind = Literal["scheduled", "manual", "event", "backfill", "reprocess"]

#: Why an object was rejected. A new class is a new line here, so that reports and alerts can list them all.
REJECT_CLASSES = {
    "empty": "the object has no bytes",
    "not_audio": "no container or codec that FFmpeg knows",
    "no_audio": "a container without a decodable audio stream",
    "non_finite": "samples that are NaN or infinite",
    "too_large": "more bytes than the source allows",
    "too_long": "longer than the source allows",
    "too_short": "shorter than one frame of the profile",
    "odd_rate": "a sample rate that nothing records at",
    "too_many_channels": "more channels than the source allows",
    "too_much_memory": "decoding it needs more memory than a worker gives",
    "timed_out": "decoding it takes longer than the source allows",
    "crashed": "its decoder crashed",
    "vanished": "gone between listing and reading",
    "changed": "overwritten between listing and reading",
    "poison": "failed in as many batches as the source allows",
    "forgotten": "its recording was forgotten while it was being loaded",
}

#: Rejected by circumstance: if the same object is listed again, it is planned again.
PASSING_REJECT_CLASSES = ("vanished", "changed")

#: What becomes of a listed object: listed is their sum.
LISTING = ("unchanged", "planned", "unsettled", "ignored", "over_cap")

#: SQLSTATE with which the database refuses a recording of a forgotten key: see sql/migrations/0014.
FORGOTTEN_SQLSTATE = "SF001"

#: Failed without having been tried: the job ended first.
UNFINISHED = "unfinished"

#: Failures that say nothing about the object, however often they come: an outage, or a policy that forbids reading,
#: must not reject a whole corpus for good.
UNCOUNTED_FAILURES = (UNFINISHED, "AccessDenied", "403")

#: The hypertables by the column that tells their rows' time.
TIME_COLUMNS = {"mel_frames": "frame_time", "waveform_frames": "frame_time", "mel_seconds": "second_at"}

#: The tag columns of the 2020 original with their SQL types. All are what the file *declares*.
TAG_COLUMNS = {
    "album": "text",
    "albumartist": "text",
    "artist": "text",
    "audio_offset": "bigint",
    "bitrate": "double precision",
    "channels": "integer",
    "comment": "text",
    "composer": "text",
    "disc": "integer",
    "disc_total": "integer",
    "duration": "double precision",
    "filesize": "bigint",
    "genre": "text",
    "samplerate": "integer",
    "title": "text",
    "track": "integer",
    "track_total": "integer",
    "year": "text",
}


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One object as a listing shows it. `etag` is without its quotes."""

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class PlannedProfile:
    """A profile to compute for one object. Generation 0 unless a recompute was forced."""

    profile_id: int
    name: str
    generation: int = 0


@dataclass(frozen=True, slots=True)
class PlannedObject:
    """One line of a manifest: the object, when it was recorded, and what to compute."""

    object_id: int
    bucket: str
    key: str
    etag: str
    size_bytes: int
    recorded_at: datetime
    recorded_at_origin: str
    recorded_at_flag: str | None
    profiles: tuple[PlannedProfile, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one object may cost."""

    max_object_bytes: int
    max_duration_s: float
    max_channels: int = 64
    #: Wall time of decoding and computing, without the waiting for S3 and database.
    max_decode_s: float = 3600.0


@dataclass(slots=True)
class Timings:
    """Seconds that one object took, by stage."""

    fetch_s: float = 0.0
    decode_s: float = 0.0
    mel_s: float = 0.0
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The sums of a batch. Objects: listed = unchanged + planned + unsettled + ignored + over_cap.

    `planned_spectrograms` counts (object, profile) pairs and equals the sum of the four outcomes once a batch is closed.
    """

    listed: int = 0
    unchanged: int = 0
    planned: int = 0
    unsettled: int = 0
    ignored: int = 0
    over_cap: int = 0
    planned_spectrograms: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))

    def listing_holds(self) -> bool:
        """Tell whether every listed object is accounted for."""
        return self.listed == self.unchanged + self.planned + self.unsettled + self.ignored + self.over_cap

    def outcomes_hold(self) -> bool:
        """Tell whether every planned pair has an outcome."""
        return self.planned_spectrograms == sum(self.outcomes.values())
