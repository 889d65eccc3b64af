"""What the store holds at a glance: totals, and distributions, each as a figure and as a table of the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from spectralize.explorer.figures.distributions import HEIGHT_PX, draw_bars, draw_parts
from spectralize.explorer.figures.theme import GRAPH_CONFIG
from spectralize.explorer.layout import parts
from spectralize.explorer.layout.parts import Column
from spectralize.explorer.visits import write_query
from spectralize.storefacts import DURATION_BINS, PEAK_BIN_DB, SAMPLED_S, StoreFacts, fill_bins
from spectralize.tables import OUTCOMES, REJECT_CLASSES

#: Formats that have a bar of their own; the others share one.
_MOST_FORMATS = 8
#: Classes that have a line of their own: failures are classed by S3's codes, of which there may be any number.
_MOST_CLASSES = 40

_LOUDNESS_BIN_DB = 3
#: What is quieter than 16 bits can tell.
_QUIETEST_DB = -96

_DAY_FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}


def make_overview(facts: StoreFacts, *, is_dark: bool) -> Component:
    """Return the page."""
    if not facts.recordings and not any(facts.outcomes.values()):
        nothing = parts.notice("The store is empty: nothing has been ingested yet.", color="gray")
        return html.Div([parts.heading("Overview"), nothing])
    figures = [
        _days(facts, is_dark), _formats(facts, is_dark), _durations(facts, is_dark), _loudness(facts, is_dark),
        _peaks(facts, is_dark),
    ]  # fmt: skip
    return html.Div(
        [
            parts.heading("Overview"),
            _totals(facts),
            dmc.SimpleGrid(figures, cols={"base": 1, "lg": 2}, spacing="xl", verticalSpacing="xs"),
            _refusals(facts),
        ],
        id="overview",
    )


def _totals(facts: StoreFacts) -> Component:
    numbers = [
        ("Recordings", parts.count_text(facts.recordings)),
        ("Hours of audio", parts.number_text(facts.hours)),
        ("Spectrograms", parts.count_text(facts.spectrograms)),
        ("Mel frames", parts.count_text(facts.mel_frames)),
    ]
    cards = [
        dmc.Paper([parts.dim(name), dmc.Text(number, size="xl", fw=700)], withBorder=True, p="sm", radius="md")
        for name, number in numbers
    ]
    outcomes = [
        html.Span([parts.badge(outcome), " ", _outcome_link(outcome, facts.outcomes[outcome])])
        if facts.outcomes[outcome]
        else parts.dim(f"{outcome} 0", span=True)
        for outcome in OUTCOMES
    ]
    return html.Div(
        [
            dmc.SimpleGrid(cards, cols={"base": 2, "sm": 4}, spacing="sm"),
            dmc.Group(outcomes, gap="lg", mt="sm", id="overview-outcomes"),
            parts.dim("Outcomes count objects by profile, as their newest batch left them.", mt=4),
        ],
        id="overview-totals",
    )


def _outcome_link(outcome: str, n: int) -> Component:
    name = parts.count_text(n)
    return parts.link([name], recordings_address(outcome), **{"aria-label": f"{name} {outcome}"})


def recordings_address(outcome: str) -> str:
    """Return the address of the recordings with an outcome."""
    return "/recordings" + write_query({"outcome": outcome})


def _days(facts: StoreFacts, is_dark: bool) -> Component:
    labels = [_when(facts.unit, at) for at, _ in facts.times]
    counts = [n for _, n in facts.times]
    if not counts:
        return _empty("Recordings by day", "overview-days", "No spectrogram can be read.")
    figure = draw_bars(
        labels, counts, is_dark=is_dark, x_title=f"{facts.unit} (UTC)", y_title="recordings", unit="recordings"
    )
    busiest = counts.index(max(counts))
    text = (
        f"{parts.count_text(sum(counts))} recordings with a spectrogram from {labels[0]} to {labels[-1]}; most in "
        f"{labels[busiest]}: {parts.count_text(counts[busiest])}."
    )
    return _figure(
        f"Recordings by {facts.unit}", "overview-days", figure, text, (f"{facts.unit.capitalize()} (UTC)", "Recordings"),
        zip(labels, map(parts.count_text, counts), strict=True),
    )  # fmt: skip


def _when(unit: str, at: datetime) -> str:
    return f"{at:{_DAY_FORMATS[unit]}}"


def _formats(facts: StoreFacts, is_dark: bool) -> Component:
    if not facts.formats:
        return _empty("Formats", "overview-formats", "Nothing has decoded.")
    shown = [
        (parts.plain(f"{container} / {codec}", longest=40), n, seconds)
        for container, codec, n, seconds in facts.formats
    ]
    if len(shown) > _MOST_FORMATS:
        rest = shown[_MOST_FORMATS - 1 :]
        shown = shown[: _MOST_FORMATS - 1]
        shown.append((f"{len(rest)} others", sum(n for _, n, _ in rest), sum(seconds for *_, seconds in rest)))
    figure = draw_parts(
        [name for name, *_ in shown], [n for _, n, _ in shown], is_dark=is_dark, x_title="recordings", unit="recordings"
    )
    name, n, _ = shown[0]
    text = (
        f"Container and codec as decoded. Most frequent: {name}, {parts.count_text(n)} of "
        f"{parts.count_text(facts.recordings)} recordings."
    )
    rows = [(name, parts.count_text(n), parts.number_text(seconds / 3600)) for name, n, seconds in shown]
    return _figure("Formats", "overview-formats", figure, text, ("Container / codec", "Recordings", "Hours"), rows)


def _durations(facts: StoreFacts, is_dark: bool) -> Component:
    if not facts.durations:
        return _empty("Durations", "overview-durations", "Nothing has decoded.")
    labels = [_duration_bin(number) for number, _ in facts.durations]
    counts = [n for _, n in facts.durations]
    figure = draw_bars(
        [label.partition(" –")[0] for label in labels], counts,
        is_dark=is_dark, x_title="duration from", y_title="recordings", unit="recordings",
    )  # fmt: skip
    most = labels[counts.index(max(counts))]
    text = f"How long recordings are, decoded; {DURATION_BINS} bars in a factor of ten. Most: {most}."
    return _figure(
        "Durations", "overview-durations", figure, text, ("Duration", "Recordings"),
        zip(labels, map(parts.count_text, counts), strict=True),
    )  # fmt: skip


def _duration_bin(number: int) -> str:
    low, high = (_short(10 ** (edge / DURATION_BINS)) for edge in (number, number + 1))
    return f"{low} – {high}"


def _short(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size:
            return f"{parts.number_text(seconds / size, 2)}\N{NO-BREAK SPACE}{unit}"
    return f"{parts.number_text(seconds * 1000, 2)}\N{NO-BREAK SPACE}ms"


def _loudness(facts: StoreFacts, is_dark: bool) -> Component:
    sample = (
        f"{parts.count_text(len(facts.loudness_db) + facts.silent)} seconds: the first {SAMPLED_S} at most of each of "
        f"{parts.count_text(facts.sampled)} spectrograms drawn at random"
    )
    if not len(facts.loudness_db):
        return _empty("Loudness", "overview-loudness", f"A sample of {sample} has no sound.")
    bins, counts = np.unique(
        np.floor(np.clip(facts.loudness_db, _QUIETEST_DB, None) / _LOUDNESS_BIN_DB).astype(int), return_counts=True
    )
    filled = fill_bins(dict(zip(bins.tolist(), counts.tolist(), strict=True)))
    silent = f"; {parts.count_text(facts.silent)} of them silent and not shown" if facts.silent else ""
    median = f"{np.median(facts.loudness_db):.1f}".replace("-", "\N{MINUS SIGN}")
    text = f"RMS of a second relative to full scale, in a sample of {sample}{silent}. Median {median} dB."
    return _decibels("Loudness", "overview-loudness", filled, _LOUDNESS_BIN_DB, text, "dBFS", "seconds", is_dark)


def _peaks(facts: StoreFacts, is_dark: bool) -> Component:
    if not facts.peaks:
        return _empty("Peaks", "overview-peaks", "No spectrogram can be read.")
    text = f"Highest cell of each of {parts.count_text(facts.spectrograms)} spectrograms, in dB of power relative to 1."
    return _decibels("Peaks", "overview-peaks", facts.peaks, PEAK_BIN_DB, text, "dB", "spectrograms", is_dark)


def _decibels(
    title: str,
    element_id: str,
    bins: Sequence[tuple[int, int]],
    width_db: float,
    text: str,
    unit: str,
    counted: str,
    is_dark: bool,
) -> Component:
    labels = [
        f"{number * width_db:g} to {(number + 1) * width_db:g}".replace("-", "\N{MINUS SIGN}") for number, _ in bins
    ]
    counts = [n for _, n in bins]
    figure = draw_bars(
        [label.partition(" to")[0] for label in labels], counts,
        is_dark=is_dark, x_title=f"{unit} from", y_title=counted, unit=counted,
    )  # fmt: skip
    rows = zip(labels, map(parts.count_text, counts), strict=True)
    return _figure(title, element_id, figure, text, (unit, counted.capitalize()), rows)


def _empty(title: str, element_id: str, text: str) -> Component:
    return parts.section(title, parts.dim(text), element_id=element_id)


def _figure(
    title: str,
    element_id: str,
    figure: go.Figure,
    text: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
) -> Component:
    """A figure is a picture to a screen reader, which says the sentence; the table has the numbers."""
    graph = dcc.Graph(
        figure=figure,
        config={**GRAPH_CONFIG, "displayModeBar": False},
        style={"height": HEIGHT_PX},
        id=f"{element_id}-graph",
    )
    columns = [Column(head, is_number=number > 0) for number, head in enumerate(heads)]
    table = parts.rows_table(columns, list(rows), label=f"{title}, as numbers", min_width_px=240)
    return parts.section(
        title,
        parts.dim(text, mb="xs"),
        html.Div(graph, role="img", **{"aria-label": f"{title}. {text}"}),
        parts.disclosure("Numbers", table),
        element_id=element_id,
    )


def _refusals(facts: StoreFacts) -> Component:
    if not facts.refusals:
        return parts.section("Rejected and failed", parts.dim("Nothing is."), element_id="overview-refusals")
    rows = [
        [
            parts.badge(outcome), parts.plain(name), parts.count_text(n), REJECT_CLASSES.get(name, ""),
            parts.link(f"All {outcome}", recordings_address(outcome)),
        ]
        for outcome, name, n in facts.refusals[:_MOST_CLASSES]
    ]  # fmt: skip
    if len(facts.refusals) > _MOST_CLASSES:
        rest = facts.refusals[_MOST_CLASSES:]
        rows.append([f"{len(rest)} other classes", "", parts.count_text(sum(n for *_, n in rest)), "", ""])
    columns = Column("Outcome"), Column("Class"), Column("How many", True), Column("Meaning"), Column("Recordings")
    table = parts.rows_table(
        columns, rows, label="Rejected and failed by class", element_id="overview-classes", min_width_px=620
    )
    return parts.section("Rejected and failed", table, element_id="overview-refusals")
