"""Resampling as librosa does it by default, block by block: soxr, high quality."""

import math

import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.float32]

_QUALITY = "HQ"
_NONE = np.empty(0, dtype=np.float32)


class ResampleStream:
    """Mono samples at one rate in, at another out, a block at a time.

    The blocks together equal ``librosa.resample(y, orig_sr=sr, target_sr=target_sr)`` of the whole to the last bit: soxr's
    stream is its one-shot function, and librosa trims or pads that to ceil(n_samples * (target_sr / sr)) samples.
    """

    def __init__(self, sr: int, target_sr: int) -> None:
        self._ratio = target_sr / sr
        self._stream = None if sr == target_sr else soxr.ResampleStream(sr, target_sr, 1, "float32", _QUALITY)
        self._n_in = self._n_out = 0

    def push(self, y: Samples) -> Samples:
        """Take shape (n,) and return what can be told by now; possibly nothing."""
        if self._stream is None:
            return y
        self._n_in += len(y)
        resampled: Samples = self._stream.resample_chunk(y)
        self._n_out += len(resampled)
        return resampled

    def finish(self) -> Samples:
        """Return the rest."""
        if self._stream is None or not self._n_in:
            return _NONE
        rest: Samples = self._stream.resample_chunk(_NONE, last=True)
        n_missing = math.ceil(self._n_in * self._ratio) - self._n_out
        return np.pad(rest[:n_missing], (0, max(0, n_missing - len(rest))))


def resample_audio(y: Samples, sr: int, target_sr: int) -> Samples:
    """Resample a whole recording; see `ResampleStream`."""
    stream = ResampleStream(sr, target_sr)
    return np.concatenate((stream.push(y), stream.finish()))
