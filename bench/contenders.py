"""What is compared, as functions of one file: decoding alone, our core, and what a user would otherwise write.

They run in the processes of a `pool.ProcessPool`, and take the same file in the same way: from the local disk, opened by
Python.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import av
import librosa
import numpy as np
import soundfile

from bench.corpus import AudioFile
from spectralize.decode import _OPEN_OPTIONS, _READ_BYTES, _WAV_OPTIONS, AudioDecoder
from spectralize.extract import extract
from spectralize.isolate import keep_memory
from spectralize.mel import samples_to_mel
from spectralize.profiles import find_profile
from spectralize.tables import Limits, Timings

PROFILE = find_profile("mel128_22k")
SR = 22_050
_LIMITS = Limits(1 << 40, 1e6)
_RECORDED_AT = datetime(2024, 1, 1, tzinfo=UTC)

_MEL_S = 120.0
_MEL_ROUNDS = 7


def settle_as_in_the_job(_: Path) -> None:
    """Have the process keep its memory as the job's own do; it is for (a) and (c), whose processes are the same."""
    keep_memory()


def decode_only(path: Path) -> int:
    """Decode to what every later step needs, mono float32 samples in numpy, with the core's own decoder, and drop them."""
    n_samples = 0
    with path.open("rb") as file, AudioDecoder(file, max_duration_s=_LIMITS.max_duration_s) as decoder:
        for y in decoder:
            n_samples += len(y)
    return n_samples


def decode_packets(path: Path) -> int:
    """Decode every packet of the first audio stream and drop the frames as FFmpeg leaves them: no samples to work with."""
    n_samples = 0
    # As the core opens it: with other settings it would not be the same decoder.
    options = _OPEN_OPTIONS | (_WAV_OPTIONS if path.suffix == ".wav" else {})
    with (
        path.open("rb") as file,
        av.open(file, mode="r", options=options, metadata_errors="replace", buffer_size=_READ_BYTES) as container,
    ):
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            for frame in packet.decode():
                n_samples += frame.samples
    return n_samples


def core(path: Path) -> int:
    """Run our core without database: decode, tags, Mel, waveform, roll-ups, and the rows as they would be sent."""
    blocks = 0

    def emit(_profile: str, _block: object) -> None:
        nonlocal blocks
        blocks += 1

    with path.open("rb") as file:
        extract(file, [PROFILE], _LIMITS, _RECORDED_AT, emit, Timings())
    return blocks


def librosa_to_npy(folder: Path, path: Path) -> None:
    """Do what a user would write with librosa: load, Mel-spectrogram in dB, `.npy`."""
    y, sr = librosa.load(path, sr=SR)
    mel = librosa.feature.melspectrogram(
        y=y, sr=sr, n_fft=PROFILE.n_fft, hop_length=PROFILE.hop_length, n_mels=PROFILE.n_mels, fmax=PROFILE.fmax
    )
    np.save(folder / f"{path.stem}.npy", librosa.power_to_db(mel, top_db=None))


def lhotse_to_npy(folder: Path, path: Path) -> None:
    """Do the same through lhotse, with its extractor that computes by librosa."""
    from lhotse import LibrosaFbank, LibrosaFbankConfig, NumpyFilesWriter, Recording  # type: ignore[import-not-found]

    config = LibrosaFbankConfig(
        sampling_rate=SR, fft_size=PROFILE.n_fft, hop_size=PROFILE.hop_length, num_mel_bins=PROFILE.n_mels,
        fmin=PROFILE.fmin, fmax=PROFILE.fmax,
    )  # fmt: skip
    cut = Recording.from_file(path).resample(SR).to_cut()
    y = cut.load_audio() if cut.num_channels == 1 else cut.to_mono(mono_downmix=True).load_audio()
    with NumpyFilesWriter(folder) as writer:
        writer.write(path.stem, LibrosaFbank(config).extract(y, SR))


def has_lhotse() -> bool:
    """Tell whether lhotse can be used; it needs torch and so is not among our dependencies."""
    return all(importlib.util.find_spec(name) for name in ("lhotse", "torch", "urllib3"))


def is_readable_by_librosa(file: AudioFile) -> bool:
    """Tell whether librosa's reader knows the format: it has none for m4a without FFmpeg's programs."""
    try:
        soundfile.info(file.path)
    except soundfile.LibsndfileError:
        return False
    return True


def mel_speedup(path: Path) -> list[float]:
    """Return per round librosa's processor time by ours, for the Mel-spectrogram in dB of the same samples."""
    y, _ = librosa.load(path, sr=SR, duration=_MEL_S)

    def by_librosa() -> None:
        mel = librosa.feature.melspectrogram(
            y=y, sr=SR, n_fft=PROFILE.n_fft, hop_length=PROFILE.hop_length, n_mels=PROFILE.n_mels, fmax=PROFILE.fmax,
            pad_mode=PROFILE.pad_mode,
        )  # fmt: skip
        librosa.power_to_db(mel, top_db=None)

    def by_us() -> None:
        samples_to_mel(y, SR, PROFILE)

    by_librosa()
    by_us()
    return [_cpu_s(by_librosa) / _cpu_s(by_us) for _ in range(_MEL_ROUNDS)]


def _cpu_s(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started
