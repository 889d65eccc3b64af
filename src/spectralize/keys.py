"""What a key tells: whether it is wanted, and when it was recorded."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal
from zoneinfo import ZoneInfo

from spectralize.sources import Source

Origin = Literal["key", "last_modified", "given"]

#: Clocks outside these bounds are recorders with an empty battery, not times.
EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
LATEST_AHEAD = timedelta(days=2)

#: S3's own limit; servers that allow more would exceed what an index can hold.
MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class KeyTime:
    """A time and where it came from. `flag` says why the key's own time was not taken."""

    at: datetime
    origin: Origin
    flag: str | None = None


def is_wanted(key: str, source: Source) -> bool:
    """Tell whether the source's prefix and globs select this key. Folder markers are never wanted."""
    if key.endswith("/") or not is_storable(key) or not source.template.matches(key):
        return False
    return any(matches_glob(key, glob) for glob in source.include) and not any(
        matches_glob(key, glob) for glob in source.exclude
    )


def is_storable(key: str) -> bool:
    """Tell whether a key fits the database: without NUL, and no longer than S3 allows."""
    return "\x00" not in key and len(key.encode(errors="replace")) <= MAX_KEY_BYTES


def matches_glob(key: str, glob: str) -> bool:
    """Compare a whole key with a glob: letter case is ignored, and `*` also matches `/`."""
    return fnmatchcase(key.lower(), glob.lower())


def key_to_time(key: str, source: Source, last_modified: datetime) -> KeyTime:
    """Read the recording time from the key, else fall back to `last_modified` (time zone aware, UTC)."""
    flag = None
    dated = (source.template.pattern,) if source.template.pattern and source.template.has_day else ()
    for pattern in source.time_patterns + dated:
        match = re.search(pattern, key)
        if match is None:
            continue
        try:
            parts = {name: int(value) for name, value in match.groupdict(default="0").items()}
            at = datetime(**parts, tzinfo=ZoneInfo(source.timezone)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            flag = f"{match.group(0)!r} in the key is no time: {error}"
            continue
        if at < EARLIEST or at > last_modified + LATEST_AHEAD:
            flag = f"{match.group(0)!r} in the key is outside sane bounds"
            continue
        return KeyTime(at, "key")
    return KeyTime(last_modified, "last_modified", flag)
