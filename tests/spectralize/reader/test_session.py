"""Forks, threads, pickles, and databases that go away and come back."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from spectralize.errors import ConfigError, ServiceError
from spectralize.reader import Recording
from spectralize.reader import Store as Reader
from tests.store import Store

KEY = "music/sub/tone.wav"


def backends(filled: Store) -> set[int]:
    """Server processes that readers of this test's database have."""
    return {
        pid for (pid,) in filled.rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'spectralize reader'"
        )
    }  # fmt: skip


def read_sum(recording: Recording, start_s: float) -> tuple[int, float]:
    """What a data loader's worker does with a recording it has inherited, or was sent."""
    return os.getpid(), float(recording.mel(start_s, start_s + 0.5, "mel128_22k").values.sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_recordings_travel_to_other_processes(reader: Reader, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = reader.recording(KEY)
    starts = [0.1 * number for number in range(20)]
    expected = [float(recording.mel(start, start + 0.5, "mel128_22k").values.sum()) for start in starts]
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2 if method == "fork" else 1, mp_context=context) as pool:
        found = list(pool.map(read_sum, [recording] * len(starts), starts))
    assert [total for _, total in found] == expected
    assert os.getpid() not in {pid for pid, _ in found}
    # The parent's own connection has survived its children.
    assert read_sum(recording, 0.0)[1] == expected[0]


def test_a_fork_in_mid_use_leaves_the_parents_connection_alone(reader: Reader, filled: Store) -> None:
    recording = reader.recording(KEY)
    before = backends(filled)
    assert len(before) == 1
    child = os.fork()
    if not child:
        # All of it in the child: reading, dropping what was inherited, closing the store, ending as programs end.
        try:
            is_well = len(recording.mel(0, 1, "mel128_22k")) == 44 and len(reader.recordings(key_prefix=KEY)) == 1
            reader.close()
            del recording
        finally:
            os._exit(0 if is_well else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(recording.mel(0, 1, "mel128_22k")) == 44
    assert backends(filled) == before


def test_a_child_that_ends_normally_does_not_end_the_parents_connection(filled: Store) -> None:
    code = (
        "import os, sys; from spectralize import open_store; store = open_store(sys.argv[1]); r = store.recording(sys.argv[2])\n"
        "if not (pid := os.fork()): r.mel(0, 1, 'mel128_22k'); sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0; print(len(r.mel(0, 1, 'mel128_22k')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, filled.dsn, KEY],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("44\n", "")


def test_each_thread_has_a_connection_and_gives_it_back(reader: Reader, filled: Store) -> None:
    recording = reader.recording(KEY)
    barrier = threading.Barrier(4)

    def read(number: int) -> np.ndarray:
        barrier.wait(timeout=30)
        window: np.ndarray = recording.mel(0.1 * number, 0.1 * number + 1, "mel128_22k").values
        barrier.wait(timeout=30)
        assert len(backends(filled)) >= 4 if number == 0 else True
        return window

    with ThreadPoolExecutor(4) as pool:
        windows = list(pool.map(read, range(4)))
    for number, window in enumerate(windows):
        np.testing.assert_array_equal(window, recording.mel(0.1 * number, 0.1 * number + 1, "mel128_22k").values)
    deadline = time.monotonic() + 10
    while len(backends(filled)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(backends(filled)) == 1
    reader.close()
    deadline = time.monotonic() + 10
    while backends(filled) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not backends(filled)
    # Closing is no end: the next read opens again.
    assert len(recording.mel(0, 1, "mel128_22k")) == 44


def test_a_connection_that_broke_meanwhile_is_opened_anew(reader: Reader, filled: Store) -> None:
    recording = reader.recording(KEY)
    expected = recording.mel(0, 1, "mel128_22k")
    [pid] = backends(filled)
    filled.rows("SELECT pg_terminate_backend(%s)", pid)
    assert recording.mel(0, 1, "mel128_22k").identical(expected)
    assert backends(filled) != {pid}


def test_a_connection_that_breaks_in_mid_read_is_one_line_or_a_whole_answer(reader: Reader, filled: Store) -> None:
    recording = reader.recording(KEY)
    whole = recording.mel(profile="mel128_22k")
    is_over = threading.Event()

    def terminate() -> None:
        with psycopg.connect(filled.dsn, autocommit=True) as connection:
            while not is_over.wait(0.003):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'spectralize reader' "
                    "AND datname = current_database()"
                )

    thread = threading.Thread(target=terminate)
    thread.start()
    outcomes = {"whole": 0, "error": 0, "lines": 0}
    try:
        for _ in range(60):
            try:
                assert recording.mel(profile="mel128_22k").identical(whole)
                outcomes["whole"] += 1
            except ServiceError as error:
                outcomes["error" if "\n" not in str(error) else "lines"] += 1
    finally:
        is_over.set()
        thread.join()
    assert outcomes["whole"] + outcomes["error"] == 60
    assert recording.mel(profile="mel128_22k").identical(whole)


def test_a_reader_changes_nothing(reader: Reader, filled: Store) -> None:
    with pytest.raises(ConfigError, match="cannot execute DELETE in a read-only transaction"):
        reader.session.run(lambda connection: connection.execute("DELETE FROM spectralize.mel_frames"))


def test_a_store_is_pickled_without_its_connections(reader: Reader) -> None:
    recording = reader.recording(KEY)
    copy = pickle.loads(pickle.dumps(recording))
    assert copy == recording
    assert len(copy.mel(0, 1, "mel128_22k")) == 44


def test_an_interrupted_read_does_not_spoil_the_next(reader: Reader) -> None:
    recording = reader.recording(KEY)
    expected = recording.mel(profile="mel128_22k")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in (0.0005, 0.001, 0.002, 0.004) * 5:
            signal.setitimer(signal.ITIMER_REAL, delay)
            try:
                while True:
                    recording.mel(profile="mel128_22k")
            except KeyboardInterrupt:
                pass
            assert recording.mel(profile="mel128_22k").identical(expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
