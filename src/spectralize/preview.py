"""What the next run of a source would do, and what it would take: a plan that is looked at and not made."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from spectralize import ledger, worklist
from spectralize.database import fetch_row
from spectralize.errors import as_one_line
from spectralize.estimate import Forecast, Group, Rates, read_rates
from spectralize.profiles import find_profile
from spectralize.selection import Selection, select
from spectralize.sources import Source
from spectralize.tables import Counts
from spectralize.worklist import Interval

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

Connection = psycopg.Connection[Any]

_SHOWN_KEYS = 5
_SHOWN_FORMATS = 8

_SUFFIX = r"coalesce(lower(substring(key FROM '\.([^./]*)$')), '')"

_FIRST_GROUPS = f"""
SELECT {_SUFFIX}, count(*), sum(size_bytes)::bigint FROM ({worklist.FIRST}) AS first GROUP BY 1 ORDER BY 2 DESC, 1
"""
_ALL_GROUPS = f"""
SELECT {_SUFFIX}, count(*), sum(size_bytes)::bigint
FROM (SELECT DISTINCT key, size_bytes FROM candidates WHERE is_settled) AS settled GROUP BY 1 ORDER BY 2 DESC, 1
"""
_FIRST_PAIRS = f"""
SELECT count(*), count(*) FILTER (WHERE c.is_recompute)
FROM candidates AS c JOIN ({worklist.FIRST}) AS first USING (key)
"""
_FIRST_KEYS = f"SELECT key FROM ({worklist.FIRST}) AS first LIMIT {_SHOWN_KEYS}"


@dataclass(frozen=True, slots=True)
class Preview:
    """A batch as it would be planned now.

    Attributes
    ----------
    counts
        Its sums, as the ledger would have them.
    n_recomputed
        Pairs of it that have a spectrogram already, and get a new generation.
    next_batch, everything
        What this batch takes, and what all that is waiting takes, over as many batches as it needs.
    groups
        The objects of this batch by format.
    first_keys
        Some of its objects, first come first.
    is_selection
        It is what a form selects, rather than what a listing has.
    """

    source: str
    profiles: tuple[str, ...]
    counts: Counts
    n_recomputed: int
    next_batch: Forecast
    everything: Forecast
    groups: tuple[Group, ...]
    first_keys: tuple[str, ...]
    rates: Rates
    is_selection: bool = False

    @property
    def n_batches(self) -> int:
        """Batches until nothing is left, if nothing new comes."""
        return -(-self.everything.n_objects // self.next_batch.n_objects) if self.next_batch.n_objects else 0

    def lines(self) -> list[str]:
        """Say it in lines for a person."""
        counts = self.counts
        lines = [
            f"source {self.source}, {', '.join(self.profiles)}",
            f"listed {counts.listed} = unchanged {counts.unchanged} + planned {counts.planned} + unsettled "
            f"{counts.unsettled} + ignored {counts.ignored} + over cap {counts.over_cap}",
        ]
        run = "this form" if self.is_selection else "the next run"
        if self.is_selection:
            lines[1] = f"selected {counts.listed} = planned {counts.planned} + over cap {counts.over_cap}"
        if not counts.planned:
            return [*lines, f"{run} would find nothing to compute"]
        formats = ", ".join(
            f"{group.n_objects} {as_one_line(group.suffix) or 'without suffix'}"
            for group in self.groups[:_SHOWN_FORMATS]
        )
        if len(self.groups) > _SHOWN_FORMATS:
            formats += f" and {len(self.groups) - _SHOWN_FORMATS} other formats"
        lines.append(f"{run} would compute {_number(counts.planned, 'object')}: {formats}")
        if self.n_recomputed:
            lines.append(f"{self.n_recomputed} of them again, as a new generation; what they have now is kept")
        lines.append(f"it would take {_amounts(self.next_batch)}")
        if counts.over_cap:
            lines.append(f"everything, in {self.n_batches} runs: {_amounts(self.everything)}")
        shown = ", ".join(as_one_line(key) for key in self.first_keys)
        lines.append(f"first: {shown}{', …' if counts.planned > len(self.first_keys) else ''}")
        lines.append(_basis(self.rates))
        return lines


def preview_batch(
    connection: Connection,
    client: "S3Client",
    source: Source,
    *,
    interval: Interval | None = None,
    force: bool = False,
    max_objects: int | None = None,
    selection: Selection | None = None,
    profile: str | None = None,
    n_cores: float | None = None,
    on_page: Callable[[int], None] = lambda _: None,
) -> Preview:
    """Look at what `plan_batch` would plan with the same arguments, and estimate what it takes. The store is left as it is.

    Parameters
    ----------
    n_cores
        Cores that the job will have; see `read_rates`.
    on_page
        Called after each page of the listing with the number of keys so far.
    """
    profiles = [find_profile(name) for name in ([profile] if profile else source.profiles)]
    ids = list(ledger.find_profile_ids(connection, profiles).values())
    if selection is None:
        counts = worklist.scan(
            connection, client, source, ids, interval=interval, force=force, is_dry=True, on_page=on_page
        )
    else:
        counts = select(connection, source, ids, selection)
    values = {"max_objects": min(source.max_batch_objects, max_objects or source.max_batch_objects)}
    groups = [Group(*row) for row in connection.execute(_FIRST_GROUPS, values)]
    everything = [Group(*row) for row in connection.execute(_ALL_GROUPS)]
    n_pairs, n_recomputed = fetch_row(connection, _FIRST_PAIRS, values)
    first_keys = tuple(row[0] for row in connection.execute(_FIRST_KEYS, values))
    rates = read_rates(connection, n_cores=n_cores)
    connection.rollback()
    n_planned = sum(group.n_objects for group in groups)
    return Preview(
        source=source.name,
        profiles=tuple(found.name for found in profiles),
        counts=replace(counts, planned=n_planned, over_cap=counts.over_cap - n_planned, planned_spectrograms=n_pairs),
        n_recomputed=n_recomputed,
        next_batch=rates.forecast(groups, profiles),
        everything=rates.forecast(everything, profiles),
        groups=tuple(groups),
        first_keys=first_keys,
        rates=rates,
        is_selection=selection is not None,
    )


def _amounts(forecast: Forecast) -> str:
    return (
        f"about {_hours(forecast.audio_s)} of audio, {_gigabytes(forecast.size_bytes)} to read, "
        f"{max(1, round(forecast.work_s / 60))} min, {_gigabytes(forecast.disk_bytes)} of disk"
    )


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2g} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2g} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.2g} MB"


def _basis(rates: Rates) -> str:
    if not rates.measured_s:
        return f"by usual rates, on {rates.n_cores:.2g} cores: this store has measured too little yet"
    return f"by the rates of the newest batches of this store ({rates.measured_s / 3600:.2g} h), on {rates.n_cores:.2g} cores"
