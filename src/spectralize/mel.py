"""Mel-spectrograms as librosa defines them, of a stream of samples, in blocks that stay in the processor's cache."""

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import librosa.filters
import numpy as np
import numpy.typing as npt
import scipy.fft

from spectralize.profiles import MelProfile
from spectralize.resample import Samples

# Before MKL is loaded: the cores belong to other recordings, and a pool of threads does not survive a fork.
os.environ.setdefault("MKL_THREADING_LAYER", "SEQUENTIAL")
try:
    import mkl_fft
except ImportError:
    mkl_fft = None

Spectrogram = npt.NDArray[np.float32]

#: Bytes of windowed samples per block: with spectrum and power beside it, about what a level-2 cache holds.
_BLOCK_BYTES = 1 << 19

#: Mel bands that share one small matrix product. A band touches a few dozen of a thousand bins, its neighbours much the
#: same ones: fewer bands multiply fewer zeros, more bands make better use of each call.
_GROUP_BANDS = 16

#: A profile without a rate of its own is warmed up at this one.
_SOME_RATE_HZ = 44_100

#: What computes the FFT, for the record of library versions.
FFT_LIBRARY = "scipy" if mkl_fft is None else "mkl_fft"


@dataclass(frozen=True, slots=True)
class _Group:
    """Weights of the bands [first, last) over the bins [low, high), shape (high - low, last - first)."""

    first: int
    last: int
    low: int
    high: int
    weights: Samples


def _filterbank(profile: MelProfile, sr: int) -> list[_Group]:
    with warnings.catch_warnings():
        # Bands above half of a recording's own rate are empty, as they should be.
        warnings.filterwarnings("ignore", "Empty filters detected")
        weights = _weights(profile, sr)
    groups = []
    for first in range(0, profile.n_mels, _GROUP_BANDS):
        rows = weights[first : first + _GROUP_BANDS]
        used = np.flatnonzero(rows.any(axis=0))
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        groups.append(_Group(first, first + len(rows), low, high, np.ascontiguousarray(rows[:, low:high].T)))
    return groups


def _weights(profile: MelProfile, sr: int) -> Samples:
    weights: Samples = librosa.filters.mel(
        sr=sr,
        n_fft=profile.n_fft,
        n_mels=profile.n_mels,
        fmin=profile.fmin,
        fmax=profile.fmax,
        htk=profile.htk,
        norm=None if profile.norm == "none" else profile.norm,
        dtype=np.float32,
    )
    return weights


def _window(profile: MelProfile) -> Samples:
    window = librosa.filters.get_window(profile.window, profile.win_length, fftbins=True)
    left = (profile.n_fft - profile.win_length) // 2
    right = profile.n_fft - profile.win_length - left
    return np.pad(window, (left, right)).astype(np.float32)


class _Transform:
    """Frames of samples to Mel vectors in dB, through buffers that are allocated once."""

    def __init__(self, profile: MelProfile, sr: int) -> None:
        self._profile = profile
        self._window = _window(profile)
        self._groups = _filterbank(profile, sr)
        self._block_frames = max(1, min(256, _BLOCK_BYTES // (4 * profile.n_fft)))
        n_bins = profile.n_fft // 2 + 1
        self._windowed = np.empty((self._block_frames, profile.n_fft), dtype=np.float32)
        self._spectrum = np.empty((self._block_frames, n_bins), dtype=np.complex64)
        self._power = np.empty((self._block_frames, n_bins), dtype=np.float32)
        self._rfft: Callable[[Samples, npt.NDArray[np.complex64]], npt.NDArray[np.complex64]] = (
            _rfft_scipy if mkl_fft is None else _rfft_mkl
        )

    def __call__(self, y: Samples, n_frames: int) -> Spectrogram:
        """Transform the first n_frames frames of y; frame i starts at sample i * hop_length."""
        mel = np.empty((n_frames, self._profile.n_mels), dtype=np.float32)
        if not n_frames:
            return mel
        frames: Samples = np.ndarray(
            (n_frames, self._profile.n_fft), np.float32, y, strides=(4 * self._profile.hop_length, 4)
        )
        # Samples far beyond full scale overflow to infinity; the caller rejects them by the result.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, n_frames, self._block_frames):
                stop = min(start + self._block_frames, n_frames)
                self._transform_block(frames[start:stop], mel[start:stop])
        return mel

    def _transform_block(self, frames: Samples, mel: Spectrogram) -> None:
        size = len(frames)
        windowed = np.multiply(frames, self._window, out=self._windowed[:size])
        power = np.abs(self._rfft(windowed, self._spectrum[:size]), out=self._power[:size])
        if self._profile.power == 2.0:
            np.multiply(power, power, out=power)
        elif self._profile.power != 1.0:
            np.power(power, np.float32(self._profile.power), out=power)
        for group in self._groups:
            np.matmul(power[:, group.low : group.high], group.weights, out=mel[:, group.first : group.last])
        np.maximum(mel, np.float32(self._profile.amin), out=mel)
        np.log10(mel, out=mel)
        np.multiply(mel, np.float32(10.0), out=mel)


def _rfft_scipy(windowed: Samples, _: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    spectrum: npt.NDArray[np.complex64] = scipy.fft.rfft(windowed, axis=1, workers=1)
    return spectrum


def _rfft_mkl(windowed: Samples, out: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
    return mkl_fft.rfft(windowed, axis=1, out=out)  # type: ignore[no-any-return]


@lru_cache(maxsize=32)
def _cached_transform(profile: MelProfile, sr: int, _thread: int) -> _Transform:
    return _Transform(profile, sr)


def _transform_of(profile: MelProfile, sr: int) -> _Transform:
    # The buffers belong to one thread.
    return _cached_transform(profile, sr, threading.get_ident())


def warm_up(profile: MelProfile) -> None:
    """Pay for what the first use of a profile costs: its filterbank, and librosa's compiling where no cache has it yet."""
    _transform_of(profile, _SOME_RATE_HZ if profile.sr == "native" else profile.sr)


def count_frames(n_samples: int, profile: MelProfile) -> int:
    """Return how many frames librosa makes of n_samples."""
    padded = n_samples + 2 * (profile.n_fft // 2) if profile.center else n_samples
    return 1 + (padded - profile.n_fft) // profile.hop_length if padded >= profile.n_fft else 0


class MelStream:
    """Samples in, Mel frames out, a block at a time.

    The frames together equal ``librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=sr, …), ref=1.0, amin=amin,
    top_db=None).T`` of the whole recording, but for the float32 rounding of the FFT. librosa pads head and tail apart from
    each other unless they overlap (`librosa.stft`, ``center=True``), which is what lets a stream do the same.

    Parameters
    ----------
    profile
        What to compute.
    sr
        Sample rate in Hz of what will be pushed.
    """

    def __init__(self, profile: MelProfile, sr: int) -> None:
        self._profile = profile
        self._transform = _transform_of(profile, sr)
        self._rest: Samples = np.empty(0, dtype=np.float32)
        #: Samples between the end of what is there and the start of the next frame, where frames do not touch.
        self._skip = 0
        n_fft, hop_length = profile.n_fft, profile.hop_length
        n_head_frames = -(-(n_fft // 2) // hop_length)
        #: From so many samples on, head and tail cannot overlap.
        self._n_head = n_head_frames * hop_length + n_fft - n_fft // 2 if profile.center else 0
        self._is_padded = not profile.center

    def push(self, y: Samples) -> Spectrogram:
        """Take shape (n,), float32, and return the frames that are complete, shape (n_frames, n_mels), float32, in dB."""
        if self._skip:
            skipped = min(self._skip, len(y))
            self._skip -= skipped
            y = y[skipped:]
            if self._skip:
                return self._transform(y, 0)
        y = np.concatenate((self._rest, y))
        if not self._is_padded:
            if len(y) < self._n_head:
                self._rest = y
                return self._transform(y, 0)
            n_pad = self._profile.n_fft // 2
            head = np.pad(y[: n_pad + 1], (n_pad, 0), mode=self._profile.pad_mode)[:n_pad]
            y = np.concatenate((head, y))
            self._is_padded = True
        return self._take(y)

    def finish(self) -> Spectrogram:
        """Return the frames that reach beyond the end; none if `center` is false."""
        y, n_fft = self._rest, self._profile.n_fft
        if not self._profile.center or not len(y):
            return self._transform(y, 0)
        if not self._is_padded:
            return self._take(np.pad(y, n_fft // 2, mode=self._profile.pad_mode))
        if len(y) < n_fft - n_fft // 2:
            return self._transform(y, 0)
        return self._take(np.pad(y, (0, n_fft // 2), mode=self._profile.pad_mode))

    def _take(self, y: Samples) -> Spectrogram:
        n_fft, hop_length = self._profile.n_fft, self._profile.hop_length
        n_frames = 1 + (len(y) - n_fft) // hop_length if len(y) >= n_fft else 0
        mel = self._transform(y, n_frames)
        self._skip = max(0, n_frames * hop_length - len(y))
        self._rest = y[n_frames * hop_length :].copy()
        return mel


def samples_to_mel(y: Samples, sr: int, profile: MelProfile) -> Spectrogram:
    """Compute the Mel-spectrogram of a whole recording; see `MelStream`.

    Parameters
    ----------
    y
        Shape (n_samples,), float32, at `sr` Hz.

    Returns
    -------
    Shape (n_frames, n_mels), float32, C order: a row is what one `mel_frames` row holds. dB relative to 1.0.
    """
    stream = MelStream(profile, sr)
    # In pieces, as a decoder brings them, so that what is copied stays in the cache.
    pieces = [stream.push(y[start : start + (1 << 18)]) for start in range(0, len(y), 1 << 18)]
    return np.concatenate([*pieces, stream.finish()])
