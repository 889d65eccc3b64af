"""The figures, from measurements made up for it."""

import pytest

from bench.figures import TARGETS, speed_figures
from bench.measurement import Measurement


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
