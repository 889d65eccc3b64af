"""Profiles, sources and keys: what is accepted, and what the message says when it is not."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from spectralize.errors import ConfigError
from spectralize.keys import is_wanted, key_to_time
from spectralize.profiles import find_profile, load_profiles, parse_profile
from spectralize.sources import Source, load_sources

GOOD = {"sr": 22050, "n_fft": 2048, "hop_length": 512, "win_length": 2048, "n_mels": 128}
MODIFIED = datetime(2024, 7, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_fft": 0}, "n_fft = 0: input should be greater than or equal to 16"),
        ({"n_fft": 20.5}, "n_fft = 20.5: input should be a valid integer"),
        ({"win_length": 4096}, r"win_length = 4096: must be at most n_fft \(2048\)"),
        ({"fmax": 12000.0}, r"fmax = 12000.0: must be at most sr / 2 \(11025\)"),
        ({"fmin": 500.0, "fmax": 400.0}, r"fmax = 400.0: must be above fmin \(500.0\)"),
        ({"window": "han"}, "window = 'han': input should be 'hann'"),
        ({"waveform": "all"}, "waveform = 'all': input should be 'off', 'envelope' or 'pcm'"),
        ({"n_mel": 1}, "n_mel: there is no such key"),
        ({"sr": "44100"}, "sr.*'44100'"),
    ],
)
def test_a_bad_profile_names_parameter_value_and_expectation(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"profile 'p': .*{message}"):
        parse_profile("p", GOOD | changes)


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(ConfigError, match="hop_length: field required"):
        parse_profile("p", {name: value for name, value in GOOD.items() if name != "hop_length"})


def test_an_unknown_profile_names_those_there_are() -> None:
    known = ", ".join(sorted(load_profiles()))
    with pytest.raises(ConfigError, match=rf"profile 'nope': not in mel_profiles\.toml, which has {known}"):
        find_profile("nope")


def test_equal_parameters_have_equal_fingerprints_and_any_change_another() -> None:
    base = parse_profile("a", GOOD)
    assert parse_profile("b", dict(reversed(GOOD.items()))).fingerprint == base.fingerprint
    for change in ({"n_mels": 64}, {"htk": True}, {"waveform": "pcm"}, {"sr": "native"}, {"amin": 1e-9}):
        assert parse_profile("a", GOOD | change).fingerprint != base.fingerprint


def test_the_shipped_profiles_never_change() -> None:
    """A stored profile is immutable: to change one of these, add a profile with a new name."""
    assert {name: profile.fingerprint[:16] for name, profile in load_profiles().items()} == {
        "mel128_22k": "d768f8d779b29d21",
        "seed2020": "05cf460095afd1d8",
        "seed2020_pcm": "a9b790e93faacf0c",
        "speech80_16k": "99f137b8cc2dc6c9",
        "bioacoustic96_256k": "5bd01d0200d3f4f8",
    }


def write_sources(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(__file__).parents[2] / "config"
    (folder / "mel_profiles.toml").write_text((shipped / "mel_profiles.toml").read_text())
    (folder / "sources.toml").write_text(text)
    monkeypatch.setenv("SPECTRALIZE_CONFIG", str(folder))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bucket = 'b'", "bucket = 'b': string should have at least 3 characters"),
        (
            "profiles = ['nope']",
            f"profiles: 'nope' is not in mel_profiles.toml, which has {', '.join(sorted(load_profiles()))}",
        ),
        ("timezone = 'Mars'", "timezone = 'Mars': not a zone name"),
        ("time_patterns = ['(']", "time_patterns: '\\(' is not a regular expression"),
        ("time_patterns = ['(?P<year>x)']", "must have the groups year, month, day"),
        ("max_rejected_share = 2", "max_rejected_share = 2: input should be less than or equal to 1"),
        ("owner = ' '", "owner = ' ': string should match pattern"),
        ('owner = "who\\u0000"', "string should match pattern"),
        ("late_after_s = '6 h'", "late_after_s = '6 h': input should be a valid number"),
        ("retries = 2.5", "retries = 2.5: input should be a valid integer"),
        ("buckt = 'x'", "buckt: there is no such key"),
    ],
)
def test_a_bad_source_is_one_line_and_leaves_the_others(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = line.split(" = ")[0]
    bad = {"bucket": "bucket = 'bats'", "profiles": "profiles = ['mel128_22k']"} | {name: line}
    good = "[sources.good]\nbucket = 'birds'\nprofiles = ['mel128_22k']\n"
    write_sources(
        tmp_path, "manifests = 's3://m/x'\n[sources.bad]\n" + "\n".join(bad.values()) + "\n" + good, monkeypatch
    )
    sources = load_sources()
    assert list(sources.sources) == ["good"]
    with pytest.raises(ConfigError, match=f"source 'bad': .*{message}") as caught:
        sources.find("bad")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"source 'worse': not in sources\.toml, which has good"):
        sources.find("worse")


def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sources(tmp_path, "[sources", monkeypatch)
    with pytest.raises(ConfigError, match=r"sources\.toml: "):
        load_sources()


def source(**changes: object) -> Source:
    return Source.model_validate({"name": "test", "bucket": "birds", "profiles": ("mel128_22k",)} | changes)


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("a.wav", True),
        ("deep/er/A.WAV", True),
        ("a.wav.txt", False),
        ("folder.wav/", False),
        ("trash/a.wav", False),
        ("a", False),
    ],
)
def test_globs_select_by_the_whole_key_whatever_its_case(key: str, wanted: bool) -> None:
    assert is_wanted(key, source(include=("*.wav",), exclude=("trash/*",))) is wanted


SHIPPED = load_sources().find("audio").time_patterns


@pytest.mark.parametrize(
    ("key", "zone", "expected"),
    [
        ("site/20240601_043000.WAV", "UTC", datetime(2024, 6, 1, 4, 30, tzinfo=UTC)),
        ("site/20240601_043000.WAV", "Europe/Berlin", datetime(2024, 6, 1, 2, 30, tzinfo=UTC)),
        ("REC-20240601T235959-x.flac", "UTC", datetime(2024, 6, 1, 23, 59, 59, tzinfo=UTC)),
        ("2024/06/01/a.mp3", "UTC", datetime(2024, 6, 1, tzinfo=UTC)),
    ],
)
def test_the_key_tells_the_time(key: str, zone: str, expected: datetime) -> None:
    found = key_to_time(key, source(time_patterns=SHIPPED, timezone=zone), MODIFIED)
    assert (found.at, found.origin, found.flag) == (expected, "key", None)


@pytest.mark.parametrize(
    ("key", "flag"),
    [
        ("a.wav", None),
        ("20241301_000000.wav", "'20241301_000000' in the key is no time"),
        ("19700101_000000.wav", "'19700101_000000' in the key is outside sane bounds"),
        ("20990101_000000.wav", "'20990101_000000' in the key is outside sane bounds"),
    ],
)
def test_a_clock_out_of_bounds_falls_back_to_last_modified_and_is_flagged(key: str, flag: str | None) -> None:
    found = key_to_time(key, source(time_patterns=SHIPPED), MODIFIED)
    assert (found.at, found.origin) == (MODIFIED, "last_modified")
    assert (found.flag or "").startswith(flag or "")
    assert (found.flag is None) == (flag is None)


@pytest.mark.parametrize(
    ("key", "zone"), [("00010101_000000.wav", "Europe/Berlin"), ("99991231_235959.wav", "America/New_York")]
)
def test_a_date_at_the_edge_of_time_is_flagged(key: str, zone: str) -> None:
    found = key_to_time(key, source(time_patterns=SHIPPED, timezone=zone), MODIFIED)
    assert (found.at, found.origin) == (MODIFIED, "last_modified")
    assert found.flag


def test_a_recorder_slightly_ahead_is_believed() -> None:
    ahead = MODIFIED + timedelta(hours=14)
    assert key_to_time(f"{ahead:%Y%m%d_%H%M%S}.wav", source(time_patterns=SHIPPED), MODIFIED).origin == "key"
