"""Frames and samples rolled up to whole seconds from the start of a recording, for zoomed-out views."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from spectralize.mel import Spectrogram
from spectralize.resample import Samples


@dataclass(frozen=True, slots=True)
class Seconds:
    """Consecutive seconds of a recording.

    Attributes
    ----------
    n_frames
        Shape (n_seconds,), int32: Mel frames that start within the second.
    mel_mean, mel_std
        Shape (n_seconds, n_mels), float32: mean and standard deviation of their dB vectors; 0 where there are none.
    rms, peak
        Shape (n_seconds,), float32, of the samples; 0 where there are none.
    """

    n_frames: npt.NDArray[np.int32]
    mel_mean: Spectrogram
    mel_std: Spectrogram
    rms: Samples
    peak: Samples


class SecondsStream:
    """Mel frames and samples in, whole seconds out, a block at a time.

    A frame belongs to the second in which it starts, floor(frame_index * hop_length / sr).
    """

    def __init__(self, sr: int, hop_length: int, n_mels: int) -> None:
        self._sr, self._hop_length = sr, hop_length
        self._mel: list[Spectrogram] = []
        self._n_frames = self._n_samples = self._n_seconds = 0
        self._empty = np.empty((0, n_mels), dtype=np.float32)
        #: Per second from `_n_seconds` on: energy and peak of the samples so far.
        self._energy: list[float] = []
        self._peak: list[float] = []

    def push(self, y: Samples, mel: Spectrogram) -> None:
        """Take the next samples, shape (n,), and the next frames, shape (n_frames, n_mels)."""
        if len(mel):
            self._mel.append(mel)
        start = 0
        while start < len(y):
            second = (self._n_samples + start) // self._sr - self._n_seconds
            stop = min(len(y), (second + self._n_seconds + 1) * self._sr - self._n_samples)
            piece = y[start:stop]
            if second == len(self._energy):
                self._energy.append(0.0)
                self._peak.append(0.0)
            with np.errstate(over="ignore"):
                # Rejected by the result, if it is no finite number.
                self._energy[second] += float(np.dot(piece, piece))
            self._peak[second] = max(self._peak[second], float(piece.max()), -float(piece.min()))
            start = stop
        self._n_samples += len(y)

    def flush(self) -> Seconds:
        """Return the seconds that nothing can be added to."""
        n_pending = sum(map(len, self._mel))
        frames_seen = self._n_frames + n_pending
        return self._emit(min(frames_seen * self._hop_length, self._n_samples) // self._sr - self._n_seconds)

    def finish(self) -> Seconds:
        """Return the rest: as many seconds as hold the start of a frame, or a sample."""
        frames_seen = self._n_frames + sum(map(len, self._mel))
        last_frame_second = (frames_seen - 1) * self._hop_length // self._sr if frames_seen else -1
        return self._emit(max(last_frame_second + 1, -(-self._n_samples // self._sr)) - self._n_seconds)

    def _emit(self, n_seconds: int) -> Seconds:
        # The first frame of a second is the first whose start is not before it.
        first_second = self._n_seconds
        bounds = -(
            -np.arange(first_second, first_second + n_seconds + 1, dtype=np.int64) * self._sr // self._hop_length
        )
        pending = np.concatenate(self._mel) if self._mel else self._empty
        bounds = np.minimum(bounds - self._n_frames, len(pending))
        counts = np.diff(bounds).astype(np.int32)
        mean = np.zeros((n_seconds, pending.shape[1]), dtype=np.float32)
        std = np.zeros_like(mean)
        for second, (start, stop) in enumerate(pairwise(bounds)):
            if stop > start:
                # Two passes: single precision is enough for deviations from a mean that is known.
                n_frames = np.float32(stop - start)
                np.divide(np.add.reduce(pending[start:stop], axis=0), n_frames, out=mean[second])
                deviation = pending[start:stop] - mean[second]
                np.sqrt(np.einsum("ij,ij->j", deviation, deviation) / n_frames, out=std[second])
        n_used = int(bounds[-1]) if n_seconds else 0
        self._mel = [pending[n_used:]] if n_used < len(pending) else []
        self._n_frames += n_used
        rms, peak = np.zeros(n_seconds, dtype=np.float32), np.zeros(n_seconds, dtype=np.float32)
        n_known = min(n_seconds, len(self._energy))
        starts = (first_second + np.arange(n_known)) * self._sr
        n_samples = np.minimum(starts + self._sr, self._n_samples) - starts
        rms[:n_known] = np.sqrt(np.array(self._energy[:n_known]) / np.maximum(n_samples, 1))
        peak[:n_known] = self._peak[:n_known]
        del self._energy[:n_seconds], self._peak[:n_seconds]
        self._n_seconds += n_seconds
        return Seconds(counts, mean, std, rms, peak)
