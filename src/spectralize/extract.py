"""From the bytes of one object to everything that will be stored about it. No I/O."""

import hashlib
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from spectralize.decode import DecodedAudio, Samples, decode_audio, resample_audio
from spectralize.errors import RejectedObjectError
from spectralize.manifest import Limits
from spectralize.mel import Spectrogram, mel_to_seconds, samples_to_mel
from spectralize.profiles import MelProfile
from spectralize.tables import Timings
from spectralize.tags import Tags, read_tags
from spectralize.waveform import Waveform, samples_to_waveform

#: What took part in the numbers; stored with every spectrogram.
LIBRARIES = ("av", "librosa", "numpy", "scipy", "soxr", "tinytag")


@dataclass(frozen=True, slots=True)
class Seconds:
    """Per-second roll-up; see `mel.mel_to_seconds`."""

    n_frames: np.ndarray
    mel_mean: Spectrogram
    mel_std: Spectrogram
    rms: Samples
    peak: Samples


@dataclass(frozen=True, slots=True)
class Features:
    """One profile's result for one recording, at `sr` Hz.

    Attributes
    ----------
    mel
        Shape (n_frames, n_mels), float32, dB relative to 1.0.
    """

    profile: MelProfile
    sr: int
    n_samples: int
    mel: Spectrogram
    waveform: Waveform | None
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Extraction:
    """One recording: its audio as decoded, its tags, and by name the features of each profile, or why it has none."""

    sha256: bytes
    audio: DecodedAudio
    tags: Tags
    features: dict[str, Features | RejectedObjectError]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape the numbers."""
    return {name: version(name) for name in LIBRARIES}


def compute_features(y: Samples, sr: int, profile: MelProfile) -> Features:
    """Compute one profile from mono samples at their own rate."""
    target = sr if profile.sr == "native" else profile.sr
    y = resample_audio(y, sr, target)
    mel = samples_to_mel(y, target, profile)
    if not len(mel):
        raise RejectedObjectError(
            "too_short",
            f"{len(y)} samples at {target} Hz are fewer than one frame of profile {profile.name} ({profile.n_fft})",
        )
    waveform = None
    if profile.waveform != "off":
        waveform = samples_to_waveform(y, profile.hop_length, with_pcm=profile.waveform == "pcm")
    seconds = Seconds(*mel_to_seconds(mel, y, target, profile.hop_length))
    # Finite samples can be so large that their power is not; nothing that follows could be stored.
    if not all(np.isfinite(values).all() for values in (mel, seconds.rms, seconds.mel_std)):
        raise RejectedObjectError("non_finite", f"samples up to {np.abs(y).max():.3g}, whose power is no finite number")
    return Features(profile, target, len(y), mel, waveform, seconds)


def _compute_or_reject(audio: DecodedAudio, profile: MelProfile) -> Features | RejectedObjectError:
    try:
        return compute_features(audio.y, audio.sr, profile)
    except RejectedObjectError as error:
        return error


def extract(data: bytes, profiles: list[MelProfile], limits: Limits, timings: Timings) -> Extraction:
    """Decode one file, read its tags and compute every profile from the one decode.

    A profile that cannot be computed is an entry with its reason; the others stand.

    Raises
    ------
    RejectedObjectError
        If the file does not decode at all: with the class and reason that go into the ledger.
    """
    started = time.perf_counter()
    audio = decode_audio(data, max_duration_s=limits.max_duration_s)
    tags = read_tags(data)
    sha256 = hashlib.sha256(data).digest()
    decoded = time.perf_counter()
    timings.decode_s = decoded - started
    features = {profile.name: _compute_or_reject(audio, profile) for profile in profiles}
    timings.mel_s = time.perf_counter() - decoded
    return Extraction(sha256, audio, tags, features)
