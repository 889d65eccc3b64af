"""Loading by groups and by streams: the same rows, whatever the way, and one bad one never costs another."""

import threading
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from spectralize import isolate, loader, worker
from spectralize.profiles import MelProfile, find_profile
from spectralize.status import read_batch_lines
from spectralize.worker import run_slice
from tests.store import CONTENT, Store, digest, encode, make_samples, wav

GENERATION = 4


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings of some seconds are long."""
    monkeypatch.setattr(isolate, "PART_BYTES", 30_000)
    monkeypatch.setattr("spectralize.features._FLUSH_BYTES", 10_000)
    monkeypatch.setattr("spectralize.decode._BLOCK_SAMPLES", 20_000)
    monkeypatch.setattr("spectralize.decode._QUEUE_SAMPLES", 20_000)


@pytest.fixture
def two_profiles(monkeypatch: pytest.MonkeyPatch, store: Store) -> Store:
    pcm = MelProfile(name="pcm16k", sr=16_000, n_fft=400, hop_length=160, win_length=400, n_mels=80, waveform="pcm")
    profiles = {"mel128_22k": find_profile("mel128_22k"), "pcm16k": pcm}
    monkeypatch.setattr("spectralize.planner.find_profile", profiles.__getitem__)
    store.source = store.source.model_copy(update={"profiles": tuple(profiles)})
    return store


@pytest.fixture
def refuse(store: Store) -> Iterator[Callable[[str], None]]:
    """Have the database refuse spectrograms for which a condition on NEW holds."""

    def install(condition: str) -> None:
        store.connection.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF {condition} THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON spectralize.spectrograms FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
        store.connection.commit()

    yield install
    store.connection.rollback()
    store.connection.execute("DROP TRIGGER refuse ON spectralize.spectrograms; DROP FUNCTION refuse()")
    store.connection.commit()


def content(store: Store) -> list[Any]:
    return [row[:GENERATION] + row[GENERATION + 1 :] for row in store.rows(CONTENT, store.source.bucket)]


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[None]:
    calls: list[None] = []
    real = getattr(worker, name)

    def counted(*arguments: Any) -> Any:
        calls.append(None)
        return real(*arguments)

    monkeypatch.setattr(worker, name, counted)
    return calls


def test_a_stream_and_a_group_load_the_same(two_profiles: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = two_profiles
    for number in range(3):
        store.put(f"{number}.flac", encode(make_samples(5.0 + number, seed=number, channels=2), 22_050, "FLAC"))
    streams = count_calls(monkeypatch, "load_stream")
    store.ingest()
    assert not streams
    grouped = content(store)
    # The same blocks, for the last bit of a sum may depend on where they end; only what is sent at a time is smaller.
    monkeypatch.setattr(isolate, "PART_BYTES", 50_000)
    store.ingest(force=True)
    assert len(streams) == 3
    assert digest(content(store)) == digest(grouped)
    assert len(grouped) == 6
    assert store.breaches() == {}


@pytest.mark.usefixtures("parts")
def test_long_and_tiny_objects_side_by_side(two_profiles: Store) -> None:
    store = two_profiles
    expected = {}
    for number in range(12):
        key = f"{number:02}.wav"
        store.put(key, b"" if number == 5 else wav(9.0 if number % 3 == 0 else 0.3, seed=number))
        expected[key] = ("rejected", "empty") if number == 5 else ("loaded", None)
    batch = store.ingest()
    assert store.outcomes(batch) == expected
    assert batch.counts.outcomes == {"loaded": 22, "partial": 0, "rejected": 2, "failed": 0}
    assert store.breaches() == {}


@pytest.mark.usefixtures("parts")
def test_samples_that_become_too_large_late_void_what_was_written(store: Store) -> None:
    y = make_samples(30.0)
    y[-1000:] *= np.float32(1e20)
    store.put("loud.wav", encode(y, 22_050, "WAV", "FLOAT"))
    assert store.outcomes(store.ingest()) == {"loud.wav": ("rejected", "non_finite")}
    assert store.breaches() == {}


def test_a_group_that_the_database_refuses_is_done_singly(store: Store, refuse: Callable[[str], None]) -> None:
    for number in range(5):
        store.put(f"{number}.wav", wav(1.0 + number, seed=number))
    store.source = store.source.model_copy(update={"max_failed": 1})
    refuse("NEW.n_samples = 3 * 22050")
    batch = store.ingest()
    outcomes = store.outcomes(batch)
    assert outcomes.pop("2.wav") == ("failed", "RaiseException")
    assert set(outcomes.values()) == {("loaded", None)}
    [(reason,)] = store.rows("SELECT reason FROM spectralize.batch_objects WHERE reason_class = 'RaiseException'")
    assert reason == "not this one"
    assert store.breaches() == {}


@pytest.mark.parametrize("seconds", [1.0, 20.0], ids=["group", "stream"])
@pytest.mark.usefixtures("parts")
def test_a_profile_that_the_database_refuses_costs_only_itself(
    two_profiles: Store, refuse: Callable[[str], None], seconds: float
) -> None:
    store = two_profiles
    store.put("a.wav", wav(seconds, seed=1))
    store.put("b.wav", wav(seconds, seed=2))
    store.source = store.source.model_copy(update={"max_failed": 2})
    refuse("NEW.hop_length = 160")
    batch = store.ingest()
    lines = read_batch_lines(store.connection, batch.batch_id)
    store.connection.rollback()
    assert {(line["key"], line["profile"]): line["outcome"] for line in lines} == {
        ("a.wav", "mel128_22k"): "loaded", ("a.wav", "pcm16k"): "failed",
        ("b.wav", "mel128_22k"): "loaded", ("b.wav", "pcm16k"): "failed",
    }  # fmt: skip
    assert store.breaches() == {}


@pytest.mark.usefixtures("parts")
def test_streaming_twice_at_once_gives_the_same_tables_as_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        store.put(f"{number}.wav", wav(8.0 + number, seed=number))
    batch = store.plan()
    context = get_context("fork")
    barrier = context.Barrier(2)
    real = loader.load_stream

    def together(*arguments: Any) -> Any:
        try:
            barrier.wait(5)
        except threading.BrokenBarrierError:
            barrier.reset()
        return real(*arguments)

    monkeypatch.setattr(worker, "load_stream", together)
    manifest = store.manifest(batch)
    work = store.work(manifest)
    processes = [
        context.Process(target=run_slice, args=(work, manifest.objects), kwargs={"worker": name})
        for name in ("first", "second")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    batch = store.finish(batch)
    assert batch.counts.outcomes == {"loaded": 4, "partial": 0, "rejected": 0, "failed": 0}
    assert store.rows("SELECT count(*) FROM spectralize.batch_object_attempts WHERE batch_id = %s", batch.batch_id) == [
        (8,)
    ]
    assert store.breaches() == {}
    twice = content(store)
    monkeypatch.setattr(worker, "load_stream", real)
    store.ingest(force=True)
    assert digest(content(store)) == digest(twice)
