"""The waveform beside the Mel frames: per hop its lowest and highest sample, its rms and, if asked for, its PCM."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spectralize.decode import Samples


@dataclass(frozen=True, slots=True)
class Waveform:
    """One entry per hop; hop i is samples [i * hop_length, (i + 1) * hop_length), the last may be shorter.

    Attributes
    ----------
    min, max, rms
        Shape (n_hops,), float32, full scale ±1.
    pcm
        Shape (n_samples,), int16, or None where the profile keeps no samples.
    """

    min: Samples
    max: Samples
    rms: Samples
    pcm: npt.NDArray[np.int16] | None


def samples_to_pcm(y: Samples) -> npt.NDArray[np.int16]:
    """Scale ±1 to int16, as FFmpeg does: times 32768, rounded to even, clipped."""
    pcm: npt.NDArray[np.int16] = np.clip(np.rint(y * np.float32(32768.0)), -32768, 32767).astype(np.int16)
    return pcm


def samples_to_waveform(y: Samples, hop_length: int, *, with_pcm: bool) -> Waveform:
    """Describe each hop of y; ceil(n_samples / hop_length) hops."""
    starts = np.arange(0, len(y), hop_length)
    lengths = np.minimum(hop_length, len(y) - starts)
    energy = np.add.reduceat(np.square(y, dtype=np.float64), starts)
    return Waveform(
        min=np.minimum.reduceat(y, starts),
        max=np.maximum.reduceat(y, starts),
        rms=np.sqrt(energy / lengths).astype(np.float32),
        pcm=samples_to_pcm(y) if with_pcm else None,
    )
