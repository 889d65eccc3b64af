"""Windows to take away, and thumbnails: what is in them is what the reader says, and nobody gets more than is bounded."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.colors
import pytest
import soundfile
from flask.testing import FlaskClient
from PIL import Image

from spectralize import open_store
from spectralize.explorer.app import make_app
from spectralize.explorer.figures import picture
from spectralize.explorer.media import sound, thumbnails, windows
from spectralize.explorer.settings import Settings
from spectralize.reader import Store as Reader
from spectralize.reader import overview
from tests.spectralize.reader.conftest import OBJECTS, bucket_of
from tests.store import Store, encode, make_samples, wav

KEYS = ("field/2021/03/04/dawn.flac", "music/short.wav", "damaged/cut.flac")
HOSTILE = '"><script>alert(1)</script>\r\nX: y.wav'
EMPTY = "empty.wav"


@pytest.fixture(scope="module")
def filled(dsn: str, aws: None) -> Iterator[Store]:
    with bucket_of(dsn, "take", profiles=("mel128_22k", "speech80_16k")) as store:
        for key in KEYS:
            store.put(key, OBJECTS[key])
        store.put(HOSTILE, wav(2.0, seed=3))
        store.put("five.wav", encode(make_samples(2.0, channels=5), 22_050))
        store.put(EMPTY, b"")
        store.ingest()
        yield store


@pytest.fixture(scope="module")
def reader(filled: Store) -> Iterator[Reader]:
    with open_store(filled.dsn) as reader:
        yield reader


@pytest.fixture
def client(reader: Reader) -> FlaskClient:
    return make_app(Settings(), reader).server.test_client()


def ask(client: FlaskClient, reader: Reader, key: str, what: str, **query: Any) -> Any:
    [number] = [item.id for item in reader.recordings(outcome=("loaded", "partial", "rejected")) if item.key == key]
    return client.get(f"/recordings/{number}/{what}", query_string=query)


def refused(answer: Any, status: int, line: str) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/plain; charset=utf-8")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert line in answer.text
    assert answer.text.count("\n") == 1


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("window", [{}, {"start_s": "0.1", "end_s": "0.3"}])
@pytest.mark.parametrize("mono", ["0", "1"])
def test_samples(reader: Reader, client: FlaskClient, key: str, window: dict[str, str], mono: str) -> None:
    answer = ask(client, reader, key, "window.wav", mono=mono, **window)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "audio/wav")
    assert answer.content_length == len(answer.data)
    recording = reader.recording(key)
    bounds = [float(value) for value in window.values()] or [None, None]
    y = np.atleast_2d(recording.audio(*bounds, mono=mono == "1").values)
    found, sr = soundfile.read(io.BytesIO(answer.data), dtype="int16", always_2d=True)
    assert sr == recording.decoded_samplerate_hz
    np.testing.assert_array_equal(found, np.clip(np.rint(y.T * 32_768), -32_768, 32_767))


def test_samples_come_in_blocks_whatever_the_channels(
    reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(client, reader, "five.wav", "window.wav", start_s="0.5").data
    assert soundfile.info(io.BytesIO(whole)).channels == 5
    monkeypatch.setattr(sound, "MOST_NUMBERS", 5_003)
    assert ask(client, reader, "five.wav", "window.wav", start_s="0.5").data == whole


@pytest.mark.parametrize("profile", ["mel128_22k", "speech80_16k"])
@pytest.mark.parametrize("window", [{}, {"start_s": "0.1", "end_s": "0.3"}])
def test_frames(reader: Reader, client: FlaskClient, profile: str, window: dict[str, str]) -> None:
    answer = ask(client, reader, KEYS[0], "window.npy", profile=profile, **window)
    found = np.load(io.BytesIO(answer.data), allow_pickle=False)
    bounds = [float(value) for value in window.values()] or [None, None]
    expected = reader.recording(KEYS[0]).mel(*bounds, profile)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_a_picture(reader: Reader, client: FlaskClient) -> None:
    answer = ask(
        client, reader, KEYS[0], "window.png",
        profile="speech80_16k", start_s="1", end_s="4", cmap="viridis", low_db="-60", high_db="10",
    )  # fmt: skip
    assert answer.headers["Content-Type"] == "image/png"
    found = np.asarray(Image.open(io.BytesIO(answer.data)).convert("RGB"))
    mel = reader.recording(KEYS[0]).mel(1, 4, "speech80_16k").values
    across, up = found.shape[1] // len(mel), found.shape[0] // 80
    assert found.shape == (80 * up, len(mel) * across, 3)
    assert (up, 500 < found.shape[1] <= 2_000) == (4, True)
    shares = np.clip((mel + 60) / 70, 0, 1)
    expected = picture.colour_table("viridis")[np.rint(shares * 255).astype(int)]
    # The lowest band is at the bottom.
    np.testing.assert_array_equal(found[::-up][:, ::across], expected.transpose(1, 0, 2))
    grey = ask(client, reader, KEYS[0], "window.png", profile="speech80_16k", cmap="grey")
    assert len(np.unique(np.asarray(Image.open(io.BytesIO(grey.data)).convert("L")))) > 50


def test_the_names_of_what_is_taken_away_are_numbers(reader: Reader, client: FlaskClient) -> None:
    number = reader.recording(HOSTILE).id
    for kind in ("wav", "npy", "png"):
        answer = ask(client, reader, HOSTILE, f"window.{kind}", profile="mel128_22k", start_s="0", end_s="2")
        assert answer.status_code == 200
        disposition = answer.headers["Content-Disposition"]
        assert disposition.startswith(f'attachment; filename="recording-{number}-0-2.'), disposition
        assert disposition.endswith(f'.{kind}"')
        assert b"script" not in answer.data
        answer.headers.remove("Content-Security-Policy")
        assert not any("script" in value or name == "X" for name, value in answer.headers)
    refused(
        ask(client, reader, HOSTILE, "window.npy", profile="mel128_22k", start_s="9"), 400, "the recording lasts 2.000"
    )
    half = ask(client, reader, HOSTILE, "window.wav", start_s="0.25", end_s="1.5")
    assert half.headers["Content-Disposition"].endswith(f'recording-{number}-0.25-1.5.wav"')


BAD_WINDOWS = [
    ({"start_s": "x"}, "start_s = 'x': must be a number of seconds"),
    ({"start_s": "nan"}, "window nan s to"),
    ({"end_s": "nan"}, "to nan s"),
    ({"start_s": "-1"}, "window -1 s to"),
    ({"start_s": "5", "end_s": "5"}, "window 5 s to 5 s"),
    ({"start_s": "5", "end_s": "500"}, "window 5 s to 500 s"),
    ({"start_s": "inf"}, "window"),
    ({"start_s": "1e999"}, "window"),
    ({"end_s": "<b>\n"}, r"end_s = '<b>\n'"),
]


@pytest.mark.parametrize("kind", ["wav", "npy", "png"])
@pytest.mark.parametrize(("window", "line"), BAD_WINDOWS)
def test_a_window_that_cannot_be(
    reader: Reader, client: FlaskClient, kind: str, window: dict[str, str], line: str
) -> None:
    refused(ask(client, reader, KEYS[0], f"window.{kind}", profile="mel128_22k", **window), 400, line)


@pytest.mark.parametrize(
    ("query", "status", "line"),
    [
        ({"cmap": "jet"}, 400, "cmap = 'jet': must be one of magma, viridis, inferno, cividis, grey"),
        ({"low_db": "nan"}, 400, "low_db = nan: must lie within"),
        ({"high_db": "inf"}, 400, "high_db = inf: must lie within"),
        ({"low_db": "x"}, 400, "low_db = 'x': must be a number of dB"),
        ({"low_db": "0", "high_db": "0"}, 400, "low_db = 0: must be below high_db, 0"),
        ({"profile": "mel999"}, 404, "has no profile 'mel999'"),
        ({"profile": "a\0b"}, 400, "profile"),
        ({"profile": ""}, 404, "has several profiles"),
    ],
)
def test_a_picture_that_cannot_be(
    reader: Reader, client: FlaskClient, query: dict[str, str], status: int, line: str
) -> None:
    answer = ask(client, reader, KEYS[0], "window.png", **{"profile": "mel128_22k", **query})
    refused(answer, answer.status_code if "\0" in query.get("profile", "") else status, line)
    assert answer.status_code in {400, 404}


def test_more_than_is_sent_names_the_way_to_read_it(
    reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_WAV_S", 3.0)
    monkeypatch.setattr(windows, "MAX_NPY_BYTES", 100_000)
    assert ask(client, reader, KEYS[0], "window.wav", end_s="3").status_code == 200
    refused(ask(client, reader, KEYS[0], "window.wav"), 413, "of spectralize's Python API reads it")
    assert ask(client, reader, KEYS[0], "window.npy", profile="mel128_22k", end_s="3").status_code == 200
    refused(
        ask(client, reader, KEYS[0], "window.npy", profile="mel128_22k"), 413, ".mel(start_s, end_s) of spectralize's"
    )
    monkeypatch.setattr(windows, "MAX_WAV_BYTES", 1_000)
    refused(ask(client, reader, KEYS[0], "window.wav", end_s="1"), 413, ".audio(start_s, end_s)")
    refused(ask(client, reader, KEYS[0], "window.wav", mono="2"), 400, "mono = '2': must be 0 or 1")


def test_a_thumbnail(reader: Reader, client: FlaskClient) -> None:
    for key in (*KEYS, HOSTILE):
        spectrogram = reader.recording(key).spectrogram("mel128_22k")
        answer = ask(client, reader, key, "thumbnail.png", profile="mel128_22k", v=spectrogram.spectrogram_id)
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert len(answer.data) < 40_000
        assert Image.open(io.BytesIO(answer.data)).size == (320, 80)
        for other in ({}, {"v": "1x"}, {"v": str(spectrogram.spectrogram_id + 1)}):
            again = ask(client, reader, key, "thumbnail.png", profile="mel128_22k", **other)
            assert (again.data, again.headers["Cache-Control"]) == (answer.data, "private, no-cache")
    assert ask(client, reader, KEYS[0], "thumbnail.png").status_code == 200
    # A low tone over noise: bright at the bottom.
    light = np.asarray(Image.open(io.BytesIO(answer.data)).convert("L")).astype(int)
    assert light.mean(axis=1).argmax() > 48


def test_thumbnails_are_made_once_and_not_all_are_kept(
    reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = overview.read_columns
    monkeypatch.setattr(thumbnails, "read_columns", lambda *args: made.append(args[1].spectrogram_id) or real(*args))
    monkeypatch.setattr(thumbnails, "MAX_KEPT", 2)
    for key in (KEYS[0], KEYS[0], KEYS[1], KEYS[0], KEYS[2], KEYS[0], KEYS[1]):
        assert ask(client, reader, key, "thumbnail.png", profile="mel128_22k").status_code == 200
    ids = [reader.recording(key).spectrogram("mel128_22k").spectrogram_id for key in (*KEYS, KEYS[1])]
    assert made == ids


def test_what_has_no_picture(reader: Reader, client: FlaskClient) -> None:
    for what in ("thumbnail.png", "window.png", "window.npy"):
        refused(ask(client, reader, EMPTY, what), 404, "was rejected")
        refused(client.get(f"/recordings/{10**9}/{what}"), 404, "not in the store")
    refused(ask(client, reader, EMPTY, "window.wav"), 404, "has no audio")
    refused(ask(client, reader, KEYS[0], "thumbnail.png", profile="mel999"), 404, "has no profile 'mel999'")


def test_colours_are_those_of_the_figures() -> None:
    for name in ("magma", "viridis", "inferno", "cividis"):
        table = picture.colour_table(name)
        stops = [plotly.colors.hex_to_rgb(colour) for colour in getattr(plotly.colors.sequential, name.title())]
        assert table.shape == (256, 3)
        np.testing.assert_array_equal(table[[0, 255]], [stops[0], stops[-1]])
        # Between two stops Plotly goes straight.
        middle = (np.array(stops[4]) + np.array(stops[5])) / 2
        assert np.abs((table[127].astype(float) + table[128]) / 2 - middle).max() <= 1
    np.testing.assert_array_equal(picture.colour_table("grey")[[0, 255]], [[255] * 3, [0] * 3])


def test_silence_is_dark_and_holes_are_too() -> None:
    silence = np.full((4, 3), -100, dtype=np.float32)
    holes = np.full((4, 3), np.nan, dtype=np.float32)
    for mel in (silence, holes):
        low_db, high_db = picture.choose_levels(mel)
        data = picture.draw(mel, low_db=low_db, high_db=high_db, colour_map="magma")
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        assert pixels.shape == (3, 4)
        assert pixels.max() < 110
    assert picture.choose_levels(np.array([[-5, np.nan], [-70, -20]], dtype=np.float32)) == (-85.0, -5.0)
