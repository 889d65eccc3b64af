"""Roll-ups to whole seconds."""

import numpy as np
import pytest

from spectralize.seconds import Seconds, SecondsStream


def whole(mel: np.ndarray, y: np.ndarray, sr: int, hop_length: int) -> tuple[np.ndarray, ...]:
    """The same by its definition, second by second."""
    second_of_frame = np.arange(len(mel)) * hop_length // sr
    n_seconds = max(int(second_of_frame[-1]) + 1 if len(mel) else 0, -(-len(y) // sr))
    frames = [mel[second_of_frame == second].astype(np.float64) for second in range(n_seconds)]
    pieces = [y[second * sr : (second + 1) * sr].astype(np.float64) for second in range(n_seconds)]
    zeros = np.zeros(mel.shape[1])
    return (
        np.array([len(part) for part in frames]),
        np.array([part.mean(axis=0) if len(part) else zeros for part in frames]),
        np.array([part.std(axis=0) if len(part) else zeros for part in frames]),
        np.array([np.sqrt(np.mean(piece**2)) if len(piece) else 0.0 for piece in pieces]),
        np.array([np.abs(piece).max() if len(piece) else 0.0 for piece in pieces]),
    )


@pytest.mark.parametrize(("sr", "hop_length"), [(1000, 7), (1000, 250), (1000, 1700), (22_050, 512)])
@pytest.mark.parametrize("n_samples", [1, 999, 1000, 1001, 70_003])
@pytest.mark.parametrize("step", [1 << 20, 777])
def test_a_stream_equals_the_whole(sr: int, hop_length: int, n_samples: int, step: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(n_samples).astype(np.float32)
    # Frames come a little later than the samples they are made of, and one more at the end.
    mel = (30 * rng.standard_normal((1 + n_samples // hop_length, 5)) - 40).astype(np.float32)
    stream = SecondsStream(sr, hop_length, 5)
    parts: list[Seconds] = []
    n_given = 0
    for start in range(0, n_samples, step):
        stop = min(start + step, n_samples)
        n_complete = max(0, (stop - 500) // hop_length)
        stream.push(y[start:stop], mel[n_given : max(n_given, n_complete)])
        n_given = max(n_given, n_complete)
        parts.append(stream.flush())
    stream.push(np.empty(0, dtype=np.float32), mel[n_given:])
    parts.append(stream.finish())
    names = ("n_frames", "mel_mean", "mel_std", "rms", "peak")
    for name, expected in zip(names, whole(mel, y, sr, hop_length), strict=True):
        actual = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4, err_msg=name)
