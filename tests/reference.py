"""librosa as the reference, and how close is close."""

import io
from dataclasses import dataclass

import librosa
import numpy as np

from spectralize.decode import AudioInfo, decode_audio
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


#: The rounding error of a float32 FFT, per bin, is about the unit roundoff times sqrt(log2(n)) times the norm of the
#: windowed frame (Schatzman 1996); window and samples are rounded once each. Six times that has never been seen.
FFT_ERROR = 6 * 2.0**-24


def assert_equals_librosa(
    actual: np.ndarray, y: np.ndarray, sr: int, profile: MelProfile, *, is_half: bool = False
) -> None:
    """Assert that a spectrogram in dB lies where librosa's own magnitudes, each wrong by a float32 FFT's error, may put it.

    Beyond that, 0.001 dB are left for float32 sums and logarithms. Holds for any signal, also where a band is empty
    but for what leaks into it.
    """
    S = np.abs(
        librosa.stft(
            y, n_fft=profile.n_fft, hop_length=profile.hop_length, win_length=profile.win_length, window=profile.window,
            center=profile.center, pad_mode=profile.pad_mode,
        )
    ).astype(np.float64)  # fmt: skip
    norm = np.sqrt(2 * (S**2).sum(axis=0) / profile.n_fft)
    error = FFT_ERROR * np.sqrt(np.log2(profile.n_fft)) * norm
    weights = librosa.filters.mel(
        sr=sr, n_fft=profile.n_fft, n_mels=profile.n_mels, fmin=profile.fmin, fmax=profile.fmax, htk=profile.htk,
        norm=None if profile.norm == "none" else profile.norm,
    ).astype(np.float64)  # fmt: skip

    def db(magnitude: np.ndarray) -> np.ndarray:
        return 10 * np.log10(np.maximum(weights @ magnitude**profile.power, profile.amin)).T

    assert actual.shape == (S.shape[1], profile.n_mels)
    lowest, highest = db(np.maximum(S - error, 0)) - 0.001, db(S + error) + 0.001
    if is_half:
        lowest, highest = lowest - half_precision_step_db(lowest), highest + half_precision_step_db(highest)
    assert (actual >= lowest).all(), f"{(lowest - actual).max():.5f} dB too low"
    assert (actual <= highest).all(), f"{(actual - highest).max():.5f} dB too high"


@dataclass(frozen=True)
class Decoded:
    """A recording in memory, as this package decodes it."""

    y: np.ndarray
    info: AudioInfo

    def __getattr__(self, name: str) -> object:
        return getattr(self.info, name)


def decode(data: bytes, *, max_duration_s: float = 60.0) -> Decoded:
    """Decode bytes whole."""
    return Decoded(*decode_audio(io.BytesIO(data), max_duration_s=max_duration_s))
