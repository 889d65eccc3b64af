"""Container × codec × sample format × channels: what FFmpeg writes is read back as what it was, or rejected with a reason."""

import io
import itertools
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from spectralize.binarycopy import RowBlock
from spectralize.decode import decode_audio
from spectralize.errors import RejectedObjectError
from spectralize.extract import Extraction, extract
from spectralize.features import FeatureSummary
from spectralize.profiles import find_profile
from spectralize.resample import resample_audio
from spectralize.tables import REJECT_CLASSES, Limits, Timings
from tests.reference import librosa_mel
from tests.store import Store

PROFILE = find_profile("mel128_22k")
LIMITS = Limits(max_object_bytes=64 << 20, max_duration_s=60.0, max_channels=64, max_decode_s=30.0)
RECORDED_AT = datetime(2024, 1, 1, tzinfo=UTC)

SECONDS = 0.4
TONE_HZ = 500.0
TONE = 0.3

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 6: "5.1", 8: "7.1"}

#: What numpy calls the packed form of FFmpeg's sample formats.
DTYPES: dict[str, type] = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}


@dataclass(frozen=True)
class Codec:
    """What an encoder takes, and what may be asked of what comes back.

    `bits` of each sample format survive; None where the codec is lossy. `delay` is by how many samples a lossy one may lengthen
    or shorten.
    """

    bits: dict[str, int | None]
    sr: int = 16_000
    channels: tuple[int, ...] = (1, 2, 3, 6, 8)
    delay: int = 0
    #: By how much the level may be off, as a factor.
    level: float = 1.02
    bit_rate: int | None = None
    options: dict[str, str] = field(default_factory=dict)


def pcm(bits: int, fmt: str) -> Codec:
    return Codec({fmt: bits})


STEREO = (1, 2)

CODECS = {
    "pcm_u8": pcm(8, "u8"),
    "pcm_s8": pcm(8, "u8"),
    "pcm_s8_planar": pcm(8, "u8p"),
    **{f"pcm_{sign}16{end}": pcm(16, "s16") for sign in "su" for end in ("le", "be")},
    **{f"pcm_{sign}24{end}": pcm(24, "s32") for sign in "su" for end in ("le", "be")},
    **{f"pcm_{sign}32{end}": pcm(32, "s32") for sign in "su" for end in ("le", "be")},
    "pcm_s16be_planar": pcm(16, "s16p"),
    "pcm_s16le_planar": pcm(16, "s16p"),
    "pcm_s24le_planar": pcm(24, "s32p"),
    "pcm_s32le_planar": pcm(32, "s32p"),
    **{f"pcm_f32{end}": pcm(32, "flt") for end in ("le", "be")},
    **{f"pcm_f64{end}": pcm(64, "dbl") for end in ("le", "be")},
    "pcm_alaw": Codec({"s16": None}),
    "pcm_mulaw": Codec({"s16": None}),
    "pcm_dvd": Codec({"s16": 16, "s32": 24}, sr=48_000, channels=(1, 2, 8), delay=2048),
    "flac": Codec({"s16": 16, "s32": 24}),
    "alac": Codec({"s16p": 16, "s32p": 24}, channels=(1, 2, 3, 6)),
    "wavpack": Codec({"u8p": 8, "s16p": 16, "s32p": 32, "fltp": 32}),
    "tta": Codec({"u8": 8, "s16": 16, "s32": 24}),
    "adpcm_ms": Codec({"s16": None}, channels=STEREO, delay=2048, level=1.05),
    "adpcm_ima_wav": Codec({"s16p": None}, channels=STEREO, delay=2048, level=1.05),
    "adpcm_ima_qt": Codec({"s16p": None}, channels=STEREO, delay=2048, level=1.05),
    "adpcm_swf": Codec({"s16": None}, sr=22_050, channels=STEREO, delay=4096, level=1.2),
    "adpcm_yamaha": Codec({"s16": None}, channels=STEREO, delay=2048, level=1.05),
    "adpcm_adx": Codec({"s16": None}, channels=STEREO, delay=64, level=1.05),
    "adpcm_argo": Codec({"s16p": None}, channels=STEREO, delay=64, level=1.05),
    "adpcm_ima_apm": Codec({"s16": None}, channels=STEREO, delay=64, level=1.05),
    "adpcm_ima_ssi": Codec({"s16": None}, channels=STEREO, delay=64, level=1.05),
    "adpcm_ima_ws": Codec({"s16": None}, channels=STEREO, delay=512, level=1.05),
    "aac": Codec({"fltp": None}, delay=3 * 1024, level=1.1, options={"aac_coder": "fast"}),
    "libmp3lame": Codec(dict.fromkeys(("s16p", "s32p", "fltp")), sr=22_050, channels=STEREO, delay=3 * 1152, level=1.1),
    "mp2": Codec({"s16": None}, channels=STEREO, delay=2 * 1152, level=1.1),
    "vorbis": Codec({"fltp": None}, channels=(2,), delay=2 * 2048, level=1.1),
    "libopus": Codec(dict.fromkeys(("s16", "flt")), sr=48_000, channels=(1, 2, 6, 8), delay=2048, level=1.1),
    "wmav1": Codec({"fltp": None}, channels=STEREO, delay=3 * 2048, level=1.1, bit_rate=96_000),
    "wmav2": Codec({"fltp": None}, channels=STEREO, delay=3 * 2048, level=1.1, bit_rate=96_000),
    "ac3": Codec({"fltp": None}, sr=32_000, channels=(1, 2, 3, 6), delay=2 * 1536, level=1.1),
    "eac3": Codec({"fltp": None}, sr=32_000, channels=(1, 2, 3, 6), delay=2 * 1536, level=1.1),
    "g722": Codec({"s16": None}, channels=(1,), delay=640, level=1.1),
    "g726": Codec({"s16": None}, sr=8_000, channels=(1,), delay=640, level=1.2),
    "libopencore_amrnb": Codec({"s16": None}, sr=8_000, channels=(1,), delay=640, level=1.3),
    "nellymoser": Codec({"flt": None}, sr=22_050, channels=(1,), delay=1024, level=1.5),
    "real_144": Codec({"s16": None}, sr=8_000, channels=(1,), delay=1024, level=1.4),
    "sbc": Codec({"s16": None}, channels=STEREO, delay=512, level=1.1),
    "aptx": Codec({"s32p": None}, channels=(2,), delay=512, level=1.1),
    # Known to FFmpeg; whether there is an encoder depends on how it was built.
    "dca": Codec({"s32": None}, sr=48_000, channels=(2,), delay=2048, level=1.1),
    "truehd": Codec({"s16": 16}, sr=48_000, channels=(2,)),
    "libspeex": Codec({"s16": None}, channels=(1,), delay=1024, level=1.3),
    "libgsm": Codec({"s16": None}, sr=8_000, channels=(1,), delay=640, level=1.3),
    "libvo_amrwbenc": Codec({"s16": None}, channels=(1,), delay=640, level=1.3),
}

RIFF = (
    "pcm_u8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_alaw pcm_mulaw adpcm_ms adpcm_ima_wav adpcm_yamaha adpcm_swf "
    "flac libmp3lame mp2 ac3 eac3 g722 g726 libopencore_amrnb"
)
MOV_PCM = " ".join(f"pcm_{kind}{end}" for kind in ("s16", "s24", "s32", "f32", "f64") for end in ("le", "be"))

#: Muxers by FFmpeg's names, with the codecs that they take and that are found in the wild, and some more.
CONTAINERS = {
    "wav": RIFF,
    "rf64": "pcm_u8 pcm_s16le pcm_s24le pcm_f32le pcm_f64le pcm_alaw adpcm_ms",
    "w64": RIFF,
    "aiff": "pcm_s8 pcm_s16be pcm_s16le pcm_s24be pcm_s32be pcm_f32be pcm_f64be pcm_alaw pcm_mulaw adpcm_ima_qt",
    "au": "pcm_s8 pcm_s16be pcm_s24be pcm_s32be pcm_f32be pcm_f64be pcm_alaw pcm_mulaw g722",
    "caf": f"pcm_s8 {MOV_PCM} pcm_alaw pcm_mulaw alac flac libmp3lame mp2 ac3 adpcm_ima_qt adpcm_ms libopencore_amrnb",
    "flac": "flac",
    "ogg": "flac libopus vorbis libspeex",
    "opus": "libopus",
    "webm": "libopus vorbis",
    "matroska": "aac ac3 eac3 alac flac libmp3lame mp2 libopus vorbis tta wavpack pcm_u8 pcm_s16le pcm_s16be pcm_s24le pcm_s24be "
    "pcm_s32le pcm_f32le pcm_f64le real_144 dca truehd",
    "mp3": "libmp3lame",
    "mp2": "mp2",
    "mp4": f"aac ac3 eac3 alac flac libmp3lame mp2 libopus vorbis {MOV_PCM}",
    "ipod": "aac alac ac3",
    "mov": f"aac ac3 eac3 alac libmp3lame mp2 {MOV_PCM} pcm_u8 pcm_s8 pcm_alaw pcm_mulaw adpcm_ima_qt libopencore_amrnb "
    "nellymoser",
    "3gp": "aac libopencore_amrnb libvo_amrwbenc",
    "ismv": "aac alac libmp3lame",
    "adts": "aac",
    "latm": "aac",
    "asf": f"wmav1 wmav2 aac {RIFF} vorbis",
    "avi": f"aac wmav2 {RIFF} vorbis",
    "tta": "tta",
    "wv": "wavpack",
    "ac3": "ac3",
    "eac3": "eac3",
    "amr": "libopencore_amrnb libvo_amrwbenc",
    "voc": "pcm_u8 pcm_s16le pcm_alaw pcm_mulaw",
    "sox": "pcm_s32le pcm_s32be",
    "ircam": "pcm_s8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_alaw pcm_mulaw",
    "ast": "pcm_s16be_planar",
    "mmf": "adpcm_yamaha",
    "rm": "aac ac3 real_144",
    "nut": "pcm_s8_planar pcm_s16le_planar pcm_s24le_planar pcm_s32le_planar pcm_u16le pcm_u16be pcm_u24le pcm_u32be flac vorbis "
    "libopus aac wavpack",
    "flv": "aac libmp3lame adpcm_swf nellymoser pcm_u8 pcm_s16le ac3 eac3 flac libopus",
    "mpegts": "aac ac3 eac3 mp2 libmp3lame libopus truehd dca",
    "mpeg": "mp2 libmp3lame ac3 pcm_dvd",
    "swf": "libmp3lame",
    "wtv": "ac3 mp2 libmp3lame pcm_s16le flac",
    "smjpeg": "pcm_s16le",
    "adx": "adpcm_adx",
    "argo_asf": "adpcm_argo",
    "apm": "adpcm_ima_apm",
    "kvag": "adpcm_ima_ssi",
    "wsaud": "adpcm_ima_ws",
    "spdif": "ac3 mp2",
    # Without a header of their own: the bytes alone do not say what they are.
    "s16le": "pcm_s16le",
    "u8": "pcm_u8",
    "f32le": "pcm_f32le",
    "mulaw": "pcm_mulaw",
    "alaw": "pcm_alaw",
    "g722": "g722",
    "g726": "g726",
    "sbc": "sbc",
    "aptx": "aptx",
    "gsm": "libgsm",
}

#: Muxers that pass FFmpeg's samples on without saying what they are.
HEADERLESS = ("s16le", "u8", "f32le", "mulaw", "alaw", "g722", "g726", "sbc", "aptx", "gsm")


#: Of those above, the muxers that FFmpeg knows by another name, and what makes them write what is meant.
MUXERS = {"rf64": "wav"}
OPTIONS = {"rf64": {"rf64": "always"}}

#: Where the muxer takes fewer channels than the codec.
MAX_CHANNELS = {("flv", "pcm_u8"): 2, ("flv", "pcm_s16le"): 2, ("mmf", "*"): 1, ("voc", "*"): 2}

#: Where it takes only some sample rates.
RATES = {
    ("flv", "aac"): 22_050,
    ("flv", "pcm_u8"): 22_050,
    ("flv", "pcm_s16le"): 22_050,
    ("mmf", "adpcm_yamaha"): 22_050,
} | {("voc", codec): 8_000 for codec in CONTAINERS["voc"].split()}

SNDFILE_CODECS = (*(name for name in CODECS if name.startswith("pcm_")), "alac")


@dataclass(frozen=True)
class Known:
    """Cells that do not hold yet, and why. One that holds again fails the test, so that its line goes."""

    containers: str
    codecs: str
    reason: str
    channels: tuple[int, ...] = (1, 2, 3, 6, 8)
    fmts: tuple[str, ...] = ()


KNOWN = (
    Known("asf wtv", "flac", "the clock runs ahead of the audio"),
    Known("caf", "alac", "FFmpeg cuts the unused part off a last packet that has none"),
    Known("wsaud", "adpcm_ima_ws", "the muxer leaves the last chunk short"),
)

ENCODERS = set()
for _name in CODECS:
    try:
        av.Codec(_name, "w")
        ENCODERS.add(_name)
    except ValueError:
        pass


@dataclass(frozen=True)
class Combination:
    """One cell of the matrix."""

    container: str
    codec: str
    fmt: str
    channels: int

    def __str__(self) -> str:
        return f"{self.container}-{self.codec}-{self.fmt}-{self.channels}ch"


def why_not(combination: Combination) -> str | None:
    """Say why this FFmpeg cannot write it, if so."""
    container, codec, channels = combination.container, combination.codec, combination.channels
    if codec not in ENCODERS:
        return "no encoder in this build"
    if MUXERS.get(container, container) not in av.formats_available:
        return "no muxer in this build"
    if channels > MAX_CHANNELS.get((container, codec), MAX_CHANNELS.get((container, "*"), 64)):
        return "the muxer takes fewer channels"
    return None


def cells() -> Iterator[Any]:
    for container, codecs in CONTAINERS.items():
        for name in codecs.split():
            codec = CODECS[name]
            for fmt, channels in itertools.product(codec.bits, codec.channels):
                combination = Combination(container, name, fmt, channels)
                reason = why_not(combination)
                marks = [pytest.mark.skip(reason=reason)] if reason else find_known(combination)
                yield pytest.param(
                    combination, id=f"{combination} ({reason})" if reason else str(combination), marks=marks
                )


def find_known(combination: Combination) -> list[pytest.MarkDecorator]:
    return [
        pytest.mark.xfail(reason=known.reason, raises=AssertionError, strict=True)
        for known in KNOWN
        if combination.container in known.containers.split()
        and (known.codecs == "*" or combination.codec in known.codecs.split())
        and combination.channels in known.channels
        and combination.fmt in (known.fmts or [combination.fmt])
    ][:1]


@lru_cache(maxsize=32)
def tone(sr: int, channels: int, seconds: float = SECONDS) -> npt.NDArray[np.float64]:
    """A tone with a little noise, another one in each channel; shape (n_samples, channels)."""
    t = np.arange(round(seconds * sr)) / sr
    noise = np.random.default_rng(7).uniform(-0.01, 0.01, (len(t), channels))
    return cast(npt.NDArray[np.float64], TONE * np.sin(2 * np.pi * TONE_HZ * t)[:, None] + noise)


@dataclass(frozen=True)
class Written:
    """A file, and the samples that were put into it: mono, full scale ±1."""

    data: bytes
    y: npt.NDArray[np.float64]
    sr: int


def quantize(
    y: npt.NDArray[np.float64], fmt: str, bits: int | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Round samples to what a format holds: as FFmpeg wants them, packed, and as numbers."""
    dtype = DTYPES[fmt.removesuffix("p")]
    if not np.issubdtype(dtype, np.integer):
        packed = y.astype(dtype)
        return packed, packed.astype(np.float64)
    width = 8 * np.dtype(dtype).itemsize
    bits = min(bits or width, width)
    steps = np.rint(y * 2.0 ** (bits - 1)).astype(np.int64)
    packed = (steps << (width - bits)) + (128 if dtype is np.uint8 else 0)
    return packed.astype(dtype), steps / 2.0 ** (bits - 1)


def write_file(
    combination: Combination,
    *,
    sr: int | None = None,
    seconds: float = SECONDS,
    video: str | None = None,
    has_second: bool = False,
    starts_s: float = 0.0,
) -> Written:
    """Write a tone with FFmpeg, perhaps beside a picture track and a second, silent, audio stream."""
    container, codec, fmt, channels = astuple(combination)
    spec = CODECS[codec]
    sr = sr or RATES.get((container, codec), spec.sr)
    packed, exact = quantize(tone(sr, channels, seconds), fmt, spec.bits[fmt])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=MUXERS.get(container, container), options=OPTIONS.get(container, {})) as output:
        pictures: Any = output.add_stream(video, rate=10) if video else None
        if pictures is not None:
            pictures.width = pictures.height = 32
        streams = [
            cast(av.AudioStream, output.add_stream(codec, rate=sr, layout=LAYOUTS[channels]))
            for _ in range(1 + has_second)
        ]
        for stream in streams:
            if spec.bit_rate:
                stream.bit_rate = spec.bit_rate
            stream.codec_context.format = av.AudioFormat(fmt)
            stream.codec_context.options = {"strict": "experimental"} | spec.options
        for number in range(5 if pictures is not None else 0):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 50 * number, dtype=np.uint8))
            output.mux(pictures.encode(frame))
        for start in range(0, len(packed), 1024):
            for index, stream in enumerate(streams):
                block = np.ascontiguousarray(packed[start : start + 1024]).reshape(1, -1)
                sound = av.AudioFrame.from_ndarray(
                    block if not index else np.zeros_like(block), fmt.removesuffix("p"), LAYOUTS[channels]
                )
                sound.sample_rate, sound.pts = sr, start + round(starts_s * sr)
                output.mux(stream.encode(sound))
        for stream in (*streams, *([pictures] if pictures is not None else [])):
            output.mux(stream.encode(None))
    return Written(buffer.getvalue(), exact.mean(axis=1), sr)


def extract_bytes(data: bytes) -> tuple[Extraction, npt.NDArray[np.float32]]:
    """Run the core on a file in memory: what it says, and the Mel frames that it gives to the database."""
    blocks: list[RowBlock] = []
    extraction = extract(
        io.BytesIO(data), [PROFILE], LIMITS, RECORDED_AT, lambda _, block: blocks.append(block), Timings()
    )
    n_bytes = 2 * PROFILE.n_mels
    rows = [
        np.frombuffer(block.data, np.uint8).reshape(block.n_rows, -1)[:, -n_bytes:]
        for block in blocks
        if block.table == "mel_frames"
    ]
    mel = np.ascontiguousarray(np.concatenate(rows)).view(">f2").astype(np.float32)
    return extraction, mel


@lru_cache(maxsize=64)
def expected_level(sr: int, channels: int) -> tuple[int, float]:
    """The loudest band of the tone according to librosa, and its level in dB."""
    rate = cast(int, PROFILE.sr)
    y = resample_audio(tone(sr, channels).mean(axis=1).astype(np.float32), sr, rate)
    return loudest_band(librosa_mel(y, rate, PROFILE))


def loudest_band(mel: npt.NDArray[np.float32]) -> tuple[int, float]:
    """Of the frames between onset and end, which differ from codec to codec."""
    level = mel[6:-6].mean(axis=0)
    return int(np.argmax(level)), float(level.max())


def is_known_to_sndfile(combination: Combination) -> bool:
    container, codec = combination.container, combination.codec
    if container == "flac":
        return combination.fmt == "s16"
    if container == "ircam":
        return codec in ("pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_alaw", "pcm_mulaw")
    return container in ("wav", "rf64", "aiff", "au", "caf") and codec in SNDFILE_CODECS


def assert_is_the_tone(written: Written, combination: Combination) -> None:
    extraction, mel = extract_bytes(written.data)
    audio, spec = extraction.audio, CODECS[combination.codec]
    fmt, channels = combination.fmt, combination.channels
    summary = extraction.features[PROFILE.name]
    assert isinstance(summary, FeatureSummary)
    assert (audio.defect, audio.sr, audio.channels) == (None, written.sr, channels)
    assert summary.n_frames == len(mel)
    assert abs(audio.n_samples - len(written.y)) <= spec.delay
    band, level_db = loudest_band(mel)
    expected_band, expected_db = expected_level(written.sr, channels)
    assert band == expected_band
    # A lossy codec cuts the tone off the channel of the low frequencies.
    lost_db = 20 * np.log10(channels / (channels - 1)) if channels in (6, 8) and spec.bits[fmt] is None else 0.0
    tolerance_db = 20 * np.log10(spec.level)
    assert -tolerance_db - lost_db <= level_db - expected_db <= tolerance_db
    is_lossless = spec.bits[fmt] is not None and not spec.delay
    if is_lossless or is_known_to_sndfile(combination):
        y, _ = decode_audio(io.BytesIO(written.data))
    if is_lossless:
        assert len(y) == len(written.y)
        np.testing.assert_allclose(y, written.y, rtol=0, atol=2e-7)
    if is_known_to_sndfile(combination):
        theirs, sr = soundfile.read(io.BytesIO(written.data), dtype="float64", always_2d=True)
        assert (audio.sr, len(y)) == (sr, len(theirs))
        np.testing.assert_allclose(y, theirs.mean(axis=1), rtol=0, atol=2e-7)


@pytest.mark.parametrize("combination", list(cells()))
def test_what_was_written_is_read(combination: Combination) -> None:
    written = write_file(combination)
    if combination.container not in HEADERLESS:
        assert_is_the_tone(written, combination)
        return
    with pytest.raises(RejectedObjectError) as caught:
        extract_bytes(written.data)
    assert caught.value.reason_class in REJECT_CLASSES
    assert caught.value.reason


def test_the_matrix_is_covered() -> None:
    """As many cells are written and read as there were when the matrix was made, and in as many formats."""
    ran = [cell.values[0] for cell in cells() if not any(mark.name == "skip" for mark in cell.marks)]
    held = [cell.values[0] for cell in cells() if not cell.marks]
    assert len(ran) >= 1_350
    assert len(held) >= 1_320
    assert len({(cell.container, cell.codec) for cell in ran}) >= 280
    assert {cell.container for cell in ran} >= set(CONTAINERS) - {"gsm"}


#: Containers that hold more than one stream, with codecs for audio and pictures.
FILMS = {
    "mp4": ("aac", "mpeg4"),
    "mov": ("pcm_s16le", "mpeg4"),
    "matroska": ("libopus", "mpeg4"),
    "avi": ("libmp3lame", "mpeg4"),
    "asf": ("wmav2", "mpeg4"),
    "mpegts": ("mp2", "mpeg2video"),
    "mpeg": ("mp2", "mpeg2video"),
    "flv": ("libmp3lame", "flv1"),
    "nut": ("aac", "mpeg4"),
}


def of(container: str, codec: str, channels: int = 1) -> Combination:
    return Combination(container, codec, next(iter(CODECS[codec].bits)), channels)


@pytest.mark.parametrize("container", FILMS)
def test_the_sound_of_a_film_is_read(container: str) -> None:
    codec, video = FILMS[container]
    assert_is_the_tone(write_file(of(container, codec), video=video), of(container, codec))


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "avi", "asf", "mpegts", "nut"])
def test_of_two_sounds_the_first_is_read(container: str) -> None:
    codec, _ = FILMS[container]
    assert_is_the_tone(write_file(of(container, codec), has_second=True), of(container, codec))


@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "mpegts", "flv", "nut"])
def test_a_sound_that_starts_late_is_whole(container: str) -> None:
    codec, video = FILMS[container]
    assert_is_the_tone(write_file(of(container, codec), video=video, starts_s=1.5), of(container, codec))


@pytest.mark.parametrize("sr", [4_000, 8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000, 384_000])
@pytest.mark.parametrize("container", ["wav", "flac", "aiff", "caf", "matroska", "mov", "wv"])
def test_every_rate_is_read(container: str, sr: int) -> None:
    codec = {"flac": "flac", "aiff": "pcm_s24be", "wv": "wavpack"}.get(container, "pcm_s24le")
    fmt = {"flac": "s32", "wv": "s32p"}.get(container, "s32")
    combination = Combination(container, codec, fmt, 2)
    assert_is_the_tone(write_file(combination, sr=sr), combination)


def test_compressed_sound_that_poses_as_pcm_is_decoded() -> None:
    """AC-3 on a CD, or DTS, comes as a wav of 16-bit stereo; played as such it is noise."""
    written = write_file(of("spdif", "ac3", 2), sr=48_000)
    bursts = np.frombuffer(written.data, dtype="<i2").reshape(-1, 2)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.tile(bursts, (4, 1)), 48_000, format="WAV", subtype="PCM_16")
    extraction, mel = extract_bytes(buffer.getvalue())
    assert extraction.audio.codec == "ac3"
    assert loudest_band(mel)[0] == expected_level(48_000, 2)[0]


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
@pytest.mark.parametrize(
    ("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac"), ("ac3", "ac3"), ("mp2", "mp2")]
)
def test_sound_that_changes_its_channels_is_told(container: str, codec: str, first: int, second: int) -> None:
    """Radio does so between speech and music. Whatever follows the change may be left out, but not silently."""
    parts = [write_file(of(container, codec, channels)).data for channels in (first, second)]
    extraction, mel = extract_bytes(b"".join(parts))
    audio = extraction.audio
    assert audio.duration_s >= 2 * SECONDS or audio.defect is not None
    # Either side of the seam, where the encoders' own delays make a pause.
    for half in np.array_split(mel[6:-6], 2):
        assert abs(float(np.median(half, axis=0).max()) - expected_level(audio.sr, 1)[1]) < 1.0


def tag_behind(kind: str) -> bytes:
    if kind == "id3v1":
        return b"TAG" + b"Title".ljust(125, b"\0")
    if kind == "apev2":
        item = struct.pack("<II", 5, 0) + b"Title\0hello"
        ends = [
            struct.pack("<IIII", 2_000, len(item) + 32, 1, flags) + bytes(8) for flags in (0xA000_0000, 0x8000_0000)
        ]
        return b"APETAGEX" + ends[0] + item + b"APETAGEX" + ends[1]
    return bytes(5_000)


BEHIND = [
    of("mp3", "libmp3lame"),
    of("flac", "flac"),
    of("wv", "wavpack"),
    of("tta", "tta"),
    of("adts", "aac"),
    of("ogg", "libopus"),
]


@pytest.mark.parametrize("kind", ["id3v1", "apev2", "zeros"])
@pytest.mark.parametrize("combination", BEHIND, ids=str)
def test_what_follows_the_sound_costs_nothing(combination: Combination, kind: str) -> None:
    written = write_file(combination)
    assert_is_the_tone(replace(written, data=written.data + tag_behind(kind)), combination)


def w64_chunk(n_bytes: int) -> bytes:
    return b"junk" + bytes.fromhex("f3acd3118cd100c04f8edb8a") + struct.pack("<Q", 24 + n_bytes) + bytes(n_bytes)


@pytest.mark.parametrize("container", ["wav", "aiff", "caf", "w64"])
def test_chunks_that_follow_the_sound_cost_nothing(container: str, request: pytest.FixtureRequest) -> None:
    if container in ("caf", "w64"):
        expect_failure(request, "the length is estimated from the size of the file")
    order = "<" if container == "wav" else ">"
    chunk = {
        "caf": b"free" + struct.pack(">q", 50_000) + bytes(50_000),
        "w64": w64_chunk(50_000),
    }.get(container, b"junk" + struct.pack(order + "I", 50_000) + bytes(50_000))
    combination = of(container, "pcm_s16be" if container == "aiff" else "pcm_s16le")
    data = bytearray(write_file(combination).data + chunk)
    if container in ("wav", "aiff"):
        data[4:8] = struct.pack(order + "I", len(data) - 8)
    elif container == "w64":
        data[16:24] = struct.pack("<Q", len(data))
    extraction, _ = extract_bytes(bytes(data))
    assert (extraction.audio.n_samples, extraction.audio.defect) == (round(SECONDS * extraction.audio.sr), None)


def test_words_in_a_tag_are_no_header_of_the_sound() -> None:
    """Files that were tagged twice have two ID3 tags, and LAME's own header starts with an ordinary word."""
    sound = write_file(of("mp3", "libmp3lame")).data
    frames = sound[sound.index(b"\xff\xf3", sound.index(b"Info")) :]
    text = b"TXXX\0\0\0\x10\0\0\3note\0Info, see x"
    tag = b"ID3\3\0\0\0\0\0" + bytes([len(text)]) + text
    extraction, _ = extract_bytes(tag + tag + frames)
    assert extraction.audio.defect is None


#: What is left of a file that was cut off: a header or a page tells, if anything does.
CUT = {
    "wav": of("wav", "pcm_s16le"),
    "wav-adpcm": of("wav", "adpcm_ms"),
    "rf64": of("rf64", "pcm_s16le"),
    "w64": of("w64", "pcm_s16le"),
    "aiff": of("aiff", "pcm_s16be"),
    "au": of("au", "pcm_s16be"),
    "caf": of("caf", "pcm_s16le"),
    "flac": of("flac", "flac"),
    "wv": of("wv", "wavpack"),
    "tta": of("tta", "tta"),
    "ogg-opus": of("ogg", "libopus"),
    "ogg-flac": of("ogg", "flac"),
    "mp3": of("mp3", "libmp3lame"),
    "m4a": of("ipod", "aac"),
    "wma": of("asf", "wmav2"),
    "matroska": of("matroska", "pcm_s16le"),
    "matroska film": of("matroska", "pcm_s16le"),
    "avi film": of("avi", "pcm_s16le"),
}
UNNOTICED = ("wma", "wav-adpcm", "rf64", "w64", "caf", "matroska film", "avi film")


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_was_cut_off_is_noticed(name: str, request: pytest.FixtureRequest) -> None:
    if name in UNNOTICED:
        expect_failure(request, "nothing is held against what its header says")
    data = write_file(CUT[name], seconds=8.0, video="mpeg4" if name.endswith("film") else None).data
    cut = data[: len(data) * 9 // 10]
    if name == "m4a":
        # Without the index at its end nothing of it can be found.
        with pytest.raises(RejectedObjectError):
            extract_bytes(cut)
        return
    extraction, _ = extract_bytes(cut)
    assert extraction.audio.duration_s < 7.9
    assert extraction.audio.defect is not None


def expect_failure(request: pytest.FixtureRequest, reason: str) -> None:
    """Like `KNOWN`, for what is no cell of the matrix."""
    request.applymarker(pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True))


#: One of each family, for the servers.
REPRESENTATIVES = {
    "a.wav": of("wav", "pcm_s24le", 6),
    "b.wav": of("wav", "adpcm_ms", 2),
    "c.flac": of("flac", "flac", 2),
    "d.mp3": of("mp3", "libmp3lame", 2),
    "e.ogg": of("ogg", "libopus", 2),
    "f.m4a": of("ipod", "aac", 2),
    "g.m4a": of("ipod", "alac", 2),
    "h.aiff": of("aiff", "pcm_s16be", 2),
    "i.caf": of("caf", "pcm_f32le"),
    "j.webm": of("webm", "libopus"),
    "k.wma": of("asf", "wmav2", 2),
    "l.aac": of("adts", "aac", 6),
    "m.mkv": of("matroska", "ac3", 6),
    "n.w64": of("w64", "pcm_f64le", 8),
    "o.wv": of("wv", "wavpack", 2),
    "p.raw": of("s16le", "pcm_s16le"),
}


def test_the_store_holds_what_was_written(store: Store) -> None:
    store.source = store.source.model_copy(update={"include": ("*",)})
    written = {key: write_file(combination) for key, combination in REPRESENTATIVES.items()}
    for key, file in written.items():
        store.put(key, file.data)
    batch = store.ingest()
    expected = {key: ("rejected", "not_audio") if key == "p.raw" else ("loaded", None) for key in REPRESENTATIVES}
    assert store.outcomes(batch) == expected
    rows = store.rows(
        "SELECT o.key, r.decoded_codec, r.decoded_samplerate_hz, r.decoded_channels, r.decoded_samples, "
        "(SELECT array_agg(f.mel::real[] ORDER BY f.frame_index) FROM spectralize.mel_frames AS f "
        "WHERE f.spectrogram_id = s.spectrogram_id) "
        "FROM spectralize.recordings AS r JOIN spectralize.objects AS o USING (object_id) "
        "JOIN spectralize.spectrograms AS s USING (object_id) WHERE s.batch_id = %s ORDER BY 1", batch.batch_id,
    )  # fmt: skip
    assert [key for key, *_ in rows] == sorted(set(REPRESENTATIVES) - {"p.raw"})
    for key, codec, sr, channels, n_samples, mel in rows:
        extraction, frames = extract_bytes(written[key].data)
        audio = extraction.audio
        assert (codec, sr, channels, n_samples) == (audio.codec, audio.sr, audio.channels, audio.n_samples)
        np.testing.assert_array_equal(np.array(mel, dtype=np.float32), frames)
    assert store.breaches() == {}
