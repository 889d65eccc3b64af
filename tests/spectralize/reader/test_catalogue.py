"""Finding recordings, and the errors of who asks for what is not there."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from spectralize import open_store
from spectralize.database import connect
from spectralize.errors import ConfigError, ReadError, ServiceError, SpectralizeError
from spectralize.profiles import load_profiles
from spectralize.reader import Store as Reader
from spectralize.reader import catalogue
from tests.spectralize.reader.conftest import OBJECTS, bucket_of
from tests.store import Store, wav

DAWN, DUSK, JAZZ, SHORT, TONE, CUT, EMPTY = OBJECTS


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {DAWN, DUSK, JAZZ, SHORT, TONE, CUT}),
        ({"key_prefix": "music/"}, {JAZZ, SHORT, TONE}),
        ({"key_prefix": "music/100%"}, {JAZZ}),
        ({"key_prefix": "usic/"}, set()),
        ({"bucket": "another"}, set()),
        ({"text": "SO what miles"}, {JAZZ}),
        ({"text": "what nobody"}, set()),
        ({"text": "100%_jazz"}, {JAZZ}),
        ({"text": "100_jazz"}, set()),
        ({"text": "\\"}, set()),
        ({"text": "DAWN.flac"}, {DAWN}),
        ({"tags": {"artist": "Miles"}}, {JAZZ}),
        ({"tags": {"artist": ["Monk", "Miles"], "year": 1959}}, {JAZZ}),
        ({"tags": {"artist": "miles"}}, set()),
        ({"tags": {"samplerate": 48_000}}, {DUSK}),
        ({"tags": {"no such tag": "x"}}, set()),
        ({"recorded_from": "2021-03-05", "recorded_to": "2021-03-06"}, {DUSK}),
        ({"recorded_to": date(2021, 3, 5)}, {DAWN}),
        ({"recorded_from": datetime(2021, 3, 4, 0, 0, 1, tzinfo=UTC), "recorded_to": "2022-01-01T00:00:00Z"}, {DUSK}),
        ({"min_duration_s": 3.0, "max_duration_s": 8.0}, {DAWN, TONE}),
        ({"outcome": "partial"}, {CUT}),
        ({"outcome": "rejected", "key_prefix": "damaged/"}, {EMPTY}),
        ({"outcome": ("loaded", "rejected"), "key_prefix": "damaged/"}, {EMPTY}),
        ({"outcome": "failed"}, set()),
        ({"profile": "speech80_16k", "key_prefix": "field/"}, {DAWN, DUSK}),
        ({"profile": "speech80_16k", "outcome": "rejected"}, {EMPTY}),
        ({"outcome": "rejected", "recorded_to": "2021-01-01"}, set()),
    ],
)  # fmt: skip
def test_filters(reader: Reader, filters: dict[str, Any], expected: set[str]) -> None:
    found = reader.recordings(**filters)
    keys = [recording.key for recording in found]
    assert set(keys) == expected
    assert keys == sorted(keys, key=str.encode)
    assert len(found) == len(expected)
    assert bool(found) == bool(expected)


def test_every_page_is_fetched_and_nothing_twice(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectralize.reader import recordings

    expected = [recording.id for recording in reader.recordings(outcome=("loaded", "partial", "rejected"))]
    assert len(expected) == len(OBJECTS)
    monkeypatch.setattr(catalogue, "_FIRST_RANGE", 1)
    for page in (1, 2, 3, len(OBJECTS)):
        monkeypatch.setattr(recordings, "PAGE", page)
        found = reader.recordings(outcome=("loaded", "partial", "rejected"))
        assert [recording.id for recording in found] == expected
    assert len(OBJECTS) < catalogue.PAGE


def test_names_of_a_recording(reader: Reader, filled: Store) -> None:
    by_key = reader.recording(JAZZ)
    assert by_key.url == f"s3://{filled.source.bucket}/{JAZZ}"
    for name in (by_key.id, by_key.uid, UUID(by_key.uid), by_key.url):
        assert reader.recording(name) == by_key
    assert list(by_key.spectrograms) == sorted(load_profiles())
    assert by_key.tags["artist"] == "Miles"
    assert (by_key.outcome, by_key.declared_codec, by_key.decoded_channels) == ("loaded", "mp3", 1)
    table = reader.recordings(key_prefix="music/").to_pandas()
    assert table.loc[by_key.id, "tag.title"] == "So What?"
    assert list(table["key"]) == [JAZZ, SHORT, TONE]
    assert reader.recordings(bucket="another").to_pandas().empty


def test_what_was_rejected_says_why(reader: Reader) -> None:
    recording = reader.recording(EMPTY)
    assert recording.outcome == "rejected"
    assert set(recording.refusals) == set(load_profiles())
    with pytest.raises(ReadError, match=r"was rejected \(empty\): the object has no bytes"):
        recording.mel(profile="mel128_22k")
    with pytest.raises(ReadError, match=r"was rejected \(empty\)"):
        recording.audio()
    assert reader.recording(CUT).spectrogram("mel128_22k").status == "partial"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (999_999, "recording 999999: not in the store"),
        (-1, "recording -1: not in the store"),
        (10**12, "not in the store"),
        (10**30, "not in the store"),
        ("no/such.wav", "recording no/such.wav: not in the store"),
        ("s3://nowhere/no.wav", "not in the store"),
        ("s3://", "not in the store"),
        ("", "not in the store"),
        ("a\x00b", "NUL"),
        ("00000000-0000-0000-0000-000000000000", "not in the store"),
    ],
)
def test_a_recording_that_is_not_there(reader: Reader, name: "int | str", message: str) -> None:
    with pytest.raises(ReadError, match=message) as raised:
        reader.recording(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((2.0, 2.0), "must begin at 0 s or later, and end after it begins"),
        ((3.0, 2.0), "must begin"),
        ((-1.0, 2.0), "window -1 s to 2 s: must begin at 0 s or later"),
        ((float("nan"), 2.0), "must begin"),
        ((5.0, 8.0), r"window 5 s to 8 s: the recording lasts 3.000 s"),
        ((2.0, 4.0), r"the recording lasts 3.000 s"),
        ((0.0, float("inf")), "the recording lasts"),
        ((0.024, 0.025), "nothing starts in it; rows are 0.023220 s apart"),
    ],
)
def test_a_window_that_cannot_be(reader: Reader, window: tuple[float, float], message: str) -> None:
    recording = reader.recording(TONE)
    with pytest.raises(ReadError, match=message):
        recording.mel(*window, profile="mel128_22k")
    with pytest.raises(ReadError, match=message):
        recording.waveform(*window, profile="mel128_22k")


def test_profiles_must_be_said_where_there_are_several(reader: Reader, filled: Store) -> None:
    recording = reader.recording(TONE)
    with pytest.raises(ReadError, match="has several profiles: say profile='bioacoustic96_256k' or 'mel128_22k' or"):
        recording.mel()
    with pytest.raises(ReadError, match="has no profile 'mel129'; it has bioacoustic96_256k, mel128_22k, "):
        recording.mel(profile="mel129")
    with pytest.raises(ReadError, match=r"has no profile 'xxx.*x…; it has") as found:
        # Whoever asks a service of theirs for it is not answered, and not logged, a megabyte.
        recording.mel(profile="x" * 1_000_000)
    assert len(str(found.value)) < 2_000
    with pytest.raises(ReadError, match="profile 'mel129': nothing in the store has it; there are bioacoustic96"):
        list(reader.recordings(profile="mel129"))
    with open_store(filled.dsn, profile="mel128_22k") as with_default:
        assert with_default.recording(TONE).mel().attrs["profile"] == "mel128_22k"
    with pytest.raises(ReadError, match="keeps no samples"):
        recording.pcm(profile="mel128_22k")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ref": "min"}, r"ref = 'min': must be \"max\" or a positive power"),
        ({"ref": 0.0}, "ref = 0.0: must be"),
        ({"ref": float("nan")}, "ref = nan: must be"),
        ({"top_db": -1}, "top_db = -1: must be 0 or more"),
        ({"ref": np.max}, "ref = <function max.*: must be"),
        ({"ref": None}, "ref = None: must be"),
        ({"ref": np.array([1.0, 2.0])}, "ref = .*: must be"),
        ({"top_db": "80"}, "top_db = '80': must be 0 or more"),
    ],
)
def test_references_that_cannot_be(reader: Reader, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        reader.recording(TONE).mel(0, 1, "mel128_22k", **arguments)


def test_many_windows_that_cannot_be(reader: Reader) -> None:
    tone, dawn = reader.recording(TONE), reader.recording(DAWN)
    with pytest.raises(ReadError, match="2 recordings and 1 starts: must be as many"):
        reader.mel_windows([tone, dawn], [0.0], 1.0)
    with pytest.raises(ReadError, match="0 recordings and 0 starts"):
        reader.mel_windows([], [], 1.0)
    with pytest.raises(ReadError, match=r"recordings = .*: must be a list, also of one"):
        reader.mel_windows(tone, [0.0], 1.0, "mel128_22k")  # type: ignore[arg-type]
    with pytest.raises(ReadError, match=r"recordings = .*: must be a list, also of one"):
        reader.mel_windows(TONE, [0.0], 1.0, "mel128_22k")
    with pytest.raises(ReadError, match=r"fill_db = 'x': must be a number"):
        reader.mel_windows([tone], [2.5], 1.0, "mel128_22k", fill_db="x")  # type: ignore[arg-type]
    with pytest.raises(ReadError, match=r"the recording lasts 3.000 s; such a window starts at 2.020 s at the latest"):
        reader.mel_windows([tone], [2.5], 1.0, "mel128_22k")
    with pytest.raises(ReadError, match="it is shorter than that; or give fill_db"):
        reader.mel_windows([tone], [0.0], 10.0, "mel128_22k")
    with pytest.raises(ReadError, match="keeps each recording's own rate, and these have 22050 Hz, 44100 Hz"):
        reader.mel_windows([tone, dawn], [0.0, 0.0], 1.0, "seed2020")
    with pytest.raises(ReadError, match="recording 999999: not in the store"):
        reader.mel_windows([tone.id, 999_999], [0.0, 0.0], 1.0, "mel128_22k")
    for duration in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ReadError, match=r"duration_s = .*: must be above 0"):
            reader.mel_windows([tone], [0.0], duration, "mel128_22k")


def test_recordings_of_different_profiles_do_not_mix(reader: Reader, dsn: str, aws: None) -> None:
    with bucket_of(dsn, "mixed", profiles=("speech80_16k",)) as other:
        other.put("other.wav", wav(3.0))
        other.ingest()
        pair = [reader.recording(TONE), reader.recording("other.wav")]
        with pytest.raises(ReadError, match="has several profiles"):
            reader.mel_windows(pair, [0.0, 0.0], 1.0)
        alone = open_store(dsn, profile=None)
        assert alone.mel_windows(pair, [0.0, 0.0], 1.0, "speech80_16k").shape == (2, 100, 80)
        with bucket_of(dsn, "mixed", profiles=("mel128_22k",)) as third:
            third.put("third.wav", wav(3.0))
            third.ingest()
            pair = [reader.recording("third.wav"), reader.recording("other.wav")]
            with pytest.raises(
                ReadError, match=r"different profiles \(mel128_22k, speech80_16k\): name one that all have"
            ):
                reader.mel_windows(pair, [0.0, 0.0], 1.0)


def test_a_key_in_two_buckets_needs_its_bucket(reader: Reader, filled: Store, dsn: str, aws: None) -> None:
    with bucket_of(dsn, "twin") as other:
        other.put(TONE, wav(1.0))
        other.ingest()
        with pytest.raises(ReadError, match=r"is in several buckets: write s3://.*\|.*/…"):
            reader.recording(TONE)
        assert reader.recording(f"s3://{other.source.bucket}/{TONE}").duration_s == 1.0
        assert reader.recording(f"s3://{filled.source.bucket}/{TONE}").duration_s == 3.0
        assert len(reader.recordings(bucket=other.source.bucket)) == 1
        # Leave the others what they know.
        other.connection.execute(
            "DELETE FROM spectralize.mel_frames WHERE spectrogram_id = ANY (%s)",
            (
                [
                    item.spectrogram_id
                    for item in reader.recording(f"s3://{other.source.bucket}/{TONE}").spectrograms.values()
                ],
            ),
        )
        other.connection.rollback()


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"outcome": "good"}, "outcome = 'good': must be one of loaded, partial, rejected, failed"),
        ({"outcome": ()}, "name at least one"),
        ({"recorded_from": "yesterday"}, "recorded_from = 'yesterday': must be a time such as"),
        ({"recorded_from": "2021-03-05T12:00:00"}, "has no time zone"),
        ({"recorded_to": datetime(2021, 3, 5)}, "has no time zone"),  # noqa: DTZ001
        ({"recorded_from": "2021-03-05", "recorded_to": "2021-03-05"}, "must be after recorded_from"),
        ({"min_duration_s": 5.0, "max_duration_s": 4.0}, "must not be below min_duration_s"),
        ({"tags": {"track": "first"}}, "tag track = 'first': must be a number"),
    ],
)  # fmt: skip
def test_filters_that_can_match_nothing(reader: Reader, filters: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        list(reader.recordings(**filters))


def test_nothing_is_connected_before_something_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECTRALIZE_DSN", raising=False)
    with pytest.raises(ConfigError, match="no database given"):
        open_store()
    away = open_store("postgresql://u:topsecret@127.0.0.1:9/d")
    found = away.recordings(text="x")
    assert "topsecret" not in f"{away!r} {found!r}"
    with pytest.raises(ServiceError, match=r"database u@127\.0\.0\.1:9/d is unreachable") as raised:
        len(found)
    assert "topsecret" not in str(raised.value)


def test_a_database_without_schema_or_rights_says_so(empty_dsn: str, filled: Store) -> None:
    with open_store(empty_dsn) as store, pytest.raises(SpectralizeError, match="run spectralize migrate"):
        store.recording(1)
    with (
        open_store(filled.dsn.replace("spectralize:", "nobody:", 1)) as store,
        pytest.raises(ConfigError, match="refuses us"),
    ):
        store.recording(1)


def test_an_overwritten_object_is_read_by_id_until_it_is_removed(dsn: str, aws: None) -> None:
    from datetime import timedelta

    from spectralize.maintenance import remove_superseded

    with bucket_of(dsn, "over") as store, open_store(dsn) as reader:
        store.put("a.wav", wav(1.0, seed=1))
        store.ingest()
        old = reader.recording("a.wav")
        before = old.mel()
        store.put("a.wav", wav(2.0, seed=2))
        # Until the new one is loaded, readers see the old one.
        assert reader.recording("a.wav") == old
        store.ingest()
        new = reader.recording("a.wav")
        assert (new.id != old.id, new.duration_s) == (True, 2.0)
        assert [recording.id for recording in reader.recordings(bucket=store.source.bucket)] == [new.id]
        assert reader.recording(old.id).mel().identical(before)
        with connect(dsn) as connection:
            remove_superseded(connection, grace=timedelta(0))
        with pytest.raises(
            ReadError, match=r"does not hold its rows 0 to 43: it was removed since this recording was looked up"
        ):
            old.mel()
        with pytest.raises(
            ReadError, match=rf"recording {old.id}: its spectrograms have expired, .*mel128_22k \(superseded\)"
        ):
            reader.recording(old.id)
        assert len(new.mel()) == 87


@pytest.mark.parametrize(
    "name",
    [True, np.True_, 3.0, Decimal(3), None, b"music/sub/tone.wav", Path(TONE), [1], np.array(3), np.datetime64("2021-03-04")],
)  # fmt: skip
def test_what_cannot_name_a_recording(reader: Reader, name: Any) -> None:
    with pytest.raises(ReadError, match=r"recording .*: must be an id, a uid, s3://bucket/key, or a key"):
        reader.recording(name)
    with pytest.raises(ReadError, match="must be an id"):
        reader.mel_windows([1, name], [0.0, 0.0], 0.2, "mel128_22k")


@pytest.mark.parametrize(
    "name",
    ["a\ud800b", f"s3:///{TONE}", 10**5000, "x" * 100_000, "9" * 5000],
    ids=["surrogate", "bucket", "int", "x", "digits"],
)
def test_names_that_no_recording_has(reader: Reader, name: "int | str") -> None:
    with pytest.raises(ReadError, match="not in the store") as raised:
        reader.recording(name)
    assert len(str(raised.value)) < 1_200


@pytest.mark.parametrize(
    "seconds",
    [True, "1.5", b"1", timedelta(seconds=1), datetime(2021, 3, 4, tzinfo=UTC), np.timedelta64(1_000, "ms"), np.array([1.0]),
     10**400, 1j],
)  # fmt: skip
def test_times_that_are_no_seconds(reader: Reader, filled: Store, seconds: Any) -> None:
    tone = reader.recording(f"s3://{filled.source.bucket}/{TONE}")
    for read in (tone.mel, tone.waveform, tone.seconds):
        with pytest.raises(ReadError, match=r"start_s = .*: must be a number of seconds"):
            read(seconds, 2.5, "mel128_22k")
    with pytest.raises(ReadError, match=r"end_s = .*: must be a number of seconds"):
        tone.audio(0.5, seconds)
    # As a list numpy would have taken some of these for numbers, of whatever unit.
    with pytest.raises(ReadError, match=r"starts_s = .*: must be a number of seconds"):
        reader.mel_windows([tone], [seconds], 0.5, "mel128_22k")
    with pytest.raises(ReadError, match=r"duration_s = .*: must be a number of seconds"):
        reader.mel_windows([tone], [0.0], seconds, "mel128_22k")


def test_numbers_of_other_libraries_are_numbers(reader: Reader, filled: Store) -> None:
    tone = reader.recording(f"s3://{filled.source.bucket}/{TONE}")
    expected = tone.mel(1.5, 2.5, "mel128_22k")
    at = expected["time_s"][0]
    for start in (np.float32(1.5), Decimal("1.5"), Fraction(3, 2), np.array(1.5)):
        assert tone.mel(start, np.int8(2) + 0.5, "mel128_22k").identical(expected)  # type: ignore[arg-type]
    assert tone.mel(at, 2.5, "mel128_22k").identical(expected)
    found = reader.recordings(
        bucket=filled.source.bucket,
        min_duration_s=Decimal("2.9"),  # type: ignore[arg-type]
        max_duration_s=np.float32(7),  # type: ignore[arg-type]
    )
    assert [recording.key for recording in found] == [TONE]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"text": 5}, "text = 5: must be text"),
        ({"text": "a\ud800"}, "text without NUL and lone surrogates"),
        ({"bucket": b"x"}, "bucket = b'x': must be text"),
        ({"key_prefix": Path("music")}, r"key_prefix = PosixPath\('music'\): must be text"),
        ({"profile": ["mel128_22k"]}, r"profile = \['mel128_22k'\]: must be text"),
        ({"profile": ""}, "profile '': nothing in the store has it"),
        ({"tags": [("artist", "Miles")]}, "must be tag names and their values"),
        ({"tags": {"artist": None}}, "tag artist = None: must be text or a number"),
        ({"tags": {"artist": ["Miles", None]}}, "tag artist = None: must be text or a number"),
        ({"tags": {"artist": b"Miles"}}, "tag artist = b'Miles': must be text or a number"),
        ({"tags": {"artist": []}}, "tag artist: name at least one value"),
        ({"tags": {"track": float("nan")}}, "tag track = nan: must be a number"),
        ({"tags": {"track": 10**400}}, "tag track = 1000.*: must be a number"),
        ({"tags": {5: "x"}}, "name of a tag = 5: must be text"),
        ({"recorded_from": np.datetime64("2021-03-04")}, "recorded_from = 2021-03-04: must be a time such as"),
        ({"recorded_from": 1_614_816_000}, "recorded_from = 1614816000: must be a time such as"),
        ({"recorded_to": datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))}, "is outside the calendar"),
        ({"min_duration_s": "5"}, "min_duration_s = '5': must be a number of seconds"),
        ({"min_duration_s": float("nan")}, "min_duration_s = nan: must be 0 s or more"),
        ({"max_duration_s": -1}, "max_duration_s = -1: must be 0 s or more"),
        ({"outcome": None}, "outcome = None: must be a list"),
        ({"outcome": [["loaded"]]}, r"outcome = \['loaded'\]: must be one of"),
    ],
)  # fmt: skip
def test_filters_of_the_wrong_kind(reader: Reader, filters: dict[str, Any], message: str) -> None:
    # Not as if the schema were old, which is what PostgreSQL's own complaint about a type would be taken for.
    with pytest.raises(ReadError, match=message):
        list(reader.recordings(**filters))
    with pytest.raises(ReadError, match=message):
        len(reader.recordings(**filters))


def test_filters_of_several_kinds_of_several(reader: Reader) -> None:
    for artists in (np.array(["Miles"]), pd.Series(["Miles", "Monk"]), (name for name in ("Monk", "Miles")), {"Miles"}):
        assert [recording.key for recording in reader.recordings(tags={"artist": artists})] == [JAZZ]
    # The hour that comes twice: later by the sun, earlier by the clock.
    berlin = ZoneInfo("Europe/Berlin")
    found = reader.recordings(
        recorded_from=datetime(2020, 10, 25, 2, 30, tzinfo=berlin),
        recorded_to=datetime(2020, 10, 25, 2, 15, fold=1, tzinfo=berlin),
    )
    assert len(found) == 0


@pytest.mark.parametrize("n", [-1, 1.5, "3", None, True])
def test_a_head_that_cannot_be(reader: Reader, n: Any) -> None:
    with pytest.raises(ReadError, match=r"n = .*: must be a number of recordings"):
        reader.recordings().head(n)
    assert len(reader.recordings().head(10**30)) >= 6
