"""What is measured: an hour of real music in six formats, and three thousand clips of half a second cut from it.

The music is that of the demo (see `local.corpus`: Debian's package ``singularity-music``, CC BY-SA 3.0). It is built once
and kept under SPECTRALIZE_HOME.
"""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from threading import Event

import av
import soundfile

from local.corpus import PACKAGE, Encoding, Piece, _fetch_package, _write_piece
from local.paths import remove_tree

#: Raise it when the code below makes other files: a corpus built before is then built anew.
RECIPE = 1

N_CLIPS = 3_000
CLIP_S = 0.5
#: Container and subtype for libsndfile, by suffix.
CLIP_FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS")}

#: How each format is written but Ogg Vorbis, which keeps the package's own packets. The quality of mp3 is FFmpeg's q4.
MUSIC_FORMATS = {
    "mp3": Encoding("libmp3lame", 44_100, options={"flags": "+qscale", "global_quality": str(4 * 118)}),
    "m4a": Encoding("aac", 44_100, options={"b": "160k"}),
    "flac": Encoding("flac", 44_100),
    "wav": Encoding("pcm_s16le", 44_100),
    "opus": Encoding("libopus", 48_000, options={"b": "96k"}),
}

_INDEX = "index.json"
_SILENCE_S = 4.0


@dataclass(frozen=True, slots=True)
class AudioFile:
    """One file of a corpus."""

    path: Path
    duration_s: float

    @property
    def format(self) -> str:
        """The suffix without its dot."""
        return self.path.suffix[1:]


@dataclass(frozen=True)
class Corpus:
    """Files, the longest first, so that no process ends up alone with the longest."""

    name: str
    files: tuple[AudioFile, ...]

    @cached_property
    def duration_s(self) -> float:
        """Seconds of audio."""
        return sum(file.duration_s for file in self.files)

    def only(self, accept: Callable[[AudioFile], bool]) -> Corpus:
        """Leave out what is not accepted."""
        return Corpus(self.name, tuple(file for file in self.files if accept(file)))

    def describe(self) -> str:
        """Return e.g. `music: 30 files, 64.1 min (flac 10.7, m4a 10.6, …)`."""
        shares: dict[str, float] = {}
        for file in self.files:
            shares[file.format] = shares.get(file.format, 0.0) + file.duration_s / 60
        formats = ", ".join(f"{name} {minutes:.1f}" for name, minutes in sorted(shares.items()))
        return f"{self.name}: {len(self.files)} files, {self.duration_s / 60:.1f} min ({formats})"


def load_music(home: Path) -> Corpus:
    """Return the music, built if it is not there."""
    return _load(home / "bench" / "music", lambda folder: _build_music(folder, home))


def load_clips(home: Path) -> Corpus:
    """Return the clips, built if they are not there."""
    return _load(home / "bench" / "clips", lambda folder: _build_clips(folder, home))


def music_folder(home: Path) -> Path:
    """Return the folder of the package's originals, downloaded if it is not there."""
    return _fetch_package(home / "corpus" / "package") / "usr/share/games/singularity/music"


def _load(folder: Path, build: Callable[[Path], None]) -> Corpus:
    index = folder / _INDEX
    if not index.is_file() or json.loads(index.read_text())["recipe"] != RECIPE:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            building = Path(temporary, folder.name)
            building.mkdir()
            build(building)
            files = {path.name: _duration_s(path) for path in sorted(building.iterdir())}
            (building / _INDEX).write_text(json.dumps({"recipe": RECIPE, "files": files}, indent=1))
            remove_tree(folder)
            building.rename(folder)
    files = json.loads(index.read_text())["files"]
    by_length = sorted(files.items(), key=lambda item: (-item[1], item[0]))
    return Corpus(folder.name, tuple(AudioFile(folder / name, duration_s) for name, duration_s in by_length))


def _duration_s(path: Path) -> float:
    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def _build_music(folder: Path, home: Path) -> None:
    music = music_folder(home)
    durations = {str(path.relative_to(music)): _duration_s(path) for path in sorted(music.rglob("*.ogg"))}
    with ThreadPoolExecutor(2) as pool:
        # Threads do: FFmpeg works without the interpreter's lock.
        list(pool.map(partial(_write_piece, music, folder, Event()), plan_music(durations)))


def plan_music(durations: dict[str, float]) -> list[Piece]:
    """Share the originals out over the formats, about as many seconds to each.

    Ogg Vorbis gets whole originals, because its packets are copied; the others get halves of the rest.
    """
    share_s = sum(durations.values()) / (len(MUSIC_FORMATS) + 1)
    pieces: list[Piece] = []
    copied_s = 0.0
    halves: list[tuple[float, str, float]] = []
    for source, duration_s in durations.items():
        if abs(copied_s + duration_s - share_s) < abs(copied_s - share_s):
            copied_s += duration_s
            pieces.append(_piece(len(pieces), source, "ogg", Encoding(), 0.0, None))
        else:
            halves += [(duration_s / 2, source, start_s) for start_s in (0.0, duration_s / 2)]
    totals = dict.fromkeys(MUSIC_FORMATS, 0.0)
    for half_s, source, start_s in sorted(halves, reverse=True):
        suffix = min(totals, key=totals.__getitem__)
        totals[suffix] += half_s
        pieces.append(_piece(len(pieces), source, suffix, MUSIC_FORMATS[suffix], start_s, half_s))
    return pieces


def _piece(
    number: int, source: str, suffix: str, encoding: Encoding, start_s: float, duration_s: float | None
) -> Piece:
    title = Path(source).stem
    tags = {"title": title, "artist": "Maxstack", "album": PACKAGE}
    return Piece(f"{number:02} {title}.{suffix}", source, encoding, tags, start_s, duration_s)


def _build_clips(folder: Path, home: Path) -> None:
    """Cut clips at equal distances over all originals; none overlaps another, so that no two are the same."""
    originals = sorted(music_folder(home).rglob("*.ogg"))
    # Music begins and ends in silence, of which one clip is like another.
    usable = [_duration_s(path) - 2 * _SILENCE_S for path in originals]
    *starts, total_s = accumulate(usable, initial=0.0)
    plans: list[list[tuple[int, float]]] = [[] for _ in originals]
    for number in range(N_CLIPS):
        at_s = number * total_s / N_CLIPS
        which = bisect_right(starts, at_s) - 1
        plans[which].append((number, _SILENCE_S + at_s - starts[which]))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(_cut_clips, folder), originals, plans))


def _cut_clips(folder: Path, original: Path, plan: list[tuple[int, float]]) -> None:
    suffixes = list(CLIP_FORMATS)
    with soundfile.SoundFile(original) as source:
        for number, start_s in plan:
            source.seek(int(start_s * source.samplerate))
            y = source.read(int(CLIP_S * source.samplerate), dtype="float32")
            suffix = suffixes[number % len(suffixes)]
            container, subtype = CLIP_FORMATS[suffix]
            path = folder / f"{number:04}.{suffix}"
            soundfile.write(path, y, source.samplerate, format=container, subtype=subtype)
