"""From the bytes of a file to rows, against librosa on the whole file."""

import hashlib
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectralize.binarycopy import RowBlock
from spectralize.errors import RejectedObjectError
from spectralize.extract import Extraction, extract
from spectralize.features import FeatureSummary
from spectralize.profiles import MelProfile, load_profiles
from spectralize.tables import Limits, Timings
from tests.reference import assert_equals_librosa, librosa_mel
from tests.store import encode, make_samples

RECORDED_AT = datetime(2024, 6, 1, 4, 30, tzinfo=UTC)
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Rows:
    """What was emitted, decoded from the wire by its own description: lengths and big-endian values."""

    blocks: dict[tuple[str, str], list[RowBlock]] = field(default_factory=dict)

    def emit(self, profile: str, block: RowBlock) -> None:
        self.blocks.setdefault((profile, block.table), []).append(block)

    def column(self, profile: str, table: str, name: str, dtype: str, dim: int = 0) -> np.ndarray:
        return np.concatenate([_read(block, name, dtype, dim) for block in self.blocks[profile, table]])


def _read(block: RowBlock, name: str, dtype: str, dim: int) -> np.ndarray:
    rows = np.frombuffer(block.data, dtype=np.uint8).reshape(block.n_rows, -1)
    assert (rows[:, :2].copy().view(">i2") == len(block.columns)).all()
    start = 2
    for column in block.columns:
        [length] = np.unique(rows[:, start : start + 4].copy().view(">i4"))
        if column == name:
            values = rows[:, start + 4 : start + 4 + length].copy()
            return values[:, 4:].copy().view(dtype) if dim else values.view(dtype)[:, 0]
        start += 4 + length
    raise KeyError(name)


def run(data: bytes, *profiles: MelProfile) -> tuple[Rows, Extraction]:
    rows = Rows()
    return rows, extract(io.BytesIO(data), profiles, Limits(1 << 30, 600.0), RECORDED_AT, rows.emit, Timings())


def make_profile(**changes: object) -> MelProfile:
    values = {
        "name": "test",
        "sr": 22_050,
        "n_fft": 1024,
        "hop_length": 256,
        "win_length": 1024,
        "n_mels": 40,
    } | changes
    return MelProfile.model_validate(values)


@pytest.mark.filterwarnings("ignore:Empty filters", "ignore:n_fft=")
@settings(max_examples=80, deadline=None)
@given(
    sr=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 250_000]),
    target=st.sampled_from(["native", 8_000, 16_000, 22_050, 48_000]),
    channels=st.integers(1, 12),
    n_samples=st.one_of(st.sampled_from([1, 1023, 1024, 1025]), st.integers(1, 40_000)),
    block=st.sampled_from([1, 5_000, 1 << 19]),
    container=st.sampled_from(["WAV", "AIFF", "FLAC", "W64"]),
    seed=st.integers(0, 5),
)
def test_any_rate_and_channel_count_equals_librosa(
    sr: int, target: int | str, channels: int, n_samples: int, block: int, container: str, seed: int
) -> None:
    channels = min(channels, 8) if container == "FLAC" else channels
    y = np.random.default_rng(seed).uniform(-0.9, 0.9, (n_samples, channels)).astype(np.float32)
    subtype = "PCM_24" if container in {"FLAC", "AIFF"} else "FLOAT"
    data = encode(y, sr, container, subtype)
    profile = make_profile(sr=target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spectralize.decode._BLOCK_SAMPLES", block)
        patch.setattr("spectralize.decode._QUEUE_SAMPLES", block)
        rows, extraction = run(data, profile)
    whole, _ = librosa.load(io.BytesIO(data), sr=None if target == "native" else target)
    result = extraction.features["test"]
    assert isinstance(result, FeatureSummary)
    assert (extraction.audio.sr, extraction.audio.channels, extraction.audio.n_samples) == (sr, channels, n_samples)
    assert extraction.audio.defect is None
    assert result.n_samples == len(whole)
    mel = rows.column("test", "mel_frames", "mel", ">f2", dim=40).astype(np.float32)
    assert_equals_librosa(mel, whole, result.sr, profile, is_half=True)
    assert result.peak_db == pytest.approx(librosa_mel(whole, result.sr, profile).max(), abs=0.01)


def test_rows_are_complete_and_on_time() -> None:
    y = make_samples(3.21, sr=44_100, channels=2)
    profile = make_profile(sr=44_100, waveform="pcm", hop_length=441)
    rows, extraction = run(encode(y, 44_100, "WAV", "FLOAT"), profile)
    result = extraction.features["test"]
    assert isinstance(result, FeatureSummary)
    mono = y.mean(axis=1)
    for table, n_rows in (("mel_frames", result.n_frames), ("waveform_frames", result.n_hops)):
        index = rows.column("test", table, "frame_index", ">i4")
        np.testing.assert_array_equal(index, np.arange(n_rows))
        at = rows.column("test", table, "frame_time", ">i8")
        expected = [
            (RECORDED_AT + timedelta(seconds=i / 100) - EPOCH) // timedelta(microseconds=1) for i in range(n_rows)
        ]
        np.testing.assert_allclose(at, expected, atol=1)
    lowest = rows.column("test", "waveform_frames", "min", ">f4")
    np.testing.assert_allclose(lowest, [mono[i : i + 441].min() for i in range(0, len(mono), 441)], atol=1e-6)
    seconds = rows.column("test", "mel_seconds", "second_index", ">i4")
    np.testing.assert_array_equal(seconds, np.arange(4))
    assert rows.column("test", "mel_seconds", "n_frames", ">i4").sum() == result.n_frames


def test_profiles_of_one_decode_equal_each_alone() -> None:
    profiles = list(load_profiles().values())
    data = encode(make_samples(4.0, sr=48_000, channels=2), 48_000, "FLAC")
    together, extraction = run(data, *profiles)
    assert set(extraction.features) == {profile.name for profile in profiles}
    for profile in profiles:
        alone, _ = run(data, profile)
        for key, blocks in alone.blocks.items():
            assert b"".join(block.data for block in blocks) == b"".join(block.data for block in together.blocks[key])


def test_a_profile_that_cannot_be_computed_leaves_the_others() -> None:
    short, whole = make_profile(name="short"), make_profile(name="whole", center=False)
    _, extraction = run(encode(make_samples(0.02)), short, whole)
    assert isinstance(extraction.features["short"], FeatureSummary)
    refusal = extraction.features["whole"]
    assert isinstance(refusal, RejectedObjectError)
    assert refusal.reason_class == "too_short"
    assert str(refusal) == "441 samples at 22050 Hz are fewer than one frame of profile whole (1024)"


def test_the_hash_is_that_of_the_bytes() -> None:
    data = encode(make_samples(0.1)) + b"trailing bytes that no decoder reads"
    assert run(data, make_profile())[1].sha256 == hashlib.sha256(data).digest()
