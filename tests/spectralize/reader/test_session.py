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
from typing import Any
from urllib.parse import quote

import numpy as np
import psycopg
import pytest

from spectralize import open_store
from spectralize.errors import ConfigError, ReadError, ServiceError
from spectralize.migrations import migrate
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

    n_interrupted = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in (0.0005, 0.001, 0.002, 0.004) * 5:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                # Not for ever: Python passes over what is raised in a finalizer, or where the garbage collector calls back.
                until = time.monotonic() + 2
                while time.monotonic() < until:
                    recording.mel(profile="mel128_22k")
            except KeyboardInterrupt:
                n_interrupted += 1
            assert recording.mel(profile="mel128_22k").identical(expected)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert n_interrupted >= 18


def test_a_store_closed_while_others_read_waits_for_them(reader: Reader, filled: Store) -> None:
    recording = reader.recording(KEY)
    whole = recording.mel(profile="mel128_22k")
    is_over = threading.Event()

    def read() -> int:
        n = 0
        while not is_over.is_set():
            assert recording.mel(profile="mel128_22k").identical(whole)
            n += 1
        return n

    with ThreadPoolExecutor(3) as pool:
        reads = [pool.submit(read) for _ in range(3)]
        for number in range(300):
            reader.close()
            time.sleep(0.005 if number % 2 else 0.0005)
        is_over.set()
        assert all(found.result() for found in reads)
    reader.close()
    deadline = time.monotonic() + 10
    while backends(filled) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not backends(filled)


def test_a_fork_beside_threads_that_read(reader: Reader) -> None:
    recording = reader.recording(KEY)
    whole = recording.mel(profile="mel128_22k")
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            assert recording.mel(profile="mel128_22k").identical(whole)

    with ThreadPoolExecutor(2) as pool:
        reads = [pool.submit(read) for _ in range(2)]
        for _ in range(5):
            child = os.fork()
            if not child:
                is_well = False
                try:
                    with ThreadPoolExecutor(4) as threads:
                        parts = threads.map(lambda _: recording.mel(profile="mel128_22k").identical(whole), range(8))
                        is_well = all(parts)
                finally:
                    os._exit(0 if is_well else 1)
            assert os.waitpid(child, 0)[1] == 0
        is_over.set()
        for found in reads:
            found.result()


def test_options_in_the_address_count(filled: Store) -> None:
    options = quote("-c statement_timeout=7654 -c default_transaction_read_only=off")
    with open_store(f"{filled.dsn}?options={options}&connect_timeout=3") as store:
        [row] = store.session.run(
            lambda connection: connection.execute(
                "SELECT current_setting('statement_timeout'), current_setting('default_transaction_read_only'), "
                "current_setting('timezone')"
            ).fetchall()
        )
    assert row == ("7654ms", "on", "UTC")
    with (
        open_store(f"{filled.dsn}?connect_timeout=soon") as store,
        pytest.raises(ConfigError, match="bad value for connect_timeout: 'soon'"),
    ):
        store.recording(1)


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://u:pa@topsecret@127.0.0.1:9/d", "postgresql://u:to/psecret@127.0.0.1/d", "postgresql://u:topsecret@\ud800/d",
     5, b"postgresql://u:topsecret@127.0.0.1/d"],
    ids=["at", "slash", "surrogate", "int", "bytes"],
)  # fmt: skip
def test_an_address_that_would_show_its_password_is_refused(dsn: Any) -> None:
    with pytest.raises(ConfigError, match=r"a password with @, / or \? in it is written with %40") as raised:
        open_store(dsn).recording(1)
    assert "psecret" not in str(raised.value)


def test_a_recording_of_another_store_is_not_looked_for_by_its_number(reader: Reader, empty_dsn: str) -> None:
    recording = reader.recording(KEY)
    with open_store(empty_dsn) as other:
        migrate(empty_dsn)
        for use in (
            lambda: other.mel_windows([recording], [0.0], 0.5, "mel128_22k"),
            lambda: other.snapshot("of another", recordings=[recording]),
        ):
            with pytest.raises(ReadError, match=r"recording \d+ \(s3://.*tone.wav\) is of another store: spectralize@"):
                use()
        assert other.snapshots() == []
