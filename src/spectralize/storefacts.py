"""What a store holds, in figures for a page: counts and distributions, each by one aggregate on the server."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from spectralize.database import fetch_row
from spectralize.tables import OUTCOMES

Connection = psycopg.Connection[Any]

#: Bars of durations in a factor of ten: a second, 1.8, 3.2, 5.6, ten seconds …
DURATION_BINS = 4
#: Width of the bars of peaks, in dB.
PEAK_BIN_DB = 3.0

#: Spectrograms whose first seconds stand for the loudness of all, and how many seconds of each. Every one costs a look into
#: each chunk that it may lie in.
_SAMPLED, SAMPLED_S = 200, 60

#: Days are shown up to this span of days, then months, then years.
_MOST_DAYS, _MOST_MONTHS = 92, 120

_SPAN = "SELECT min(recorded_at), max(recorded_at) FROM spectralize.spectrograms WHERE status <> 'expired'"

#: Each object once, whatever profiles and generations it has.
_TIMES = """
SELECT date_trunc(%(unit)s, recorded_at, 'UTC') AS begins_at, count(*)
FROM (
    SELECT DISTINCT ON (object_id) recorded_at FROM spectralize.spectrograms WHERE status <> 'expired' ORDER BY object_id
) AS living
GROUP BY 1 ORDER BY 1 DESC LIMIT 200
"""

_RECORDINGS = """
SELECT container, decoded_codec, floor(%s * log(greatest(decoded_duration_s, 0.001)))::integer AS duration_bin,
       count(*), sum(decoded_duration_s)
FROM spectralize.recordings GROUP BY 1, 2, 3
"""

_SPECTROGRAMS = """
SELECT floor(peak_db / %s)::integer AS peak_bin, count(*), sum(n_frames)::bigint
FROM spectralize.spectrograms WHERE status <> 'expired' GROUP BY 1 ORDER BY 1
"""

#: As `status` counts them: where each (object, profile) stands by its newest line.
_OUTCOMES = """
SELECT outcome, reason_class, count(*) AS n
FROM (
    SELECT DISTINCT ON (object_id, profile_id) outcome, reason_class FROM spectralize.batch_objects
    WHERE outcome IS NOT NULL ORDER BY object_id, profile_id, batch_id DESC
) AS newest
GROUP BY 1, 2 ORDER BY n DESC, reason_class
"""

_HIGHEST = "SELECT coalesce(max(spectrogram_id), 0) FROM spectralize.spectrograms"

_LOUDNESS = """
SELECT s.spectrogram_id, m.rms
FROM (
    SELECT spectrogram_id, recorded_at FROM spectralize.spectrograms
    WHERE spectrogram_id = ANY (%(ids)s) AND status <> 'expired' LIMIT %(most)s
) AS s
CROSS JOIN LATERAL (
    SELECT rms FROM spectralize.mel_seconds
    WHERE spectrogram_id = s.spectrogram_id AND second_at >= s.recorded_at
      AND second_at < s.recorded_at + INTERVAL '1 second' * %(seconds)s
) AS m
"""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store holds.

    Attributes
    ----------
    recordings, hours
        Everything that ever decoded, as `spectralize status` counts it.
    spectrograms, mel_frames
        Those that can be read.
    outcomes
        How many (object, profile) stand where.
    refusals
        (outcome, class, how many) of the rejected and failed, the most frequent first.
    unit, times
        "day", "month" or "year"; and (when it begins, in UTC; how many recordings), the oldest first, without gaps.
    formats
        (container, codec, recordings, seconds), the most frequent first.
    durations
        (bin, recordings) without gaps: a bin n is [10^(n/4), 10^((n+1)/4)) seconds.
    peaks
        (bin, spectrograms) without gaps: a bin n is [3n, 3n + 3) dB.
    loudness_db
        RMS in dB relative to full scale of the sampled seconds, shape (n_seconds,), silence left out.
    sampled, silent
        Spectrograms in the sample, and its seconds without any sound.
    """

    recordings: int
    hours: float
    spectrograms: int
    mel_frames: int
    outcomes: dict[str, int]
    refusals: tuple[tuple[str, str, int], ...]
    unit: str
    times: tuple[tuple[datetime, int], ...]
    formats: tuple[tuple[str, str, int, float], ...]
    durations: tuple[tuple[int, int], ...]
    peaks: tuple[tuple[int, int], ...]
    loudness_db: npt.NDArray[np.float64]
    sampled: int
    silent: int


def read_store_facts(connection: Connection) -> StoreFacts:
    """Read it: a handful of statements, each of which returns rows by the bar and not by the recording."""
    unit, times = _read_times(connection)
    formats: dict[tuple[str, str], tuple[int, float]] = {}
    durations: dict[int, int] = {}
    for container, codec, duration_bin, n, seconds in connection.execute(_RECORDINGS, (DURATION_BINS,)):
        of_format = formats.get((container, codec), (0, 0.0))
        formats[container, codec] = of_format[0] + n, of_format[1] + seconds
        durations[duration_bin] = durations.get(duration_bin, 0) + n
    spectrograms = connection.execute(_SPECTROGRAMS, (PEAK_BIN_DB,)).fetchall()
    outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
    refusals = []
    for outcome, reason_class, n in connection.execute(_OUTCOMES):
        outcomes[outcome] += n
        if outcome in {"rejected", "failed"}:
            refusals.append((outcome, reason_class, n))
    rms, sampled = _sample_rms(connection)
    return StoreFacts(
        recordings=sum(n for n, _ in formats.values()),
        hours=sum(seconds for _, seconds in formats.values()) / 3600,
        spectrograms=sum(n for _, n, _ in spectrograms),
        mel_frames=sum(n_frames for _, _, n_frames in spectrograms),
        outcomes=outcomes,
        refusals=tuple(refusals),
        unit=unit,
        times=times,
        formats=tuple(sorted(((*name, *sums) for name, sums in formats.items()), key=lambda row: (-row[2], row[:2]))),
        durations=fill_bins(durations),
        peaks=fill_bins({peak_bin: n for peak_bin, n, _ in spectrograms}),
        loudness_db=20 * np.log10(rms[rms > 0]),
        sampled=sampled,
        silent=int(np.count_nonzero(rms <= 0)),
    )


def _read_times(connection: Connection) -> tuple[str, tuple[tuple[datetime, int], ...]]:
    first, last = fetch_row(connection, _SPAN)
    if first is None:
        return "day", ()
    days = (last - first).days
    unit = "day" if days <= _MOST_DAYS else "month" if days <= _MOST_MONTHS * 30 else "year"
    found = {_number(unit, begins_at): n for begins_at, n in connection.execute(_TIMES, {"unit": unit})}
    return unit, tuple((_begins_at(unit, number), n) for number, n in fill_bins(found))


def fill_bins(counts: Mapping[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the counts of all bins from the lowest to the highest: where there is nothing, a figure must show nothing."""
    return tuple((number, counts.get(number, 0)) for number in range(min(counts), max(counts) + 1)) if counts else ()


def _number(unit: str, at: datetime) -> int:
    if unit == "day":
        return at.toordinal()
    return at.year * 12 + at.month - 1 if unit == "month" else at.year


def _begins_at(unit: str, number: int) -> datetime:
    if unit == "day":
        return datetime.fromordinal(number).replace(tzinfo=UTC)
    year, month = divmod(number, 12) if unit == "month" else (number, 0)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def _sample_rms(connection: Connection) -> tuple[npt.NDArray[np.float64], int]:
    """Return the RMS of the first seconds of some spectrograms, the same ones until there are more."""
    highest = fetch_row(connection, _HIGHEST)[0]
    # Ids have gaps, where something was rolled back or has expired.
    ids = Random(highest).sample(range(1, highest + 1), min(highest, 2 * _SAMPLED))  # noqa: S311
    values = {"ids": ids, "most": _SAMPLED, "seconds": SAMPLED_S}
    rows = connection.execute(_LOUDNESS, values).fetchall()
    return np.array([rms for _, rms in rows], dtype=np.float64), len({spectrogram for spectrogram, _ in rows})
