"""The audio the demo loads: real music in every common format, and the files that go wrong in practice.

The music is by Max McCracken ("Maxstack"), from the soundtracks of Endgame: Singularity, © 2007-2008, 2012 Max McCracken,
under Creative Commons Attribution-ShareAlike 3.0 (https://creativecommons.org/licenses/by-sa/3.0/). It comes from
Debian's package ``singularity-music``, whose copyright file is kept beside the audio. Most files are excerpts or
resampled and re-encoded; their comment tags say so, and they are under the same licence as the originals.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from threading import Event
from typing import Literal

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from local.errors import StackError

logger = logging.getLogger(__name__)

Outcome = Literal["loaded", "partial", "rejected", "ignored"]

PACKAGE = "singularity-music"
LICENSE = "CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/"
COPYRIGHT_FILE = f"{PACKAGE}.copyright"

#: Raise it when the code below makes other files from the same tables: a corpus already built is then built anew.
RECIPE = 1

_MARKER = ".corpus.json"
_DOWNLOAD_TIMEOUT_S = 300
#: Where a damaged copy ends, as a share of its original's bytes: past the header, well before the end.
_CUT_SHARE = 0.55
_NOISE_BYTES = 65_536


class CorpusError(StackError):
    """The corpus cannot be built, or a folder of recordings cannot be used."""


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """A file to upload: where it is, under which key, and the outcome the ledger should show (None: not known)."""

    path: Path
    key: str
    expected: Outcome | None
    note: str


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a piece is written. `codec` None copies the original's packets without decoding them."""

    codec: str | None = None
    samplerate_hz: int = 48_000
    layout: str = "stereo"
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "copied packets" if self.codec is None else f"{self.codec}, {self.samplerate_hz} Hz, {self.layout}"


@dataclass(frozen=True, slots=True)
class Piece:
    """One good recording of the corpus: an excerpt of `source` (a path in the package's music folder)."""

    key: str
    source: str
    encoding: Encoding
    tags: dict[str, str]
    start_s: float = 0.0
    duration_s: float | None = None

    @property
    def note(self) -> str:
        """What was done to the original: shown to the user, and written into the comment tag as the licence asks."""
        whole = self.duration_s is None
        part = "whole piece" if whole else f"excerpt of {self.duration_s:g} s from {self.start_s:g} s"
        return f"{part}; {self.encoding}"


@dataclass(frozen=True, slots=True)
class CutCopy:
    """A copy of a good recording that lost its end, as an interrupted upload does."""

    key: str
    original: str
    note: str


#: FFmpeg's q4 for LAME: about 165 kbit/s. A quality is given in units of FF_QP2LAMBDA.
_MP3_VBR = Encoding("libmp3lame", 44_100, options={"flags": "+qscale", "global_quality": str(4 * 118)})
_MP3_CBR = Encoding("libmp3lame", 44_100, options={"b": "128k"})
_AAC = Encoding("aac", 44_100, options={"b": "160k"})
_FLAC = Encoding("flac", 44_100)
_FLAC_MONO = Encoding("flac", 22_050, "mono")
_OPUS = Encoding("libopus", 48_000, options={"b": "96k"})
_WAV = Encoding("pcm_s16le", 44_100)
_COPY = Encoding()

_SOUNDTRACK = "Endgame: Singularity Original Soundtrack"
_RESEARCH = "Endgame: Singularity (Advanced Research)"


def _tags(title: str, album: str, track: str, genre: str = "Ambient") -> dict[str, str]:
    return {
        "title": title,
        "artist": "Maxstack",
        "album": album,
        "album_artist": "Max McCracken",
        "composer": "Max McCracken",
        "track": track,
        "disc": "1/1",
        "date": "2012",
        "genre": genre,
    }


_ALBUM = "music/Endgame Singularity"

PIECES = (
    Piece(f"{_ALBUM}/01 Awakening.mp3", "Awakening.ogg", _MP3_VBR, _tags("Awakening", _SOUNDTRACK, "1/6")),
    Piece(f"{_ALBUM}/02 Coherence.mp3", "Coherence.ogg", _MP3_CBR, _tags("Coherence", _SOUNDTRACK, "2/6"), 30.0, 120.0),
    Piece(f"{_ALBUM}/03 Deprecation.ogg", "Deprecation.ogg", _COPY, _tags("Deprecation", _SOUNDTRACK, "3/6")),
    Piece(f"{_ALBUM}/04 Apex Aleph.flac", "win/Apex Aleph.ogg", _FLAC, _tags("Apex Aleph", _SOUNDTRACK, "4/6")),
    Piece(
        f"{_ALBUM}/05 March Thee to Dis.wav",
        "lose/March Thee to Dis.ogg",
        _WAV,
        _tags("March Thee to Dis", _SOUNDTRACK, "5/6"),
    ),
    Piece(
        "music/Advanced Research/01 Through Space.m4a",
        "Through Space.ogg",
        _AAC,
        _tags("Through Space", _RESEARCH, "1/3", "Electronic"),
    ),
    Piece(
        "music/Advanced Research/02 Nebula.opus",
        "Nebula.ogg",
        _OPUS,
        _tags("Nebula", _RESEARCH, "2/3", "Electronic"),
        60.0,
        150.0,
    ),
    Piece(
        "music/Advanced Research/03 Orbital Elevator (mono).flac",
        "Orbital Elevator.ogg",
        _FLAC_MONO,
        _tags("Orbital Elevator", _RESEARCH, "3/3", "Electronic"),
        0.0,
        90.0,
    ),
    # Everything that a key or a tag may hold and that careless code quotes wrongly.
    Piece(
        'music/Größe "100%"/it\'s naïve + café, Łódź.mp3',
        "lose/Chimes They Fade.ogg",
        _MP3_VBR,
        _tags("Chimes They Fade (Größe “100 %”, Łódź, 音楽)", _SOUNDTRACK, "6/6", "Électronique"),
    ),
)

CUT_COPIES = (
    CutCopy("damaged/upload cut short.flac", f"{_ALBUM}/04 Apex Aleph.flac", "cut in the middle of a FLAC frame"),
    CutCopy("damaged/upload cut short.mp3", f"{_ALBUM}/02 Coherence.mp3", "decodes without an error, but too short"),
)

NOISE_KEY = "damaged/not audio.mp3"
README_KEY = "music/README.txt"

_README = f"""Music by Max McCracken ("Maxstack") from the soundtracks of Endgame: Singularity.
Copyright (C) 2007-2008, 2012 Max McCracken. Licence: {LICENSE}
Changes: excerpts, resampled and re-encoded as each file's comment tag says; two files under damaged/ are cut on purpose.
"""


def build_corpus(folder: Path, *, cache: Path) -> list[CorpusFile]:
    """Build the demo's corpus in `folder`, unless it is already there.

    Parameters
    ----------
    folder
        Must be missing, empty, or an earlier corpus. It appears whole or not at all.
    cache
        Keeps the unpacked package, so that a second build downloads nothing.

    Raises
    ------
    CorpusError
        The package cannot be downloaded, or `folder` holds something else.
    """
    if _is_built(folder):
        return _describe(folder)
    _refuse_foreign(folder)
    package = _fetch_package(cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        # A folder inside it: TemporaryDirectory wants to delete something at the end, and is readable by its owner only.
        building = Path(temporary, "corpus")
        building.mkdir()
        _build_files(building, package)
        _put_in_place(building, folder, Path(temporary, "replaced"))
    logger.info("%s: built %d files", folder, len(_describe(folder)))
    return _describe(folder)


def scan_folder(folder: Path) -> list[CorpusFile]:
    """List the user's own files below `folder` under the keys ``own/<relative path>``, without hidden ones.

    Whether a file is audio is the source's to decide, so nothing else is left out and no outcome is expected.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: not a folder; give one that holds audio files")
    files = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        key = f"own/{relative.as_posix()}"
        try:
            key.encode()
        except UnicodeEncodeError:
            logger.warning("%r: left out, its name is not UTF-8 and so cannot be a key", key)
            continue
        files.append(CorpusFile(path, key, None, "your own file"))
    if not files:
        raise CorpusError(f"{folder}: there are no files in it")
    return files


def _describe(folder: Path) -> list[CorpusFile]:
    files = [CorpusFile(folder / piece.key, piece.key, "loaded", piece.note) for piece in PIECES]
    files += [CorpusFile(folder / copy.key, copy.key, "partial", copy.note) for copy in CUT_COPIES]
    files.append(CorpusFile(folder / NOISE_KEY, NOISE_KEY, "rejected", "noise under the name of an mp3"))
    files.append(CorpusFile(folder / README_KEY, README_KEY, "ignored", "text: what the music is and whose"))
    return files


def _fingerprint() -> str:
    parts = (RECIPE, PACKAGE, PIECES, CUT_COPIES, NOISE_KEY, README_KEY, _README, _CUT_SHARE, _NOISE_BYTES)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _is_built(folder: Path) -> bool:
    """Tell whether the folder holds exactly what this version builds, by the names and sizes written down then."""
    try:
        marker = json.loads((folder / _MARKER).read_text())
        return bool(
            marker["fingerprint"] == _fingerprint()
            and all((folder / key).stat().st_size == size for key, size in marker["sizes"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refuse_foreign(folder: Path) -> None:
    """A corpus is replaced by deleting it, so be sure that it is one."""
    if folder.exists() and not (folder / _MARKER).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise CorpusError(
            f"{folder}: is not empty and not an earlier corpus; name another folder or remove it yourself"
        )


def _put_in_place(building: Path, folder: Path, replaced: Path) -> None:
    try:
        if folder.exists():
            folder.rename(replaced)
        building.rename(folder)
    except OSError as error:
        # Somebody else built it in the meantime: as good as ours.
        if not _is_built(folder):
            raise CorpusError(f"{folder}: cannot be put in place: {error.strerror}") from error


def _fetch_package(cache: Path) -> Path:
    """Return the unpacked package, downloading it if the cache does not have it."""
    unpacked = cache / PACKAGE
    if unpacked.is_dir():
        return unpacked
    cache.mkdir(parents=True, exist_ok=True)
    logger.info("downloading %s (52 MB)", PACKAGE)
    with tempfile.TemporaryDirectory(prefix=f".{PACKAGE}.", dir=cache) as temporary:
        # Root's apt would drop to a user who cannot write here, and warn about it.
        download = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", PACKAGE]
        try:
            _run_tool(download, Path(temporary))
        except CorpusError:
            if os.geteuid() != 0:
                raise
            # A new machine has no package lists yet, an old one may have lists whose packages are gone.
            _run_tool(["apt-get", "update", "-q"], Path(temporary))
            _run_tool(download, Path(temporary))
        packages = list(Path(temporary).glob(f"{PACKAGE}_*.deb"))
        if len(packages) != 1:
            raise CorpusError(f"{PACKAGE}: apt-get left {len(packages)} package files, one was expected")
        _run_tool(["dpkg-deb", "-x", packages[0].name, "unpacked"], Path(temporary))
        try:
            Path(temporary, "unpacked").rename(unpacked)
        except OSError as error:
            if not unpacked.is_dir():
                raise CorpusError(f"{unpacked}: cannot be put in place: {error.strerror}") from error
    return unpacked


def _run_tool(command: list[str], folder: Path) -> None:
    advice = "run apt-get update, check the network, or use your own files: make demo AUDIO=<folder>"
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise CorpusError(
            f"{PACKAGE}: {command[0]} is not here: the demo's music needs a Debian system; {advice}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CorpusError(f"{PACKAGE}: {command[0]} took longer than {_DOWNLOAD_TIMEOUT_S} s; {advice}") from error
    if done.returncode:
        output = f"{done.stdout}{done.stderr}".strip()
        reason = next(
            (line for line in output.splitlines() if line.startswith("E: ")), f"exit status {done.returncode}"
        )
        raise CorpusError(f"{PACKAGE}: {command[0]} failed: {reason.removeprefix('E: ')}; {advice}", log_tail=output)


def _build_files(folder: Path, package: Path) -> None:
    music = package / "usr/share/games/singularity/music"
    for file in _describe(folder):
        file.path.parent.mkdir(parents=True, exist_ok=True)
    # Longest first, so that no process ends up alone with the longest piece.
    by_length = sorted(PIECES, key=lambda piece: -(piece.duration_s or (music / piece.source).stat().st_size / 14_000))
    # Threads are as fast as processes here, because FFmpeg works without the interpreter's lock; and where an interrupt
    # also reaches the processes of a pool, it can leave the parent waiting for them forever.
    stop = Event()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            for piece in pool.map(partial(_write_piece, music, folder, stop), by_length):
                logger.info("%s: written", piece.key)
        finally:
            # After an error or an interrupt nobody wants to wait for the pieces that are under way.
            stop.set()
    for copy in CUT_COPIES:
        data = (folder / copy.original).read_bytes()
        (folder / copy.key).write_bytes(data[: int(len(data) * _CUT_SHARE)])
    # Without 0xff there is no MPEG sync word in it, so no FFmpeg will ever take a part of it for audio.
    noise = hashlib.shake_256(b"spectralize").digest(_NOISE_BYTES).replace(b"\xff", b"\x00")
    (folder / NOISE_KEY).write_bytes(noise)
    (folder / README_KEY).write_text(_README)
    shutil.copyfile(package / "usr/share/doc" / PACKAGE / "copyright", folder / COPYRIGHT_FILE)
    sizes = {file.key: file.path.stat().st_size for file in _describe(folder)}
    (folder / _MARKER).write_text(json.dumps({"fingerprint": _fingerprint(), "sizes": sizes}, indent=1))


def _write_piece(music: Path, folder: Path, stop: Event, piece: Piece) -> Piece:
    """Write one piece, or a part of it once `stop` is set, and return it for the log."""
    # bitexact: no encoder versions, no random serial numbers. The same packages then build the same bytes.
    options = {"fflags": "+bitexact"}
    if piece.key.endswith(".m4a"):
        # The index first, so that a reader of a stream need not seek to the end.
        options["movflags"] = "+faststart"
    try:
        with (
            av.open(str(music / piece.source)) as original,
            av.open(str(folder / piece.key), "w", options=options) as output,
        ):
            output.metadata.update(piece.tags | {"comment": f"{piece.note}; {LICENSE}"})
            if piece.encoding.codec is None:
                _copy_packets(original, output)
            else:
                _encode(original, output, piece, stop)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise CorpusError(f"{piece.key}: cannot be made from {piece.source}: {error}") from error
    return piece


def _copy_packets(original: av.container.InputContainer, output: av.container.OutputContainer) -> None:
    source = original.streams.audio[0]
    target = output.add_stream_from_template(source)
    for packet in original.demux(source):
        # The demuxer ends with an empty packet that only decoders want.
        if packet.dts is not None:
            packet.stream = target
            output.mux(packet)


def _encode(
    original: av.container.InputContainer, output: av.container.OutputContainer, piece: Piece, stop: Event
) -> None:
    encoding = piece.encoding
    stream = output.add_stream(encoding.codec or "", encoding.samplerate_hz, options=encoding.options)
    if not isinstance(stream, AudioStream):
        raise CorpusError(f"{piece.key}: {encoding.codec} is not an audio codec")
    stream.layout = encoding.layout
    n_samples = 0
    # The encoder resamples and remixes what it is given.
    for frame in _excerpt(original, piece):
        if stop.is_set():
            return
        frame.pts, frame.time_base = n_samples, Fraction(1, frame.sample_rate)
        n_samples += frame.samples
        output.mux(stream.encode(frame))
    if not n_samples:
        raise ValueError(f"it ends before {piece.start_s:g} s")
    output.mux(stream.encode(None))


def _excerpt(original: av.container.InputContainer, piece: Piece) -> Iterator[AudioFrame]:
    """Yield the frames of an excerpt, to the nearest frame. Decoding from the start is cheaper than seeking well."""
    end_s = float("inf") if piece.duration_s is None else piece.start_s + piece.duration_s
    decoded_s = 0.0
    for frame in original.decode(audio=0):
        if decoded_s >= end_s:
            return
        if decoded_s >= piece.start_s:
            yield frame
        decoded_s += frame.samples / frame.sample_rate
