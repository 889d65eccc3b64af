"""Mel and Hz as librosa relates them, without librosa: which band of a frame is which."""

from typing import Any

import numpy as np
import numpy.typing as npt

Frequencies = npt.NDArray[np.float64]

#: Slaney's scale: linear to 1 kHz, which is 15 mel, then 27 steps for each factor of 6.4.
_MEL_PER_HZ = 3.0 / 200.0
_KNEE_HZ, _KNEE_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(frequencies_hz: npt.ArrayLike, *, htk: bool = False) -> Frequencies:
    """Convert Hz to mel, by Slaney's Auditory Toolbox or by the formula of HTK; as `librosa.hz_to_mel`."""
    hz = np.asarray(frequencies_hz, dtype=np.float64)
    if htk:
        mel: Frequencies = 2595.0 * np.log10(1.0 + hz / 700.0)
        return mel
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz * _MEL_PER_HZ, above)


def mel_to_hz(mels: npt.ArrayLike, *, htk: bool = False) -> Frequencies:
    """Convert mel to Hz; as `librosa.mel_to_hz`."""
    mel = np.asarray(mels, dtype=np.float64)
    if htk:
        hz: Frequencies = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
        return hz
    above = _KNEE_HZ * np.exp((np.maximum(mel, _KNEE_MEL) - _KNEE_MEL) * _LOG_STEP)
    return np.where(mel < _KNEE_MEL, mel / _MEL_PER_HZ, above)


def band_centres_hz(parameters: dict[str, Any], sr: int) -> Frequencies:
    """Return where the bands of a profile peak, shape (n_mels,), in Hz; `sr` counts where the profile has no fmax."""
    fmax = parameters["fmax"] if parameters["fmax"] is not None else sr / 2
    htk = parameters["htk"]
    low, high = hz_to_mel([parameters["fmin"], fmax], htk=htk)
    return mel_to_hz(np.linspace(low, high, parameters["n_mels"] + 2), htk=htk)[1:-1]
