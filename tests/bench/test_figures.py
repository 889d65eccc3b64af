"""The figures, from measurements made up for it."""

import pytest

from bench.figures import TARGETS, reading_figures, speed_figures
from bench.measurement import Measurement
from bench.reading import ReadingRound


def measured(
    contender: str, number: int, wall_s: float, *, corpus: str = "music", audio_s: float = 100.0
) -> Measurement:
    return Measurement(contender, corpus, number, wall_s, {"python": 2 * wall_s}, audio_s, 50, 0.0)


def test_a_figure_is_the_median_of_ratios_within_rounds() -> None:
    # The machine is three times as slow in the second round; the ratios are 1.2, 1.5 and 2.
    decode_s, job_s = [1.0, 3.0, 1.0], [1.2, 4.5, 2.0]
    figures = speed_figures(
        [measured("decode", number, wall_s) for number, wall_s in enumerate(decode_s)]
        + [measured("job", number, wall_s) for number, wall_s in enumerate(job_s)]
    )
    assert figures == {"job_vs_decode": pytest.approx(1.5)}


def test_a_pool_that_is_spared_files_is_compared_by_throughput() -> None:
    figures = speed_figures([measured("job", 0, 10.0), measured("librosa", 0, 10.0, audio_s=50.0)])
    assert figures == {"job_speedup_vs_pool": pytest.approx(2.0)}


def test_clips_are_counted_not_timed() -> None:
    assert speed_figures([measured("job", 0, 10.0, corpus="clips")]) == {"clips_per_s": pytest.approx(5.0)}


def test_without_the_job_its_figures_are_absent() -> None:
    figures = speed_figures([measured("decode", 0, 1.0), measured("core", 0, 1.3), measured("librosa", 0, 5.0)])
    assert figures == {"core_vs_decode_cpu": pytest.approx(1.3)}


@pytest.mark.parametrize(("name", "met", "missed"), [("job_vs_decode", 1.7, 1.71), ("clips_per_s", 150.0, 149.0)])
def test_targets_know_their_side(name: str, met: float, missed: float) -> None:
    assert TARGETS[name].is_met(met)
    assert not TARGETS[name].is_met(missed)


def reading(reader_ms: float, **changes: float) -> ReadingRound:
    values = {
        "sql": 1.0,
        "decades": 1.0,
        "bulk": 1.0,
        "whole_s": 0.01,
        "reader_per_s": 30.0,
        "npy_per_s": 100.0,
    } | changes
    return ReadingRound(
        audio_s=180.0,
        window_ms={"reader": reader_ms, **{name: values[name] for name in ("sql", "decades", "bulk")}},
        whole_s={"reader": values["whole_s"], "npy": 0.001},
        windows_per_s={"reader": values["reader_per_s"], "npy": values["npy_per_s"]},
    )


def test_reading_is_compared_within_rounds() -> None:
    # The machine is ten times as slow in the second round.
    rounds = [
        reading(2.0, sql=1.0, whole_s=0.02, reader_per_s=40.0),
        reading(20.0, sql=12.5, whole_s=0.2, reader_per_s=3.0, npy_per_s=10.0),
        reading(2.1, sql=1.5, whole_s=0.03, reader_per_s=20.0),
    ]
    figures = reading_figures(rounds)
    assert figures["window_median_ms"] == pytest.approx(2.1)
    assert figures["window_vs_sql"] == pytest.approx(1.6)
    assert figures["recording_x_realtime"] == pytest.approx(6000.0)
    assert figures["windows_vs_reopened_npy"] == pytest.approx(0.3)


@pytest.mark.parametrize(("decades", "bulk"), [(2.2, 3.0), (3.0, 2.2)])
def test_the_slower_half_of_the_large_store_counts(decades: float, bulk: float) -> None:
    figures = reading_figures([reading(2.0, decades=decades, bulk=bulk)] * 3)
    assert figures["window_large_vs_small"] == pytest.approx(1.5)


def test_every_figure_of_reading_has_its_target() -> None:
    of_store = {name for name, target in TARGETS.items() if target.part == "store"}
    assert of_store == {*reading_figures([reading(1.0)]), "disk_vs_half"}
    met = {
        "window_median_ms": 4.0, "window_vs_sql": 1.5, "window_large_vs_small": 1.3, "recording_x_realtime": 3000.0,
        "windows_vs_reopened_npy": 0.3, "disk_vs_half": 1.4,
    }  # fmt: skip
    assert all(TARGETS[name].is_met(value) for name, value in met.items())
    missed = {name: value * (1.01 if TARGETS[name].is_upper else 0.99) for name, value in met.items()}
    assert not any(TARGETS[name].is_met(value) for name, value in missed.items())
