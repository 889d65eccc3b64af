"""Frames against librosa itself, on the same samples."""

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectralize.mel import count_frames, mel_to_seconds, samples_to_mel
from spectralize.profiles import MelProfile, load_profiles
from tests.reference import assert_close_db, librosa_mel

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
@pytest.mark.parametrize("sr", [8_000, 22_050, 44_100])
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


@settings(max_examples=60, deadline=None)
@given(n_samples=st.integers(1, 9_000), center=st.booleans(), hop_length=st.integers(1, 700), seed=st.integers(0, 9))
def test_any_length_equals_librosa(n_samples: int, center: bool, hop_length: int, seed: int) -> None:
    profile = make_profile(center=center, hop_length=hop_length, n_fft=512, win_length=512)
    y = np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32)
    mel = samples_to_mel(y, SR, profile)
    assert len(mel) == count_frames(n_samples, profile)
    if n_samples < profile.n_fft and not center:
        assert mel.shape == (0, profile.n_mels)
        return
    assert_close_db(mel, librosa_mel(y, SR, profile), bound_db=0.01)


def test_a_tone_peaks_in_its_own_band() -> None:
    profile = make_profile(n_mels=64)
    t = np.arange(SR) / SR
    mel = samples_to_mel(np.sin(2 * np.pi * 1000.0 * t).astype(np.float32), SR, profile)
    centres = librosa.mel_frequencies(n_mels=66, fmin=0.0, fmax=SR / 2)[1:-1]
    assert np.argmax(mel[len(mel) // 2]) == np.argmin(np.abs(centres - 1000.0))


def test_seconds_account_for_every_frame_and_sample() -> None:
    profile = make_profile(hop_length=512)
    y = make_sound(3.5)
    mel = samples_to_mel(y, SR, profile)
    counts, mean, std, rms, peak = mel_to_seconds(mel, y, SR, profile.hop_length)
    assert counts.sum() == len(mel)
    assert len(counts) == len(mean) == len(std) == len(rms) == len(peak) == 4
    inside = [i for i in range(len(mel)) if SR <= i * 512 < 2 * SR]
    np.testing.assert_allclose(mean[1], mel[inside].mean(axis=0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(std[1], mel[inside].std(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rms[1], np.sqrt(np.mean(y[SR : 2 * SR].astype(np.float64) ** 2)), rtol=1e-6)
    assert peak[3] == np.abs(y[3 * SR :]).max()
