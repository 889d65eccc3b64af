"""From measurements to figures: each the median, over the rounds, of a ratio within one round."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench.measurement import Measurement

if TYPE_CHECKING:
    from bench.reading import ReadingRound


@dataclass(frozen=True, slots=True)
class Target:
    """Which part of the bench a figure is of, what it is, and what it has to reach."""

    part: str
    meaning: str
    bound: float
    is_upper: bool

    def is_met(self, value: float) -> bool:
        """Tell whether a value reaches the target."""
        return value <= self.bound if self.is_upper else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.is_upper else '≥'} {self.bound:g}"


TARGETS = {
    "core_vs_decode_cpu": Target("music", "core without database, CPU time by that of decoding alone", 1.4, True),
    "core_vs_packets_cpu": Target(
        "music", "the same by decoding packets alone, without making samples of them (no target)", math.inf, True
    ),
    "mel_speedup_vs_librosa": Target("mel", "Mel alone, librosa's CPU time by ours, same samples", 4.0, False),
    "job_vs_decode": Target("music", "whole job, time by that of decoding alone on the same two cores", 1.7, True),
    "job_speedup_vs_pool": Target(
        "music", "whole job, throughput by that of librosa → .npy in a process pool", 1.5, False
    ),
    "clips_per_s": Target("clips", "whole job, clips of half a second per second", 150.0, False),
    "samples_vs_rows": Target("samples", "samples stored by hop, speed by that of a row per sample", 100.0, False),
    "table_query_ms": Target(
        "table",
        "page of the table of 100,000 recordings with its counts, the slowest of seven questions, warm, ms",
        200.0,
        True,
    ),
    "ten_hour_peak_mb": Target("memory", "peak memory of the worker for ten hours at 48 kHz stereo, MB", 400.0, True),
    "ten_hour_vs_ten_minutes_memory": Target("memory", "the same by that for ten minutes", 1.2, True),
    "window_median_ms": Target("store", "window of 10 s by recording and time, warm, ms", 4.0, True),
    "window_vs_sql": Target("store", "the same by a query written by hand", 1.5, True),
    "window_large_vs_small": Target(
        "store", "the same on 30 million frames by that on the small store, decades or bulk, the slower", 1.3, True
    ),
    "recording_x_realtime": Target("store", "whole recording into numpy, seconds of audio per second", 3000.0, False),
    "windows_vs_reopened_npy": Target(
        "store", "random windows of 2 s, two workers, by .npy files opened anew for each", 0.3, False
    ),
    "disk_vs_half": Target(
        "store", "disk of the Mel frames, indexes included, by their half-precision values", 1.4, True
    ),
    "page_first_paint_s": Target(
        "explorer", "page of a recording of three minutes, until waveform and spectrogram are drawn, warm, s", 1.0, True
    ),
    "page_long_vs_short": Target("explorer", "the same for ten hours by that for ten seconds", 1.3, True),
    "zoom_ms": Target(
        "explorer",
        "the server's answer to a zoom, three minutes, ten hours or ten seconds, the slowest, ms",
        300.0,
        True,
    ),
}


def per_round(measurements: Sequence[Measurement], corpus: str) -> list[dict[str, Measurement]]:
    """Group what was measured of one corpus by round, then by contender."""
    rounds: dict[int, dict[str, Measurement]] = {}
    for measurement in measurements:
        if measurement.corpus == corpus:
            rounds.setdefault(measurement.round, {})[measurement.contender] = measurement
    return list(rounds.values())


def speed_figures(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Return what can be said about speed; a figure whose contenders did not both run is absent."""
    figures: dict[str, float] = {}

    def add(name: str, corpus: str, contenders: tuple[str, ...], figure: Callable[..., float]) -> None:
        values = [
            figure(*(by_name[contender] for contender in contenders))
            for by_name in per_round(measurements, corpus)
            if by_name.keys() >= set(contenders)
        ]
        if values:
            figures[name] = median(values)

    add("core_vs_decode_cpu", "music", ("core", "decode"), lambda core, decode: core.all_cpu_s / decode.all_cpu_s)
    add("core_vs_packets_cpu", "music", ("core", "packets"), lambda core, packets: core.all_cpu_s / packets.all_cpu_s)
    add("job_vs_decode", "music", ("job", "decode"), lambda job, decode: job.wall_s / decode.wall_s)
    # By throughput: the pool is spared the formats that librosa cannot read.
    add("job_speedup_vs_pool", "music", ("job", "librosa"), lambda job, pool: job.x_realtime / pool.x_realtime)
    add("clips_per_s", "clips", ("job",), lambda job: job.files_per_s)
    return figures


def reading_figures(rounds: Sequence[ReadingRound]) -> dict[str, float]:
    """Return what can be said about reading, the figure that needs a large store included."""

    def of(figure: Callable[[ReadingRound], float]) -> float:
        return median(map(figure, rounds))

    return {
        "window_median_ms": of(lambda one: one.window_ms["reader"]),
        "window_vs_sql": of(lambda one: one.window_ms["reader"] / one.window_ms["sql"]),
        # Both have to hold, so a good half does not make up for a bad one.
        "window_large_vs_small": max(
            of(lambda one, part=part: one.window_ms[part] / one.window_ms["reader"])  # type: ignore[misc]
            for part in ("decades", "bulk")
        ),
        "recording_x_realtime": of(lambda one: one.audio_s / one.whole_s["reader"]),
        "windows_vs_reopened_npy": of(lambda one: one.windows_per_s["reader"] / one.windows_per_s["npy"]),
    }
