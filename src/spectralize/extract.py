"""From the bytes of one object to everything that will be stored about it, a block at a time."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version

import av

from spectralize.claims import SeekableFile
from spectralize.decode import AudioDecoder, AudioInfo
from spectralize.errors import RejectedObjectError
from spectralize.features import Emit, FeatureStream, FeatureSummary
from spectralize.mel import FFT_LIBRARY
from spectralize.profiles import MelProfile
from spectralize.resample import ResampleStream, Samples
from spectralize.tables import Limits, Timings
from spectralize.tags import Tags, read_tags

#: What took part in the numbers; stored with every spectrogram.
LIBRARIES = ("av", "librosa", "numpy", "scipy", "soxr", "tinytag")


#: Samples that a resampler gives at a time, at most.
_PIECE_SAMPLES = 1 << 19


@dataclass(frozen=True, slots=True)
class Extraction:
    """One recording: its bytes, its audio as decoded, its tags, and by name what came of each profile, or why nothing."""

    sha256: bytes
    audio: AudioInfo
    tags: Tags
    features: dict[str, FeatureSummary | RejectedObjectError]


@lru_cache(maxsize=1)
def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape the numbers, and of FFmpeg's own."""
    versions = {name: version(name) for name in sorted({*LIBRARIES, FFT_LIBRARY})}
    return versions | {
        name: ".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat", "libswresample")
    }


class _Rate:
    """The profiles that share one sample rate, and so one resampler."""

    def __init__(self, sr: int, target_sr: int) -> None:
        self._sr = target_sr
        self._step = max(1, _PIECE_SAMPLES * sr // target_sr)
        self._resampler = ResampleStream(sr, target_sr)
        self._streams: dict[str, FeatureStream] = {}
        self.results: dict[str, FeatureSummary | RejectedObjectError] = {}

    def add(self, profile: MelProfile, recorded_at: datetime, emit: Emit) -> None:
        self._streams[profile.name] = FeatureStream(profile, self._sr, recorded_at, emit)

    def push(self, y: Samples) -> None:
        # In pieces, where a low rate is blown up to a high one.
        for start in range(0, len(y) if self._streams else 0, self._step):
            self._push(self._resampler.push(y[start : start + self._step]))

    def finish(self) -> None:
        if not self._streams:
            return
        self._push(self._resampler.finish())
        for name, stream in self._streams.items():
            try:
                self.results[name] = stream.finish()
            except RejectedObjectError as error:
                self.results[name] = error

    def _push(self, y: Samples) -> None:
        for name, stream in list(self._streams.items()):
            try:
                stream.push(y)
            except RejectedObjectError as error:
                # The other profiles stand.
                self.results[name] = error
                del self._streams[name]


def extract(
    file: SeekableFile,
    profiles: Sequence[MelProfile],
    limits: Limits,
    recorded_at: datetime,
    emit: Emit,
    timings: Timings,
    *,
    tags: Tags | None = None,
) -> Extraction:
    """Decode one file and compute every profile from the one decode, in memory bounded by a block.

    A profile that cannot be computed is an entry with its reason; the others stand. Rows that were emitted for it before
    are void.

    Parameters
    ----------
    file
        Seekable; hashed in passing if it knows how (`ObjectFile.sha256`), else read once more for it.
    recorded_at
        Time of the first sample, with time zone.
    emit
        Takes the name of a profile and a block of its rows, as soon as they are complete.
    tags
        What the file declares about itself, if that has been read already.

    Raises
    ------
    RejectedObjectError
        If the file does not decode at all: with the class and reason that go into the ledger.
    """
    started = time.perf_counter()
    if tags is None:
        tags = read_tags(file)
        file.seek(0)
    mel_s = 0.0
    with AudioDecoder(file, max_duration_s=limits.max_duration_s, max_channels=limits.max_channels) as decoder:
        rates: dict[int, _Rate] = {}
        for y in decoder:
            decoded = time.perf_counter()
            if not rates:
                rates = _open_rates(decoder.sr, profiles, recorded_at, emit)
            for rate in rates.values():
                rate.push(y)
            mel_s += time.perf_counter() - decoded
        decoded = time.perf_counter()
        for rate in rates.values():
            rate.finish()
        mel_s += time.perf_counter() - decoded
        audio = decoder.info
    sha256 = _sha256(file)
    timings.mel_s = mel_s
    timings.decode_s = time.perf_counter() - started - mel_s
    results = {name: result for rate in rates.values() for name, result in rate.results.items()}
    return Extraction(sha256, audio, tags, results)


def _open_rates(sr: int, profiles: Sequence[MelProfile], recorded_at: datetime, emit: Emit) -> dict[int, _Rate]:
    rates: dict[int, _Rate] = {}
    for profile in profiles:
        target_sr = sr if profile.sr == "native" else profile.sr
        rates.setdefault(target_sr, _Rate(sr, target_sr)).add(profile, recorded_at, emit)
    return rates


def _sha256(file: SeekableFile) -> bytes:
    if hasattr(file, "sha256"):
        digest: bytes = file.sha256()
        return digest
    file.seek(0)
    hashed = hashlib.sha256()
    while data := file.read(1 << 20):
        hashed.update(data)
    return hashed.digest()
