"""Mel-spectrograms as librosa defines them, in blocks that stay in the processor's cache."""

from functools import lru_cache

import librosa.filters
import numpy as np
import numpy.typing as npt
import scipy.fft

from spectralize.decode import Samples
from spectralize.profiles import MelProfile

Spectrogram = npt.NDArray[np.float32]

#: Frames per block: 64 frames of 2048 float32 are 512 kB, which a level-2 cache holds.
_BLOCK_FRAMES = 64


@lru_cache(maxsize=32)
def _filterbank(profile: MelProfile, sr: int) -> Samples:
    weights = librosa.filters.mel(
        sr=sr,
        n_fft=profile.n_fft,
        n_mels=profile.n_mels,
        fmin=profile.fmin,
        fmax=profile.fmax,
        htk=profile.htk,
        norm=None if profile.norm == "none" else profile.norm,
        dtype=np.float32,
    )
    return np.ascontiguousarray(weights.T)


@lru_cache(maxsize=32)
def _window(profile: MelProfile) -> Samples:
    window = librosa.filters.get_window(profile.window, profile.win_length, fftbins=True)
    left = (profile.n_fft - profile.win_length) // 2
    right = profile.n_fft - profile.win_length - left
    return np.pad(window, (left, right)).astype(np.float32)


def count_frames(n_samples: int, profile: MelProfile) -> int:
    """Return how many frames librosa makes of n_samples."""
    padded = n_samples + 2 * (profile.n_fft // 2) if profile.center else n_samples
    return 1 + (padded - profile.n_fft) // profile.hop_length if padded >= profile.n_fft else 0


def samples_to_mel(y: Samples, sr: int, profile: MelProfile) -> Spectrogram:
    """Compute the Mel-spectrogram in dB.

    Equals ``librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=sr, …), ref=1.0, amin=amin, top_db=None).T`` but for
    float32 rounding of the FFT.

    Parameters
    ----------
    y
        Shape (n_samples,), float32, at `sr` Hz.

    Returns
    -------
    Shape (n_frames, n_mels), float32, C order: a row is what one `mel_frames` row holds. dB relative to 1.0.
    """
    n_frames = count_frames(len(y), profile)
    if profile.center:
        y = np.pad(y, profile.n_fft // 2, mode=profile.pad_mode)
    window, filterbank = _window(profile), _filterbank(profile, sr)
    mel = np.empty((n_frames, profile.n_mels), dtype=np.float32)
    if not n_frames:
        return mel
    frames = np.lib.stride_tricks.sliding_window_view(y, profile.n_fft)[:: profile.hop_length]
    # Samples far beyond full scale overflow to infinity; the caller rejects them by the result.
    with np.errstate(over="ignore", invalid="ignore"):
        _fill_blocks(mel, frames, window, filterbank, profile)
    return mel


def _fill_blocks(mel: Spectrogram, frames: Samples, window: Samples, filterbank: Samples, profile: MelProfile) -> None:
    n_frames = len(mel)
    windowed = np.empty((_BLOCK_FRAMES, profile.n_fft), dtype=np.float32)
    magnitude = np.empty((_BLOCK_FRAMES, profile.n_fft // 2 + 1), dtype=np.float32)
    for start in range(0, n_frames, _BLOCK_FRAMES):
        stop = min(start + _BLOCK_FRAMES, n_frames)
        size = stop - start
        np.multiply(frames[start:stop], window, out=windowed[:size])
        spectrum = scipy.fft.rfft(windowed[:size], axis=1, workers=1)
        if profile.power == 2.0:
            power = magnitude[:size]
            np.multiply(spectrum.real, spectrum.real, out=power)
            power += spectrum.imag * spectrum.imag
        else:
            power = np.abs(spectrum) ** np.float32(profile.power)
        np.matmul(power, filterbank, out=mel[start:stop])
        block = mel[start:stop]
        np.maximum(block, np.float32(profile.amin), out=block)
        np.log10(block, out=block)
        block *= np.float32(10.0)


def mel_to_seconds(
    mel: Spectrogram, y: Samples, sr: int, hop_length: int
) -> tuple[npt.NDArray[np.int32], Spectrogram, Spectrogram, Samples, Samples]:
    """Roll frames and samples up to whole seconds from the start of the recording.

    A frame belongs to the second in which it starts, floor(frame_index * hop_length / sr).

    Returns
    -------
    n_frames (n_seconds,), mean and standard deviation of the dB vectors (n_seconds, n_mels), and rms and peak of the
    samples (n_seconds,). A second with frames but without samples has rms = peak = 0.
    """
    second_of_frame = np.arange(len(mel), dtype=np.int64) * hop_length // sr
    n_seconds = max(int(second_of_frame[-1]) + 1, -(-len(y) // sr))
    counts = np.bincount(second_of_frame, minlength=n_seconds).astype(np.int32)
    starts = np.concatenate(([0], np.cumsum(counts)))
    mean = np.zeros((n_seconds, mel.shape[1]), dtype=np.float32)
    std = np.zeros_like(mean)
    rms = np.zeros(n_seconds, dtype=np.float32)
    peak = np.zeros(n_seconds, dtype=np.float32)
    for second in range(n_seconds):
        frames = mel[starts[second] : starts[second + 1]]
        if len(frames):
            mean[second] = frames.mean(axis=0)
            std[second] = frames.std(axis=0)
        samples = y[second * sr : (second + 1) * sr]
        if len(samples):
            rms[second] = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
            peak[second] = np.abs(samples).max()
    return counts, mean, std, rms, peak
