"""The processes that the contenders run in."""

import time
from pathlib import Path

import pytest

from bench.corpus import AudioFile, Corpus
from bench.measurement import BenchError
from bench.pool import ProcessPool

HERE = Path(__file__)


def spin(_: Path) -> None:
    """Compute for a fifth of a second of processor time."""
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass


def rest(_: Path) -> None:
    time.sleep(0.2)


def fail(_: Path) -> None:
    raise ValueError("as a broken peer does")


def test_processor_time_is_that_of_the_files_and_nothing_else() -> None:
    corpus = Corpus("music", (AudioFile(HERE, 10.0),) * 4)
    with ProcessPool([rest], HERE) as pool:
        busy, idle = pool.measure("busy", spin, corpus, 3), pool.measure("idle", rest, corpus, 3)
    assert busy.all_cpu_s == pytest.approx(0.8, rel=0.2)
    assert idle.all_cpu_s < 0.05
    # Two processes, two files each.
    assert 0.4 <= idle.wall_s < 0.75
    assert (busy.contender, busy.round, busy.n_files, busy.audio_s) == ("busy", 3, 4, 40.0)


def test_a_contender_that_fails_ends_the_bench() -> None:
    with pytest.raises(BenchError, match=r"test_pool\.py"):
        ProcessPool([fail], HERE)
