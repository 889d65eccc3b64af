"""Decoding against libsndfile, and what becomes of files that are not what they say."""

import io
import struct

import av
import librosa
import numpy as np
import pytest
import soundfile

from spectralize.errors import RejectedObjectError
from spectralize.resample import resample_audio
from tests.reference import decode
from tests.store import encode, make_samples

LIMIT_S = 60.0


def transcode(y: np.ndarray, sr: int, container: str, codec: str) -> bytes:
    """Write mono samples with FFmpeg, for the formats that libsndfile does not write."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=sr, layout="mono")
        assert isinstance(stream, av.AudioStream)
        for start in range(0, len(y), 1024):
            block = (y[start : start + 1024] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block[None, :], format="s16p", layout="mono")
            frame.sample_rate = sr
            frame.pts = start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def reject(data: bytes, *, max_duration_s: float = LIMIT_S) -> str:
    with pytest.raises(RejectedObjectError) as caught:
        decode(data, max_duration_s=max_duration_s)
    return caught.value.reason_class


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "PCM_U8"),
     ("WAV", "ALAW"), ("WAV", "ULAW"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_lossless_formats_equal_libsndfile(container: str, subtype: str, channels: int) -> None:
    data = encode(make_samples(1.0, channels=channels), 44_100, container, subtype)
    expected, sr = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    audio = decode(data, max_duration_s=LIMIT_S)
    assert (audio.sr, audio.channels, audio.defect) == (sr, channels, None)
    np.testing.assert_allclose(audio.y, librosa.to_mono(expected.T), atol=1e-7)


@pytest.mark.parametrize(
    ("container", "codec", "sr"),
    [("mp3", "libmp3lame", 44_100), ("ipod", "aac", 44_100), ("ogg", "libopus", 48_000),
     ("ogg", "flac", 16_000), ("ipod", "alac", 44_100), ("webm", "libopus", 48_000)],
)  # fmt: skip
def test_every_format_decodes_to_what_was_encoded(container: str, codec: str, sr: int) -> None:
    y = make_samples(2.0, sr=sr)[:, 0]
    audio = decode(transcode(y, sr, container, codec), max_duration_s=LIMIT_S)
    assert (audio.sr, audio.channels, audio.defect) == (sr, 1, None)
    assert abs(audio.duration_s - 2.0) < 0.1
    # The encoder may shift and round; the tone must be there at its own strength.
    spectrum = np.abs(np.fft.rfft(audio.y[:sr] * np.hanning(sr)))
    assert abs(int(np.argmax(spectrum)) - 220) <= 1
    assert np.sqrt(np.mean(audio.y**2)) == pytest.approx(np.sqrt(np.mean(y**2)), rel=0.05)


def test_vorbis_equals_libsndfile() -> None:
    data = encode(make_samples(2.0, sr=44_100, channels=2), 44_100, "OGG", "VORBIS")
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    audio = decode(data, max_duration_s=LIMIT_S)
    shared = min(len(audio.y), len(expected))
    assert len(expected) - shared < 1024
    np.testing.assert_allclose(audio.y[:shared], expected.mean(axis=1)[:shared], atol=1e-5)


@pytest.mark.parametrize("target", [8_000, 16_000, 22_050, 48_000])
def test_resampling_equals_librosa(target: int) -> None:
    y = make_samples(1.01, sr=44_100)[:, 0]
    expected = librosa.resample(y, orig_sr=44_100, target_sr=target)
    np.testing.assert_allclose(resample_audio(y, 44_100, target), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("container", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("wav", "pcm_s16le"), ("ogg", "libopus")]
)
def test_a_truncated_file_keeps_what_decodes_and_says_why(container: str, codec: str) -> None:
    sr = 48_000 if codec == "libopus" else 44_100
    whole = transcode(make_samples(20.0, sr=sr)[:, 0], sr, container, codec)
    audio = decode(whole[: len(whole) // 2], max_duration_s=LIMIT_S)
    assert 5.0 < audio.duration_s < 15.0
    assert audio.defect is not None
    assert "of the declared 20." in audio.defect or "no end-of-stream page: cut off at" in audio.defect


def test_a_flac_broken_in_the_middle_is_partial() -> None:
    data = bytearray(encode(make_samples(20.0, sr=44_100), 44_100, "FLAC"))
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    audio = decode(bytes(data), max_duration_s=LIMIT_S)
    assert audio.duration_s > 5.0
    assert audio.defect is not None


def test_a_wav_that_claims_ten_hours_is_partial_and_not_allocated() -> None:
    data = bytearray(encode(make_samples(1.0), 22_050, "WAV"))
    data[40:44] = struct.pack("<I", 22_050 * 2 * 36_000)
    audio = decode(bytes(data), max_duration_s=LIMIT_S)
    assert audio.duration_s == pytest.approx(1.0)
    assert audio.declared_duration_s is not None
    assert "1.00 s of the declared" in (audio.defect or "")


@pytest.mark.parametrize(
    ("data", "reason_class"),
    [
        (b"", "not_audio"),
        (b"\x00" * 10_000, "not_audio"),
        (np.random.default_rng(1).bytes(50_000), "not_audio"),
        (b"just some text\n" * 100, "not_audio"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "not_audio"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not_audio"),
        (encode(make_samples(1.0))[:44], "no_audio"),
    ],
    ids=["empty", "zeros", "noise", "text", "playlist", "concat", "header only"],
)
def test_what_is_no_audio_is_rejected(data: bytes, reason_class: str) -> None:
    assert reject(data) == reason_class


def test_a_picture_is_rejected() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as output:
        stream = output.add_stream("png", rate=1)
        stream.width = stream.height = 16
        stream.pix_fmt = "rgb24"
        for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))):
            output.mux(packet)
    assert reject(buffer.getvalue()) in {"no_audio", "not_audio"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_rejected(value: float) -> None:
    y = make_samples(1.0)
    y[1234] = value
    data = encode(y, 22_050, "WAV", "FLOAT")
    with pytest.raises(RejectedObjectError, match="sample 1234 is NaN or infinite"):
        decode(data, max_duration_s=LIMIT_S)


def test_too_long_is_found_while_decoding() -> None:
    assert reject(encode(make_samples(3.0)), max_duration_s=2.0) == "too_long"


def test_more_channels_than_the_source_allows_are_rejected() -> None:
    assert reject(encode(make_samples(0.1, channels=70), 22_050, "WAV", "PCM_16")) == "too_many_channels"


def test_many_channels_do_not_crash() -> None:
    y = make_samples(0.5, channels=32)
    audio = decode(encode(y, 22_050, "WAV", "FLOAT"), max_duration_s=LIMIT_S)
    np.testing.assert_allclose(audio.y, y.mean(axis=1), atol=1e-6)


MP3 = transcode(make_samples(5.0, sr=44_100)[:, 0], 44_100, "mp3", "libmp3lame")


@pytest.mark.parametrize(
    "data",
    [
        MP3 + b"\x00",
        MP3 + bytes(4096),
        MP3 + b"LYRICSBEGIN" + b"x" * 500 + b"LYRICS200",
        MP3 + b"TAG" + bytes(125),
        MP3 + MP3,
    ],
    ids=["nul", "padding", "lyrics", "id3v1", "concatenated"],
)
def test_a_whole_mp3_is_whole_whatever_follows_it(data: bytes) -> None:
    audio = decode(data, max_duration_s=LIMIT_S)
    assert audio.defect is None
    assert audio.duration_s >= 4.95


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_a_wav_whose_byte_rate_is_rounded_is_whole(subtype: str) -> None:
    assert decode(encode(make_samples(20.0), 22_050, "WAV", subtype), max_duration_s=LIMIT_S).defect is None


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_a_wav_that_was_streamed_makes_no_claim(size: int) -> None:
    data = bytearray(encode(make_samples(3.0), 22_050, "WAV"))
    data[40:44] = struct.pack("<I", size)
    audio = decode(bytes(data), max_duration_s=LIMIT_S)
    assert (audio.duration_s, audio.defect) == (pytest.approx(3.0), None)


def test_a_wav_with_a_wrong_byte_rate_is_whole() -> None:
    data = bytearray(encode(make_samples(3.0), 22_050, "WAV"))
    data[28:32] = struct.pack("<I", 22_050)
    assert decode(bytes(data), max_duration_s=LIMIT_S).defect is None


def test_ogg_pages_that_are_missing_are_missed() -> None:
    data = transcode(make_samples(20.0, sr=48_000)[:, 0], 48_000, "ogg", "libopus")
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    third = len(pages) // 3
    audio = decode(b"".join(pages[: third + 1] + pages[third + 4 :]), max_duration_s=LIMIT_S)
    assert audio.defect is not None
    assert "s are missing, the first at" in audio.defect


def test_a_webm_that_was_cut_off_is_partial() -> None:
    data = transcode(make_samples(20.0, sr=48_000)[:, 0], 48_000, "webm", "libopus")
    assert decode(data, max_duration_s=LIMIT_S).defect is None
    assert "of the declared 20." in (decode(data[: len(data) * 3 // 5], max_duration_s=LIMIT_S).defect or "")


def test_frames_that_cannot_be_converted_are_no_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file has decoded samples, but none to compute with."""

    def refuse(*_: object) -> None:
        raise ValueError("no such layout")

    monkeypatch.setattr("spectralize.decode.AudioDecoder._mix", refuse)
    with pytest.raises(RejectedObjectError, match="1 channels that cannot be converted: no such layout") as caught:
        decode(encode(make_samples(0.5)))
    assert caught.value.reason_class == "no_audio"
