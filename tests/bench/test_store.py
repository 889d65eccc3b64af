"""A tiny synthetic store on the session's server: it is a store like any other, and the bench sees what is wrong with one."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

from bench import store as part
from bench.job import Services
from bench.measurement import BenchError
from bench.plans import explain_windows, query_of, require_few_chunks, window_of
from bench.reading import (
    ByHand,
    ByText,
    Excerpt,
    by_reader,
    check_windows,
    choose_excerpts,
    time_whole,
    time_windows,
)
from bench.synthetic import BULK_DAY, Take, fill_store, plan_bulk, plan_dated
from bench.training import BATCH, Readers, Shelf, open_shelf, write_npy
from local.stack import Stack
from spectralize import open_store
from spectralize.database import connect
from spectralize.reader import Recording
from spectralize.reader import Store as Reader
from spectralize.s3 import open_s3
from spectralize.verify import verify_store

DURATION_S = 14.3
#: Chunks of 7 days begin on Thursdays, as 1970 did.
BOUNDARY = datetime(2010, 1, 7, tzinfo=UTC)
#: Half of it lies in either chunk.
ACROSS = Take("across.wav", BOUNDARY - timedelta(seconds=7), True, DURATION_S, 3)
TAKES = [
    *plan_dated(6, start=datetime(2009, 1, 1, tzinfo=UTC), span_s=300 * 86_400.0, duration_s=DURATION_S),
    *plan_bulk(3, duration_s=DURATION_S),
    ACROSS,
]


@pytest.fixture(scope="module")
def synthetic(dsn: str) -> str:
    loaded: list[int] = []
    fill_store(dsn, TAKES, advance=loaded.append, n_loaders=0)
    assert sum(loaded) == sum(take.n_frames for take in TAKES)
    return dsn


@pytest.fixture
def reader(synthetic: str) -> Iterator[Reader]:
    with open_store(synthetic) as reader:
        yield reader


def test_it_is_a_store_like_any_other(synthetic: str, reader: Reader) -> None:
    with connect(synthetic) as connection:
        assert [finding for finding in verify_store(connection) if finding.n_breaches] == []
    found = {recording.key: recording for recording in reader.recordings()}
    assert found.keys() == {take.key for take in TAKES}
    for take in TAKES:
        mel = found[take.key].mel()
        np.testing.assert_array_equal(mel.values, take.mel().astype(np.float32))
        assert mel.attrs["peak_db"] == mel.values.max()
        assert found[take.key].recorded_at == take.recorded_at
    assert [found[take.key].spectrogram().recorded_at_origin for take in (TAKES[0], TAKES[6])] == [
        "key",
        "last_modified",
    ]


def test_recordings_differ() -> None:
    mels = [take.mel().tobytes() for take in TAKES]
    # 6 dated ones, and 3 that hold what the first dated ones hold, as ACROSS does what the fourth.
    assert len(set(mels)) == 6


def test_plans_keep_to_their_span() -> None:
    start = datetime(2004, 1, 1, tzinfo=UTC)
    dated = plan_dated(500, start=start, span_s=730 * 86_400.0, duration_s=180.0)
    assert len({take.key for take in dated}) == 500
    assert dated[0].recorded_at >= start
    assert dated[-1].recorded_at < start + timedelta(days=730)
    assert len({take.recorded_at.date().isocalendar()[:2] for take in dated}) == 105
    bulk = plan_bulk(500, duration_s=180.0)
    assert all(BULK_DAY <= take.recorded_at < BULK_DAY + timedelta(days=1, seconds=-180) for take in bulk)
    assert dated[0].n_frames == 7752


def test_a_window_opens_the_chunks_that_hold_it(synthetic: str, reader: Reader) -> None:
    recording = reader.recording(ACROSS.key)
    with connect(synthetic) as connection:
        before, across, after = (
            explain_windows(connection, [window_of(recording, start_s, start_s + 3)]) for start_s in (0.0, 5.0, 9.0)
        )
        assert len(before.chunks) == len(after.chunks) == 1
        assert set(across.chunks) == {*before.chunks, *after.chunks}
        assert len(across.chunks) == 2
        assert across.planning_ms > 0
        plans = require_few_chunks(connection, [window_of(recording, 0, 3), window_of(recording, 5, 8)])
        assert [len(plan.chunks) for plan in plans] == [1, 2]
        both = explain_windows(
            connection, [window_of(recording, 5, 8), window_of(reader.recording(TAKES[0].key), 5, 8)]
        )
        assert len(both.chunks) == 3


def test_a_window_that_opens_more_chunks_is_an_error(
    synthetic: str, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = window_of(reader.recording(ACROSS.key), 0, 3)
    without = "SELECT frame_index, mel FROM spectralize.mel_frames WHERE spectrogram_id = %s ORDER BY frame_time"
    monkeypatch.setattr("bench.plans.query_of", lambda windows: (without, [1]))
    with (
        connect(synthetic) as connection,
        pytest.raises(BenchError, match=r"opens 9 chunks, not one or two: _hyper_"),
    ):
        require_few_chunks(connection, [window])


def test_what_is_explained_is_what_the_reader_sends(synthetic: str, reader: Reader) -> None:
    recording = reader.recording(ACROSS.key)
    recording.mel(2.0, 5.0)
    pid = reader.session.run(lambda connection: connection.info.backend_pid)
    with connect(synthetic) as connection:
        [(sent,)] = connection.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall()
        explained = psycopg.ClientCursor(connection).mogrify(*query_of([window_of(recording, 2.0, 5.0)]))
        assert explained.startswith("((SELECT ")
        assert sent == f"COPY {explained} TO STDOUT (FORMAT binary)"


def pairs(reader: Reader) -> list[tuple[Recording, Take]]:
    found = {recording.key: recording for recording in reader.recordings()}
    return [(found[take.key], take) for take in TAKES]


def test_every_contender_returns_what_was_stored(synthetic: str, reader: Reader) -> None:
    excerpts = choose_excerpts(pairs(reader), 12, seed=1)
    assert len({excerpt.recording.id for excerpt in excerpts}) == len(TAKES)
    with connect(synthetic, autocommit=True) as connection:
        by_hand, by_text = ByHand(connection), ByText(connection)
        for excerpt in excerpts:
            by_hand.prepare(excerpt)
        contenders = {
            "reader": (by_reader, excerpts),
            "sql": (by_hand.read, excerpts),
            "text": (by_text.read, excerpts[:4]),
        }
        check_windows(contenders)
        assert {name: value > 0 for name, value in time_windows(contenders).items()} == dict.fromkeys(contenders, True)


def test_a_contender_that_returns_something_else_is_an_error(reader: Reader) -> None:
    [excerpt] = choose_excerpts(pairs(reader), 1, seed=1)
    late = replace(excerpt, start_s=excerpt.start_s - 0.1)

    def read_late(_: Excerpt) -> np.ndarray:
        return by_reader(late)

    with pytest.raises(BenchError, match=r"late: .* is not what was stored"):
        check_windows({"late": (read_late, [excerpt])})


def test_two_processes_read_random_windows(synthetic: str, reader: Reader, tmp_path: Path) -> None:
    recordings = [recording for recording, _ in pairs(reader)]
    npy = write_npy(recordings, tmp_path)
    assert time_whole(recordings, npy).keys() == {"reader", "npy"}
    shelf = Shelf(synthetic, tuple(recording.key for recording in recordings), npy)
    store, opened = open_shelf(shelf)
    assert [recording.key for recording in opened] == list(shelf.keys)
    store.close()
    with Readers({name: (name, shelf) for name in ("batches", "npy", "singles")}) as readers:
        rates = {name: readers.turn(name, 0.1) for name in readers.names}
    # At least one step each within the turn and what it overran.
    assert all(rate > BATCH / 10 for rate in rates.values()), rates


def test_extents_tell_the_bulk_upload_from_the_rest(synthetic: str) -> None:
    dated, bulk = [take for take in TAKES if take.is_dated], [take for take in TAKES if not take.is_dated]
    parts = [
        part.Part(name, synthetic, takes) for name, takes in (("small", TAKES), ("decades", dated), ("bulk", bulk))
    ]
    extents = part._extents(parts)
    assert extents["bulk"].n_chunks == 1
    # Six weeks of dated keys, and the two of the one that lies across.
    assert extents["decades"].n_chunks == 8
    assert extents["large"].n_chunks == extents["small"].n_chunks == 9
    assert extents["large"].n_frames == sum(take.n_frames for take in TAKES)
    # Rows with their headers and the index cost a third beyond the values; an almost empty chunk costs more.
    assert 1.3 < extents["bulk"].disk_vs_half < extents["decades"].disk_vs_half < 3


def test_without_room_on_the_disk_the_part_is_left_out_with_a_reason(stack: Stack, aws: None) -> None:
    services = Services(stack, open_s3())
    assert part.find_lack_of_disk(services, 1) is None
    lack = part.find_lack_of_disk(services, 10**12)
    assert lack is not None
    assert lack.startswith("it needs 666667 GB of free disk, and there are ")
