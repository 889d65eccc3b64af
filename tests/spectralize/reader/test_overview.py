"""Columns of a picture against the arrays that they are made of."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest

from spectralize.database import connect
from spectralize.errors import ReadError
from spectralize.reader import Store as Reader
from spectralize.reader import overview
from spectralize.reader.overview import Columns, read_columns
from spectralize.reader.recording import Recording
from tests.store import Store

KEY = "field/2021/03/05/dusk.ogg"


def columns(reader: Reader, recording: Recording, profile: str, *window: Any) -> Columns:
    return reader.session.run(lambda connection: read_columns(connection, recording.spectrogram(profile), *window))


def parts(values: np.ndarray, n: int) -> list[np.ndarray]:
    """Rows by column: row i of m is in column floor(i * n / m)."""
    numbers = np.arange(len(values)) * n // len(values)
    return [values[numbers == number] for number in range(n)]


def close(actual: np.ndarray, expected: Any) -> None:
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, np.stack(expected), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("window", [(None, None), (1.25, 6.0), (11.0, None), (0.0, 0.1)])
@pytest.mark.parametrize("n", [1, 7, 100, 5_000])
def test_few_frames_are_pooled_frame_by_frame(
    reader: Reader, window: tuple[float | None, float | None], n: int
) -> None:
    recording = reader.recording(KEY)
    mel, wave = recording.mel(*window, "mel128_22k"), recording.waveform(*window, "mel128_22k")
    found = columns(reader, recording, "mel128_22k", *window, n)
    n = min(n, len(mel))
    assert found.level == "frames"
    assert found.mel.shape == (n, 128)
    assert found.start_s == pytest.approx(mel["time_s"].values[0])
    assert found.step_s * n == pytest.approx(len(mel) * 512 / 22_050)
    close(found.mel, [part.mean(axis=0) for part in parts(mel.values, n)])
    # There may be a frame more than hops.
    hops = {name: np.pad(wave[name].values, (0, len(mel) - len(wave["min"]))) for name in ("min", "max", "rms")}
    close(found.low, [part.min() for part in parts(hops["min"], n)])
    close(found.high, [part.max() for part in parts(hops["max"], n)])
    close(found.rms, [np.sqrt((part.astype(float) ** 2).mean()) for part in parts(hops["rms"], n)])
    assert found.low.min() < -0.2 < 0.2 < found.high.max()


@pytest.mark.parametrize(("window", "first"), [((None, None), 0), ((1.25, 6.0), 1), ((2.0, 11.5), 2)])
@pytest.mark.parametrize("n", [1, 3, 100])
def test_many_frames_are_read_by_the_second(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, window: tuple[float | None, float | None], first: int, n: int
) -> None:
    monkeypatch.setattr(overview, "MAX_FRAMES", 10)
    recording = reader.recording(KEY)
    seconds = recording.seconds(first, window[1], "mel128_22k")
    found = columns(reader, recording, "mel128_22k", *window, n)
    n = min(n, len(seconds["rms"]))
    assert (found.level, found.start_s) == ("seconds", first)
    assert found.step_s * n == len(seconds["rms"])
    # A second without a frame has no mean; its vector in the store is 0.
    has_frames = parts(seconds["n_frames"].values > 0, n)
    means = zip(parts(seconds["mel_mean"].values, n), has_frames, strict=True)
    close(found.mel, [part[is_there].mean(axis=0) for part, is_there in means])
    close(found.high, [part.max() for part in parts(seconds["peak"].values, n)])
    close(found.rms, [np.sqrt((part.astype(float) ** 2).mean()) for part in parts(seconds["rms"].values, n)])
    np.testing.assert_array_equal(found.low, -found.high)


def test_a_second_in_which_no_frame_starts_is_no_silence(reader: Reader, filled: Store) -> None:
    recording = reader.recording(KEY)
    spectrogram = recording.spectrogram("mel128_22k")
    with connect(filled.dsn) as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(overview, "MAX_FRAMES", 10)
        connection.execute(
            "UPDATE spectralize.mel_seconds SET n_frames = 0, mel_mean = mel_mean - mel_mean "
            "WHERE spectrogram_id = %s AND second_index IN (3, 7)",
            (spectrogram.spectrogram_id,),
        )
        single = read_columns(connection, spectrogram, None, None, 12)
        double = read_columns(connection, spectrogram, None, None, 6)
        connection.rollback()
    assert [number for number in range(12) if np.isnan(single.mel[number]).any()] == [3, 7]
    assert not np.isnan(double.mel).any()
    np.testing.assert_array_equal(double.mel[1], single.mel[2])


def test_without_a_waveform_the_envelope_is_that_of_the_seconds(reader: Reader) -> None:
    recording = reader.recording(KEY)
    # As if of a profile that keeps none.
    spectrogram = replace(recording.spectrogram("mel128_22k"), n_hops=0)
    seconds = recording.seconds(profile="mel128_22k")
    peak, rms = seconds["peak"].values, seconds["rms"].values
    found = reader.session.run(lambda connection: read_columns(connection, spectrogram, 2.5, 4.5, 5))
    edges = found.start_s + np.arange(6) * found.step_s
    touched = [slice(int(first), math.ceil(stop)) for first, stop in pairwise(edges)]
    assert [part.stop - part.start for part in touched] == [1, 2, 1, 2, 1]
    assert found.level == "frames"
    np.testing.assert_array_equal(found.high, [peak[part].max() for part in touched])
    np.testing.assert_array_equal(found.low, -found.high)
    close(found.rms, [np.sqrt((rms[part].astype(float) ** 2).mean()) for part in touched])
    whole = reader.session.run(lambda connection: read_columns(connection, spectrogram, None, None, 1))
    assert whole.high[0] == peak.max()
    close(whole.rms, [np.sqrt((rms.astype(float) ** 2).mean())])


def test_every_recording_and_profile_has_an_overview(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(reader.recordings(outcome=("loaded", "partial")))
    assert len(found) >= 6
    for is_long in (False, True):
        for recording in found:
            for profile, spectrogram in recording.spectrograms.items():
                monkeypatch.setattr(overview, "MAX_FRAMES", 0 if is_long else 1 << 14)
                item = columns(reader, recording, profile, None, None, 20)
                assert item.level == ("seconds" if is_long else "frames")
                assert item.mel.shape == (len(item.high), spectrogram.n_mels)
                assert np.nanmax(item.mel) <= spectrogram.peak_db + 0.1


def test_it_does_not_matter_where_the_role_looks_for_names(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MAX_FRAMES", 10)
    recording = reader.recording(KEY)
    expected = columns(reader, recording, "mel128_22k", None, None, 5)

    def elsewhere(connection: psycopg.Connection[Any]) -> Columns:
        connection.execute("SET search_path = pg_catalog")
        return read_columns(connection, recording.spectrogram("mel128_22k"), None, None, 5)

    np.testing.assert_array_equal(reader.session.run(elsewhere).mel, expected.mel)


@pytest.mark.parametrize(
    "window", [(-1.0, None), (float("nan"), None), (None, float("nan")), (5.0, 5.0), (3.0, 13.0), (float("inf"), None)]
)
@pytest.mark.parametrize("max_frames", [10, 1 << 14])
def test_a_window_that_cannot_be(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, window: tuple[float | None, float | None], max_frames: int
) -> None:
    monkeypatch.setattr(overview, "MAX_FRAMES", max_frames)
    with pytest.raises(ReadError, match="window"):
        columns(reader, reader.recording(KEY), "mel128_22k", *window, 10)
    with pytest.raises(ReadError, match="n_columns = 0: must be 1 or more"):
        columns(reader, reader.recording(KEY), "mel128_22k", None, None, 0)


def test_rows_that_were_removed_are_an_error(reader: Reader, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrogram = reader.recording(KEY).spectrogram("mel128_22k")
    monkeypatch.setattr(overview, "MAX_FRAMES", 10)
    with connect(filled.dsn) as connection:
        connection.execute(
            "DELETE FROM spectralize.mel_seconds WHERE spectrogram_id = %s AND second_index = 5",
            (spectrogram.spectrogram_id,),
        )
        with pytest.raises(ReadError, match=r"mel_seconds does not hold its rows 0 to 11: it was removed since"):
            read_columns(connection, spectrogram, None, None, 4)
        connection.rollback()
