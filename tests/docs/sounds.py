"""Recordings that look like something: what the pages in docs/ read, plot and query. Made up, and the same every time."""

import io
from collections.abc import Callable

import av
import numpy as np
import numpy.typing as npt

from tests.store import encode

Samples = npt.NDArray[np.float64]

SR = 44_100


def _silence(seconds: float, sr: int = SR) -> Samples:
    return np.zeros(round(seconds * sr))


def _noise(rng: np.random.Generator, n_samples: int, sr: int, shape: Callable[[Samples], Samples]) -> Samples:
    """Noise whose magnitude at each frequency is `shape` of it, with a highest sample of 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    y = np.fft.irfft(spectrum * shape(np.fft.rfftfreq(n_samples, 1 / sr)), n_samples)
    return np.asarray(y / np.abs(y).max())


def _tone(hz: Samples, sr: int, overtones: tuple[float, ...] = (1.0,)) -> Samples:
    """A voice that follows `hz`, shape (n_samples,), with the strength of each of its partials."""
    phase = 2 * np.pi * np.cumsum(hz) / sr
    return np.sum([strength * np.sin(number * phase) for number, strength in enumerate(overtones, 1)], axis=0)


def _add(y: Samples, at_s: float, part: Samples, sr: int = SR) -> None:
    start = round(at_s * sr)
    stop = min(len(y), start + len(part))
    y[start:stop] += part[: stop - start]


def _rise_and_fall(n_samples: int) -> Samples:
    return np.asarray(np.sin(np.pi * (np.arange(n_samples) + 0.5) / n_samples) ** 2)


def _whistle(rng: np.random.Generator) -> Samples:
    """A phrase of four to six bent notes between 1.5 and 4 kHz: somewhat like a blackbird."""
    notes = []
    for _ in range(int(rng.integers(4, 7))):
        n = round(rng.uniform(0.12, 0.34) * SR)
        start_hz, end_hz = rng.uniform(1_500, 3_900, 2)
        bend = np.linspace(0, 1, n)
        hz = start_hz + (end_hz - start_hz) * bend + rng.uniform(-400, 400) * np.sin(np.pi * bend)
        notes += [_tone(hz, SR, (1.0, 0.12, 0.03)) * _rise_and_fall(n), _silence(rng.uniform(0.03, 0.09))]
    return np.concatenate(notes)


def _trill(seconds: float, low_hz: float, high_hz: float, per_s: float) -> Samples:
    """One syllable over and over, falling from high to low, louder and softer: somewhat like a wren."""
    n = round(SR / per_s)
    part = np.linspace(0, 1, n)
    syllable = _tone(high_hz + (low_hz - high_hz) * part**0.7, SR, (1.0, 0.08)) * _rise_and_fall(n)
    y = np.tile(syllable, round(seconds * per_s))
    return y * _rise_and_fall(len(y)) ** 0.3


def _coo(hz: float) -> Samples:
    """Two hollow notes: somewhat like a pigeon."""
    notes = []
    for seconds in (0.35, 0.8):
        n = round(seconds * SR)
        notes += [
            _tone(hz * (1 + 0.06 * _rise_and_fall(n)), SR, (1.0, 0.25, 0.05)) * _rise_and_fall(n),
            _silence(0.12),
        ]
    return np.concatenate(notes)


def _wind(rng: np.random.Generator, seconds: float) -> Samples:
    n = round(seconds * SR)
    gusts = 0.5 + 0.5 * np.interp(np.arange(n), np.linspace(0, n, 12), rng.random(12))
    return _noise(rng, n, SR, lambda hz: 1 / (30 + hz)) * gusts


def _hiss(rng: np.random.Generator, seconds: float) -> Samples:
    return _noise(rng, round(seconds * SR), SR, np.ones_like)


def dawn(seconds: float = 30.0, *, seed: int = 1) -> Samples:
    """Whistled phrases, a trill, and wind in the trees."""
    rng = np.random.default_rng(seed)
    y = 0.05 * _wind(rng, seconds) + 0.004 * _hiss(rng, seconds)
    for at_s in np.arange(0.6, seconds - 2, 3.4):
        _add(y, at_s + rng.uniform(0, 0.5), rng.uniform(0.18, 0.4) * _whistle(rng))
    for at_s in np.arange(4.9, seconds - 2, 8.3):
        _add(y, at_s, 0.25 * _trill(1.9, 4_300, 6_600, 14))
    return np.clip(y, -1, 1)


def wet_dawn(seconds: float = 30.0, *, seed: int = 2) -> Samples:
    """The same place in the rain: drops, a pigeon, and one voice less."""
    rng = np.random.default_rng(seed)
    rain = _noise(rng, round(seconds * SR), SR, lambda hz: np.sqrt(hz / (3_000 + hz)))
    swell = np.interp(np.arange(len(rain)), np.linspace(0, len(rain), 6), [0.25, 0.3, 0.9, 1.0, 0.35, 0.2])
    y = 0.03 * _wind(rng, seconds) + 0.06 * rain * swell
    for at_s in rng.uniform(0, seconds - 0.1, 90):
        drop = _noise(rng, 1_500, SR, np.ones_like) * np.exp(-np.arange(1_500) / 250)
        _add(y, at_s, rng.uniform(0.02, 0.2) * drop)
    for at_s in np.arange(1.4, seconds - 2, 4.7):
        _add(y, at_s, 0.3 * _coo(470.0))
    for at_s in np.arange(6.0, seconds - 2, 9.1):
        _add(y, at_s, 0.15 * _trill(1.9, 4_300, 6_600, 14))
    return np.clip(y, -1, 1)


def night(seconds: int = 600, *, sr: int = 22_050, seed: int = 3) -> npt.NDArray[np.float32]:
    """Ten minutes of crickets that fall silent while something drives past, and rain towards the end."""
    rng = np.random.default_rng(seed)
    t = np.arange(sr) / sr
    # A second of each voice is enough: over and over, louder and softer by tenths of a second, it lasts all night.
    cricket = np.sin(2 * np.pi * 4_600 * t) * (np.sin(2 * np.pi * 31 * t) > 0) * (t % 0.5 < 0.3)
    deeper = np.sin(2 * np.pi * 2_900 * t) * (np.sin(2 * np.pi * 22 * t) > 0) * (t < 0.45)
    hiss = _noise(rng, sr, sr, lambda hz: 1 / (300 + hz))
    rain = _noise(rng, sr, sr, lambda hz: np.sqrt(hz / (2_000 + hz)))
    engine = _noise(rng, sr, sr, lambda hz: (1 + 4 * np.exp(-(((hz - 700) / 500) ** 2))) / (60 + hz))
    tenth = np.arange(seconds * 10) / 10
    passing = sum(np.exp(-(((tenth - at_s) / width_s) ** 2)) for at_s, width_s in ((112, 7), (305, 12), (331, 8)))

    def wander(low: float, high: float) -> Samples:
        return np.asarray(np.interp(tenth, np.linspace(0, seconds, 200), rng.uniform(low, high, 200)))

    calm = 1 - np.clip(1.6 * passing, 0, 1)
    wet = np.clip((tenth - 430) / 80, 0, 1) * wander(0.6, 1.0)
    y = np.zeros((seconds, 10, sr // 10), dtype=np.float32)
    for voice, strength in (
        (hiss, 0.02 * wander(0.5, 1.0)),
        (cricket, 0.12 * calm * (1 - 0.9 * wet) * wander(0.4, 1.0)),
        (deeper, 0.06 * calm * (tenth > 170) * (1 - wet) * wander(0.3, 1.0)),
        (engine, 0.5 * np.minimum(passing, 1.2)),
        (rain, 0.07 * wet),
    ):
        y += voice.astype(np.float32).reshape(1, 10, -1) * strength.astype(np.float32).reshape(seconds, 10, 1)
    return y.reshape(-1)


def sweep(seconds: float = 8.0) -> Samples:
    """One tone from 100 Hz to 10 kHz, as many octaves in each second."""
    t = np.arange(round(seconds * SR)) / SR
    return 0.4 * _tone(100.0 * 100.0 ** (t / seconds), SR) * np.minimum(1, 40 * np.minimum(t, seconds - t))


def chords(seconds: float = 16.0) -> Samples:
    """Four chords, struck and dying away, high partials first."""
    y = _silence(seconds)
    t = np.arange(round(4.4 * SR)) / SR
    fading = [0.09 / partial**1.1 * np.exp(-t * (0.5 + 0.28 * partial)) for partial in range(1, 13)]
    for number, midi in enumerate(((45, 57, 60, 64), (41, 53, 57, 60), (48, 55, 60, 64), (43, 50, 59, 62))):
        for note in midi:
            phase = 2 * np.pi * 440 * 2 ** ((note - 69) / 12) * t
            tone = sum(strength * np.sin(partial * phase) for partial, strength in enumerate(fading, 1))
            _add(y, 4.0 * number, tone * np.minimum(1, t * 300))
    return np.clip(y, -1, 1)


def as_flac(y: Samples, sr: int = SR) -> bytes:
    """Samples as a 16-bit flac."""
    return encode(y[:, None].astype(np.float32), sr, "FLAC")


def as_mp3(y: Samples, tags: dict[str, str]) -> bytes:
    """Samples as a tagged mp3."""
    samples = (y * 32_767).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as output:
        output.metadata.update(tags)
        stream = output.add_stream("libmp3lame", rate=SR, layout="mono")
        for start in range(0, len(samples), 1152):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1152], format="s16p", layout="mono")
            frame.sample_rate, frame.pts = SR, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def make_objects() -> dict[str, bytes]:
    """What the bucket of the pages holds, by key."""
    first = as_flac(dawn())
    chord = as_mp3(chords(), {"title": "Four chords", "artist": "Nobody", "genre": "ambient", "date": "2024"})
    return {
        "field/site-7/20240601_043000.flac": first,
        "field/site-7/20240602_043000.flac": as_flac(wet_dawn()),
        # The upload broke off: half of what it declares is there.
        "field/site-7/20240608_043000.flac": as_flac(dawn(seed=4))[: len(first) // 2],
        "field/site-7/20240609_043000.flac": b"",
        "field/site-9/20240601_220000.flac": as_flac(night(), 22_050),
        "field/site-9/20240615_220000.flac": b"The recorder had no card.\n" * 40,
        # The same bytes twice.
        "field/spare card/20240601_043000.flac": first,
        "music/chords.mp3": chord,
        "test/sweep 20240610_120000.wav": encode(sweep()[:, None].astype(np.float32), SR),
    }
