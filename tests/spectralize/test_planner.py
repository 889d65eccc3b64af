"""Listing minus ledger: what a run plans, and that the counts always sum."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spectralize import worklist
from spectralize.database import connect
from spectralize.errors import ConfigError, LedgerError, ServiceError
from spectralize.planner import has_work
from spectralize.s3 import open_s3
from spectralize.tables import Counts
from tests.store import Store, wav


def sums(counts: Counts) -> dict[str, int]:
    assert counts.listing_holds()
    names = ("listed", "unchanged", "planned", "unsettled", "ignored", "over_cap")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


def keys(store: Store, batch: object) -> list[str]:
    return sorted(planned.key for planned in store.manifest(batch).objects)  # type: ignore[arg-type]


def test_new_objects_are_planned_once(store: Store) -> None:
    store.put("a.wav", wav())
    store.put("notes.txt", b"text")
    store.put("folder/", b"")
    assert has_work(store.connection, store.client, store.source)
    assert sums(store.ingest().counts) == {"listed": 3, "planned": 1, "ignored": 2}
    assert not has_work(store.connection, store.client, store.source)
    assert sums(store.ingest().counts) == {"listed": 3, "unchanged": 1, "ignored": 2}
    assert store.breaches() == {}


def test_an_empty_bucket_is_an_empty_batch_that_succeeds(store: Store) -> None:
    batch = store.ingest()
    assert (batch.state, sums(batch.counts)) == ("success", {})


def test_a_listing_of_many_pages_is_read_to_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectralize.listing.PAGE_SIZE", 3)
    for number in range(10):
        store.put(f"{number:02}.wav", b"x")
    assert len(keys(store, store.plan())) == 10


def test_a_smaller_key_that_comes_late_is_found(store: Store) -> None:
    store.put("m.wav", wav())
    store.ingest()
    store.put("a.wav", wav())
    assert keys(store, store.plan()) == ["a.wav"]


def test_an_overwritten_key_is_a_new_object_that_supersedes_the_old(store: Store) -> None:
    store.put("a.wav", wav(seed=1))
    store.put("b.wav", wav(seed=2))
    store.ingest()
    before = dict(
        store.rows("SELECT key, object_id FROM spectralize.current_spectrograms WHERE bucket = %s", store.source.bucket)
    )
    store.put("a.wav", wav(2.0, seed=3))
    assert sums(store.ingest().counts) == {"listed": 2, "unchanged": 1, "planned": 1}
    after = dict(
        store.rows("SELECT key, object_id FROM spectralize.current_spectrograms WHERE bucket = %s", store.source.bucket)
    )
    assert after["b.wav"] == before["b.wav"]
    assert after["a.wav"] != before["a.wav"]
    assert store.breaches() == {}


def test_a_key_that_returns_to_its_first_content_needs_no_work_and_is_current_again(store: Store) -> None:
    first = wav(seed=1)
    store.put("a.wav", first)
    store.ingest()
    [(original,)] = store.rows(
        "SELECT object_id FROM spectralize.current_spectrograms WHERE bucket = %s", store.source.bucket
    )
    store.put("a.wav", wav(seed=2))
    store.ingest()
    store.put("a.wav", first)
    assert sums(store.ingest().counts) == {"listed": 1, "unchanged": 1}
    assert store.rows(
        "SELECT object_id FROM spectralize.current_spectrograms WHERE bucket = %s", store.source.bucket
    ) == [(original,)]


def test_a_key_that_is_gone_gets_a_tombstone_and_loses_it_when_it_returns(store: Store) -> None:
    query = "SELECT key FROM spectralize.objects WHERE tombstoned_at IS NOT NULL AND bucket = %s"
    store.put("a.wav", wav())
    store.put("b.wav", wav())
    store.ingest()
    store.delete("a.wav")
    assert sums(store.ingest().counts) == {"listed": 1, "unchanged": 1}
    assert store.rows(query, store.source.bucket) == [("a.wav",)]
    store.put("a.wav", wav())
    assert sums(store.ingest().counts) == {"listed": 2, "unchanged": 2}
    assert store.rows(query, store.source.bucket) == []


def test_sources_that_share_a_prefix_do_not_bury_each_others_objects(store: Store) -> None:
    store.put("a.wav", wav())
    store.ingest()
    store.source = store.source.model_copy(update={"include": ("*.flac",)})
    assert sums(store.ingest().counts) == {"listed": 1, "ignored": 1}
    buried = store.rows(
        "SELECT key FROM spectralize.objects WHERE bucket = %s AND tombstoned_at IS NOT NULL", store.source.bucket
    )
    assert buried == []


def test_a_planner_that_was_overtaken_leaves_the_plan_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.wav", wav())
    run = store.run()
    real = worklist.scan
    overtaking: list[object] = []

    def overtaken(*arguments: object, **options: object) -> Counts:
        counts = real(*arguments, **options)  # type: ignore[arg-type]
        if not overtaking:
            overtaking.append(None)
            store.put("b.wav", wav())
            with connect(store.dsn) as connection:
                other = replace(store, connection=connection)
                overtaking[0] = other.plan(run)
        return counts

    monkeypatch.setattr(worklist, "scan", overtaken)
    batch = store.plan(run)
    assert batch == overtaking[0]
    assert keys(store, batch) == ["a.wav", "b.wav"]
    store.compute(batch)
    assert store.finish(batch).counts.outcomes["loaded"] == 2
    assert store.breaches() == {}


def test_the_rest_of_a_capped_batch_waits_for_the_next(store: Store) -> None:
    for name in ("c", "a", "b"):
        store.put(f"{name}.wav", wav())
    first = store.ingest(max_objects=2)
    assert sums(first.counts) == {"listed": 3, "planned": 2, "over_cap": 1}
    second = store.ingest(max_objects=2)
    assert sums(second.counts) == {"listed": 3, "unchanged": 2, "planned": 1}
    assert sums(store.ingest().counts) == {"listed": 3, "unchanged": 3}


def test_a_young_object_is_unsettled(store: Store) -> None:
    store.put("a.wav", wav())
    store.source = store.source.model_copy(update={"settle_s": 3600})
    assert not has_work(store.connection, store.client, store.source)
    assert sums(store.ingest().counts) == {"listed": 1, "unsettled": 1}
    store.source = store.source.model_copy(update={"settle_s": 0})
    assert sums(store.ingest().counts) == {"listed": 1, "planned": 1}


DAYS = ("20240601_043000", "20240602_000000", "20240602_235959", "20240603_000000")
PATTERN = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})_(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})"


def backfill(store: Store, day: datetime) -> object:
    return store.run(kind="backfill", interval=(day, day + timedelta(days=1)))


def test_a_backfill_plans_exactly_its_interval(store: Store) -> None:
    store.source = store.source.model_copy(update={"time_patterns": (PATTERN,)})
    for day in DAYS:
        store.put(f"{day}.wav", wav())
        store.put(f"{day}.txt", b"")
    store.put("undated.wav", wav())
    june_2 = datetime(2024, 6, 2, tzinfo=UTC)
    first = store.ingest(run=backfill(store, june_2))
    assert keys(store, first) == [f"{DAYS[1]}.wav", f"{DAYS[2]}.wav"]
    assert sums(first.counts) == {"listed": 4, "planned": 2, "ignored": 2}
    assert sums(store.ingest(run=backfill(store, june_2)).counts) == {"listed": 4, "unchanged": 2, "ignored": 2}
    assert sums(store.ingest().counts) == {"listed": 9, "unchanged": 2, "planned": 3, "ignored": 4}
    assert store.breaches() == {}


def test_force_computes_a_new_generation_and_keeps_the_old(store: Store) -> None:
    store.put("a.wav", wav())
    store.ingest()
    forced = store.ingest(force=True)
    generations = store.rows(
        "SELECT s.generation, s.batch_id FROM spectralize.spectrograms AS s JOIN spectralize.objects USING (object_id) "
        "WHERE bucket = %s ORDER BY 1", store.source.bucket,
    )  # fmt: skip
    assert [generation for generation, _ in generations] == [0, forced.batch_id]
    current = store.rows(
        "SELECT generation FROM spectralize.current_spectrograms WHERE bucket = %s", store.source.bucket
    )
    assert current == [(forced.batch_id,)]
    assert store.breaches() == {}


def test_a_backfill_without_an_interval_is_refused(store: Store) -> None:
    with pytest.raises(LedgerError, match="needs a data interval"):
        store.plan(store.run(kind="backfill"))


def test_planning_again_before_the_batch_is_closed_changes_nothing(store: Store) -> None:
    store.put("a.wav", wav())
    run = store.run()
    first = store.plan(run)
    store.put("b.wav", wav())
    assert store.plan(run) == first
    store.compute(first)
    store.finish(first)
    second = store.plan(run)
    assert second.batch_id != first.batch_id
    assert keys(store, second) == ["b.wav"]
    tries = store.rows("SELECT try FROM spectralize.batches WHERE run_id = %s ORDER BY 1", run.run_id)
    assert tries == [(1,), (2,)]


def test_a_bucket_that_does_not_exist_is_one_clear_line(store: Store) -> None:
    store.source = store.source.model_copy(update={"bucket": "no-such-bucket"})
    with pytest.raises(ConfigError, match=r"S3: s3://no-such-bucket/: there is no such bucket"):
        store.plan()


def test_s3_that_is_away_is_one_clear_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    # It is asked again as often as ever, but nobody has to wait in between.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    store.client = open_s3()
    with pytest.raises(ServiceError, match="is unreachable"):
        store.plan()


def test_wrong_credentials_are_one_clear_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store.client = open_s3()
    with pytest.raises(ConfigError, match=r"access is refused \(SignatureDoesNotMatch\)"):
        store.plan()


def test_a_profile_that_changed_its_numbers_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.wav", wav())
    store.ingest()
    from spectralize.profiles import find_profile

    changed = find_profile("mel128_22k").model_copy(update={"n_mels": 64})
    monkeypatch.setattr("spectralize.planner.find_profile", lambda _: changed)
    with pytest.raises(ConfigError, match="profiles never change"):
        store.plan()
