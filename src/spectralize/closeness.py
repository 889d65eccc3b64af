"""How close is close: stored numbers held against fresh ones, and librosa's own frames."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from spectralize.mel import Spectrogram
from spectralize.profiles import MelProfile
from spectralize.resample import Samples

Mask = npt.NDArray[np.bool_]

#: Cells may differ by so much beyond their rounding to half precision: FFTs of single precision differ by less.
BOUND_DB = 0.01

#: Cells are judged in dB down to this far below the peak of their frame, and below it by their share of the peak's power:
#: down there single precision has nothing but noise.
_FLOOR_DB = 100.0
_BELOW_FLOOR_SHARE = 1e-11

#: Samples, and what is derived from them, may differ by this share of full scale: decoders and resamplers round in single
#: precision, each build in its own way.
_BOUND_SAMPLE = 1e-5

#: An FFT of single precision errs, per bin, by about the unit roundoff times sqrt(log2(n)) times the norm of the frame
#: (Schatzman 1996); six times that has never been seen.
_FFT_ERROR = 6 * 2.0**-24


def half_step_db(db: npt.NDArray[Any]) -> Spectrogram:
    """Return half a unit in the last place of half precision, at each number."""
    step: Spectrogram = np.spacing(np.abs(db).astype(np.float16)).astype(np.float32) / 2
    return step


def are_apart_db(stored: Spectrogram, fresh: Spectrogram) -> Mask:
    """Tell which cells of stored frames, rounded to half precision, cannot be those of fresh ones, which are not.

    Parameters
    ----------
    stored, fresh
        Shape (n_frames, n_mels), float32, in dB.
    """
    bound = BOUND_DB + half_step_db(fresh)
    peak = fresh.max(axis=1, keepdims=True)
    # As powers relative to the frame's peak, so that none overflows.
    power, stored_power = 10.0 ** ((fresh - peak) / 10.0), 10.0 ** (np.minimum(stored - peak, 300.0) / 10.0)
    is_apart = np.abs(stored_power - power) > _BELOW_FLOOR_SHARE + power * (10.0 ** (bound / 10.0) - 1.0)
    result: Mask = np.where(fresh >= peak - _FLOOR_DB, np.abs(stored - fresh) > bound, is_apart)
    return result


def are_apart_rounded(stored: npt.NDArray[Any], fresh: npt.NDArray[Any]) -> Mask:
    """Tell which numbers in dB cannot be the same, where both are rounded to half precision."""
    difference = np.abs(stored.astype(np.float32) - fresh.astype(np.float32))
    result: Mask = difference > BOUND_DB + 2 * half_step_db(fresh)
    return result


def are_apart(stored: npt.NDArray[Any], fresh: npt.NDArray[Any], *, step: float = 0.0) -> Mask:
    """Tell which samples, or what was derived from them, cannot be the same; `step` is what one unit of theirs may add."""
    a, b = stored.astype(np.float64), fresh.astype(np.float64)
    result: Mask = np.abs(a - b) > step + _BOUND_SAMPLE * np.maximum(1.0, np.abs(b))
    return result


class FrameNorms:
    """Samples in, and for each frame the norm of those around its middle, up to n_fft to either side."""

    def __init__(self, profile: MelProfile) -> None:
        self._n_fft, self._hop_length = profile.n_fft, profile.hop_length
        self._first_middle = 0 if profile.center else profile.n_fft // 2
        self._y: Samples = np.empty(0, dtype=np.float32)
        self._n_dropped = 0

    def push(self, y: Samples) -> None:
        """Take the next samples, shape (n,)."""
        self._y = np.concatenate((self._y, y))

    def take(self, first: int, n_frames: int) -> npt.NDArray[np.float64]:
        """Return the norms of the frames [first, first + n_frames), and drop the samples that no later one needs."""
        middles = self._first_middle + np.arange(first, first + n_frames + 1, dtype=np.int64) * self._hop_length
        energy = np.concatenate(([0.0], np.cumsum(np.square(self._y, dtype=np.float64))))
        starts, stops = (
            np.clip(middles + offset - self._n_dropped, 0, len(self._y)) for offset in (-self._n_fft, self._n_fft)
        )
        norms: npt.NDArray[np.float64] = np.sqrt(np.maximum(energy[stops] - energy[starts], 0.0))[:-1]
        self._y = self._y[starts[-1] :].copy()
        self._n_dropped += int(starts[-1])
        return norms


class Judge:
    """Tells whether stored frames of one profile can be those of a fresh computation."""

    def __init__(self, profile: MelProfile, sr: int) -> None:
        import librosa

        self._power, self._amin = profile.power, profile.amin
        self._error = _FFT_ERROR * np.sqrt(np.log2(profile.n_fft))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Empty filters detected")
            weights = librosa.filters.mel(
                sr=sr, n_fft=profile.n_fft, n_mels=profile.n_mels, fmin=profile.fmin, fmax=profile.fmax,
                htk=profile.htk, norm=None if profile.norm == "none" else profile.norm,
            )  # fmt: skip
        self._weights = weights.sum(axis=1, dtype=np.float64)

    def are_apart(self, stored: Spectrogram, fresh: Spectrogram, norms: npt.NDArray[np.float64]) -> Mask:
        """Tell which cells are further apart than rounding explains.

        A frame that is loud outside of its bands, as ultrasound under a voice, has cells that are nothing but what the FFT
        gets wrong; so what an FFT of single precision may make of each cell is allowed, too.

        Parameters
        ----------
        stored, fresh
            Shape (n_frames, n_mels), in dB; only the stored ones are rounded to half precision.
        norms
            Shape (n_frames,): of the samples of each frame.
        """
        result = are_apart_db(stored, fresh)
        frames = np.flatnonzero(result.any(axis=1))
        if len(frames):
            lowest, highest = self._range(fresh[frames], norms[frames])
            result[frames] &= (stored[frames] < lowest - BOUND_DB - half_step_db(lowest)) | (
                stored[frames] > highest + BOUND_DB + half_step_db(highest)
            )
        return result

    def are_vague(self, cells: Spectrogram, norms: npt.NDArray[np.float64]) -> Mask:
        """Tell which cells an FFT of single precision does not tell within the bound; shapes as above."""
        lowest, highest = self._range(cells, norms)
        result: Mask = highest - lowest > BOUND_DB
        return result

    def _range(self, fresh: Spectrogram, norms: npt.NDArray[np.float64]) -> tuple[Spectrogram, Spectrogram]:
        # A cell is the sum of weight * magnitude ** power over its bins, and every magnitude may err by so much.
        error, p = self._error * norms[:, None], self._power
        cells = 10.0 ** (fresh.astype(np.float64) / 10.0)
        if p < 1.0:
            reach = self._weights * error**p
            ends = (cells - reach, cells + reach)
        else:
            # Minkowski's inequality.
            reach = self._weights ** (1.0 / p) * error
            ends = (np.maximum(cells ** (1.0 / p) - reach, 0.0) ** p, (cells ** (1.0 / p) + reach) ** p)
        lowest, highest = (10.0 * np.log10(np.maximum(end, self._amin)).astype(np.float32) for end in ends)
        return lowest, highest


def librosa_frames(y: Samples, sr: int, profile: MelProfile, *, is_whole: bool) -> Spectrogram:
    """Return the frames that librosa makes of some samples, shape (n_frames, n_mels), float32, dB relative to 1.0.

    Parameters
    ----------
    y
        Shape (n_samples,), float32, at `sr` Hz: a recording, or the beginning of one.
    is_whole
        False leaves out the frames that reach beyond the end of y.
    """
    import librosa

    n_fft, hop_length = profile.n_fft, profile.hop_length
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large for input signal")
        # Bands above half of a recording's own rate are empty, as they should be.
        warnings.filterwarnings("ignore", "Empty filters detected")
        mel = librosa.feature.melspectrogram(
            y=y, sr=sr, n_fft=n_fft, hop_length=hop_length, win_length=profile.win_length, window=profile.window,
            center=profile.center, pad_mode=profile.pad_mode, power=profile.power, n_mels=profile.n_mels,
            fmin=profile.fmin, fmax=profile.fmax, htk=profile.htk,
            norm=None if profile.norm == "none" else profile.norm,
        )  # fmt: skip
    db: Spectrogram = librosa.power_to_db(mel, ref=1.0, amin=profile.amin, top_db=None).T
    if is_whole:
        return db
    n_padded = len(y) + (n_fft // 2 if profile.center else 0)
    return db[: 1 + (n_padded - n_fft) // hop_length if n_padded >= n_fft else 0]
