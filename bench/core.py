"""The core against its peers on one processor: librosa for the Mel frames, decoding alone for the whole."""

import io
import time
from collections.abc import Callable
from statistics import median

import librosa
import numpy as np
import soundfile

from spectralize.decode import decode_audio
from spectralize.extract import extract
from spectralize.manifest import Limits
from spectralize.mel import samples_to_mel
from spectralize.profiles import find_profile
from spectralize.tables import Timings

_SECONDS = 120.0
_ROUNDS = 7


def _music(seconds: float, sr: int) -> np.ndarray:
    """Partials that rise and fall over noise: as dense as music, and the same in every run."""
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * sr)) / sr
    y = sum(np.sin(2 * np.pi * f * t + 3 * np.sin(0.7 * t)) / f for f in (110.0, 220.0, 331.0, 443.0, 880.0, 1763.0))
    return (20 * y + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def _cpu_s(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _ratio(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Median over rounds of the processor time of first by that of second, taken in turn."""
    first(), second()
    return median(_cpu_s(first) / _cpu_s(second) for _ in range(_ROUNDS))


def measure() -> dict[str, float]:
    """Return mel_speedup_vs_librosa and core_vs_decode_cpu."""
    profile = find_profile("mel128_22k")
    sr = 22_050
    y = _music(_SECONDS, sr)

    def by_librosa() -> None:
        mel = librosa.feature.melspectrogram(
            y=y, sr=sr, n_fft=profile.n_fft, hop_length=profile.hop_length, n_mels=profile.n_mels, pad_mode="constant",
            fmax=profile.fmax,
        )  # fmt: skip
        librosa.power_to_db(mel, top_db=None)

    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 44_100, 1, format="OGG") as file:
        # Block by block: libsndfile's vorbis encoder overflows its stack when given minutes at once.
        for block in np.array_split(_music(_SECONDS, 44_100), 100):
            file.write(block)
    data = buffer.getvalue()
    limits = Limits(1 << 30, 3600.0)
    return {
        "mel_speedup_vs_librosa": _ratio(by_librosa, lambda: samples_to_mel(y, sr, profile)),
        "core_vs_decode_cpu": _ratio(
            lambda: extract(data, [profile], limits, Timings()), lambda: decode_audio(data, max_duration_s=3600.0)
        ),
    }
