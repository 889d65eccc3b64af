"""Frames against librosa itself, on the same samples."""

import itertools
from typing import get_args

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectralize import mel as mel_module
from spectralize.mel import MelStream, count_frames, samples_to_mel
from spectralize.profiles import MelProfile, PadMode, load_profiles
from tests.reference import assert_close_db, assert_equals_librosa, librosa_mel

SR = 22_050


def make_profile(**changes: object) -> MelProfile:
    values = {"name": "test", "sr": SR, "n_fft": 1024, "hop_length": 256, "win_length": 1024, "n_mels": 40} | changes
    return MelProfile.model_validate(values)


def make_sound(seconds: float, *, seed: int = 0, sr: int = SR) -> np.ndarray:
    """Two chirps, noise at -50 dB and a stretch of silence: every level that music has."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * sr)) / sr
    y = 0.5 * np.sin(2 * np.pi * (200 + 300 * t) * t) + 0.1 * np.sin(2 * np.pi * (5000 - 100 * t) * t)
    y += 0.003 * rng.standard_normal(len(t))
    y[len(y) // 2 : len(y) // 2 + sr // 4] = 0.0
    return y.astype(np.float32)


@pytest.mark.parametrize("name", sorted(load_profiles()))
@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("sr", [8_000, 22_050, 44_100, 256_000])
def test_each_shipped_profile_equals_librosa(name: str, sr: int) -> None:
    profile = load_profiles()[name]
    y = make_sound(3.3, sr=sr)
    assert_close_db(samples_to_mel(y, sr, profile), librosa_mel(y, sr, profile), bound_db=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"htk": True},
        {"norm": "none"},
        {"power": 1.0},
        {"center": False},
        {"pad_mode": "reflect"},
        {"pad_mode": "edge"},
        {"window": "hamming"},
        {"win_length": 401, "hop_length": 160},
        {"n_fft": 1023, "win_length": 1000},
        {"fmin": 300.0, "fmax": 3000.0},
        {"hop_length": 2048},
        {"amin": 1e-5},
    ],
    ids=str,
)
def test_each_parameter_equals_librosa(changes: dict[str, object]) -> None:
    profile = make_profile(**changes)
    y = make_sound(2.0)
    assert_close_db(samples_to_mel(y, SR, profile), librosa_mel(y, SR, profile), bound_db=0.01)


def in_pieces(y: np.ndarray, profile: MelProfile, sizes: list[int]) -> np.ndarray:
    """Push y through a stream in pieces of these sizes, over and over."""
    stream = MelStream(profile, SR)
    pieces, start = [], 0
    for size in itertools.cycle(sizes):
        if start >= len(y):
            break
        pieces.append(stream.push(y[start : start + size]))
        start += size
    return np.concatenate([*pieces, stream.finish()])


PROFILES = st.builds(
    lambda n_fft, win_share, **values: make_profile(n_fft=n_fft, win_length=max(1, round(win_share * n_fft)), **values),
    n_fft=st.sampled_from([16, 17, 63, 256, 400, 511, 512, 1024]),
    win_share=st.floats(0.3, 1.0),
    hop_length=st.integers(1, 1500),
    window=st.sampled_from(["hann", "hamming", "blackman", "boxcar"]),
    center=st.booleans(),
    pad_mode=st.sampled_from(get_args(PadMode)),
    n_mels=st.integers(1, 90),
    fmin=st.floats(0.0, 2000.0),
    fmax=st.one_of(st.none(), st.floats(2500.0, SR / 2)),
    htk=st.booleans(),
    norm=st.sampled_from(["slaney", "none"]),
    power=st.sampled_from([1.0, 1.5, 2.0]),
    amin=st.sampled_from([1e-10, 1e-5]),
)


@pytest.mark.filterwarnings("ignore:Empty filters", "ignore:n_fft=")
@settings(max_examples=250, deadline=None)
@given(
    profile=PROFILES,
    length=st.one_of(
        st.sampled_from(["one", "frame-1", "frame", "frame+1", "block-1", "block", "block+1"]), st.integers(1, 9_000)
    ),
    sizes=st.lists(st.integers(1, 3_000), min_size=1, max_size=4),
    seed=st.integers(0, 9),
)
def test_any_stream_equals_librosa_on_the_whole(
    profile: MelProfile, length: str | int, sizes: list[int], seed: int
) -> None:
    named = {
        "one": 1, "frame-1": profile.n_fft - 1, "frame": profile.n_fft, "frame+1": profile.n_fft + 1,
        "block-1": sizes[0] - 1, "block": sizes[0], "block+1": sizes[0] + 1,
    }  # fmt: skip
    n_samples = max(1, named[length] if isinstance(length, str) else length)
    y = np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32)
    mel = in_pieces(y, profile, sizes)
    assert len(mel) == count_frames(n_samples, profile)
    if n_samples < profile.n_fft and not profile.center:
        assert mel.shape == (0, profile.n_mels)
        return
    assert_equals_librosa(mel, y, SR, profile)


def test_nothing_in_nothing_out() -> None:
    for profile in (make_profile(), make_profile(center=False)):
        assert samples_to_mel(np.empty(0, dtype=np.float32), SR, profile).shape == (0, profile.n_mels)


def test_both_fft_libraries_give_the_same_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster one is optional; whoever lacks it gets the same numbers."""
    pytest.importorskip("mkl_fft")
    profile, y = make_profile(n_fft=2048, win_length=2048), make_sound(2.0)
    fast = samples_to_mel(y, SR, profile)
    monkeypatch.setattr(mel_module, "mkl_fft", None)
    mel_module._cached_transform.cache_clear()
    assert_close_db(fast, samples_to_mel(y, SR, profile), bound_db=0.005)
    mel_module._cached_transform.cache_clear()


def test_a_tone_peaks_in_its_own_band() -> None:
    profile = make_profile(n_mels=64)
    t = np.arange(SR) / SR
    mel = samples_to_mel(np.sin(2 * np.pi * 1000.0 * t).astype(np.float32), SR, profile)
    centres = librosa.mel_frequencies(n_mels=66, fmin=0.0, fmax=SR / 2)[1:-1]
    assert np.argmax(mel[len(mel) // 2]) == np.argmin(np.abs(centres - 1000.0))


def test_the_speech_profile_is_the_front_end_of_whisper() -> None:
    """By the model's published recipe, in float64: reflect padding, periodic Hann window, Slaney's bands, log10."""
    profile, y = load_profiles()["speech80_16k"], make_sound(3.0, sr=16_000).astype(np.float64)
    padded = np.pad(y, 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.array([padded[i : i + 400] * window for i in range(0, len(padded) - 399, 160)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    log_mel = np.log10(np.maximum(power @ librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80).T, 1e-10))
    ours = samples_to_mel(y.astype(np.float32), 16_000, profile) / 10
    clamp = log_mel.max() - 8.0
    np.testing.assert_allclose(np.maximum(ours, clamp), np.maximum(log_mel, clamp), atol=1e-3)


def test_no_band_of_a_fixed_rate_profile_is_empty() -> None:
    for profile in load_profiles().values():
        if isinstance(profile.sr, int):
            weights = librosa.filters.mel(
                sr=profile.sr, n_fft=profile.n_fft, n_mels=profile.n_mels, fmin=profile.fmin, fmax=profile.fmax
            )
            assert weights.any(axis=1).all(), profile.name
