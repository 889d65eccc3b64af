"""Windows of recordings as no file makes them: any profile, a day long, and with rows that are missing, doubled or wrong."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import librosa
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectralize import open_store
from spectralize.database import connect
from spectralize.errors import ReadError
from spectralize.reader import Store as Reader
from spectralize.reader import frames as reading
from tests.spectralize.reader.rows import RECORDED_AT, frames, make_profile, write_recording

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


@pytest.fixture
def reader(dsn: str) -> Iterator[Reader]:
    with open_store(dsn) as reader:
        yield reader


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sr=st.integers(1_000, 400_000), hop=st.integers(1, 5_000), n_mels=st.sampled_from([1, 2, 80, 1_024]),
    n_hops=st.floats(0.001, 60), data=st.data(),
)  # fmt: skip
def test_a_window_of_any_profile_is_a_slice_of_the_whole(
    connection: Connection, reader: Reader, sr: int, hop: int, n_mels: int, n_hops: float, data: st.DataObject
) -> None:
    profile = make_profile(sr=sr, hop_length=hop, n_mels=n_mels, waveform="off")
    recording = reader.recording(write_recording(connection, profile, n_samples=max(1, round(n_hops * hop))))
    whole = recording.mel()
    n_frames = len(whole)
    np.testing.assert_array_equal(whole, frames(0, n_frames, n_mels))
    times = whole["time_s"].values
    for _ in range(4):
        # Exactly at a frame, one ulp beside it, or anywhere.
        near = data.draw(st.sampled_from([*times.tolist(), float(data.draw(st.floats(0, float(times[-1]))))]))
        start = max(0.0, data.draw(st.sampled_from([near, np.nextafter(near, -1), np.nextafter(near, 1e9)])))
        first = int(np.searchsorted(times, start - hop / sr * 1e-6))
        n_wanted = data.draw(st.integers(1, 2 * n_frames))
        duration = n_wanted * hop / sr
        if first + n_wanted <= n_frames:
            windows = reader.mel_windows([recording], [start], duration)
            np.testing.assert_array_equal(windows[0], whole[first : first + n_wanted])
            assert windows["start_s"].values[0] == times[first]
            assert windows["start_at"].values[0] == whole["time_at"].values[first]
        else:
            with pytest.raises(ReadError, match="or give fill_db"):
                reader.mel_windows([recording], [start], duration)
            filled = reader.mel_windows([recording], [start], duration, fill_db=-1.0)
            np.testing.assert_array_equal(filled[0, : n_frames - first], whole[first:])
            assert (filled.values[0, n_frames - first :] == -1.0).all()
        end = start + duration
        if end <= max(recording.duration_s or 0.0, n_frames * hop / sr):
            inside = (times >= start - hop / sr * 1e-6) & (times < end - hop / sr * 1e-6)
            assert recording.mel(start, end).equals(whole[inside])
    beyond = n_frames * hop / sr
    for start in (beyond, np.nextafter(beyond, 1e9), 1e308):
        with pytest.raises(ReadError, match=r"the recording lasts|nothing starts in it"):
            reader.mel_windows([recording], [start], hop / sr, fill_db=0.0)


def test_a_recording_of_hours_comes_in_blocks(connection: Connection, reader: Reader) -> None:
    profile = make_profile(sr=1_000, n_fft=64, win_length=64, hop_length=100, n_mels=4)
    recording = reader.recording(write_recording(connection, profile, n_samples=14_400_000))
    whole = recording.mel()
    assert whole.shape == (144_001, 4)
    np.testing.assert_array_equal(whole.values, frames(0, 144_001, 4))
    assert whole["time_at"].values[-1] == np.datetime64((RECORDED_AT + timedelta(hours=4)).replace(tzinfo=None), "ns")
    assert len(recording.waveform()["rms"]) == 144_000
    # Around the edge of a block.
    for first in (65_535, 65_536, 65_537, 144_000):
        window = recording.mel(first / 10, min((first + 2) / 10, 14_400.1))
        np.testing.assert_array_equal(window, frames(first, min(first + 2, 144_001), 4))


def test_long_windows_are_no_larger_on_their_way_than_a_block(
    connection: Connection, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = reader.recording(write_recording(connection, make_profile(waveform="pcm"), n_samples=16_000 * 60))
    expected = reader.mel_windows([recording] * 5, [0.0, 1.0, 2.0, 3.0, 4.0], 50.0)
    pcm = recording.pcm()
    sizes: list[int] = []
    real = reading.statement

    def noting(kind: reading.Kind, windows: Any) -> Any:
        sizes.append(sum(window.n_rows for window in windows))
        return real(kind, windows)

    monkeypatch.setattr(reading, "statement", noting)
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 16 * 1_000)
    assert reader.mel_windows([recording] * 5, [0.0, 1.0, 2.0, 3.0, 4.0], 50.0).identical(expected)
    assert max(sizes) <= 1_000
    assert recording.pcm().identical(pcm)
    with pytest.raises(ReadError, match=r"an array of 1 x \d+ x 4 float32 does not fit the memory"):
        reader.mel_windows([recording], [0.0], 1e15, fill_db=0.0)


BREAKS = {
    "one is missing": "DELETE FROM {table} WHERE spectrogram_id = %(id)s AND frame_index = 7",
    "the last is missing": "DELETE FROM {table} WHERE spectrogram_id = %(id)s AND frame_index = 99",
    "one is doubled": "INSERT INTO {table} SELECT * FROM {table} WHERE spectrogram_id = %(id)s AND frame_index = 7",
    "the last is doubled": "INSERT INTO {table} SELECT * FROM {table} WHERE spectrogram_id = %(id)s AND frame_index = 99",
    "one stands for another": "UPDATE {table} SET frame_index = 8 WHERE spectrogram_id = %(id)s AND frame_index = 7",
    "two are exchanged": "UPDATE {table} SET frame_index = 15 - frame_index WHERE spectrogram_id = %(id)s "
    "AND frame_index IN (7, 8)",
    "one is elsewhere": "UPDATE {table} SET frame_time = frame_time + interval '1 hour' WHERE spectrogram_id = %(id)s "
    "AND frame_index = 7",
}  # fmt: skip
BROKEN_MEL = {
    "one is longer": "UPDATE {table} SET mel = '[1,2,3,4,5]' WHERE spectrogram_id = %(id)s AND frame_index = 7",
    "one is shorter": "UPDATE {table} SET mel = '[1,2,3]' WHERE spectrogram_id = %(id)s AND frame_index = 99",
    "all are longer": "UPDATE {table} SET mel = '[1,2,3,4,5]' WHERE spectrogram_id = %(id)s",
    "one makes up for another": "UPDATE {table} SET mel = CASE frame_index WHEN 7 THEN '[1,2,3]' "
    "ELSE '[1,2,3,4,5]' END::halfvec WHERE spectrogram_id = %(id)s AND frame_index IN (7, 8)",
}  # fmt: skip
BROKEN_PCM = {
    "one has no samples": "UPDATE {table} SET pcm = NULL WHERE spectrogram_id = %(id)s AND frame_index = 7",
    "one has too few": "UPDATE {table} SET pcm = substr(pcm, 3) WHERE spectrogram_id = %(id)s AND frame_index = 7",
    "one makes up for another": "UPDATE {table} SET pcm = CASE frame_index WHEN 7 THEN substr(pcm, 3) "
    "ELSE pcm || '\\x0000'::bytea END WHERE spectrogram_id = %(id)s AND frame_index IN (7, 8)",
}  # fmt: skip


@pytest.mark.parametrize(
    ("table", "change"),
    [
        *(("mel_frames", change) for change in (BREAKS | BROKEN_MEL).values()),
        *(("waveform_frames", change) for change in (BREAKS | BROKEN_PCM).values()),
    ],
)
def test_rows_that_are_not_as_they_should_be_are_no_array(
    connection: Connection, reader: Reader, table: str, change: str
) -> None:
    # 100 hops and 100 frames: the last hop is a short one.
    object_id = write_recording(connection, make_profile(waveform="pcm"), n_samples=16_000 - 5)
    recording = reader.recording(object_id)
    spectrogram_id = recording.spectrogram().spectrogram_id
    assert (recording.spectrogram().n_frames, recording.spectrogram().n_hops) == (100, 100)
    assert recording.pcm().values.tolist() == list(range(16_000 - 5))
    assert connection.execute(change.format(table=f"spectralize.{table}"), {"id": spectrogram_id}).rowcount
    connection.commit()
    message = rf"spectrogram {spectrogram_id} \(p\d+\): {table} does not hold its rows"
    broken = [lambda: recording.mel(), lambda: reader.mel_windows([recording] * 2, [0.0, 0.0], 1.0)]
    if table == "waveform_frames":
        # Samples are not what the waveform is made of.
        broken = [lambda: recording.pcm()] + [lambda: recording.waveform()] * (change in BREAKS.values())
    for read in broken:
        with pytest.raises(ReadError, match=message):
            read()
    if "frame_index" in change:
        # What lies apart is what it was.
        np.testing.assert_array_equal(recording.mel(0.2, 0.5), frames(20, 50, 4))


@pytest.mark.parametrize(
    "recorded_at",
    [datetime(1970, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1723, 5, 6, tzinfo=UTC)],
)  # fmt: skip
def test_recorded_before_computers(connection: Connection, reader: Reader, recorded_at: datetime) -> None:
    object_id = write_recording(connection, make_profile(), n_samples=16_000, recorded_at=recorded_at)
    mel = reader.recording(object_id).mel(0.5, 1.0)
    np.testing.assert_array_equal(mel, frames(50, 100, 4))
    at = (recorded_at + timedelta(seconds=0.5)).replace(tzinfo=None)
    assert mel["time_at"].values[0] == np.datetime64(at, "ns")


@pytest.mark.parametrize("year", [1600, 2300, 9999])
def test_recorded_when_nanoseconds_cannot_say(connection: Connection, reader: Reader, year: int) -> None:
    at = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    recording = reader.recording(write_recording(connection, make_profile(), n_samples=1_600, recorded_at=at))
    assert recording.recorded_at == at
    with pytest.raises(
        ReadError, match=rf"recorded at {year}-12-31T23:59:59.*, and arrays have times from 1678 to 2260"
    ):
        recording.mel()
    with pytest.raises(ReadError, match="arrays have times from 1678"):
        reader.mel_windows([recording], [0.0], 0.05)


def test_one_frame_of_another_number_of_bands_is_no_frame(connection: Connection, reader: Reader) -> None:
    recording = reader.recording(write_recording(connection, make_profile(), n_samples=16_000))
    connection.execute(
        "UPDATE spectralize.mel_frames SET mel = '[1,2,3,4,5]' WHERE spectrogram_id = %s AND frame_index = 7",
        (recording.spectrogram().spectrogram_id,),
    )
    connection.commit()
    with pytest.raises(ReadError, match="mel_frames does not hold its rows 7 to 7"):
        recording.mel(0.07, 0.08)
    with pytest.raises(ReadError, match="mel_frames does not hold its rows 7 to 7"):
        reader.mel_windows([recording], [0.07], 0.01)


def test_windows_in_sql(connection: Connection) -> None:
    object_id = write_recording(connection, make_profile(), n_samples=16_000)
    [(spectrogram_id,)] = connection.execute(
        "SELECT spectrogram_id FROM spectralize.spectrograms WHERE object_id = %s", (object_id,)
    ).fetchall()

    def indices(start_s: object, end_s: object) -> list[int]:
        query = "SELECT frame_index FROM spectralize.mel_window(%s, %s::float8, %s::float8)"
        return [index for (index,) in connection.execute(query, (spectrogram_id, start_s, end_s))]

    assert indices(0.5, 0.55) == [50, 51, 52, 53, 54]
    # No bound is no bound, and not 0.
    assert indices(None, None) == indices(None, float("inf")) == list(range(101))
    assert indices(0.99, None) == [99, 100]
    assert indices(-1.0, 0.02) == [0, 1]
    assert indices(5.0, 6.0) == []
    for start_s, end_s in ((float("nan"), 1.0), (0.0, float("nan"))):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="must be seconds"), connection.transaction():
            indices(start_s, end_s)
    connection.execute(
        "UPDATE spectralize.spectrograms SET status = 'expired', expired_at = now(), expired_because = 'retention' "
        "WHERE spectrogram_id = %s", (spectrogram_id,),
    )  # fmt: skip
    with pytest.raises(psycopg.errors.NoDataFound, match=r"has expired \(retention\)"), connection.transaction():
        indices(0.0, 1.0)
    with (
        pytest.raises(psycopg.errors.NoDataFound, match="spectrogram 999999: not in the store"),
        connection.transaction(),
    ):
        connection.execute("SELECT * FROM spectralize.mel_window(999999)")
    connection.rollback()


@pytest.mark.parametrize(
    "changes",
    [{}, {"htk": True}, {"n_mels": 1}, {"n_mels": 1_024, "fmin": 20.0}, {"sr": "native", "fmin": 300.0},
     {"sr": "native", "fmax": 7e3}],
)  # fmt: skip
def test_bands_in_sql(connection: Connection, changes: dict[str, Any]) -> None:
    profile = make_profile(**changes)
    write_recording(connection, profile, n_samples=4_410, sr=44_100 if profile.sr == "native" else None)
    bands = connection.execute("SELECT * FROM spectralize.mel_bands(%s, 44100)", (profile.name,)).fetchall()
    ends = librosa.mel_frequencies(
        profile.n_mels + 2,
        fmin=profile.fmin,
        fmax=profile.fmax or (22_050 if profile.sr == "native" else 8_000),
        htk=profile.htk,
    )
    assert [k for k, *_ in bands] == list(range(profile.n_mels))
    for column, expected in enumerate((ends[:-2], ends[1:-1], ends[2:]), start=1):
        np.testing.assert_allclose([band[column] for band in bands], expected, rtol=1e-9, atol=1e-9)


def test_bands_of_nothing_are_an_error_in_sql(connection: Connection) -> None:
    profile = make_profile(sr="native")
    write_recording(connection, profile, n_samples=4_410)
    for query, message in (
        ("mel_bands('none')", "profile 'none': nothing in the store has it"),
        ("mel_bands(NULL)", "profile NULL: nothing in the store has it"),
        (f"mel_bands('{profile.name}')", "keeps each recording's own rate: mel_bands needs it"),
        (f"mel_bands('{profile.name}', -1)", "keeps each recording's own rate: mel_bands needs it"),
    ):
        with pytest.raises(psycopg.DatabaseError, match=message), connection.transaction():
            connection.execute(f"SELECT * FROM spectralize.{query}")


def test_uids_tell_objects_apart_whatever_their_keys_hold(connection: Connection) -> None:
    objects = [
        ("a/b", "c", "e", 5), ("a", "b/c", "e", 5), ("a", "k\ne", "t", 5), ("a", "k", "e\nt", 5), ("a", "k 1", "e", 5),
        ("a", "k", "1 e", 5), ("a", "1 k", "e", 5), ("a 1", "k", "e", 5), ("a", "k", "e", 51), ("a", "k", "e5", 1),
    ]  # fmt: skip
    uids = [
        connection.execute("SELECT spectralize.object_uid(%s, %s, %s, %s)", item).fetchone() for item in objects * 2
    ]
    assert uids[: len(objects)] == uids[len(objects) :]
    assert len(set(uids)) == len(objects)
