"""Damaged files by the thousand, down the path that the job takes: each has one outcome, and none breaks anything of ours.

What a mutant is follows from `SEED`, its format and its number alone: `mutate(format, number)` builds any one again.
"""

import hashlib
import io
import logging
import math
import multiprocessing
import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
import soundfile

from spectralize.binarycopy import RowBlock
from spectralize.errors import RejectedObjectError
from spectralize.extract import Extraction
from spectralize.features import FeatureSummary
from spectralize.isolate import Done, Event, Job, Part, Refused, extract_isolated
from spectralize.mel import count_frames
from spectralize.profiles import find_profile
from spectralize.tables import REJECT_CLASSES, Limits, PlannedObject, PlannedProfile
from tests.store import Store, make_samples

logger = logging.getLogger(__name__)

SEED = 20_261_122

#: One profile that resamples everything to its own rate, and one that takes whatever rate a mutant claims.
PROFILES = {name: find_profile(name) for name in ("mel128_22k", "seed2020")}

#: A decoder that hangs shows as `timed_out` instead of holding up the test.
LIMITS = Limits(max_object_bytes=64 << 20, max_duration_s=60.0, max_channels=64, max_decode_s=5.0)

#: What a child may take beyond its size at birth. The kernel's own limit is 1 GB of data; a sound recording takes some
#: tens of megabytes, and a mutant may add what its header makes a decoder allocate.
MAX_GROWTH_MB = 256.0

RATE = 16_000


def write_audio(
    container: str,
    codec: str,
    *,
    sr: int = RATE,
    channels: int = 1,
    seconds: float = 1.0,
    tags: dict[str, str] | None = None,
    has_video: bool = False,
) -> bytes:
    """Write a short tone with FFmpeg, perhaps with tags and a moving picture."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    samples = np.round(make_samples(seconds, sr=sr, channels=channels) * 32_767).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        output.metadata.update(tags or {})
        video: Any = output.add_stream("mpeg4", rate=10) if has_video else None
        if video is not None:
            video.width = video.height = 32
        stream = cast(av.AudioStream, output.add_stream(codec, rate=sr, layout=layout))
        stream.bit_rate = 64_000
        stream.codec_context.options = {"strict": "experimental"}
        for number in range(4 if has_video else 0):
            picture = np.full((32, 32, 3), 60 * number, dtype=np.uint8)
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
        for start in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[start : start + 1024]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout=layout)
            frame.sample_rate, frame.pts = sr, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if video is not None:
            output.mux(video.encode(None))
    return buffer.getvalue()


def write_sound(container: str, subtype: str, *, sr: int = RATE, channels: int = 1) -> bytes:
    """Write a short tone with libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, make_samples(0.6, sr=sr, channels=channels), sr, format=container, subtype=subtype)
    return buffer.getvalue()


TAGS = {"title": "Tïtle", "artist": "Artist", "album": "Album", "track": "3/7", "date": "1999", "comment": "x" * 200}


def id3(*, claimed: int | None = None) -> bytes:
    """An ID3v2 tag with texts and a picture, perhaps with a size that is not its own."""
    frames = b""
    picture = b"\x00image/png\x00\x03cover\x00" + b"\x89PNG\r\n\x1a\n" + bytes(300)
    for name, body in (
        (b"TIT2", b"\x03Title"),
        (b"TPE1", b"\x01\xff\xfeA\x00r\x00"),
        (b"TRCK", b"\x033/7"),
        (b"APIC", picture),
    ):
        frames += name + len(body).to_bytes(4, "big") + b"\x00\x00" + body
    size = len(frames) if claimed is None else claimed
    return b"ID3\x03\x00\x00" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + frames


def tag_flac(data: bytes) -> bytes:
    """Put a picture block after STREAMINFO."""
    mime, description, picture = b"image/png", b"cover", bytes(500)
    body = struct.pack(">II", 3, len(mime)) + mime + struct.pack(">I", len(description)) + description
    body += struct.pack(">IIIII", 1, 1, 24, 0, len(picture)) + picture
    return data[:42] + b"\x06" + len(body).to_bytes(3, "big") + body + data[42:]


def tag_wav(data: bytes) -> bytes:
    """Append a LIST of INFO."""
    info = b"INFOINAM\x06\x00\x00\x00Title\x00IART\x04\x00\x00\x00Art\x00"
    data = data + b"LIST" + len(info).to_bytes(4, "little") + info
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


#: What mutants are made of: small sound files, each by a name that is also its suffix in S3.
FORMATS: dict[str, Callable[[], bytes]] = {
    "mp3": lambda: id3() + write_audio("mp3", "libmp3lame"),
    "m4a": lambda: write_audio("ipod", "aac", channels=2, tags=TAGS),
    "alac": lambda: write_audio("ipod", "alac", tags=TAGS),
    "mp4": lambda: write_audio("mp4", "aac", tags=TAGS, has_video=True),
    "flac": lambda: tag_flac(write_audio("flac", "flac", tags=TAGS)),
    "ogg": lambda: write_sound("OGG", "VORBIS", channels=2),
    "opus": lambda: write_audio("ogg", "libopus", tags=TAGS),
    "wav": lambda: tag_wav(write_sound("WAV", "PCM_16", channels=2)),
    "adpcm": lambda: write_audio("wav", "adpcm_ima_wav", channels=2),
    "ms": lambda: write_audio("wav", "adpcm_ms"),
    "float": lambda: write_sound("WAV", "FLOAT", sr=8_000),
    "aiff": lambda: write_sound("AIFF", "PCM_16"),
    "au": lambda: write_sound("AU", "ULAW"),
    "w64": lambda: write_sound("W64", "PCM_24"),
    "caf": lambda: write_audio("caf", "alac", seconds=1.024, tags=TAGS),
    "webm": lambda: write_audio("webm", "libopus", tags=TAGS),
    "mkv": lambda: write_audio("matroska", "aac", channels=2, tags=TAGS, has_video=True),
    "wma": lambda: write_audio("asf", "wmav2", tags=TAGS),
    "aac": lambda: write_audio("adts", "aac", channels=6),
    "ac3": lambda: write_audio("ac3", "ac3", sr=32_000, channels=2),
    "wv": lambda: write_audio("wv", "wavpack", tags=TAGS),
    "tta": lambda: write_audio("tta", "tta"),
    "avi": lambda: write_audio("avi", "libmp3lame", has_video=True),
    "ts": lambda: write_audio("mpegts", "mp2", has_video=True),
}


@lru_cache(maxsize=1)
def sound_files() -> dict[str, bytes]:
    return {name: write() for name, write in FORMATS.items()}


#: Where a parser trusts a number: nothing, one, the largest there are, with and without a sign.
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x00FF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF,
            (1 << 40) + 1, (1 << 56) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip

Mutation = Callable[[np.random.Generator, bytes], bytes]


def _place(rng: np.random.Generator, data: bytes) -> int:
    """A position in a file: a third of the time in the header or the trailer, where a byte counts most."""
    where = rng.integers(0, 6)
    if where == 0:
        return int(rng.integers(0, min(len(data), 96)))
    if where == 1:
        return max(0, len(data) - 1 - int(rng.integers(0, 600)))
    return int(rng.integers(0, len(data)))


def _run(rng: np.random.Generator, data: bytes) -> tuple[int, int]:
    start = _place(rng, data)
    return start, min(len(data), start + int(2 ** rng.uniform(0, 11)))


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 7))):
        mutant[_place(rng, data)] ^= 1 << int(rng.integers(0, 8))
    return bytes(mutant)


def overwrite(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _run(rng, data)
    n = stop - start
    return data[:start] + (bytes(n), b"\xff" * n, rng.bytes(n))[int(rng.integers(0, 3))] + data[stop:]


def truncate(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def insert(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _run(rng, data)
    return data[:start] + rng.bytes(stop - start) + data[start:]


def delete(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _run(rng, data)
    return data[:start] + data[stop:]


def duplicate(rng: np.random.Generator, data: bytes) -> bytes:
    start, stop = _run(rng, data)
    return data[:stop] + data[start:stop] * int(rng.integers(1, 5)) + data[stop:]


def set_numbers(rng: np.random.Generator, data: bytes) -> bytes:
    mutant = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.choice((1, 2, 3, 4, 4, 4, 8)))
        order: Any = ("big", "little")[int(rng.integers(0, 2))]
        at = _place(rng, data)
        value = EXTREMES[int(rng.integers(0, len(EXTREMES)))] & ((1 << 8 * width) - 1)
        mutant[at : at + width] = value.to_bytes(width, order)
    return bytes(mutant)


def _other(rng: np.random.Generator) -> bytes:
    names = sorted(FORMATS)
    return sound_files()[names[int(rng.integers(0, len(names)))]]


def splice(rng: np.random.Generator, data: bytes) -> bytes:
    other = _other(rng)
    start, stop = _run(rng, data)
    at = _place(rng, other)
    return data[:start] + other[at : at + stop - start] + data[stop:]


def change_body(rng: np.random.Generator, data: bytes) -> bytes:
    other = _other(rng)
    return data[: int(rng.integers(8, 200))] + other[int(rng.integers(0, 200)) :]


def join(rng: np.random.Generator, data: bytes) -> bytes:
    other = _other(rng)
    return data + other if rng.integers(0, 2) else data[: _place(rng, data)] + other


def change_tags(rng: np.random.Generator, data: bytes) -> bytes:
    """A tag in front whose size is a lie, or one that is damaged itself."""
    claimed = (0, 1, 10, 127, 1 << 14, (1 << 28) - 1, len(data), None)[int(rng.integers(0, 8))]
    tag = id3(claimed=claimed)
    if rng.integers(0, 2):
        tag = tag[:5] + bytes([int(rng.integers(0, 256))]) + flip_bits(rng, tag[6:])
    return tag * int(rng.integers(1, 4)) + data


def _ogg_checksum(byte: int) -> int:
    checksum = byte << 24
    for _ in range(8):
        checksum = (checksum << 1 & 0xFFFF_FFFF) ^ (0x04C1_1DB7 if checksum >> 31 else 0)
    return checksum


OGG_CHECKSUMS = [_ogg_checksum(byte) for byte in range(256)]


def sign_pages(data: bytes) -> bytes:
    """Give every page of an Ogg file the checksum that its bytes have now."""
    signed = bytearray(data)
    starts = [found.start() for found in re.finditer(b"OggS", data)]
    for start in starts:
        header = data[start : start + 27]
        if len(header) < 27:
            break
        table = data[start + 27 : start + 27 + header[26]]
        stop = start + 27 + len(table) + sum(table)
        page = data[start : start + 22] + bytes(4) + data[start + 26 : stop]
        checksum = 0
        for byte in page:
            checksum = (checksum << 8 & 0xFFFF_FFFF) ^ OGG_CHECKSUMS[checksum >> 24 ^ byte]
        signed[start + 22 : start + 26] = checksum.to_bytes(4, "little")
    return bytes(signed)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, overwrite, truncate, insert, delete, duplicate, set_numbers, set_numbers, splice, change_body, join, change_tags
)  # fmt: skip


def mutate(name: str, number: int, seed: int = SEED) -> tuple[str, bytes]:
    """Build one mutant of a format; return what was done to it, too."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    data = sound_files()[name]
    done = []
    for _ in range(1 if rng.random() < 0.7 else 2):
        mutation = MUTATIONS[int(rng.integers(0, len(MUTATIONS)))]
        done.append(mutation.__name__)
        data = mutation(rng, data) or data[:1]
    if data.startswith(b"OggS") and rng.integers(0, 2):
        # Pages that do not match their checksums are left out by the demuxer, and no decoder ever sees them.
        done.append("sign_pages")
        data = sign_pages(data)
    return "+".join(done), data


class Bucket:
    """What `objectfile` needs of an S3 client, out of memory: what is under test here is the child process."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self._objects = objects

    def get_object(self, *, Bucket: str, Key: str, IfMatch: str, Range: str | None = None) -> dict[str, Any]:
        data = self._objects[Key]
        start, stop = (0, len(data) - 1) if Range is None else map(int, Range.removeprefix("bytes=").split("-"))
        return {"Body": io.BytesIO(data[start : stop + 1]), "ContentRange": f"bytes {start}-{stop}/{len(data)}"}


@dataclass
class Tally:
    """What became of many mutants."""

    #: Per format: outcomes, with the class of a reject.
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    #: Mutants that something of ours did wrong, with how to build them again.
    faults: list[str] = field(default_factory=list)
    #: Mutants that cost their process, or more than they should have.
    costly: list[str] = field(default_factory=list)
    growth_mb: float = 0.0

    def add(self, other: "Tally") -> None:
        for name, counts in other.outcomes.items():
            self.outcomes.setdefault(name, Counter()).update(counts)
        self.faults += other.faults
        self.costly += other.costly
        self.growth_mb = max(self.growth_mb, other.growth_mb)

    def report(self) -> str:
        lines = [f"{name:6} {dict(sorted(counts.items()))}" for name, counts in sorted(self.outcomes.items())]
        return "\n".join([*lines, *self.costly, f"largest growth of a child: {self.growth_mb:.0f} MB"])


def child_peak_mb() -> float:
    """The extracting process's most memory so far, or 0 if it is gone."""
    for child in multiprocessing.active_children():
        if child.name == "spectralize-extract":
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                continue
            return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)
    return 0.0


def is_finite(block: RowBlock) -> bool:
    """Tell whether the Mel vectors of encoded rows hold numbers only, by their exponents."""
    if block.table != "mel_frames":
        return True
    rows = np.frombuffer(block.data, dtype=np.uint8).reshape(block.n_rows, -1)
    vectors = np.ascontiguousarray(rows[:, -2 * 128 :]).view(">u2")
    return bool((vectors & 0x7C00 != 0x7C00).all())


def find_fault(data: bytes, events: list[Event]) -> str | None:
    """What is wrong with an object's events, if anything is."""
    *parts, last = events
    if not all(isinstance(part, Part) for part in parts):
        return f"more than one terminal event: {[type(event).__name__ for event in events]}"
    if isinstance(last, Refused):
        if not last.is_rejected:
            return f"failed: {last.reason_class}: {last.reason}"
        return None if last.reason_class in REJECT_CLASSES and last.reason else f"rejected as {last.reason_class!r}"
    if not isinstance(last, Done):
        return f"ends with {type(last).__name__}"
    rows: dict[str, Counter[str]] = {name: Counter() for name in PROFILES}
    for event in cast(list[Part | Done], events):
        for name, block in event.rows:
            rows[name][block.table] += block.n_rows
            if not is_finite(block) and isinstance(last.extraction.features[name], FeatureSummary):
                return f"{name}: a Mel vector with a value that is no number"
    return find_fault_in_extraction(data, last.extraction, rows)


def find_fault_in_extraction(data: bytes, extraction: Extraction, rows: dict[str, Counter[str]]) -> str | None:
    audio = extraction.audio
    if extraction.sha256 != hashlib.sha256(data).digest():
        return "another sha256"
    if audio.n_samples <= 0 or audio.sr <= 0 or not 0 < audio.channels <= LIMITS.max_channels:
        return f"loaded with {audio}"
    for name, profile in PROFILES.items():
        summary = extraction.features.get(name)
        if isinstance(summary, RejectedObjectError):
            if summary.reason_class not in REJECT_CLASSES:
                return f"{name}: rejected as {summary.reason_class!r}"
            continue
        if summary is None:
            return f"{name}: neither computed nor rejected"
        sr = audio.sr if profile.sr == "native" else profile.sr
        counts = {"mel_frames": summary.n_frames, "waveform_frames": summary.n_hops, "mel_seconds": summary.n_seconds}
        wanted = {
            "n_samples": math.ceil(audio.n_samples * (sr / audio.sr)),
            "n_frames": count_frames(summary.n_samples, profile),
            "n_hops": -(-summary.n_samples // profile.hop_length),
        }
        found = {key: getattr(summary, key) for key in wanted}
        if found != wanted or rows[name] != Counter(counts) or not math.isfinite(summary.peak_db):
            return f"{name}: {summary}, but {wanted} are due and {dict(rows[name])} rows came"
    return None


def describe(event: Event) -> str:
    if isinstance(event, Refused):
        return event.reason_class
    return "partial" if cast(Done, event).extraction.audio.defect else "loaded"


def events_of(objects: dict[str, bytes]) -> Iterator[tuple[str, list[Event], float, float]]:
    """Extract objects: key, events, seconds, and by how many megabytes the child grew."""
    planned = [
        PlannedObject(
            number, "bucket", key, "etag", len(data), datetime(2024, 1, 1, tzinfo=UTC), "last_modified", None,
            tuple(PlannedProfile(index, name) for index, name in enumerate(PROFILES)),
        )
        for number, (key, data) in enumerate(objects.items())
    ]  # fmt: skip
    events: list[Event] = []
    started, peak_mb = time.perf_counter(), 0.0
    with closing(extract_isolated(planned, Job(cast(Any, Bucket(objects)), PROFILES, LIMITS))) as stream:
        for item, event in stream:
            events.append(event)
            if not isinstance(event, Part):
                now_mb = child_peak_mb()
                yield item.key, events, time.perf_counter() - started, now_mb - peak_mb if peak_mb and now_mb else 0.0
                events, started, peak_mb = [], time.perf_counter(), now_mb


def fuzz(name: str, numbers: Iterable[int], seed: int = SEED) -> Tally:
    """Extract mutants of one format and judge what comes of them."""
    mutants = {str(number): mutate(name, number, seed) for number in numbers}
    tally = Tally({name: Counter()})
    keys = iter(mutants)
    for key, events, seconds, growth_mb in events_of({key: data for key, (_, data) in mutants.items()}):
        done, data = mutants[key]
        label = f"mutate({name!r}, {key}, {seed}) [{done}, {len(data)} bytes]"
        if key != next(keys):
            tally.faults.append(f"{label}: out of turn")
        fault = find_fault(data, events)
        if fault is not None:
            tally.faults.append(f"{label}: {fault}")
        outcome = describe(events[-1])
        tally.outcomes[name][outcome] += 1
        tally.growth_mb = max(tally.growth_mb, growth_mb)
        if outcome in {"crashed", "timed_out", "too_much_memory"} or seconds > 1 or growth_mb > 200:
            tally.costly.append(f"{label}: {outcome}, {seconds:.1f} s, {growth_mb:.0f} MB")
    tally.faults += [f"mutate({name!r}, {key}, {seed}): no outcome" for key in keys]
    return tally


def judge(tally: Tally, n_each: int) -> None:
    logger.info("\n%s", tally.report())
    assert tally.faults == []
    assert {name: counts.total() for name, counts in tally.outcomes.items()} == dict.fromkeys(FORMATS, n_each)
    assert tally.growth_mb < MAX_GROWTH_MB
    # A fuzz in which nothing gets past the container's header tests nothing else.
    for name, counts in tally.outcomes.items():
        assert counts["loaded"] + counts["partial"] >= n_each // 20, name


def test_sound_files_are_loaded() -> None:
    """What mutants are made of is sound, or the fuzz would test little."""
    outcomes = {key: describe(events[-1]) for key, events, *_ in events_of(sound_files())}
    assert outcomes == dict.fromkeys(FORMATS, "loaded")


def patch(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes so far behind the first occurrence of a mark."""
    at = data.index(mark) + len(mark) + offset
    return data[:at] + value + data[at + len(value) :]


def claim_flac(*, sr: int = RATE, n_samples: int = RATE, max_block: int = 4608) -> bytes:
    """A second of FLAC whose STREAMINFO says something else."""
    data = sound_files()["flac"]
    packed = sr << 44 | 15 << 36 | n_samples
    return data[:10] + struct.pack(">H", max_block) + data[12:18] + packed.to_bytes(8, "big") + data[26:]


def claim_wav(n_bytes: int, *, sr: int = RATE, channels: int = 1, claimed_bytes: int | None = None) -> bytes:
    """So many bytes of 16-bit silence under a header that says something else."""
    size = n_bytes if claimed_bytes is None else claimed_bytes
    form = struct.pack("<HHIIHH", 1, channels, sr, 2 * sr & 0xFFFF_FFFF, min(2 * channels, 65_535), 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + n_bytes)
        + b"WAVEfmt \x10\0\0\0"
        + form
        + b"data"
        + struct.pack("<I", size)
        + bytes(n_bytes)
    )


def jump_granule(name: str, granule: int) -> bytes:
    """An Ogg file whose last page says that it ends at another time."""
    data = sound_files()[name]
    at = [found.start() for found in re.finditer(b"OggS", data)][-1] + 6
    return sign_pages(data[:at] + struct.pack("<q", granule) + data[at + 8 :])


def nest(name: bytes, depth: int) -> bytes:
    """Boxes of an mp4 within each other."""
    boxes = b""
    for _ in range(depth):
        boxes = struct.pack(">I", len(boxes) + 8) + name + boxes
    return boxes


def silence(seconds: int) -> bytes:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 44_100, 1, "PCM_16", format="FLAC") as file:
        for _ in range(seconds // 60):
            file.write(np.zeros(60 * 44_100, dtype=np.int16))
    return buffer.getvalue()


FTYP = b"\0\0\0\x10ftypisom\0\0\0\0"
MAX = b"\x7f\xff\xff\xff"

#: Attacks on what a parser believes, and the outcomes that are right.
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "wav of ten hours": (lambda: claim_wav(32_000, claimed_bytes=36_000 * 32_000), "partial"),
    "wav at 0 Hz": (lambda: claim_wav(32_000, sr=0), "not_audio"),
    "wav at 1 Hz": (lambda: claim_wav(100, sr=1), "odd_rate"),
    "wav at 4 GHz": (lambda: claim_wav(32_000, sr=0xFFFF_FFFF), "not_audio"),
    "wav with 64 channels": (lambda: claim_wav(256_000, channels=64), "loaded"),
    "wav with 65 channels": (lambda: claim_wav(256_000, channels=65), "too_many_channels"),
    "wav with 65535 channels": (lambda: claim_wav(256_000, channels=65_535), "no_audio"),
    "wav of 20000 chunks": (
        lambda: patch(claim_wav(32_000), b"WAVE", 0, b"junk\0\0\0\0" * 20_000 + claim_wav(32_000)[12:]),
        "loaded",
    ),
    "flac of 2**36 samples": (lambda: claim_flac(n_samples=(1 << 36) - 1), "partial"),
    "flac with blocks of 65535": (lambda: claim_flac(max_block=65_535), "loaded"),
    "flac at 655350 Hz": (lambda: claim_flac(sr=655_350), "loaded"),
    "flac of silence beyond the limit": (lambda: silence(1_200), "too_long"),
    "mp4 with 2**31 times": (lambda: patch(sound_files()["m4a"], b"stts", 4, MAX), "not_audio"),
    "mp4 with 2**31 sizes": (lambda: patch(sound_files()["m4a"], b"stsz", 8, MAX), "not_audio"),
    "mp4 of no times": (lambda: patch(sound_files()["m4a"], b"stts", 4, bytes(4)), "no_audio"),
    "mp4 in mp4 in mp4": (lambda: FTYP + nest(b"moov", 3_000), "not_audio"),
    "mp4 of nested user data": (lambda: FTYP + nest(b"udta", 20_000), "not_audio"),
    "webm of 2**56 bytes": (
        lambda: patch(sound_files()["webm"], b"\x18\x53\x80\x67", 0, b"\x01" + b"\xff" * 6 + b"\xfe"),
        "loaded",
    ),
    "opus that jumps by 700 years": (lambda: jump_granule("opus", 1 << 50), "loaded"),
    "vorbis that ends before it began": (lambda: jump_granule("ogg", -(1 << 50)), "loaded"),
    "mp3 behind a tag of 256 MB": (lambda: id3(claimed=(1 << 28) - 1) + sound_files()["mp3"], "not_audio"),
    "mp3 behind 20000 tags": (lambda: (b"ID3\x03" + bytes(6)) * 20_000 + sound_files()["mp3"], "loaded"),
    "playlist": (lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", "not_audio"),
}


def test_hostile_files_are_seen_through() -> None:
    outcomes, slow = {}, {}
    for name, events, seconds, growth_mb in events_of({name: write() for name, (write, _) in HOSTILE.items()}):
        assert find_fault(HOSTILE[name][0](), events) is None, name
        outcomes[name] = describe(events[-1])
        if seconds > 2 or growth_mb > 100:
            slow[name] = (seconds, growth_mb)
    assert outcomes == {name: outcome for name, (_, outcome) in HOSTILE.items()}
    assert slow == {}


def test_every_mutant_has_an_outcome() -> None:
    tally = Tally()
    for name in FORMATS:
        tally.add(fuzz(name, range(30)))
    judge(tally, 30)


def test_mutants_in_the_store(store: Store) -> None:
    """The whole way: S3, plan, slice, child, transaction, ledger, gate."""
    source = {"include": ("*",), "profiles": tuple(PROFILES), "max_rejected_share": 1.0, "max_decode_s": 5.0}
    store.source = store.source.model_copy(update=source)
    for name in FORMATS:
        for number in range(1_000_000, 1_000_015):
            store.put(f"{number}.{name}", mutate(name, number)[1])
    batch = store.plan()
    store.compute(batch)
    batch = store.finish(batch)
    n_objects = 15 * len(FORMATS)
    assert (batch.counts.planned, batch.counts.planned_spectrograms) == (n_objects, n_objects * len(PROFILES))
    outcomes = store.rows(
        "SELECT outcome, reason_class, count(*) FROM spectralize.batch_objects WHERE batch_id = %s GROUP BY 1, 2",
        batch.batch_id,
    )
    assert {outcome for outcome, *_ in outcomes} == {"loaded", "partial", "rejected"}
    assert {reason for outcome, reason, _ in outcomes if outcome == "rejected"} <= set(REJECT_CLASSES)
    assert batch.counts.outcomes_hold()
    assert batch.counts.listing_holds()
    assert store.breaches() == {}
    # Every outcome is final.
    assert store.ingest().counts.unchanged == n_objects


N_SLOW = 2_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thousands_of_mutants_of_each_format() -> None:
    tally = Tally()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        slices = [(name, range(start, start + 250)) for start in range(0, N_SLOW, 250) for name in FORMATS]
        for part in pool.map(fuzz, *zip(*slices, strict=True)):
            tally.add(part)
    judge(tally, N_SLOW)
