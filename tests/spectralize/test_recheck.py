"""A sample held against its objects: what was changed on purpose is named, and nothing that is sound."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spectralize import cli, comparison, mel
from spectralize.closeness import FrameNorms, Judge, are_apart_db, librosa_frames
from spectralize.comparison import STATEMENTS
from spectralize.database import connect
from spectralize.mel import samples_to_mel
from spectralize.migrations import migrate
from spectralize.profiles import find_profile
from spectralize.recheck import Recheck, recheck_sample
from tests.conftest import new_store
from tests.store import Store, encode, make_samples, wav

PROFILES = ("mel128_22k", "seed2020_pcm", "speech80_16k", "bioacoustic96_256k")
FLAC = encode(make_samples(3.0, sr=44_100, channels=2, seed=2), 44_100, "FLAC")

#: Full scale, and below all bands of the profile for ultrasound: in them is nothing but quantisation, and what the FFT gets
#: wrong, in every frame the same.
TONE = (np.rint(32_767 * np.sin(2 * np.pi * 1000 * np.arange(256_000) / 256_000)) / 32_768).astype(np.float32)

FRESH, LIBROSA = "frames_equal_a_fresh_decode", "frames_equal_librosa"


@pytest.fixture(scope="module")
def filled(dsn: str, aws: None) -> Iterator[Store]:
    """Recordings of several formats, one of them damaged and one longer than a minute, by four profiles."""
    with new_store(dsn) as store:
        store.source = store.source.model_copy(update={"profiles": PROFILES})
        store.put("a.wav", wav(2.5, seed=1))
        store.put("b.flac", FLAC)
        store.put("broken.flac", FLAC[: len(FLAC) * 2 // 3])
        store.put("c.mp3", encode(make_samples(2.0, sr=32_000, seed=3), 32_000, "MP3"))
        store.put("tone.wav", encode(TONE[:, None], 256_000))
        store.put("silence.wav", encode(np.zeros((24_000, 1)), 8_000))
        assert store.ingest().counts.outcomes == {"loaded": 20, "partial": 4, "rejected": 0, "failed": 0}
        store.source = store.source.model_copy(update={"profiles": ("speech80_16k",)})
        store.put("long.wav", encode(make_samples(70.0, sr=8_000, seed=4), 8_000))
        assert store.ingest().counts.outcomes["loaded"] == 1
        store.connection.commit()
        yield store


def recheck(store: Store, n: int = 100, seed: int = 0) -> Recheck:
    return recheck_sample(store.connection, store.client, n=n, seed=seed)


def broken(found: Recheck) -> dict[str, list[str]]:
    return {
        finding.name: [f"{breach.what}: {breach.breach}" for breach in finding.breaches]
        for finding in found.findings if finding.n_breaches
    }  # fmt: skip


def id_of(store: Store, key: str, profile: str) -> int:
    query = "SELECT spectrogram_id FROM spectralize.current_spectrograms WHERE key = %s AND profile = %s"
    [(spectrogram_id,)] = store.rows(query, key, profile)
    return int(spectrogram_id)


def test_what_is_sound_is_the_same_to_the_last_bit(filled: Store) -> None:
    found = recheck(filled)
    assert [finding.name for finding in found.findings] == list(STATEMENTS)
    assert broken(found) == {}
    [(n_rows,)] = filled.rows("SELECT sum(n_frames + n_hops + n_seconds) FROM spectralize.spectrograms")
    assert (found.n_sampled, found.unread, found.n_rows, found.n_equal_rows) == (25, (), n_rows, n_rows)
    assert str(found).startswith("25 of 25 spectrograms computed anew (seed 0); of ")


def test_another_fft_is_no_breach(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def double(windowed: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.fft.rfft(windowed.astype(np.float64), axis=1).astype(np.complex64)

    # As on a machine with another library: whichever this one has, it is of single precision.
    monkeypatch.setattr(mel, "_rfft_mkl", double)
    monkeypatch.setattr(mel, "_rfft_scipy", double)
    mel._cached_transform.cache_clear()
    try:
        found = recheck(filled)
    finally:
        monkeypatch.undo()
        mel._cached_transform.cache_clear()
    assert broken(found) == {}
    assert found.n_rows // 2 < found.n_equal_rows < found.n_rows - 1_000


CELL = (
    "UPDATE spectralize.mel_frames SET mel = (SELECT array_agg(CASE WHEN band = 41 THEN {cell} ELSE cell END "
    "ORDER BY band)::halfvec FROM unnest(mel::real[]) WITH ORDINALITY AS cells (cell, band)) "
    "WHERE spectrogram_id = {id} AND frame_index = {at}"
)
SPECTROGRAM = "UPDATE spectralize.spectrograms SET {change} WHERE spectrogram_id = {id}"
HOPS = "UPDATE spectralize.waveform_frames SET {change} WHERE spectrogram_id = {id} AND frame_index IN (3, 5)"
SECONDS = "UPDATE spectralize.mel_seconds SET {change} WHERE spectrogram_id = {id} AND second_index = 1"
RECORDING = (
    "UPDATE spectralize.recordings SET {change} "
    "WHERE object_id = (SELECT object_id FROM spectralize.spectrograms WHERE spectrogram_id = {id})"
)

#: Key, profile, what is changed, and what is said of it by each finding that must say something. No other may.
CHANGES: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "cell": (
        "a.wav", "mel128_22k", CELL.format(cell="cell + 0.07", at=17, id="{id}"),
        {FRESH: "mel_frames: 1 row differs, the first at frame_index 17: mel[40] is ", LIBROSA: "mel[40] is "},
    ),
    "cell by two steps": (
        # Below 32 dB in magnitude, half precision has steps of 1/64 dB.
        "b.flac", "seed2020_pcm", CELL.format(cell="cell - 0.03125", at=17, id="{id}"),
        {FRESH: "mel_frames: 1 row differs, the first at frame_index 17: mel[40] is ", LIBROSA: "mel[40] is "},
    ),
    "cell after a minute": (
        "long.wav", "speech80_16k", CELL.format(cell="cell - 0.5", at=6900, id="{id}"),
        {FRESH: "mel_frames: 1 row differs, the first at frame_index 6900: mel[40] is "},
    ),
    "silent cell": (
        "silence.wav", "speech80_16k", CELL.format(cell="cell + 1", at=10, id="{id}"),
        {FRESH: "mel[40] is -99, a fresh decode gives -100", LIBROSA: "mel[40] is -99, librosa gives -100"},
    ),
    "cell far below a tone": (
        "tone.wav", "seed2020_pcm", CELL.format(cell="cell + 60", at=30, id="{id}"),
        {FRESH: "mel[40] is ", LIBROSA: "mel[40] is "},
    ),
    "frames of another": (
        "broken.flac", "speech80_16k",
        "UPDATE spectralize.mel_frames AS f SET mel = o.mel FROM spectralize.mel_frames AS o "
        "WHERE f.spectrogram_id = {id} AND f.frame_index BETWEEN 2 AND 40 AND o.spectrogram_id = f.spectrogram_id "
        "AND o.frame_index = f.frame_index + 9",
        {FRESH: "mel_frames: 39 rows differ, the first at frame_index 2: ", LIBROSA: "mel_frames: 39 rows differ, "},
    ),
    "hop": (
        "c.mp3", "mel128_22k", HOPS.format(change="max = max + 1e-4", id="{id}"),
        {FRESH: "waveform_frames: 2 rows differ, the first at frame_index 3: max is "},
    ),
    "sample": (
        "a.wav", "seed2020_pcm", HOPS.format(change="pcm = set_byte(pcm, 21, get_byte(pcm, 21) # 1)", id="{id}"),
        {FRESH: "waveform_frames: 2 rows differ, the first at frame_index 3: pcm[10] is "},
    ),
    "second": (
        "b.flac", "mel128_22k", SECONDS.format(change="mel_std = mel_std + mel_std, rms = rms", id="{id}"),
        {FRESH: "mel_seconds: 1 row differs, the first at second_index 1: mel_std[0] is "},
    ),
    "count of a second": (
        "b.flac", "speech80_16k", SECONDS.format(change="n_frames = n_frames + 1", id="{id}"),
        {FRESH: "mel_seconds: 1 row differs, the first at second_index 1: n_frames is 101, a fresh decode gives 100"},
    ),
    "peak": (
        "c.mp3", "seed2020_pcm", SPECTROGRAM.format(change="peak_db = peak_db + 0.02", id="{id}"),
        {FRESH: "peak_db is "},
    ),
    "counts": (
        "a.wav", "mel128_22k", SPECTROGRAM.format(change="n_frames = n_frames + 1, n_hops = 7", id="{id}"),
        {FRESH: "n_frames is 109, a fresh decode gives 108; n_hops is 7, a fresh decode gives 108"},
    ),
    "versions": (
        "a.wav", "mel128_22k",
        SPECTROGRAM.format(
            change="core_version = '0.0.9', library_versions = library_versions - 'av' || '{{\"soxr\": \"0\"}}', "
            "n_seconds = 9", id="{id}"),
        {FRESH: "n_seconds is 9, a fresh decode gives 3 (computed by av none, now "},
    ),
    "bytes": (
        "a.wav", "mel128_22k", RECORDING.format(change="sha256 = sha256('')", id="{id}"),
        {"objects_are_unchanged": "its recording says e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    ),
    "recording": (
        "b.flac", "mel128_22k", RECORDING.format(change="decoded_channels = 1, decoded_samples = 1", id="{id}"),
        {"recordings_equal_a_fresh_decode":
         "decoded_channels is 1, a fresh decode gives 2; decoded_samples is 1, a fresh decode gives 132300"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_what_was_changed_is_named(case: str, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key, profile, statement, expected = CHANGES[case]
    spectrogram_id = id_of(filled, key, profile)
    # That one alone: the others have been looked at above.
    monkeypatch.setattr("spectralize.recheck._CHOOSE", only(spectrogram_id))
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(statement.format(id=spectrogram_id))
        found = recheck(filled, 1)
    said = broken(found)
    assert said.keys() == expected.keys(), said
    for name, text in expected.items():
        [line] = said[name]
        assert line.startswith(f"spectrogram {spectrogram_id} (s3://{filled.source.bucket}/{key}, {profile}): ")
        assert text in line
    if "cell" in case or case in {"sample", "hop"}:
        assert found.n_rows - found.n_equal_rows in {1, 2}


def only(spectrogram_id: int) -> str:
    from spectralize.recheck import _CHOOSE

    chosen = f"WHERE c.spectrogram_id = {spectrogram_id} AND o.tombstoned_at IS NULL"
    assert "WHERE o.tombstoned_at IS NULL" in _CHOOSE
    return _CHOOSE.replace("WHERE o.tombstoned_at IS NULL", chosen)


ROUNDING = {
    "hop": HOPS.format(change="max = max + 1e-6, rms = rms - 1e-6", id="{id}"),
    "sample": HOPS.format(change="pcm = set_byte(pcm, 20, get_byte(pcm, 20) # 1)", id="{id}"),
    "second": SECONDS.format(change="peak = peak + 1e-6", id="{id}"),
    "peak": SPECTROGRAM.format(change="peak_db = peak_db + 0.001", id="{id}"),
}


@pytest.mark.parametrize("case", ROUNDING)
def test_rounding_is_no_breach(case: str, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrogram_id = id_of(filled, "a.wav", "seed2020_pcm")
    monkeypatch.setattr("spectralize.recheck._CHOOSE", only(spectrogram_id))
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(ROUNDING[case].format(id=spectrogram_id))
        found = recheck(filled, 1)
    assert broken(found) == {}
    assert (found.n_rows - found.n_equal_rows > 0) == (case != "peak")


def test_lost_and_doubled_rows_are_left_to_verify(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrogram_id = id_of(filled, "a.wav", "seed2020_pcm")
    monkeypatch.setattr("spectralize.recheck._CHOOSE", only(spectrogram_id))
    whole = recheck(filled, 1)
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(
            f"DELETE FROM spectralize.mel_frames WHERE spectrogram_id = {spectrogram_id} AND frame_index < 30; "
            "INSERT INTO spectralize.waveform_frames SELECT * FROM spectralize.waveform_frames "
            f"WHERE spectrogram_id = {spectrogram_id} AND frame_index < 20; "
            f"DELETE FROM spectralize.mel_seconds WHERE spectrogram_id = {spectrogram_id}; "
            f"UPDATE spectralize.mel_frames SET mel = subvector(mel, 1, 5) "
            f"WHERE spectrogram_id = {spectrogram_id} AND frame_index > 100"
        )
        found = recheck(filled, 1)
    assert broken(found) == {}
    assert found.n_rows == found.n_equal_rows == whole.n_rows - 30 + 20 - 3 - 7


def test_memory_holds_a_block_of_rows(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrogram_id = id_of(filled, "long.wav", "speech80_16k")
    monkeypatch.setattr("spectralize.recheck._CHOOSE", only(spectrogram_id))
    sizes: list[int] = []
    read = comparison._StoredRows.read

    def measured(*arguments: Any) -> Any:
        rows = read(*arguments)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(comparison._StoredRows, "read", measured)
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(CELL.format(cell="cell + 1", at=11, id=spectrogram_id))
        assert broken(recheck(filled, 1)).keys() == {FRESH, LIBROSA}
    # All rows, then all frames once more to judge the one that differs, then those of the first minute for librosa.
    assert sum(sizes) == 7001 + 7000 + 71 + 7001 + 5999
    assert max(sizes) < 3_400


def test_the_seed_chooses_and_what_is_gone_is_not_chosen(store: Store, empty_dsn: str) -> None:
    migrate(empty_dsn)
    with connect(empty_dsn) as connection:
        choose(replace(store, dsn=empty_dsn, connection=connection))


def choose(store: Store) -> None:
    for number in range(6):
        store.put(f"{number}.wav", wav(0.5, seed=number))
    store.ingest()

    def chosen(n: int, seed: int) -> list[str]:
        whats: list[str] = []
        recheck_sample(
            store.connection, store.client, n=n, seed=seed, on_object=lambda what, n_before, n_all: whats.append(what)
        )
        return [what.partition(f"s3://{store.source.bucket}/")[2].partition(",")[0] for what in whats]

    everything = chosen(100, 1)
    assert sorted(everything) == [f"{number}.wav" for number in range(6)]
    assert chosen(4, 1) == everything[:4]
    assert chosen(100, 2) != everything
    # One is deleted, one overwritten by what is no audio: both are known to be gone.
    store.delete("0.wav")
    store.put("1.wav", b"no audio")
    store.ingest()
    assert sorted(chosen(100, 1)) == [f"{number}.wav" for number in range(2, 6)]
    # One is deleted and one overwritten since.
    store.delete("2.wav")
    store.put("3.wav", wav(0.5, seed=33))
    found = recheck(store)
    assert broken(found) == {}
    assert sorted((what.partition(store.source.bucket)[2], why) for what, why in found.unread) == [
        ("/2.wav, mel128_22k)", "the key is gone since it was listed"),
        ("/3.wav, mel128_22k)", "the key was overwritten since it was listed"),
    ]  # fmt: skip


def test_an_object_that_is_no_audio_any_more_is_named(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrogram_id = id_of(filled, "a.wav", "mel128_22k")
    monkeypatch.setattr("spectralize.recheck._CHOOSE", only(spectrogram_id))
    filled.put("a.wav", b"no audio at all")
    try:
        etag = filled.client.head_object(Bucket=filled.source.bucket, Key="a.wav")["ETag"].strip('"')
        with filled.connection.transaction(force_rollback=True):
            filled.connection.execute(
                "UPDATE spectralize.objects SET etag = %s, size_bytes = 15 WHERE key = 'a.wav' AND bucket = %s",
                (etag, filled.source.bucket),
            )
            said = broken(recheck(filled, 1))
    finally:
        filled.put("a.wav", wav(2.5, seed=1))
    assert list(said) == [FRESH]
    assert "a fresh decode is rejected: FFmpeg finds no audio container" in said[FRESH][0]


@pytest.mark.parametrize("parameters", ["[]", '{"hop_length": "wide"}'])
def test_a_profile_that_is_none_is_said(parameters: str, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrogram_id = id_of(filled, "a.wav", "mel128_22k")
    monkeypatch.setattr("spectralize.recheck._CHOOSE", only(spectrogram_id))
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(
            "UPDATE spectralize.profiles SET parameters = %s WHERE name = 'mel128_22k'", (parameters,)
        )
        found = recheck(filled, 1)
    assert (found.n_sampled, found.n_rows, broken(found)) == (1, 0, {})
    assert found.unread == ((f"spectrogram {spectrogram_id}", "profile mel128_22k is none of this version"),)


def test_what_single_precision_cannot_tell_is_no_breach() -> None:
    profile, sr = find_profile("bioacoustic96_256k"), 256_000
    theirs = librosa_frames(TONE, sr, profile, is_whole=True)
    ours = samples_to_mel(TONE, sr, profile).astype(np.float16).astype(np.float32)
    norms = FrameNorms(profile)
    norms.push(TONE)
    around, judge = norms.take(0, len(ours)), Judge(profile, sr)
    assert are_apart_db(ours, theirs).any()
    assert not judge.are_apart(ours, theirs, around).any()
    wrong = ours.copy()
    wrong[5, 90] += 20
    assert np.argwhere(judge.are_apart(wrong, theirs, around)).tolist() == [[5, 90]]


@pytest.mark.parametrize("center", [True, False])
def test_norms_of_a_stream_are_those_of_the_whole(center: bool) -> None:
    profile = find_profile("speech80_16k").model_copy(update={"center": center})
    y = make_samples(2.0, sr=16_000)[:, 0]
    whole, stream = FrameNorms(profile), FrameNorms(profile)
    whole.push(y)
    expected = whole.take(0, 190)
    middles = np.arange(190) * 160 + (0 if center else 200)
    np.testing.assert_allclose(
        expected, [np.sqrt(np.square(y[max(0, at - 400) : at + 400], dtype=np.float64).sum()) for at in middles]
    )
    found = []
    for number, start in enumerate(range(0, len(y), 1_600)):
        stream.push(y[start : start + 1_600])
        # The frames all of whose neighbourhood has come, as late as they may be asked for.
        first, stop = max(0, 10 * number - 10), min(10 * number, 190)
        found.append(stream.take(first, stop - first))
    np.testing.assert_allclose(np.concatenate(found), expected[: sum(map(len, found))])
    assert sum(map(len, found)) == 190


def test_frames_beyond_the_beginning_are_left_out() -> None:
    profile, sr = find_profile("mel128_22k"), 22_050
    y = make_samples(3.0)[:, 0]
    whole = librosa_frames(y, sr, profile, is_whole=True)
    for n_samples in (2048, 4096, 5000, 50_000):
        part = librosa_frames(y[:n_samples], sr, profile, is_whole=False)
        assert len(part) == 1 + (n_samples - 1024) // 512
        np.testing.assert_allclose(part, whole[: len(part)], atol=1e-4)


def without_audio(*arguments: str, dsn: str) -> subprocess.CompletedProcess[str]:
    """The command where the extra `audio` is not installed."""
    code = "import sys; sys.modules['av'] = None; from spectralize.cli import main; main()"
    environment = os.environ | {"SPECTRALIZE_DSN": dsn}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """The command in this process: exit code, and what it printed."""
    monkeypatch.setattr(sys, "argv", ["spectralize", "verify", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def test_the_command_says_in_a_line_why_a_sample_was_left_out(
    store: Store, empty_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate(empty_dsn)
    monkeypatch.setenv("SPECTRALIZE_DSN", empty_dsn)

    def left_out(*arguments: str) -> list[dict[str, str]]:
        code, out, err = run(capsys, monkeypatch, "--json", *arguments)
        found = json.loads(out)
        assert (code, err, found["sample"]) == (0, "", None)
        return found["left_out"]  # type: ignore[no-any-return]

    assert left_out("--sample", "0") == [{"what": "sample", "reason": "--sample 0"}]
    nothing = "the store has no current spectrogram whose object is still listed"
    assert left_out() == left_out("--sample", "5") == [{"what": "sample", "reason": nothing}]

    with connect(empty_dsn) as connection:
        store = replace(store, dsn=empty_dsn, connection=connection)
        store.put("a.wav", wav(0.5))
        store.ingest()
    code, out, err = run(capsys, monkeypatch, "--sample", "5", "--seed", "17")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith(
        "sample    1 of 1 spectrograms computed anew (seed 17); of 45 rows, 45 are the same"
    )
    for name, value, reason in (
        ("AWS_SECRET_ACCESS_KEY", "wrong", "access is refused ("),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "is unreachable: "),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            [line] = left_out()
            assert line["what"] == "sample"
            assert line["reason"].startswith(f"S3: s3://{store.source.bucket}")
            assert reason in line["reason"]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        code, out, err = run(capsys, monkeypatch, "--sample", "1")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: S3: s3://{store.source.bucket}/a.wav: access is refused (")
    store.delete("a.wav")
    code, out, err = run(capsys, monkeypatch, "--json", "--sample", "1")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["sample"]["spectrograms"], found["sample"]["read"], found["sample"]["rows"]) == (1, 0, 0)
    assert found["left_out"] == [
        {
            "what": f"spectrogram 1 (s3://{store.source.bucket}/a.wav, mel128_22k)",
            "reason": "the key is gone since it was listed",
        }
    ]


def test_without_the_extra_there_is_no_sample(
    filled: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys; sys.modules['av'] = None; from spectralize.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "verify"], env=os.environ | {"SPECTRALIZE_DSN": filled.dsn},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    what = (
        "the extra audio is not installed (import of {} halted; None in sys.modules): pip install 'spectralize[audio]'"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"left out  sample: {what.format('av')}"
    monkeypatch.setitem(sys.modules, "spectralize.recheck", None)
    found = run(capsys, monkeypatch, "--sample", "2", "--dsn", filled.dsn)
    assert found == (1, "", f"error: {what.format('spectralize.recheck')}\n")
