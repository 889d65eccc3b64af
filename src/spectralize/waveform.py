"""The waveform beside the Mel frames: per hop its lowest and highest sample, its rms and, if asked for, its PCM."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spectralize.resample import Samples


@dataclass(frozen=True, slots=True)
class Hops:
    """Consecutive hops of a waveform.

    Attributes
    ----------
    min, max, rms
        Shape (n_hops,), float32, full scale ±1.
    pcm
        Shape (n_hops, hop_length), int16, or None where the profile keeps no samples. A recording's last hop may be
        shorter, and then comes alone.
    """

    min: Samples
    max: Samples
    rms: Samples
    pcm: npt.NDArray[np.int16] | None


def samples_to_pcm(y: Samples) -> npt.NDArray[np.int16]:
    """Scale ±1 to int16, as FFmpeg does: times 32768, rounded to even, clipped."""
    scaled = np.multiply(y, np.float32(32768.0))
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768.0, 32767.0, out=scaled)
    return scaled.astype(np.int16)


class WaveformStream:
    """Samples in, hops out, a block at a time; hop i is samples [i * hop_length, (i + 1) * hop_length)."""

    def __init__(self, hop_length: int, *, with_pcm: bool) -> None:
        self._hop_length = hop_length
        self._with_pcm = with_pcm
        self._rest: Samples = np.empty(0, dtype=np.float32)

    def push(self, y: Samples) -> Hops:
        """Take shape (n,), float32, and return the hops that are complete."""
        if len(self._rest):
            y = np.concatenate((self._rest, y))
        n_whole = len(y) // self._hop_length * self._hop_length
        self._rest = y[n_whole:].copy()
        return self._describe(y[:n_whole].reshape(-1, self._hop_length))

    def finish(self) -> Hops:
        """Return the last hop, if it is a short one."""
        return self._describe(self._rest.reshape(1 if len(self._rest) else 0, -1 if len(self._rest) else 1))

    def _describe(self, hops: Samples) -> Hops:
        # einsum sums without a temporary array of squares; samples that overflow are rejected by the result.
        energy = np.einsum("ij,ij->i", hops, hops)
        return Hops(
            min=hops.min(axis=1),
            max=hops.max(axis=1),
            rms=np.sqrt(energy / np.float32(max(1, hops.shape[1]))),
            pcm=samples_to_pcm(hops) if self._with_pcm else None,
        )
