"""What a window costs the server: the chunks it opens, however many there are."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from psycopg import ClientCursor

from spectralize import open_store
from spectralize.database import connect
from spectralize.reader import frames
from spectralize.reader.frames import Window
from spectralize.reader.spectrograms import Spectrogram
from tests.spectralize.reader.conftest import bucket_of
from tests.store import Store, wav

#: One recording a year, from long before there were computers.
YEARS = range(1971, 2026)


@pytest.fixture(scope="module")
def decades(dsn: str, aws: None) -> "Store":
    pattern = r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})"
    with bucket_of(dsn, "decades", time_patterns=(pattern,)) as store:
        for year in YEARS:
            store.put(f"{year}-06-15.wav", wav(1.5, seed=year % 7))
        # Across the edge of a chunk: they begin on Thursdays, at midnight UTC.
        store.put("1999-12-29.wav", wav(2.0))
        store.ingest()
        yield store


def chunks_of(connection: object, windows: list[Window]) -> set[str]:
    """The chunks in the plan of the statement that reads these windows."""
    copy, values = frames.statement("mel_frames", windows)
    query = copy.removeprefix("COPY (").removesuffix(") TO STDOUT (FORMAT binary)")
    assert query != copy
    with ClientCursor(connection) as cursor:  # type: ignore[arg-type]
        [(plan,)] = cursor.execute(f"EXPLAIN (FORMAT JSON) {query}", values).fetchall()
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "Relation Name" in node:
                found.add(node["Relation Name"])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(plan)
    return found - {"mel_frames"}


def test_a_window_opens_the_chunks_that_hold_it_and_no_other(decades: Store) -> None:
    [(n_chunks,)] = decades.rows("SELECT count(*) FROM show_chunks('spectralize.mel_frames')")
    assert n_chunks >= len(YEARS)
    with open_store(decades.dsn) as reader, connect(decades.dsn, autocommit=True, read_only=True) as connection:
        for recording in reader.recordings():
            spectrogram = recording.spectrogram()
            assert len(chunks_of(connection, [Window(spectrogram, 3, 40)])) == 1
        pair = [Window(reader.recording(f"{year}-06-15.wav").spectrogram(), 0, 10) for year in (1980, 2020)]
        assert len(chunks_of(connection, pair)) == 2


def test_a_window_across_the_edge_of_two_chunks_opens_both(decades: Store) -> None:
    with open_store(decades.dsn) as reader, connect(decades.dsn) as connection:
        recording = reader.recording("1999-12-29.wav")
        [(edge,)] = connection.execute(
            "SELECT range_end FROM timescaledb_information.chunks WHERE hypertable_name = 'mel_frames' "
            "AND range_start <= '1999-12-29Z' AND range_end > '1999-12-29Z'"
        ).fetchall()
        # The same frames, as if recorded a second before the edge.
        moved = Spectrogram(**{
            name: getattr(recording.spectrogram(), name) for name in Spectrogram.__slots__
        } | {"recorded_at": edge - timedelta(seconds=1)})  # fmt: skip
        connection.execute(
            "UPDATE spectralize.spectrograms SET recorded_at = %s WHERE spectrogram_id = %s",
            (moved.recorded_at, moved.spectrogram_id),
        )
        rows = connection.execute(
            "DELETE FROM spectralize.mel_frames WHERE spectrogram_id = %s RETURNING frame_index, mel",
            (moved.spectrogram_id,),
        ).fetchall()
        for index, mel in rows:
            connection.execute(
                "INSERT INTO spectralize.mel_frames VALUES (%s, %s, %s, %s)",
                (moved.frame_at(index), moved.spectrogram_id, index, mel),
            )
        window = Window(moved, 0, moved.n_frames)
        assert len(chunks_of(connection, [window])) == 2
        expected = np.array(
            [[float(cell) for cell in mel.strip("[]").split(",")] for _, mel in sorted(rows)], dtype=np.float32
        )
        np.testing.assert_array_equal(frames.read_mel(connection, window), expected)
        connection.rollback()


def test_long_recordings_come_in_blocks(decades: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(decades.dsn) as reader:
        recording = reader.recording("1999-12-29.wav")
        mel, wave, seconds = recording.mel(), recording.waveform(), recording.seconds()
        monkeypatch.setattr(frames, "_BLOCK_ROWS", 10)
        monkeypatch.setattr(frames, "_UNITED", 2)
        assert recording.mel().identical(mel)
        assert recording.waveform().identical(wave)
        assert recording.seconds().identical(seconds)
        many = reader.mel_windows([recording] * 7, [0.1 * number for number in range(7)], 0.5)
        for number in range(7):
            np.testing.assert_array_equal(many[number], recording.mel(0.1 * number)[:21])


def test_recordings_at_the_ends_of_the_calendar(decades: Store) -> None:
    with open_store(decades.dsn) as reader:
        oldest = reader.recordings(recorded_to="1972-01-01").first()
        assert oldest is not None
        assert oldest.mel()["time_at"].values[0] == np.datetime64("1971-06-15T00:00:00", "ns")
        assert oldest.recorded_at == datetime(1971, 6, 15, tzinfo=UTC)
