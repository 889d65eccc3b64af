"""The overview: its figures show what the store holds, and say so in words and tables, too."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from spectralize import open_store
from spectralize.errors import ServiceError
from spectralize.explorer.callbacks.overview import FactsOfStores
from spectralize.explorer.context import Explorer
from spectralize.explorer.figures.distributions import draw_bars, draw_parts
from spectralize.explorer.figures.theme import GRAPH_CONFIG, apply_theme
from spectralize.explorer.layout.overview import make_overview
from spectralize.explorer.settings import Settings
from spectralize.storefacts import StoreFacts, fill_bins, read_store_facts
from tests.conftest import new_store
from tests.explorer.looking import addresses, by_id, rows, texts, walk
from tests.store import Store, encode, make_samples, wav

EMPTY = StoreFacts(
    recordings=0, hours=0.0, spectrograms=0, mel_frames=0, outcomes=dict.fromkeys(("loaded", "partial", "rejected", "failed"), 0),
    refusals=(), unit="day", times=(), formats=(), durations=(), peaks=(), loudness_db=np.empty(0), sampled=0, silent=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def filled(dsn: str, aws: None) -> Iterator[Store]:
    """Four recordings of three days in March, one silent, and three objects that are none."""
    with new_store(dsn) as store:
        store.source = store.source.model_copy(
            update={"time_patterns": (r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",), "max_rejected": 9}
        )
        store.put("20260301.wav", wav(1.5))
        store.put("20260301_b.wav", wav(2.0, seed=1))
        store.put("20260303.flac", encode(make_samples(12.0), container="FLAC"))
        store.put("20260304.wav", encode(np.zeros((22_050, 1), dtype=np.float32)))
        store.put("empty.wav", b"")
        store.put("<b>text</b>.mp3", b"<html>" * 50)
        store.put("text.ogg", b"<html>" * 50)
        store.ingest()
        yield store


@pytest.fixture
def facts(filled: Store) -> StoreFacts:
    found = read_store_facts(filled.connection)
    filled.connection.commit()
    return found


def test_the_facts_are_those_of_the_store(facts: StoreFacts, filled: Store) -> None:
    assert (facts.recordings, facts.spectrograms) == (4, 4)
    assert facts.hours == pytest.approx(16.5 / 3600, rel=1e-6)
    assert facts.mel_frames == filled.rows("SELECT count(*) FROM spectralize.mel_frames")[0][0]
    assert facts.outcomes == {"loaded": 4, "partial": 0, "rejected": 3, "failed": 0}
    assert facts.refusals == (("rejected", "not_audio", 2), ("rejected", "empty", 1))
    # The day without a recording is there, or the axis would lie.
    assert facts.unit == "day"
    assert [(f"{at:%m-%d}", n) for at, n in facts.times] == [("03-01", 2), ("03-02", 0), ("03-03", 1), ("03-04", 1)]
    assert [(*row[:3], round(row[3], 3)) for row in facts.formats] == [
        ("wav", "pcm_s16le", 3, 4.5),
        ("flac", "flac", 1, 12.0),
    ]
    # 1 s is at the foot of its bin; 1.5 s is below 10^(1/4), 2 s above.
    assert facts.durations == ((0, 2), (1, 1), (2, 0), (3, 0), (4, 1))
    peaks = [peak for [peak] in filled.rows("SELECT peak_db FROM spectralize.spectrograms")]
    assert dict(facts.peaks)[int(np.floor(max(peaks) / 3))] >= 1
    assert sum(n for _, n in facts.peaks) == 4
    # Every second of these four: 2 + 2 + 12 with a tone of 0.3, and one without any sound.
    assert (len(facts.loudness_db), facts.sampled, facts.silent) == (16, 4, 1)
    assert facts.loudness_db == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.5)


def test_long_spans_are_shown_by_month_and_year(filled: Store) -> None:
    [[first]] = filled.rows("SELECT min(spectrogram_id) FROM spectralize.spectrograms")
    move = "UPDATE spectralize.spectrograms SET recorded_at = %s WHERE spectrogram_id = %s"
    for at, unit, n in (
        (datetime(2025, 11, 30, tzinfo=UTC), "month", 5),
        (datetime(2001, 1, 1, tzinfo=UTC), "year", 26),
    ):
        filled.connection.execute(move, (at, first))
        facts = read_store_facts(filled.connection)
        filled.connection.rollback()
        assert (facts.unit, len(facts.times), facts.times[0][0]) == (unit, n, at.replace(day=1))
        assert sum(count for _, count in facts.times) == 4


def test_the_page_has_each_figure_as_a_picture_with_words_and_as_numbers(facts: StoreFacts) -> None:
    page = make_overview(facts, is_dark=False)
    for name in ("days", "formats", "durations", "loudness", "peaks"):
        section = by_id(page, f"overview-{name}")
        [picture] = [item for item in walk(section) if getattr(item, "role", None) == "img"]
        assert len(picture.to_plotly_json()["props"]["aria-label"]) > 30
        figure = by_id(section, f"overview-{name}-graph").figure
        [bars] = figure.data
        heights = list(bars.x if bars.orientation == "h" else bars.y)
        assert [row[1] for row in rows(section)] == [str(height) for height in heights]
    assert "4 recordings with a spectrogram from 2026-03-01 to 2026-03-04; most in 2026-03-01: 2." in texts(page)
    assert rows(by_id(page, "overview-classes"))[0][:3] == ["rejected", "not_audio", "2"]
    assert {"/recordings?outcome=loaded", "/recordings?outcome=rejected"} == addresses(page)


def test_an_empty_store_has_a_page_without_figures() -> None:
    page = make_overview(EMPTY, is_dark=True)
    assert not [item for item in walk(page) if type(item).__name__ == "Graph"]
    assert any("nothing has been ingested" in text for text in texts(page))


def test_a_store_in_which_all_was_rejected_has_no_empty_plots() -> None:
    facts = dataclasses.replace(EMPTY, outcomes=EMPTY.outcomes | {"rejected": 2}, refusals=(("rejected", "empty", 2),))
    page = make_overview(facts, is_dark=False)
    assert not [item for item in walk(page) if type(item).__name__ == "Graph"]
    assert [row[2] for row in rows(by_id(page, "overview-classes"))] == ["2"]


def test_many_formats_and_classes_stay_a_page() -> None:
    facts = dataclasses.replace(
        EMPTY, recordings=100,
        formats=tuple(("con\ntainer", f"codec{n:02d}", 100 - n, 3600.0) for n in range(50)),
        refusals=tuple(("failed", f"Class{n}", 1) for n in range(100)),
    )  # fmt: skip
    facts = dataclasses.replace(facts, outcomes=facts.outcomes | {"failed": 12_000})
    page = make_overview(facts, is_dark=False)
    assert texts(by_id(page, "overview-outcomes"))[-1] == "12\u202f000"
    formats = rows(by_id(page, "overview-formats"))
    assert len(formats) == 8
    assert formats[0][0] == "con\\ntainer / codec00"
    assert formats[-1] == ["43 others", "3\u202f096", "43"]
    assert rows(by_id(page, "overview-classes"))[-1][:3] == ["60 other classes", "", "60"]


@pytest.mark.parametrize("is_dark", [False, True])
def test_figures_can_be_read_on_either_page(is_dark: bool) -> None:
    for figure in (
        draw_bars(["2024-03", "2024-04"], [1, 2], is_dark=is_dark, x_title="x", y_title="y", unit="u"),
        draw_parts(["a", "b"], [1, 2], is_dark=is_dark, x_title="x", unit="u"),
    ):
        layout = figure.to_plotly_json()["layout"]
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        page = (0x24, 0x24, 0x24) if is_dark else (255, 255, 255)
        assert contrast(rgb(layout["font"]["color"]), page) > 7
        assert contrast(rgb(figure.data[0].marker.color), page) > 3
        # A template of Plotly's own is ten times what the rest of such a figure is.
        assert len(figure.to_json()) < 3000


def test_labels_that_look_like_dates_stay_labels() -> None:
    labels = [f"2024-{n:02d}" for n in range(1, 13)] + ["2024-01"]
    figure = draw_bars(labels, list(range(13)), is_dark=False, x_title="", y_title="", unit="")
    assert list(figure.data[0].x) == list(range(13))
    assert len(figure.layout.xaxis.ticktext) <= 9


def test_nothing_of_a_figure_leads_to_other_servers() -> None:
    assert GRAPH_CONFIG["displaylogo"] is False
    assert not GRAPH_CONFIG["plotlyServerURL"]
    assert apply_theme(draw_parts([], [], is_dark=False, x_title="", unit=""), True).layout.font.color == "#dee2e6"


def test_facts_are_read_once_in_a_while(filled: Store, dsn: str) -> None:
    explorer = Explorer(Settings(), open_store(dsn))
    kept = FactsOfStores(kept_s=60)
    first = kept.read(explorer)
    assert kept.read(explorer) is first
    at_once = FactsOfStores(kept_s=0)
    assert at_once.read(explorer) is not at_once.read(explorer)


def test_all_who_wait_for_a_failure_wait_once() -> None:
    explorer = Explorer(Settings(), open_store("postgresql://someone@127.0.0.1:9/features"))
    kept = FactsOfStores()
    everybody = threading.Barrier(4)
    reads: list[int] = []

    def fail(_self: Explorer, _work: object) -> StoreFacts:
        reads.append(1)
        time.sleep(0.5)
        raise ServiceError("The database cannot be reached.")

    def look(_number: int) -> str:
        everybody.wait()
        with pytest.raises(ServiceError) as found:
            kept.read(explorer)
        return str(found.value)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(Explorer, "read", fail)
        assert set(pool.map(look, range(4))) == {"The database cannot be reached."}
        assert len(reads) == 1
        # Who comes later asks anew: it may be back.
        with pytest.raises(ServiceError):
            kept.read(explorer)
        assert len(reads) == 2


def test_bins_have_no_gaps() -> None:
    assert fill_bins({3: 1, 6: 2}) == ((3, 1), (4, 0), (5, 0), (6, 2))
    assert fill_bins({}) == ()


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[at : at + 2], 16) for at in (1, 3, 5))


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """As WCAG defines it."""

    def luminance(color: tuple[int, ...]) -> Any:
        parts = np.array(color) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return float((bright + 0.05) / (dark + 0.05))
