"""Sources: the buckets and prefixes that are watched, and the rules for what is found there."""

import re
import tomllib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spectralize.errors import ConfigError
from spectralize.prefixes import PrefixTemplate
from spectralize.profiles import load_profiles, one_line
from spectralize.resources import resource_folder

_DATE_GROUPS = {"year", "month", "day"}
_TIME_GROUPS = {"hour", "minute", "second"}


class Source(BaseModel):
    """One watched prefix. Read from `config/sources.toml`; immutable while a process lives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    bucket: Annotated[str, Field(min_length=3, max_length=63)]
    #: What the keys begin with. May hold the date as %Y, %m, %d, %H (`field/%Y/%m/%d/`): then the sensor lists the last
    #: `sense_days` days only, keys that do not fit are `ignored`, and a key that no time pattern fits has its date from here.
    prefix: str = ""
    #: Globs on the whole key, letter case ignored; `*` also matches `/`. What matches no include is `ignored`.
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    profiles: Annotated[tuple[str, ...], Field(min_length=1)]
    #: Regular expressions with the groups year, month, day and, if known, hour, minute, second. The first match wins.
    time_patterns: tuple[str, ...] = ()
    #: The zone in which the keys tell their time.
    timezone: str = "UTC"
    #: An object younger than this (seconds since last_modified) is `unsettled` and left for a later run.
    settle_s: Annotated[float, Field(ge=0)] = 60.0
    #: How long a scheduled run waits for something new, and what its empty batch is then.
    sense_window_s: Annotated[float, Field(ge=0)] = 3600.0
    nothing_new: Literal["succeed", "fail"] = "succeed"
    #: While it waits, it looks after so many seconds, then half as long again each time, up to the second number.
    sense_poll_s: tuple[Annotated[float, Field(ge=1)], Annotated[float, Field(ge=1)]] = (30.0, 600.0)
    #: Days, up to today, whose dated prefixes it looks at. Planning always lists the whole source.
    sense_days: Annotated[int, Field(ge=1, le=366)] = 3
    #: Address of an SQS queue with the bucket's events: each wakes a run. A hint only, the schedule stays.
    events_queue: Annotated[str, Field(pattern=r"^https?://")] | None = None
    #: Cron, in UTC. Its data intervals are what a backfill is made of: from midnight to midnight they are days.
    schedule: str = "0 0 * * *"
    #: Most objects of one batch; the rest is `over_cap` and left for the next run, oldest first.
    max_batch_objects: Annotated[int, Field(ge=1)] = 50_000
    #: What one object may cost; beyond it the object is rejected. Memory does not grow with any of these, time and disk do.
    max_object_bytes: Annotated[int, Field(ge=1)] = 16 << 30
    max_duration_s: Annotated[float, Field(gt=0)] = 86_400.0
    max_channels: Annotated[int, Field(ge=1, le=64)] = 64
    #: Wall time of decoding and computing, without the waiting for S3 and database.
    max_decode_s: Annotated[float, Field(gt=0)] = 3_600.0
    #: Batches in which an object may fail for our reasons before it is rejected as poison.
    max_failures: Annotated[int, Field(ge=1)] = 3
    #: The gate: failed objects and rejects that are tolerated, as a number and as a share of what was planned. A batch fails
    #: when it exceeds both bounds of the one or of the other.
    max_failed: Annotated[int, Field(ge=0)] = 0
    max_failed_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_rejected: Annotated[int, Field(ge=0)] = 10
    max_rejected_share: Annotated[float, Field(ge=0, le=1)] = 0.20
    #: Frames older than this expire, counted from the end of the recording; left out, they are kept for ever.
    keep_days: Annotated[float, Field(gt=0)] | None = None
    #: How often a step of a run is tried again before the run fails.
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    #: A batch that is not closed so long after it was planned is late, and its owner is told.
    late_after_s: Annotated[float, Field(gt=0)] = 21_600.0
    #: Who is told of failures: by the Airflow connection `alerts_<owner>` or, without one, `alerts_default`.
    #: Without control characters: no text of the database holds a NUL, and a batch whose alert cannot be written is not closed.
    owner: Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")] = (
        "spectralize"
    )

    @cached_property
    def template(self) -> PrefixTemplate:
        """The prefix, taken apart."""
        return PrefixTemplate.parse(self.prefix)

    @property
    def root(self) -> str:
        """What every key of the source begins with: the prefix up to its first date."""
        return self.template.root

    @property
    def address(self) -> str:
        """The source as people write it."""
        return f"s3://{self.bucket}/{self.prefix}"

    def recent_prefixes(self, now: datetime) -> list[str]:
        """Return the prefixes that new objects usually have: those of the last `sense_days` days, or the only one."""
        today = now.astimezone(ZoneInfo(self.timezone)).date()
        days: list[date] = [today - timedelta(days=ago) for ago in range(self.sense_days)]
        return sorted({self.template.on(day) for day in days})

    @model_validator(mode="after")
    def _agree(self) -> Self:
        PrefixTemplate.parse(self.prefix)
        if self.sense_poll_s[0] > self.sense_poll_s[1]:
            raise ValueError(f"sense_poll_s = {self.sense_poll_s}: the first number must be at most the second")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"timezone = {self.timezone!r}: not a zone name such as 'Europe/Berlin'") from error
        for pattern in self.time_patterns:
            try:
                groups = set(re.compile(pattern).groupindex)
            except re.error as error:
                raise ValueError(f"time_patterns: {pattern!r} is not a regular expression: {error}") from error
            if not groups >= _DATE_GROUPS or groups - _DATE_GROUPS - _TIME_GROUPS:
                raise ValueError(
                    f"time_patterns: {pattern!r} must have the groups year, month, day and no others "
                    "than hour, minute, second"
                )
        return self


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources file as read: the good ones, and one line for each that is not."""

    manifests: str
    sources: dict[str, Source]
    errors: dict[str, str]

    def find(self, name: str) -> Source:
        """Return the source of that name, or say what is wrong with it, or which there are."""
        if name in self.errors:
            raise ConfigError(self.errors[name])
        if name not in self.sources:
            known = ", ".join(sorted(self.sources)) or "none"
            raise ConfigError(f"source {name!r}: not in sources.toml, which has {known}")
        return self.sources[name]


def load_sources() -> Sources:
    """Read `config/sources.toml`. An error in one source does not take the others down."""
    path = resource_folder("config") / "sources.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"sources.toml: {error}") from error
    manifests = document.pop("manifests", None)
    if not isinstance(manifests, str) or not re.fullmatch(r"s3://[^/]+(/.*)?", manifests):
        raise ConfigError(f"sources.toml: manifests = {manifests!r}: must be s3://bucket/prefix")
    tables = document.pop("sources", {})
    if document:
        raise ConfigError(f"sources.toml: unknown key {sorted(document)[0]!r} at the top level")
    profiles = load_profiles()
    sources, errors = {}, {}
    for name, table in tables.items():
        try:
            source = Source.model_validate({**table, "name": name})
        except ValidationError as error:
            errors[name] = f"sources.toml, source {name!r}: {one_line(error)}"
            continue
        unknown = sorted(set(source.profiles) - set(profiles))
        if unknown:
            errors[name] = (
                f"sources.toml, source {name!r}: profiles: {unknown[0]!r} is not in mel_profiles.toml, "
                f"which has {', '.join(sorted(profiles))}"
            )
            continue
        if f"{manifests.rstrip('/')}/".startswith(f"s3://{source.bucket}/{source.root}"):
            errors[name] = (
                f"sources.toml, source {name!r}: it lists s3://{source.bucket}/{source.root}, where manifests = {manifests!r} "
                "are kept; give the manifests a bucket of their own"
            )
            continue
        sources[name] = source
    return Sources(manifests=manifests.rstrip("/"), sources=sources, errors=errors)
