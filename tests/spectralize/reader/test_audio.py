"""Windows of audio decoded from S3: the samples are those of the whole file, and only what they need is fetched."""

import io
from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from spectralize import open_store
from spectralize.errors import ReadError, ServiceError
from spectralize.reader import Store as Reader
from spectralize.reader import rangefile, samples
from spectralize.s3 import open_s3
from tests.reference import decode
from tests.spectralize.reader.conftest import OBJECTS, bucket_of
from tests.store import Store, encode, make_samples

SECONDS = 20.0


def write(container: str, codec: str, sr: int = 44_100) -> bytes:
    """A third of a minute of stereo, by FFmpeg."""
    y = make_samples(SECONDS, sr=sr, channels=2, seed=3)
    y *= (0.2 + 0.8 * np.abs(np.sin(np.arange(len(y)) / sr)))[:, None]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=sr, layout="stereo")
        if not codec.startswith(("pcm", "flac")):
            stream.bit_rate = 128_000
        fmt = stream.codec_context.format.name if stream.codec_context.format else "fltp"
        resampler = av.AudioResampler(format=fmt, layout="stereo", rate=sr)
        for start in range(0, len(y), 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(y[start : start + 1024].reshape(1, -1)), format="flt", layout="stereo"
            )
            frame.sample_rate, frame.pts = sr, start
            for converted in resampler.resample(frame):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return buffer.getvalue()


#: Container and codec, how far a window may be from the whole file's samples, and whether it is found without reading all
#: before it. AAC and Opus put noise in place of what cannot be heard, from generators that start where decoding starts.
FILES = {
    "a.wav": (lambda: encode(make_samples(SECONDS, sr=44_100, channels=2), 44_100, "WAV", "PCM_24"), 0.0, True),
    "a.flac": (lambda: encode(make_samples(SECONDS, sr=48_000, channels=2), 48_000, "FLAC"), 0.0, True),
    "vorbis.ogg": (lambda: encode(make_samples(SECONDS, sr=44_100, channels=2), 44_100, "OGG"), 1e-5, True),
    "opus.ogg": (lambda: write("ogg", "libopus", 48_000), 0.02, True),
    "a.mp3": (lambda: write("mp3", "libmp3lame"), 1e-5, False),
    "aac.m4a": (lambda: write("ipod", "aac"), 0.05, True),
    "alac.m4a": (lambda: write("ipod", "alac"), 0.0, True),
    "adpcm.wav": (lambda: write("wav", "adpcm_ima_wav"), 0.0, False),
    "opus.mka": (lambda: write("matroska", "libopus", 48_000), 0.0, False),
    "aac.aac": (lambda: write("adts", "aac"), 0.0, False),
}


@pytest.fixture(scope="module")
def sounds(dsn: str, aws: None) -> Iterator[tuple[Store, dict[str, bytes]]]:
    with bucket_of(dsn, "audio") as store:
        data = {key: make() for key, (make, _, _) in FILES.items()}
        for key, content in data.items():
            store.put(key, content)
        store.ingest()
        yield store, data


@pytest.mark.parametrize("key", FILES)
def test_a_window_is_a_slice_of_the_whole(sounds: tuple[Store, dict[str, bytes]], key: str) -> None:
    store, data = sounds
    whole = decode(data[key])
    sr = whole.sr
    with open_store(store.dsn) as reader:
        recording = reader.recording(key)
        for start, end in ((0.0, 0.5), (0.7, 2.0), (3.333, 4.444), (10.0, 10.25), (16.3, 17.0), (19.0, None)):
            window = recording.audio(start, end)
            first = round(start * sr)
            expected = whole.y[first : None if end is None else round(end * sr)]
            assert window.shape == expected.shape
            assert window["time_s"].values[0] == first / sr
            assert np.abs(window.values - expected).max() <= FILES[key][1], (start, end)
        both = recording.audio(5.0, 6.0, mono=False)
        assert both.dims == ("channel", "time_s")
        np.testing.assert_allclose(both.values.mean(axis=0), recording.audio(5.0, 6.0), atol=1e-6)
        assert window.attrs["object"] == recording.url


@pytest.mark.parametrize("key", FILES)
def test_only_what_is_needed_is_fetched(
    sounds: tuple[Store, dict[str, bytes]], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, data = sounds
    # In proportion to the length of these files. FFmpeg goes to and fro within 64 kB, less than a block of real ones.
    monkeypatch.setattr(rangefile, "_GET_BYTES", 1 << 11)
    monkeypatch.setattr(samples, "_READ_BYTES", 1 << 11)
    monkeypatch.setattr(rangefile, "_KEPT_BLOCKS", 1 << 6)
    client, fetched = open_s3(), []
    real = client.get_object

    def counting(**options: Any) -> Any:
        response = real(**options)
        fetched.append(response["ContentLength"])
        return response

    monkeypatch.setattr(client, "get_object", counting)
    with open_store(store.dsn, s3=lambda: client) as reader:
        reader.recording(key).audio(17.0, 17.5)
    share = sum(fetched) / len(data[key])
    assert (share < 0.6) == FILES[key][2], share


def test_an_object_that_was_overwritten_or_deleted_is_said(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "gone") as store, open_store(dsn) as reader:
        store.put("a.wav", encode(make_samples(2.0)))
        store.put("b.wav", encode(make_samples(2.0)))
        store.ingest()
        overwritten, deleted = (reader.recording(f"s3://{store.source.bucket}/{key}") for key in ("a.wav", "b.wav"))
        store.put("a.wav", encode(make_samples(2.0, seed=1)))
        store.delete("b.wav")
        with pytest.raises(ReadError, match=r"a.wav: .*its audio is no longer what was indexed"):
            overwritten.audio(0, 1)
        with pytest.raises(ReadError, match=r"b.wav: the key is gone since it was listed: its audio is no longer"):
            deleted.audio()
        # The features are still there.
        assert len(deleted.mel(0, 1)) == 44


def test_s3_that_is_away_is_one_line(reader: Reader, filled: Store) -> None:
    def away(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")

    client = SimpleNamespace(get_object=away)
    with (
        open_store(filled.dsn, s3=lambda: client) as store,  # type: ignore[arg-type,return-value]
        pytest.raises(ServiceError) as raised,
    ):
        store.recording("music/sub/tone.wav").audio(0, 1)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("window", [(-1.0, 1.0), (2.0, 2.0), (2.0, 3.1), (5.0, 6.0), (float("nan"), 1.0), (0.0, 1e-9)])
def test_a_window_that_cannot_be(reader: Reader, window: tuple[float, float]) -> None:
    with pytest.raises(ReadError, match=r"must lie within its 3.000 s, and hold a sample"):
        reader.recording("music/sub/tone.wav").audio(*window)


def test_what_is_left_of_a_damaged_file_can_be_heard(reader: Reader) -> None:
    key = "damaged/cut.flac"
    whole = decode(OBJECTS[key])
    np.testing.assert_array_equal(reader.recording(key).audio(), whole.y)
    np.testing.assert_array_equal(reader.recording(key).audio(1.5, 1.6), whole.y[66_150:70_560])


@pytest.mark.parametrize("end_s", [float("inf"), 1e308])
def test_an_end_without_end(reader: Reader, end_s: float) -> None:
    with pytest.raises(ReadError, match=r"must lie within its 3.000 s"):
        reader.recording("music/sub/tone.wav").audio(0.0, end_s)


def test_an_interrupt_is_not_swallowed(filled: Store) -> None:
    asked = []

    def interrupt(**_: object) -> None:
        asked.append(1)
        raise KeyboardInterrupt

    with (
        open_store(filled.dsn, s3=lambda: SimpleNamespace(get_object=interrupt)) as store,  # type: ignore[arg-type,return-value]
        pytest.raises(KeyboardInterrupt),
    ):
        store.recording("music/sub/tone.wav").audio(0, 1)
    assert len(asked) == 1


def test_an_object_that_s3_keeps_to_itself_is_named(filled: Store) -> None:
    def archived(**_: object) -> None:
        answer = {"Error": {"Code": "InvalidObjectState", "Message": "in an\narchive"}}
        raise ClientError(answer | {"ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject")  # type: ignore[arg-type]

    with (
        open_store(filled.dsn, s3=lambda: SimpleNamespace(get_object=archived)) as store,  # type: ignore[arg-type,return-value]
        pytest.raises(
            ServiceError, match=r"s3://.*/music/sub/tone.wav: S3 refuses to read it: InvalidObjectState"
        ) as raised,
    ):
        store.recording("music/sub/tone.wav").audio(0, 1)
    assert "\n" not in str(raised.value)


def test_many_channels_and_streams_that_change(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "channels") as store, open_store(dsn) as reader:
        y = {channels: make_samples(3.0, sr=16_000, channels=channels, seed=channels) for channels in (1, 2, 8)}
        store.put("8.wav", encode(y[8], 16_000))
        # The second part has other channels: FFmpeg ends there, and so did indexing.
        store.put("chained.ogg", encode(y[1], 16_000, "OGG") + encode(y[2], 16_000, "OGG"))
        store.ingest()
        np.testing.assert_allclose(
            reader.recording("8.wav").audio(1.0, 2.0, mono=False), y[8][16_000:32_000].T, atol=1e-4
        )
        chained = reader.recording("chained.ogg")
        n_samples = round((chained.duration_s or 0.0) * 16_000)
        whole = chained.audio()
        assert whole.shape == (n_samples,)
        np.testing.assert_array_equal(chained.audio(2.5)[-100:], whole[-100:])


def test_any_window_is_exact_to_the_sample(sounds: tuple[Store, dict[str, bytes]]) -> None:
    store, data = sounds

    # Inside, or hypothesis would write out every file of a failure.
    @settings(max_examples=40, deadline=None, database=None)
    @given(
        key=st.sampled_from(["a.wav", "a.flac", "vorbis.ogg", "alac.m4a"]),
        first=st.integers(0, int(SECONDS * 44_100) - 2),
        n_samples=st.integers(1, 100_000),
    )
    def check(key: str, first: int, n_samples: int) -> None:
        whole = _decoded(data[key])
        stop = min(first + n_samples, len(whole.y))
        window = reader.recording(f"s3://{store.source.bucket}/{key}").audio(first / whole.sr, stop / whole.sr)
        assert window.shape == (stop - first,)
        assert np.abs(window.values - whole.y[first:stop]).max() <= FILES[key][1]

    with open_store(store.dsn) as reader:
        check()


@lru_cache(maxsize=8)
def _decoded(data: bytes) -> Any:
    return decode(data)


@pytest.mark.parametrize("key", ["a.flac", "a.mp3", "aac.aac", "opus.mka"])
def test_one_window_after_the_other_is_the_whole(sounds: tuple[Store, dict[str, bytes]], key: str) -> None:
    store, data = sounds
    whole = decode(data[key])
    rng = np.random.default_rng(1)
    with open_store(store.dsn) as reader, samples.SampleReader(reader.recording(key), open_s3(), mono=True) as decoder:
        position = 0
        opened = None
        while position < 300_000:
            stop = position + int(rng.choice([1, 2, 500, 4_608, 50_000]))
            # Windows may share their last sample, or leave some out.
            for first, last in ((position, stop), (stop - 1, stop), (stop - 1, stop + 1), (stop + 10, stop + 11)):
                y = decoder.read(first, last)
                assert np.abs(y - whole.y[first:last]).max() <= FILES[key][1], (first, last)
            opened = opened or decoder._decoding
            assert decoder._decoding is opened
            position = stop + 10
