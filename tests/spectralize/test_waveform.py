"""Hops of the waveform."""

import numpy as np
import pytest

from spectralize.waveform import WaveformStream, samples_to_pcm


@pytest.mark.parametrize("n_samples", [0, 1, 159, 160, 161, 5_003])
@pytest.mark.parametrize("step", [1, 100, 160, 10_000])
def test_a_stream_equals_the_whole(n_samples: int, step: int) -> None:
    y = np.random.default_rng(0).uniform(-1, 1, n_samples).astype(np.float32)
    stream = WaveformStream(160, with_pcm=True)
    parts = [stream.push(y[start : start + step]) for start in range(0, n_samples, step)] + [stream.finish()]
    pieces = [y[start : start + 160] for start in range(0, n_samples, 160)]
    np.testing.assert_array_equal(np.concatenate([part.min for part in parts]), [piece.min() for piece in pieces])
    np.testing.assert_array_equal(np.concatenate([part.max for part in parts]), [piece.max() for piece in pieces])
    rms = [np.sqrt(np.mean(piece.astype(np.float64) ** 2)) for piece in pieces]
    np.testing.assert_allclose(np.concatenate([part.rms for part in parts]), rms, rtol=1e-5)
    pcm = [part.pcm.ravel() for part in parts if part.pcm is not None]
    np.testing.assert_array_equal(np.concatenate(pcm), samples_to_pcm(y))


def test_pcm_is_what_ffmpeg_makes_of_floats() -> None:
    y = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 0.99999, 1.0, 2.0, 1.5 / 32768, 2.5 / 32768], dtype=np.float32)
    expected = [-32768, -32768, -16384, 0, 16384, 32767, 32767, 32767, 2, 2]
    np.testing.assert_array_equal(samples_to_pcm(y), expected)
