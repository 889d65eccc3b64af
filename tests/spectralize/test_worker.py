"""Objects of every kind through the whole core, against real S3 and TimescaleDB."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest
from botocore.exceptions import ClientError

from spectralize import isolate, ledger, loader
from spectralize.errors import LedgerError, ServiceError
from spectralize.objectfile import ObjectFile
from spectralize.profiles import MelProfile, find_profile
from spectralize.resample import resample_audio
from spectralize.s3 import open_s3
from spectralize.status import read_batch_lines
from spectralize.tables import PlannedObject, Timings
from spectralize.worker import estimate_audio_s, run_slice, slice_objects
from tests.reference import assert_close_db, decode, librosa_mel
from tests.spectralize.test_tags import id3_with_picture, tagged
from tests.store import CONTENT, Store, digest, encode, make_samples, wav

HOSTILE_KEYS = [
    'it\'s "quoted".wav',
    "new\nline.wav",
    "100% %s %(key)s.wav",
    "ünï/çödé/鳥 🐦.wav",
    "a'; DROP TABLE spectralize.objects; --.wav",
    "{{ ds }} ${HOME} `id`.wav",
    "[red]markup[/].wav",
]


def read_mel(store: Store, key: str) -> np.ndarray:
    rows = store.rows(
        "SELECT f.mel::real[] FROM spectralize.mel_frames AS f JOIN spectralize.current_spectrograms AS c USING (spectrogram_id) "
        "WHERE c.bucket = %s AND c.key = %s ORDER BY f.frame_index", store.source.bucket, key,
    )  # fmt: skip
    return np.array([row[0] for row in rows], dtype=np.float32)


@pytest.mark.parametrize(("container", "sr"), [("WAV", 22_050), ("FLAC", 44_100), ("OGG", 48_000)])
def test_stored_frames_equal_librosa(store: Store, container: str, sr: int) -> None:
    key = f"sound.{container.lower()}"
    data = encode(make_samples(7.3, sr=sr, channels=2), sr, container)
    store.put(key, data)
    store.ingest()
    audio = decode(data, max_duration_s=60)
    profile = find_profile("mel128_22k")
    assert isinstance(profile.sr, int)
    expected = librosa_mel(resample_audio(audio.y, audio.sr, profile.sr), profile.sr, profile)
    assert_close_db(read_mel(store, key), expected, bound_db=0.01, is_half=True)
    [(peak_db,)] = store.rows(
        "SELECT peak_db FROM spectralize.current_spectrograms WHERE bucket = %s", store.source.bucket
    )
    assert peak_db == pytest.approx(expected.max(), abs=0.01)
    assert store.breaches() == {}


def test_hostile_keys_are_only_text(store: Store) -> None:
    for number, key in enumerate(HOSTILE_KEYS):
        store.put(key, wav(seed=number))
    batch = store.ingest()
    assert store.outcomes(batch) == dict.fromkeys(HOSTILE_KEYS, ("loaded", None))


def test_a_tag_with_nul_bytes_costs_the_nul_bytes(store: Store) -> None:
    data = wav()
    info = b"INFOINAM\x0a\x00\x00\x00ab\x00cd\x00efg\x00"
    data = data[:4] + (len(data) + len(info)).to_bytes(4, "little") + data[8:]
    store.put("tagged.wav", data + b"LIST" + len(info).to_bytes(4, "little") + info)
    store.ingest()
    [(title,)] = store.rows(
        "SELECT r.title FROM spectralize.recordings AS r JOIN spectralize.objects USING (object_id) WHERE bucket = %s",
        store.source.bucket,
    )
    assert title.startswith("ab")
    assert "\x00" not in title


def test_pictures_are_noted_in_the_database(store: Store) -> None:
    store.put("covered.mp3", id3_with_picture(b"image/png", b"\x89PNG" * 500, b"cover") + tagged({"title": "covered"}))
    store.ingest()
    [(pictures,)] = store.rows(
        "SELECT r.pictures FROM spectralize.recordings AS r JOIN spectralize.objects USING (object_id) WHERE bucket = %s",
        store.source.bucket,
    )
    assert pictures == [{"kind": "front_cover", "mime_type": "image/png", "size_bytes": 2000, "description": "cover"}]


def test_each_bad_object_costs_only_itself(store: Store) -> None:
    nan = make_samples(1.0)
    nan[5] = np.nan
    whole = encode(make_samples(20.0, sr=44_100), 44_100, "FLAC")
    store.put("good.wav", wav())
    store.put("empty.wav", b"")
    store.put("bogus.mp3", np.random.default_rng(0).bytes(20_000))
    store.put("truncated.flac", whole[: len(whole) // 2])
    store.put("nan.wav", encode(nan, 22_050, "WAV", "FLOAT"))
    store.put("vanishes.wav", wav(seed=1))
    store.put("changes.wav", wav(seed=2))
    batch = store.plan()
    store.delete("vanishes.wav")
    store.put("changes.wav", wav(seed=3))
    store.compute(batch)
    batch = store.finish(batch)
    assert store.outcomes(batch) == {
        "good.wav": ("loaded", None),
        "empty.wav": ("rejected", "empty"),
        "bogus.mp3": ("rejected", "not_audio"),
        "truncated.flac": ("partial", "damaged"),
        "nan.wav": ("rejected", "non_finite"),
        "vanishes.wav": ("rejected", "vanished"),
        "changes.wav": ("rejected", "changed"),
    }
    assert batch.counts.outcomes == {"loaded": 1, "partial": 1, "rejected": 5, "failed": 0}
    assert store.breaches() == {}
    # What had changed is loaded as the object it is now; what had vanished is planned again if it returns.
    store.put("vanishes.wav", wav(seed=1))
    again = store.ingest()
    assert store.outcomes(again) == {"vanishes.wav": ("loaded", None), "changes.wav": ("loaded", None)}


def test_limits_of_the_source_reject(store: Store) -> None:
    store.source = store.source.model_copy(update={"max_object_bytes": 100_000, "max_duration_s": 1.5})
    store.put("large.wav", wav(5.0))
    store.put("long.wav", wav(2.0))
    assert store.outcomes(store.ingest()) == {
        "large.wav": ("rejected", "too_large"),
        "long.wav": ("rejected", "too_long"),
    }


def test_computing_twice_at_once_gives_the_same_tables_as_once(store: Store) -> None:
    for number in range(6):
        store.put(f"{number}.wav", wav(3.0, seed=number))
    batch = store.plan()
    manifest = store.manifest(batch)
    barrier = threading.Barrier(2)

    def compute(worker: str) -> dict[str, int]:
        barrier.wait()
        return run_slice(store.work(manifest), manifest.objects, worker=worker)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compute, ["first", "second"]))
    batch = store.finish(batch)
    assert batch.counts.outcomes == {"loaded": 6, "partial": 0, "rejected": 0, "failed": 0}
    twice = store.rows(CONTENT, store.source.bucket)
    assert len(twice) == 6
    assert store.breaches() == {}
    # The same objects once, undisturbed: a forced generation has the same content in rows of its own.
    store.ingest(force=True)
    once = store.rows(CONTENT, store.source.bucket)
    generation = 4
    assert digest([row[:generation] + row[generation + 1 :] for row in once]) == digest(
        [row[:generation] + row[generation + 1 :] for row in twice]
    )


def test_a_transaction_cut_off_before_its_end_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.wav", wav(3.0))
    batch = store.plan()
    real = loader._copy

    def cut_off(connection: psycopg.Connection, *arguments: object) -> None:
        real(connection, *arguments)
        with psycopg.connect(store.dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    monkeypatch.setattr(loader, "_copy", cut_off)
    with pytest.raises(ServiceError, match="gave up: terminating connection"):
        store.compute(batch)
    for table in ("mel_frames", "waveform_frames", "mel_seconds"):
        assert store.rows(
            f"SELECT count(*) FROM spectralize.{table} AS f WHERE NOT EXISTS "
            "(SELECT FROM spectralize.spectrograms AS s WHERE s.spectrogram_id = f.spectrogram_id)"
        ) == [(0,)]
    assert store.outcomes(batch) == {"a.wav": (None, None)}
    monkeypatch.setattr(loader, "_copy", real)
    store.compute(batch)
    assert store.outcomes(store.finish(batch)) == {"a.wav": ("loaded", None)}
    assert store.breaches() == {}


def test_our_own_error_is_failed_then_planned_again_then_poison(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.wav", wav())
    store.source = store.source.model_copy(update={"max_failures": 2, "max_failed": 1})

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    # The extracting process is forked, so it has whatever is put in place here.
    monkeypatch.setattr("spectralize.isolate.extract", fail)
    assert store.outcomes(store.ingest()) == {"a.wav": ("failed", "RuntimeError")}
    assert store.outcomes(store.ingest()) == {"a.wav": ("rejected", "poison")}
    [(reason,)] = store.rows("SELECT reason FROM spectralize.batch_objects WHERE reason_class = 'poison'")
    assert reason == "failed in 2 batches, the last time: a bug of ours"
    assert store.ingest().counts.unchanged == 1
    assert store.breaches() == {}


def test_a_driver_that_outlives_its_batch_changes_nothing(store: Store) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    store.source = store.source.model_copy(update={"max_failed": 9})
    store.finish(batch)
    with pytest.raises(LedgerError, match="nothing may be added"):
        store.compute(batch)
    assert store.outcomes(batch) == {"a.wav": ("failed", "unfinished")}
    assert store.outcomes(store.ingest()) == {"a.wav": ("loaded", None)}
    assert store.breaches() == {}


def test_the_database_going_away_ends_the_slice_with_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    manifest = store.manifest(batch)
    work = store.work(manifest)
    object.__setattr__(work, "dsn", "postgresql://spectralize:secret@127.0.0.1:9/spectralize")
    with pytest.raises(ServiceError, match=r"database spectralize@127\.0\.0\.1:9/spectralize is unreachable") as caught:
        run_slice(work, manifest.objects)
    assert "secret" not in str(caught.value)


def test_pcm_and_native_rate_profiles(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = MelProfile(
        name="native_pcm", sr="native", n_fft=512, hop_length=160, win_length=400, n_mels=40, waveform="pcm"
    )
    monkeypatch.setattr("spectralize.planner.find_profile", lambda _: profile)
    store.source = store.source.model_copy(update={"profiles": ("native_pcm",)})
    y = make_samples(1.003, sr=16_000)
    store.put("a.wav", encode(y, 16_000))
    store.ingest()
    hops = store.rows(
        "SELECT w.pcm, w.min, w.max FROM spectralize.waveform_frames AS w "
        "JOIN spectralize.current_spectrograms USING (spectrogram_id) WHERE bucket = %s ORDER BY w.frame_index",
        store.source.bucket,
    )
    pcm = np.frombuffer(b"".join(hop[0] for hop in hops), dtype="<i2")
    expected = decode(encode(y, 16_000), max_duration_s=9).y
    np.testing.assert_array_equal(pcm / np.float32(32768), expected)
    assert len(hops) == -(-len(y) // 160)
    assert (hops[0][1], hops[0][2]) == (expected[:160].min(), expected[:160].max())
    assert store.breaches() == {}


def test_a_worker_reads_the_ledger_before_the_object(store: Store) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    assert store.compute(batch) == {"loaded": 1}
    assert store.compute(batch) == {"done before": 1}
    [(attempts,)] = store.rows("SELECT attempts FROM spectralize.batch_objects WHERE batch_id = %s", batch.batch_id)
    assert attempts == 1
    store.finish(batch)


def test_outcomes_only_improve(store: Store) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    store.compute(batch)
    [planned] = store.manifest(batch).objects
    late = ledger.OutcomeLine(
        planned.object_id, planned.profiles[0].profile_id, "failed", "late", "a zombie", None, "zombie",
        datetime.now(UTC), Timings(),
    )  # fmt: skip
    ledger.record_outcomes(store.connection, batch.batch_id, [late])
    store.connection.commit()
    assert store.outcomes(batch) == {"a.wav": ("loaded", None)}
    store.finish(batch)
    assert store.breaches() == {}


def test_samples_too_large_for_their_power_are_rejected(store: Store) -> None:
    store.put("loud.wav", encode(make_samples(1.0) * np.float32(1e20), 22_050, "WAV", "FLOAT"))
    assert store.outcomes(store.ingest()) == {"loud.wav": ("rejected", "non_finite")}


def test_each_profile_has_its_own_outcome(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_frames = find_profile("mel128_22k").model_copy(update={"name": "whole_frames", "center": False})
    profiles = {"mel128_22k": find_profile("mel128_22k"), "whole_frames": whole_frames}
    monkeypatch.setattr("spectralize.planner.find_profile", profiles.__getitem__)
    store.source = store.source.model_copy(update={"profiles": tuple(profiles)})
    store.put("short.wav", wav(0.05))
    store.put("long.wav", wav(1.0))
    batch = store.ingest()
    lines = read_batch_lines(store.connection, batch.batch_id)
    assert {(line["key"], line["profile"]): (line["outcome"], line["reason_class"]) for line in lines} == {
        ("short.wav", "mel128_22k"): ("loaded", None),
        ("short.wav", "whole_frames"): ("rejected", "too_short"),
        ("long.wav", "mel128_22k"): ("loaded", None),
        ("long.wav", "whole_frames"): ("loaded", None),
    }
    store.connection.rollback()
    assert (batch.counts.planned, batch.counts.planned_spectrograms) == (2, 4)
    assert store.breaches() == {}


def test_an_object_that_s3_refuses_costs_only_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """SeaweedFS has no archive tier; what AWS answers for an archived object is put in place of its answer."""
    for name in ("a", "b", "c"):
        store.put(f"{name}.wav", wav(seed=ord(name)))
    batch = store.plan()
    client = open_s3()

    def refuse(params: dict[str, str], **_: object) -> None:
        if params["Key"] == "b.wav":
            answer = {
                "Error": {"Code": "InvalidObjectState", "Message": "archived"},
                "ResponseMetadata": {"HTTPStatusCode": 403},
            }
            raise ClientError(answer, "GetObject")  # type: ignore[arg-type]

    client.meta.events.register("provide-client-params.s3.GetObject", refuse)
    monkeypatch.setattr("spectralize.worker._client", lambda _: client)
    store.compute(batch)
    assert store.outcomes(batch) == {
        "a.wav": ("loaded", None), "b.wav": ("failed", "InvalidObjectState"), "c.wav": ("loaded", None)
    }  # fmt: skip


def test_any_exception_of_a_library_costs_one_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.wav", wav(seed=1))
    store.put("b.wav", wav(seed=2))
    batch = store.plan()
    real = isolate.extract

    class StrangeError(Exception):
        pass

    def strange(file: ObjectFile, *arguments: Any, **options: Any) -> object:
        if file.read() == wav(seed=1):
            raise StrangeError("two\nlines")
        file.seek(0)
        return real(file, *arguments, **options)

    monkeypatch.setattr(isolate, "extract", strange)
    store.compute(batch)
    assert store.outcomes(batch) == {"a.wav": ("failed", "StrangeError"), "b.wav": ("loaded", None)}


def make_planned(object_id: int, size_bytes: int) -> PlannedObject:
    return PlannedObject(
        object_id, "b", f"{object_id}", "e", size_bytes, datetime(2024, 1, 1, tzinfo=UTC), "key", None, ()
    )


def test_slices_hold_every_object_once_and_balance_the_work() -> None:
    rng = np.random.default_rng(0)
    objects = [make_planned(i, int(size)) for i, size in enumerate(rng.pareto(1.2, 1500) * 1e6)]
    slices = slice_objects(objects, 2)
    assert sorted(planned.object_id for part in slices for planned in part) == list(range(1500))
    assert len(slices) >= 8
    work = [sum(map(estimate_audio_s, part)) for part in slices]
    assert work == sorted(work, reverse=True)
    # Nothing can be better balanced than by the largest object.
    assert max(work) - min(work) <= max(map(estimate_audio_s, objects))
    assert slice_objects([], 2) == []
    assert [len(part) for part in slice_objects(objects[:3], 2)] == [1, 1, 1]
    assert max(len(part) for part in slice_objects([make_planned(i, 10) for i in range(5000)], 2)) <= 500


def test_a_minute_of_opus_weighs_as_much_as_a_minute_of_wav() -> None:
    wav_minute, opus_minute = (
        replace(make_planned(1, size), key=key) for size, key in ((60 * 176_000, "a.wav"), (60 * 12_000, "b.OPUS"))
    )
    assert estimate_audio_s(wav_minute) == pytest.approx(estimate_audio_s(opus_minute))


def test_secrets_are_not_in_the_log(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put("a.wav", wav())
    store.ingest()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in caplog.text
