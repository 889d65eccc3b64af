"""Audio as browsers ask for it: ranges of the object, and of a wav that nobody has written."""

import io
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile
from botocore.exceptions import EndpointConnectionError
from flask.testing import FlaskClient

from spectralize import open_store
from spectralize.explorer.app import make_app
from spectralize.explorer.media import choose_stream, content_type, readers, sound, streams
from spectralize.explorer.media.streams import plan_wav
from spectralize.explorer.settings import Settings
from spectralize.reader import Store as Reader
from spectralize.reader import samples
from spectralize.s3 import open_s3
from tests.spectralize.reader.conftest import bucket_of
from tests.spectralize.reader.test_audio import SECONDS, write
from tests.store import Store, encode, make_samples

#: What is played, and of what type the object is. The last ones are damaged, or nothing at all.
FILES: dict[str, tuple[Any, str, str]] = {
    "8.wav": (lambda: encode(make_samples(2.0, sr=8_000), 8_000, "WAV", "PCM_U8"), "object", "audio/wav"),
    "16.wav": (lambda: encode(make_samples(25.0, sr=8_000), 8_000), "object", "audio/wav"),
    "24.wav": (lambda: encode(make_samples(2.0, channels=2), 22_050, "WAV", "PCM_24"), "object", "audio/wav"),
    "float.wav": (lambda: encode(make_samples(2.0), 22_050, "WAV", "FLOAT"), "object", "audio/wav"),
    "double.wav": (lambda: encode(make_samples(2.0), 22_050, "WAV", "DOUBLE"), "wav", "audio/wav"),
    "adpcm.wav": (lambda: encode(make_samples(2.0), 22_050, "WAV", "IMA_ADPCM"), "wav", "audio/wav"),
    "a.flac": (lambda: encode(make_samples(12.0, channels=2), 22_050, "FLAC"), "object", "audio/flac"),
    "vorbis.ogg": (lambda: encode(make_samples(2.0), 22_050, "OGG"), "object", "audio/ogg"),
    "opus.ogg": (lambda: write("ogg", "libopus", 48_000), "object", "audio/ogg"),
    "aac.m4a": (lambda: write("ipod", "aac"), "object", "audio/mp4"),
    "alac.m4a": (lambda: write("ipod", "alac"), "wav", "audio/mp4"),
    "a.mp3": (lambda: write("mp3", "libmp3lame"), "wav", "audio/mpeg"),
    "a.wma": (lambda: write("asf", "wmav2"), "wav", "application/octet-stream"),
    "aac.aac": (lambda: write("adts", "aac"), "wav", "audio/aac"),
    "a.aiff": (lambda: encode(make_samples(2.0), 22_050, "AIFF"), "wav", "audio/aiff"),
    "a.caf": (lambda: encode(make_samples(2.0), 22_050, "CAF"), "wav", "application/octet-stream"),
    "a.w64": (lambda: encode(make_samples(2.0), 22_050, "W64"), "wav", "application/octet-stream"),
    "six.flac": (lambda: encode(make_samples(2.0, channels=6), 22_050, "FLAC"), "object", "audio/flac"),
    "cut.flac": (lambda: encode(make_samples(6.0, sr=44_100), 44_100, "FLAC")[:120_000], "wav", "audio/flac"),
    '<b>"\r\n.html': (lambda: encode(make_samples(1.0)), "object", "audio/wav"),
}


@pytest.fixture(scope="module")
def sounds(dsn: str, aws: None) -> Iterator[tuple[Store, dict[str, bytes]]]:
    with bucket_of(dsn, "media") as store:
        data = {key: make() for key, (make, _, _) in FILES.items()}
        for key, content in {**data, "empty.wav": b""}.items():
            store.put(key, content)
        store.ingest()
        yield store, data


@pytest.fixture(scope="module")
def reader(sounds: tuple[Store, dict[str, bytes]]) -> Iterator[Reader]:
    with open_store(sounds[0].dsn) as reader:
        yield reader


@pytest.fixture
def client(reader: Reader) -> FlaskClient:
    return make_app(Settings(), reader).server.test_client()


def address(reader: Reader, key: str, query: str = "") -> str:
    return f"/recordings/{reader.recording(key).id}/audio{query}"


@pytest.mark.parametrize("key", FILES)
def test_what_an_audio_element_is_to_play(reader: Reader, client: FlaskClient, key: str) -> None:
    _, stream, kind = FILES[key]
    recording = reader.recording(key)
    assert choose_stream(recording) == stream
    assert content_type(recording, "object") == kind
    for query, expected in (("", kind), ("?as=wav", "audio/wav")):
        for answer in (client.head(address(reader, key, query)), client.get(address(reader, key, query))):
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, expected)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Accept-Ranges"] == "bytes"
    assert client.head(address(reader, key)).data == b""


@pytest.mark.parametrize("key", ["16.wav", "a.mp3", '<b>"\r\n.html'])
def test_ranges_are_those_of_the_object(
    sounds: tuple[Store, dict[str, bytes]], reader: Reader, client: FlaskClient, key: str
) -> None:
    data, path = sounds[1][key], address(reader, key)
    whole = client.get(path)
    assert (whole.data, whole.content_length) == (data, len(data))
    assert client.head(path).content_length == len(data)
    n = len(data)
    ranges = {
        "bytes=0-": (0, n), "bytes=0-0": (0, 1), "bytes=10-99": (10, 100), f"bytes={n - 1}-": (n - 1, n), "bytes=-7": (n - 7, n),
        f"bytes=5-{n * 9}": (5, n), f"bytes=-{n * 9}": (0, n), f"bytes={n // 2}-{n - 1}": (n // 2, n),
    }  # fmt: skip
    for given, (start, stop) in ranges.items():
        answer = client.get(path, headers={"Range": given})
        assert answer.status_code == 206, given
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{n}"
        assert answer.content_length == stop - start
        assert answer.data == data[start:stop], given
        same = client.get(path, headers={"Range": given, "If-Range": whole.headers["ETag"]})
        assert (same.status_code, same.data) == (206, answer.data)
    for given in ("bytes=9-5", "bytes=x-", "bytes", "bytes=1-2,5-6", "lines=1-2", f"bytes={'9' * 9_000}-", "bytes=--1"):
        answer = client.get(path, headers={"Range": given}, buffered=True)
        assert (answer.status_code, answer.data) == (200, data), given
    for other in ('"another"', "W/" + whole.headers["ETag"], "Wed, 21 Oct 2015 07:28:00 GMT"):
        answer = client.get(path, headers={"Range": "bytes=0-9", "If-Range": other}, buffered=True)
        assert (answer.status_code, len(answer.data)) == (200, n), other
    for given in (f"bytes={n}-", f"bytes={n + 5}-{n + 9}", f"bytes={10**30}-"):
        answer = client.get(path, headers={"Range": given})
        assert (answer.status_code, answer.data) == (416, b"")
        assert answer.headers["Content-Range"] == f"bytes */{n}"


def test_an_answer_to_a_range_is_bounded(
    sounds: tuple[Store, dict[str, bytes]], reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path = sounds[1]["16.wav"], address(reader, "16.wav")
    monkeypatch.setattr(sound, "MOST_OPEN_BYTES", 1_000)
    monkeypatch.setattr(sound, "MOST_BYTES", 5_000)
    monkeypatch.setattr(sound, "_BLOCK_BYTES", 700)
    for given, start, stop in (("bytes=9-", 9, 1_009), ("bytes=9-9000", 9, 5_009), ("bytes=9-4000", 9, 4_001)):
        answer = client.get(path, headers={"Range": given})
        assert answer.data == data[start:stop]
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(data)}"
    assert client.get(path).data == data
    wav = client.get(path + "?as=wav", headers={"Range": "bytes=0-"})
    assert (wav.status_code, wav.content_length) == (206, 44 + 10 * 8_000 * 2)
    assert client.get(path + "?as=wav").content_length == 44 + 25 * 8_000 * 2


@pytest.mark.parametrize("key", FILES)
def test_a_wav_that_nobody_has_written(
    sounds: tuple[Store, dict[str, bytes]], reader: Reader, client: FlaskClient, key: str
) -> None:
    recording, path = reader.recording(key), address(reader, key, "?as=wav")
    whole = client.get(path).data
    is_mono = recording.decoded_channels != 2
    y = np.atleast_2d(recording.audio(mono=is_mono).values)
    found, sr = soundfile.read(io.BytesIO(whole), dtype="int16", always_2d=True)
    assert sr == recording.decoded_samplerate_hz
    np.testing.assert_array_equal(found, np.clip(np.rint(y.T * 32_768), -32_768, 32_767))
    if key == "16.wav":
        # As a file it is what was put there.
        np.testing.assert_array_equal(
            found, soundfile.read(io.BytesIO(sounds[1][key]), dtype="int16", always_2d=True)[0]
        )
    # In any order, of any size, as seeking asks for it.
    rng, n = random.Random(key), len(whole)
    edges = sorted({0, n, *(rng.randrange(1, n) for _ in range(6)), rng.randrange(1, 60)})
    pairs = list(pairwise(edges))
    rng.shuffle(pairs)
    parts = {}
    for start, stop in pairs:
        position = start
        while position < stop:
            answer = client.get(path, headers={"Range": f"bytes={position}-{stop - 1}"})
            assert answer.status_code == 206
            assert answer.headers["Content-Range"].startswith(f"bytes {position}-")
            parts[position] = answer.data
            position += len(answer.data)
    assembled = b"".join(parts[start] for start in sorted(parts))
    assert assembled[:44] == whole[:44]
    assert len(assembled) == n
    error = np.abs(np.frombuffer(assembled, dtype="<i2", offset=44).astype(int) - found.ravel())
    if key in {"opus.ogg", "aac.m4a"}:
        # Noise in place of what cannot be heard; a sample too early or too late would be ten times as much.
        assert error.mean() < 100
    else:
        assert error.max() <= 1


@pytest.mark.parametrize("key", ["a.wma", "aac.aac", "a.mp3"])
def test_ranges_one_after_the_other_decode_once(
    reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    opened = []
    real = samples.av.open
    monkeypatch.setattr(samples.av, "open", lambda *args, **options: opened.append(1) or real(*args, **options))
    monkeypatch.setattr(sound, "MOST_S", 1.0)
    path = address(reader, key, "?as=wav")
    # In the middle of a sample, so that each of them ends and begins there.
    position, size = 47, client.head(path).content_length
    while position < size:
        position += len(client.get(path, headers={"Range": f"bytes={position}-"}).data)
    assert position == size > SECONDS * 88_200
    assert len(opened) == 1


def test_only_so_many_decoders_are_kept(reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_READERS", 2)
    closed = []
    real = samples._Decoding.close
    monkeypatch.setattr(samples._Decoding, "close", lambda self: (closed.append(self._recording.key), real(self))[1])
    for key in ("a.aiff", "a.caf", "a.w64"):
        client.get(address(reader, key, "?as=wav"), headers={"Range": "bytes=0-99"})
    assert closed == ["a.aiff"]


def test_decoding_that_takes_too_long_is_given_up(
    reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "DECODE_S", -1.0)
    for key in ("a.wma", "16.wav"):
        answer = client.get(address(reader, key, "?as=wav"), headers={"Range": "bytes=99999-"})
        assert answer.status_code == 413
        assert "decoding does not reach" in answer.text
        assert answer.text.count("\n") == 1


def test_what_is_gone_or_was_overwritten(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "gone") as store, open_store(dsn) as reader:
        client = make_app(Settings(), reader).server.test_client()
        keys = ("overwritten.wav", "deleted.wav", "resized.wav")
        for key in keys:
            store.put(key, encode(make_samples(2.0)))
        store.ingest()
        paths = [f"/recordings/{reader.recording(f's3://{store.source.bucket}/{key}').id}/audio" for key in keys]
        # Decoders that are open know some of it, and say so too once they ask for more.
        store.put(keys[0], encode(make_samples(2.0, seed=1)))
        store.delete(keys[1])
        store.put(keys[2], encode(make_samples(3.0)))
        for path in paths:
            for query in ("", "?as=wav"):
                for headers in ({}, {"Range": "bytes=0-99"}):
                    answer = client.get(path + query, headers=headers)
                    assert answer.status_code == 410, (path, query)
                    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
                    assert answer.text.endswith("its audio is no longer what was indexed\n")
                    assert answer.text.count("\n") == 1


def test_s3_that_is_away(sounds: tuple[Store, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    s3 = open_s3()

    def away(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")

    monkeypatch.setattr(s3, "get_object", away)
    with open_store(sounds[0].dsn, s3=lambda: s3) as reader:
        client = make_app(Settings(), reader).server.test_client()
        for query in ("", "?as=wav"):
            answer = client.get(address(reader, "a.wma", query))
            assert (answer.status_code, answer.text.count("\n")) == (503, 1)


def test_what_has_no_audio(sounds: tuple[Store, dict[str, bytes]], reader: Reader, client: FlaskClient) -> None:
    [rejected] = reader.recordings(outcome="rejected")
    for number in (rejected.id, 10**9, 0, 10**40):
        for query in ("", "?as=wav"):
            answer = client.get(f"/recordings/{number}/audio{query}")
            assert answer.status_code == 404
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    for path in ("/recordings/-1/audio", "/recordings/a.wav/audio", "/recordings/1e3/audio"):
        assert client.get(path).headers["Content-Type"] != "audio/wav"
    assert client.post(address(reader, "16.wav")).status_code == 405


@pytest.mark.parametrize(
    ("key", "changes", "expected"),
    [
        ("a.mp3", {"size_bytes": 64 << 20}, "wav"),
        ("a.mp3", {"size_bytes": (64 << 20) + 1}, "object"),
        # RF64 rather than wav.
        ("16.wav", {"size_bytes": 1 << 32}, "wav"),
        # A header that is not to be trusted, or none.
        ("a.flac", {"declared_duration_s": 12.2}, "wav"),
        ("a.flac", {"declared_duration_s": None}, "wav"),
        ("a.flac", {"decoded_channels": 9}, "wav"),
        # More than a wav can hold.
        ("a.wma", {"decoded_duration_s": 1e6}, "object"),
        ("a.wma", {"decoded_duration_s": None}, "object"),
    ],
)
def test_where_an_audio_element_plays_something_else(
    reader: Reader, key: str, changes: dict[str, Any], expected: str
) -> None:
    assert choose_stream(replace(reader.recording(key), **changes)) == expected


def test_a_wav_of_more_than_its_sizes_can_say(reader: Reader) -> None:
    recording = reader.recording("a.wma")
    # Two channels of 16 bits at 44.1 kHz fit 6.76 hours, one twice that.
    wavs = [plan_wav(replace(recording, decoded_duration_s=hours * 3_600)) for hours in (6.7, 6.8, 13.5, 13.6)]
    assert [wav and wav.channels for wav in wavs] == [2, 1, 1, None]
    assert all(wav.size_bytes < 1 << 32 for wav in wavs if wav)


def test_what_does_not_fit_a_wav_is_refused(
    reader: Reader, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_MAX_WAV_BYTES", 1_000)
    answer = client.get(address(reader, "a.wma", "?as=wav"))
    assert answer.status_code == 413
    assert "recording.audio() of spectralize's Python API" in answer.text


def test_few_recordings_are_sent_whole_at_a_time(reader: Reader, client: FlaskClient) -> None:
    path = address(reader, "16.wav")
    under_way = [client.get(path + query) for query in ("", "?as=wav", "")]
    refused = client.get(path)
    assert (refused.status_code, refused.mimetype) == (503, "text/plain")
    assert "3 whole recordings are on their way already: ask for a range" in refused.get_data(as_text=True)
    window = path.replace("/audio", "/window.wav?start_s=0&end_s=1")
    assert client.get(window).status_code == 503
    # Players ask for ranges, and are not kept waiting.
    assert client.get(path, headers={"Range": "bytes=0-"}).status_code == 206
    assert client.head(path).status_code == 200
    under_way.pop().close()
    assert client.get(window).status_code == 200
