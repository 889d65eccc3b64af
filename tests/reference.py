"""librosa as the reference, and how close is close."""

import librosa
import numpy as np

from spectralize.profiles import MelProfile

#: Frames are judged band by band down to this far below their own peak; below it, relative to the peak.
FLOOR_DB = 100.0

#: Below the floor, an error may reach this share of the frame's peak *power*: -110 dB. float32 has no better FFT.
BELOW_FLOOR_SHARE = 1e-11


def librosa_mel(y: np.ndarray, sr: int, profile: MelProfile) -> np.ndarray:
    """power_to_db(melspectrogram) by librosa, shape (n_frames, n_mels), dB relative to 1.0."""
    S = librosa.feature.melspectrogram(
        y=y, sr=sr, n_fft=profile.n_fft, hop_length=profile.hop_length, win_length=profile.win_length,
        window=profile.window, center=profile.center, pad_mode=profile.pad_mode, power=profile.power,
        n_mels=profile.n_mels, fmin=profile.fmin, fmax=profile.fmax, htk=profile.htk,
        norm=None if profile.norm == "none" else profile.norm,
    )  # fmt: skip
    return librosa.power_to_db(S, ref=1.0, amin=profile.amin, top_db=None).T


def half_precision_step_db(db: np.ndarray) -> np.ndarray:
    """Half a unit in the last place of a half-precision number of this size."""
    return np.spacing(np.abs(db).astype(np.float16)).astype(np.float32) / 2


def assert_close_db(actual: np.ndarray, expected: np.ndarray, *, bound_db: float, is_half: bool = False) -> None:
    """Assert that two spectrograms in dB agree within bound_db (plus half precision, where they were stored)."""
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    bound = bound_db + (half_precision_step_db(expected) if is_half else 0.0)
    difference = np.abs(actual - expected)
    peak = expected.max(axis=1, keepdims=True)
    near = expected >= peak - FLOOR_DB
    assert (difference <= bound)[near].all(), f"{(difference - bound)[near].max():.5f} dB beyond the bound"
    share = np.abs(10 ** (actual / 10) - 10 ** (expected / 10)) / 10 ** (peak / 10)
    slack = 10 ** (expected / 10) * (10 ** (np.asarray(bound) / 10) - 1) / 10 ** (peak / 10)
    assert (share <= BELOW_FLOOR_SHARE + slack)[~near].all(), f"{share[~near].max():.2e} of the peak's power"
