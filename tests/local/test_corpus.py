"""The demo's corpus: built from a stand-in package, so that the tests need no network."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from tinytag import TinyTag

from local import corpus
from local.corpus import CorpusError, CorpusFile, build_corpus, scan_folder
from spectralize.errors import RejectedObjectError
from tests.reference import decode

SOURCE_S = 3.0
EXCERPT_S = 2.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the package: the same names, three seconds of noise each."""
    cache = tmp_path_factory.mktemp("cache")
    package = cache / corpus.PACKAGE
    for piece in corpus.PIECES:
        path = package / "usr/share/games/singularity/music" / piece.source
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_ogg(path)
    copyright_file = package / "usr/share/doc" / corpus.PACKAGE / "copyright"
    copyright_file.parent.mkdir(parents=True)
    copyright_file.write_text("whose it is")
    return cache


@pytest.fixture(autouse=True)
def _short_excerpts(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = tuple(
        piece if piece.duration_s is None else replace(piece, start_s=0.5, duration_s=EXCERPT_S)
        for piece in corpus.PIECES
    )
    monkeypatch.setattr(corpus, "PIECES", pieces)


def _write_ogg(path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (1, int(SOURCE_S * 48_000) * 2)).astype(np.float32)
    with av.open(str(path), "w", format="ogg") as output:
        stream = output.add_stream("libopus", rate=48_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(noise, format="flt", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _outcome(file: CorpusFile) -> str:
    if file.path.suffix == ".txt":
        return "ignored"
    try:
        audio = decode(file.path.read_bytes(), max_duration_s=60)
    except RejectedObjectError:
        return "rejected"
    return "partial" if audio.defect else "loaded"


def _snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_file_has_the_outcome_it_promises(cache: Path, tmp_path: Path) -> None:
    files = build_corpus(tmp_path / "corpus", cache=cache)

    assert {file.key: _outcome(file) for file in files} == {file.key: file.expected for file in files}
    assert {file.expected for file in files} == {"loaded", "partial", "rejected", "ignored"}
    assert {file.path.suffix for file in files} >= {".mp3", ".m4a", ".flac", ".ogg", ".opus", ".wav"}
    assert all(file.path == tmp_path / "corpus" / file.key for file in files)
    assert (tmp_path / "corpus" / corpus.COPYRIGHT_FILE).read_text() == "whose it is"


def test_pieces_have_their_length_rate_and_tags(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    build_corpus(folder, cache=cache)

    for piece in corpus.PIECES:
        audio = decode((folder / piece.key).read_bytes(), max_duration_s=60)
        # Excerpts begin and end at a frame of the original; opus and vorbis know no other rate than the original's.
        assert audio.duration_s == pytest.approx(piece.duration_s or SOURCE_S, abs=0.1), piece.key
        assert audio.sr == piece.encoding.samplerate_hz, piece.key
        assert audio.channels == (1 if piece.encoding.layout == "mono" else 2), piece.key
        tags = TinyTag.get(folder / piece.key)
        assert (tags.title, tags.artist, tags.album, tags.genre, tags.year) == (
            piece.tags["title"],
            piece.tags["artist"],
            piece.tags["album"],
            piece.tags["genre"],
            "2012",
        ), piece.key


def test_a_second_build_changes_nothing(cache: Path, tmp_path: Path) -> None:
    first = build_corpus(tmp_path / "corpus", cache=cache)
    before = _snapshot(tmp_path / "corpus")

    assert build_corpus(tmp_path / "corpus", cache=tmp_path / "no cache needed") == first
    assert _snapshot(tmp_path / "corpus") == before


def test_two_builds_have_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    build_corpus(tmp_path / "one", cache=cache)
    build_corpus(tmp_path / "two", cache=cache)

    one, two = _snapshot(tmp_path / "one"), _snapshot(tmp_path / "two")
    assert {key: data for key, (_, data) in one.items()} == {key: data for key, (_, data) in two.items()}


@pytest.mark.parametrize("damage", ["missing", "shorter", "older recipe"])
def test_a_damaged_or_older_corpus_is_built_anew(
    damage: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = build_corpus(tmp_path / "corpus", cache=cache)
    size = files[0].path.stat().st_size
    if damage == "missing":
        files[0].path.unlink()
    elif damage == "shorter":
        files[0].path.write_bytes(b"")
    else:
        files[0].path.write_bytes(bytes(size))
        monkeypatch.setattr(corpus, "RECIPE", corpus.RECIPE + 1)

    build_corpus(tmp_path / "corpus", cache=cache)

    assert files[0].path.stat().st_size == size
    assert _outcome(files[0]) == "loaded"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_build_that_fails_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_late = replace(corpus.PIECES[0], start_s=SOURCE_S + 1, duration_s=1.0)
    monkeypatch.setattr(corpus, "PIECES", (*corpus.PIECES[1:], too_late))

    with pytest.raises(CorpusError, match="it ends before 4 s"):
        build_corpus(tmp_path / "corpus", cache=cache)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_is_left_alone(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.mp3").write_bytes(b"precious")

    with pytest.raises(CorpusError, match="not an earlier corpus"):
        build_corpus(tmp_path, cache=cache)

    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp3"]


def test_an_empty_folder_is_used(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()

    assert all(file.path.is_file() for file in build_corpus(tmp_path / "corpus", cache=cache))


def test_says_what_to_do_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CorpusError, match=r"singularity-music: apt-get is not here.*make demo AUDIO="):
        build_corpus(tmp_path / "corpus", cache=tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_passes_on_what_apt_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\necho 'W: a warning' >&2\necho 'E: Unable to locate package' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(apt.parent), prepend=":")

    with pytest.raises(CorpusError, match="apt-get failed: Unable to locate package; run apt-get update") as caught:
        build_corpus(tmp_path / "corpus", cache=tmp_path / "cache")

    assert "W: a warning" in caught.value.log_tail
    assert not (tmp_path / "corpus").exists()


def test_ffmpeg_refuses_the_noise_by_name_and_by_bytes(cache: Path, tmp_path: Path) -> None:
    build_corpus(tmp_path / "corpus", cache=cache)
    noise = tmp_path / "corpus" / corpus.NOISE_KEY

    for source in (str(noise), io.BytesIO(noise.read_bytes())):
        with pytest.raises(av.error.InvalidDataError):
            av.open(source)


def test_scan_lists_files_below_own(tmp_path: Path) -> None:
    for name in ("b.mp3", "sub/ä 100%.flac", ".hidden.mp3", ".git/a.wav", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    files = scan_folder(tmp_path)

    assert [file.key for file in files] == ["own/b.mp3", "own/notes.txt", "own/sub/ä 100%.flac"]
    assert {file.expected for file in files} == {None}
    assert all(file.path.read_bytes() == b"x" for file in files)


def test_scan_leaves_out_names_that_cannot_be_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "good.mp3").touch()
    try:
        (tmp_path / "bad\udcff.mp3").touch()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system refuses such names")

    with caplog.at_level(logging.WARNING):
        files = scan_folder(tmp_path)

    assert [file.key for file in files] == ["own/good.mp3"]
    assert "not UTF-8" in caplog.text


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_scan_refuses_what_holds_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(CorpusError, match=name):
        scan_folder(tmp_path / name)
