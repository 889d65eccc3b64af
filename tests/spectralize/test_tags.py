"""Tags are hostile claims: typed where they can be, cut where they are absurd, never a reason to fail."""

import io
import struct

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectralize.tables import TAG_COLUMNS
from spectralize.tags import Picture, read_tags
from tests.store import make_samples


def tagged(tags: dict[str, str], container: str = "mp3", codec: str = "libmp3lame") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        output.metadata.update(tags)
        stream = output.add_stream(codec, rate=44_100, layout="mono")
        for start in range(0, 44_100, 1024):
            block = (make_samples(1.0, sr=44_100)[start : start + 1024, 0] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block[None, :], format="s16p", layout="mono")
            frame.sample_rate, frame.pts = 44_100, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("flac", "flac"), ("ipod", "aac")])
def test_the_columns_of_the_seed_are_typed(container: str, codec: str) -> None:
    given_tags = {
        "title": "Läuft",
        "artist": "Max",
        "album": "Röhre",
        "track": "3/7",
        "genre": "Ambient",
        "date": "2012",
    }
    data = tagged(given_tags, container, codec)
    columns = read_tags(io.BytesIO(data)).columns
    assert set(columns) == set(TAG_COLUMNS)
    assert (columns["title"], columns["artist"], columns["album"], columns["genre"]) == (
        "Läuft",
        "Max",
        "Röhre",
        "Ambient",
    )
    assert (columns["track"], columns["year"], columns["samplerate"], columns["channels"]) == (3, "2012", 44_100, 1)
    assert columns["filesize"] == len(data)
    assert columns["duration"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("track", ["9" * 400, "-1", "1e400", "nan", "3000000000", "x"])
def test_a_track_that_is_no_sane_number_is_no_reason_to_fail(track: str) -> None:
    number = read_tags(io.BytesIO(tagged({"track": track, "title": "kept"}, "flac", "flac"))).columns
    assert number["title"] == "kept"
    assert number["track"] is None or abs(int(number["track"])) < 2**31


def test_absurdly_long_and_many_values_are_cut() -> None:
    tags = {"title": "t" * 1_000_000} | {f"name{number}": "v" for number in range(2_000)}
    found = read_tags(io.BytesIO(tagged(tags, "flac", "flac")))
    assert len(str(found.columns["title"])) == 16_384
    assert sum(len(values) for values in found.other.values()) <= 256


def test_nul_and_surrogates_are_dropped() -> None:
    info = b"INFOINAM" + struct.pack("<I", 10) + b"ab\x00cd\xed\xa0\x80e\x00"
    data = b"RIFF" + struct.pack("<I", 4 + 24 + 8 + len(info)) + b"WAVE"
    data += (
        b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"LIST" + struct.pack("<I", len(info)) + info
    )
    title = read_tags(io.BytesIO(data + b"data" + struct.pack("<I", 4) + bytes(4))).columns["title"]
    assert str(title).startswith("ab")
    assert "\x00" not in str(title)


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=400),
    head=st.sampled_from([b"", b"ID3\x04\x00\x00", b"fLaC", b"OggS", b"RIFF\xff\xff\xff\xffWAVE"]),
)
def test_no_bytes_make_it_raise(data: bytes, head: bytes) -> None:
    tags = read_tags(io.BytesIO(head + data))
    assert tags.columns["filesize"] == len(head) + len(data)


def id3_with_picture(mime: bytes, data: bytes, description: bytes) -> bytes:
    """An ID3v2.3 tag with a title and a front cover."""

    def frame(name: bytes, body: bytes) -> bytes:
        return name + struct.pack(">IH", len(body), 0) + body

    body = frame(b"TIT2", b"\x00a title") + frame(b"APIC", b"\x00" + mime + b"\x00\x03" + description + b"\x00" + data)
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + body


def test_pictures_are_noted_and_left_out() -> None:
    tags = read_tags(io.BytesIO(id3_with_picture(b"image/png", b"\x89PNG" * 500, b"the cover") + tagged({})))
    assert tags.columns["title"] == "a title"
    assert tags.pictures == [Picture("front_cover", "image/png", 2000, "the cover")]
    assert "PNG" not in repr(tags)
