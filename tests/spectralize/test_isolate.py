"""Extraction in a process of its own: what a decoder may do to it, and what that costs."""

import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from spectralize import isolate, tags
from spectralize.objectfile import ObjectFile
from spectralize.tables import Limits
from tests.store import Store, encode, make_samples, wav

REPOSITORY = Path(__file__).parents[2]
BAD = wav(1.5, seed=7)


@pytest.fixture
def store_of_three(store: Store) -> Store:
    """A bad object between two good ones."""
    store.put("a.wav", wav(1.0, seed=1))
    store.put("b.wav", BAD)
    store.put("c.wav", wav(1.0, seed=3))
    return store


def hook(monkeypatch: pytest.MonkeyPatch, on_bad: Callable[[], None]) -> None:
    """Have the extraction of the bad object do something else first; the forked process has the hook too."""
    real = isolate.extract

    def hooked(file: ObjectFile, *arguments: Any, **options: Any) -> object:
        if file.size_bytes == len(BAD):
            # pytest's report of a crash would fill the log with what is meant to happen.
            faulthandler.disable()
            on_bad()
        return real(file, *arguments, **options)

    monkeypatch.setattr(isolate, "extract", hooked)


def hang_in_c() -> None:
    # The C library's own sleep, with the interpreter's lock held: no signal handler of Python's could run.
    ctypes.PyDLL(None).sleep(600)


def take_memory() -> None:
    np.ones(1 << 40, dtype=np.uint8)


@pytest.mark.parametrize(
    ("on_bad", "reason_class", "reason"),
    [
        (lambda: ctypes.string_at(0), "crashed", "the decoder crashed: SIGSEGV"),
        (os.abort, "crashed", "the decoder crashed: SIGABRT"),
        (hang_in_c, "timed_out", "not decoded within 1 s, the most this source allows"),
        (lambda: time.sleep(600), "timed_out", "not decoded within 1 s, the most this source allows"),
        (take_memory, "too_much_memory", "needs more than 1024 MB of memory"),
    ],
    ids=["segfault", "abort", "hang", "sleep", "memory"],
)
def test_what_a_decoder_does_costs_one_object(
    store_of_three: Store,
    monkeypatch: pytest.MonkeyPatch,
    on_bad: Callable[[], None],
    reason_class: str,
    reason: str,
) -> None:
    store = store_of_three
    store.source = store.source.model_copy(update={"max_decode_s": 1.0})
    hook(monkeypatch, on_bad)
    batch = store.ingest()
    assert store.outcomes(batch) == {
        "a.wav": ("loaded", None), "b.wav": ("rejected", reason_class), "c.wav": ("loaded", None)
    }  # fmt: skip
    assert store.rows("SELECT reason FROM spectralize.batch_objects WHERE reason_class = %s", reason_class)[-1] == (
        reason,
    )
    assert store.breaches() == {}
    # Final: the next run does not try again.
    assert store.ingest().counts.unchanged == 3


def test_a_kill_from_outside_is_not_the_objects_fault(store_of_three: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of_three
    store.source = store.source.model_copy(update={"max_failed": 1})
    hook(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert store.outcomes(store.ingest()) == {
        "a.wav": ("loaded", None), "b.wav": ("failed", "killed"), "c.wav": ("loaded", None)
    }  # fmt: skip


def test_a_kill_in_the_middle_of_a_message_is_noticed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Connection.send

    def send_half(self: Connection, event: object) -> None:
        if isinstance(event, isolate.Done):
            # The length of a message, and less than that of it.
            os.write(self.fileno(), (1000).to_bytes(4, "big") + b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, event)

    monkeypatch.setattr(Connection, "send", send_half)
    store.put("a.wav", wav())
    store.source = store.source.model_copy(update={"max_failed": 1})
    assert store.outcomes(store.ingest()) == {"a.wav": ("failed", "killed")}


def test_a_crash_that_does_not_come_again_costs_nothing(
    store_of_three: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def crash_once() -> None:
        if not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").touch()
            os.abort()

    hook(monkeypatch, crash_once)
    assert set(store_of_three.outcomes(store_of_three.ingest()).values()) == {("loaded", None)}


def test_a_crash_in_the_middle_of_a_long_recording_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "PART_BYTES", 50_000)
    real = isolate._Extractor._emit
    n_parts = 0

    def emit(self: isolate._Extractor, *arguments: Any) -> None:
        nonlocal n_parts
        real(self, *arguments)
        n_parts += not self._rows
        if n_parts == 3:
            faulthandler.disable()
            os.abort()

    monkeypatch.setattr(isolate._Extractor, "_emit", emit)
    store.put("long.wav", wav(120.0))
    batch = store.ingest()
    assert store.outcomes(batch) == {"long.wav": ("rejected", "crashed")}
    for table in ("recordings", "spectrograms"):
        assert store.rows(f"SELECT count(*) FROM spectralize.{table} WHERE batch_id = %s", batch.batch_id) == [(0,)]
    assert store.breaches() == {}


def test_waiting_does_not_count(store_of_three: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 may be slower than the time that an object may take to decode."""
    store = store_of_three
    store.source = store.source.model_copy(update={"max_decode_s": 0.5})
    real = isolate.ObjectFile._receive

    def slow(self: ObjectFile, index: int) -> bytes:
        with self._wait():
            time.sleep(0.8)
        return real(self, index)

    monkeypatch.setattr(isolate.ObjectFile, "_receive", slow)
    assert set(store.outcomes(store.ingest()).values()) == {("loaded", None)}


def test_tags_that_take_too_long_are_left_out(store_of_three: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "_TAGS_S", 0.2)
    real = tags.TinyTag.get

    def slow(**options: Any) -> Any:
        if options["file_obj"].size_bytes == len(BAD):
            while True:
                sum(range(1000))
        return real(**options)

    monkeypatch.setattr(tags.TinyTag, "get", slow)
    store = store_of_three
    assert set(store.outcomes(store.ingest()).values()) == {("loaded", None)}
    durations = store.rows(
        "SELECT key, duration FROM spectralize.recordings JOIN spectralize.objects USING (object_id) WHERE bucket = %s "
        "ORDER BY key",
        store.source.bucket,
    )
    assert durations == [("a.wav", 1.0), ("b.wav", None), ("c.wav", 1.0)]


def test_no_extracting_process_outlives_its_executor(tmp_path: Path) -> None:
    script = """
import ctypes, sys, time
from datetime import UTC, datetime
from spectralize import isolate
from spectralize.profiles import find_profile
from spectralize.tables import Limits, PlannedObject, PlannedProfile
isolate.open_objects = lambda *a, **k: print("begun", flush=True) or ctypes.PyDLL(None).sleep(600)
planned = PlannedObject(1, "b", "k", "e", 9, datetime.now(UTC), "key", None, (PlannedProfile(1, "mel128_22k"),))
job = isolate.Job(None, {"mel128_22k": find_profile("mel128_22k")}, Limits(1 << 30, 60.0))
list(isolate.extract_isolated([planned], job))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    [child] = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    child.wait(timeout=10)


def test_limits_have_defaults_that_older_manifests_lack() -> None:
    assert Limits(1, 2.0) == Limits(max_object_bytes=1, max_duration_s=2.0, max_channels=64, max_decode_s=3600.0)


def test_too_many_channels_are_rejected(store: Store) -> None:
    store.source = store.source.model_copy(update={"max_channels": 2})
    store.put("stereo.wav", encode(make_samples(0.5, channels=2)))
    store.put("surround.wav", encode(make_samples(0.5, channels=6)))
    assert store.outcomes(store.ingest()) == {
        "stereo.wav": ("loaded", None), "surround.wav": ("rejected", "too_many_channels")
    }  # fmt: skip
