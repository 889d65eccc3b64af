"""What a person reads: a table per corpus, one of reading, one of the figures, and a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from rich.table import Table

from bench.explorer import ExplorerResult
from bench.figures import TARGETS, per_round
from bench.measurement import Measurement
from bench.memory import Trace
from bench.reading import ReadingRound
from bench.store import StoreResult

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

TITLES = {
    "packets": "(a⁻) packets only, no samples",
    "decode": "(a) decode only, to samples",
    "librosa": "(b) librosa → .npy, process pool",
    "lhotse": "(b) lhotse → .npy, process pool",
    "core": "(c) our core, no database",
    "job": "(d) whole job into TimescaleDB",
}
_COLOURS = {"python": "tab:blue", "jvm": "tab:orange", "postgres": "tab:green", "s3": "tab:red"}


def corpus_table(measurements: Sequence[Measurement], corpus: str) -> Table:
    """Show medians over the rounds; ratios are medians of per-round ratios, as the figures are."""
    rounds = per_round(measurements, corpus)
    table = Table(title=f"{corpus}, median of {len(rounds)} rounds", title_justify="left")
    table.add_column("contender")
    for heading in ("files", "wall s", "× real time", "files/s", "CPU s", "wall by (a)", "CPU by (a)", "others"):
        table.add_column(heading, justify="right")
    table.add_column("CPU s by part")
    for name, title in TITLES.items():
        found = [by_name[name] for by_name in rounds if name in by_name]
        if not found:
            continue
        pairs = [(by_name[name], by_name["decode"]) for by_name in rounds if {name, "decode"} <= by_name.keys()]
        # Per second of audio, where a contender could not read every file.
        scale = [own.audio_s / decode.audio_s for own, decode in pairs]
        walls = [own.wall_s / decode.wall_s / part for (own, decode), part in zip(pairs, scale, strict=True)]
        cpus = [own.all_cpu_s / decode.all_cpu_s / part for (own, decode), part in zip(pairs, scale, strict=True)]
        parts = {part: median(item.cpu_s[part] for item in found) for part in found[0].cpu_s}
        table.add_row(
            title, str(found[0].n_files), _spread([item.wall_s for item in found]),
            f"{median(item.x_realtime for item in found):.0f}", f"{median(item.files_per_s for item in found):.0f}",
            f"{median(item.all_cpu_s for item in found):.2f}", f"{median(walls):.2f}", f"{median(cpus):.2f}",
            f"{median(item.others_share for item in found):.0%}",
            ", ".join(f"{part} {cpu_s:.2f}" for part, cpu_s in parts.items()) if len(parts) > 1 else "",
        )  # fmt: skip
    return table


def _spread(values: Sequence[float], decimals: int = 2) -> str:
    return f"{median(values):,.{decimals}f} ({min(values):,.{decimals}f}-{max(values):,.{decimals}f})"


def reading_table(result: StoreResult) -> Table:
    """Show what reading takes, each contender beside the one that it is measured by."""
    table = Table(title=f"reading, median of {len(result.rounds)} rounds (from - to)", title_justify="left")
    table.add_column("what")
    table.add_column("contender")
    for heading in ("", "by the first", "planning, ms", "others"):
        table.add_column(heading, justify="right")

    def add(
        what: str,
        titles: Mapping[str, str],
        values: Callable[[ReadingRound], Mapping[str, float]],
        *,
        decimals: int = 2,
        planning: Mapping[str, str] | None = None,
    ) -> None:
        first = next(iter(titles))
        for name, title in titles.items():
            found = [values(one)[name] for one in result.rounds]
            ratios = [values(one)[name] / values(one)[first] for one in result.rounds]
            part = (planning or {}).get(name, "")
            table.add_row(
                what if name == first else "", title, _spread(found, decimals), f"{median(ratios):.2f}",
                f"{result.planning_ms[part]:.2f}" if part else "",
                f"{median(one.others_share for one in result.rounds):.0%}" if name == first else "",
            )  # fmt: skip
        table.add_section()

    parts = {
        name: f"{extent.n_frames / 1e6:.1f} M frames in {extent.n_chunks:,} chunk{'s' * (extent.n_chunks > 1)}"
        for name, extent in result.extents.items()
    }
    add(
        "window of 10 s, ms",
        {
            "sql": "COPY by hand, small store",
            "reader": f"reader, small: {parts['small']}",
            "decades": f"reader, decades: {parts['decades']}",
            "bulk": f"reader, bulk: {parts['bulk']}",
            "text": "plain cursor and text, small store",
        },
        lambda one: one.window_ms,
        planning={"sql": "small", "reader": "small", "decades": "decades", "bulk": "bulk"},
    )
    add(
        "whole recording, × real time",
        {"npy": "np.load of its .npy", "reader": "reader, small store"},
        lambda one: {name: one.audio_s / seconds for name, seconds in one.whole_s.items()},
        decimals=0,
    )
    add(
        "random windows of 2 s per second, two processes",
        {
            "npy": ".npy opened for each window",
            "reader": "reader, 64 at once, small store",
            "large": "reader, 64 at once, large store",
            "singles": "reader, one at a time, small store",
        },
        lambda one: one.windows_per_s,
        decimals=0,
    )
    for name, extent in result.extents.items():
        table.add_row(
            "disk by half-precision values" if name == "small" else "",
            f"{name}: {parts[name]}",
            f"{extent.disk_vs_half:.3f}",
        )
    return table


def explorer_table(result: ExplorerResult) -> Table:
    """Show what pages and zooms take, for each recording and for what there is beside them."""
    table = Table(title=f"explorer, median of {len(result.by_hand_s)} rounds (from - to)", title_justify="left")
    table.add_column("what")
    for heading in ("drawn, s", "zoom: server, ms", "zoom: until drawn, ms"):
        table.add_column(heading, justify="right")
    titles = {
        "short": "ten seconds",
        "usual": "three minutes",
        "long": "ten hours",
        "shell": "a page with nothing on it",
    }
    for name, title in titles.items():
        zooms = (found.get(name) for found in (result.zoom_ms, result.zoomed_ms))
        table.add_row(title, _spread(result.drawn_s[name]), *(_spread(found, 0) if found else "" for found in zooms))
    table.add_row("three minutes read and drawn by matplotlib", _spread(result.by_hand_s), "", "")
    return table


def figures_table(figures: Mapping[str, float]) -> Table:
    """Show each figure beside its target."""
    table = Table("figure", "meaning", title="figures", title_justify="left")
    for heading in ("value", "target", ""):
        table.add_column(heading, justify="right")
    for name, target in TARGETS.items():
        if name not in figures:
            table.add_row(name, target.meaning, "[dim]not measured[/]", str(target), "")
            continue
        mark = "[green]✓[/]" if target.is_met(figures[name]) else "[red]✗[/]"
        table.add_row(name, target.meaning, f"{figures[name]:.2f}", str(target), mark)
    return table


def save_plot(measurements: Sequence[Measurement], traces: Mapping[str, Trace], path: Path) -> None:
    """Draw processor time by part for each corpus, and memory over time."""
    corpora = [corpus for corpus in ("music", "clips") if any(item.corpus == corpus for item in measurements)]
    panels = len(corpora) + bool(traces)
    if not panels:
        return
    figure, grid = plt.subplots(1, panels, figsize=(6 * panels, 4), layout="constrained", squeeze=False)
    for axes, corpus in zip(grid[0], corpora, strict=False):
        _draw_corpus(axes, measurements, corpus)
    if traces:
        _draw_memory(grid[0][-1], traces)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_corpus(axes: Axes, measurements: Sequence[Measurement], corpus: str) -> None:
    """Bars: throughput, the median; dots: each round."""
    rounds = per_round(measurements, corpus)
    names = [name for name in reversed(TITLES) if any(name in by_name for by_name in rounds)]
    for row, name in enumerate(names):
        found = [by_name[name] for by_name in rounds if name in by_name]
        speeds = [item.files_per_s if corpus == "clips" else item.x_realtime for item in found]
        axes.barh(row, median(speeds), color="tab:blue" if name in {"core", "job"} else "silver")
        axes.plot(speeds, [row] * len(speeds), "k.", markersize=4)
        axes.text(median(speeds), row, f" {median(speeds):.0f}", va="center")
    axes.set_yticks(range(len(names)), [TITLES[name] for name in names])
    axes.margins(x=0.15)
    axes.set_xlabel("clips per second" if corpus == "clips" else "seconds of audio per second")
    axes.set_title(f"{corpus}, two processes on two cores")


def _draw_memory(axes: Axes, traces: Mapping[str, Trace]) -> None:
    for name, trace in traces.items():
        axes.plot(
            [at / trace.at_s[-1] for at in trace.at_s], trace.pss_mb, label=f"{name}: peak {trace.peak_mb:.0f} MB"
        )
    axes.axhline(TARGETS["ten_hour_peak_mb"].bound, color="tab:red", linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the worker's time")
    axes.set_ylabel("MB of the worker and its children (PSS)")
    axes.set_title("memory, 48 kHz stereo")
    axes.legend()
