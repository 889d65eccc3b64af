"""What the next run would do, looked at without doing it, and what a form selects to be done again."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spectralize import gate
from spectralize.errors import ConfigError
from spectralize.estimate import Group, Rates, read_rates
from spectralize.expiry import remove_superseded
from spectralize.ledger import Batch
from spectralize.planner import has_work
from spectralize.preview import Preview, preview_batch
from spectralize.profiles import find_profile
from spectralize.selection import Selection
from tests.store import Store, wav

DAY = r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})_(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})"

EVERYTHING = """
SELECT (SELECT jsonb_agg(o ORDER BY object_id) FROM spectralize.objects AS o),
       (SELECT jsonb_agg(b ORDER BY batch_id) FROM spectralize.batches AS b), (SELECT count(*) FROM spectralize.batch_objects),
       (SELECT count(*) FROM spectralize.spectrograms), (SELECT count(*) FROM spectralize.profiles)
"""


def look(store: Store, **options: Any) -> Preview:
    """Preview, and prove that nothing in the store has changed by it."""
    before = store.rows(EVERYTHING)
    seen = preview_batch(store.connection, store.client, store.source, **options)
    assert store.rows(EVERYTHING) == before
    assert seen.counts.listing_holds()
    return seen


def planned_keys(store: Store, batch: Batch) -> list[str]:
    return sorted(planned.key for planned in store.manifest(batch).objects)


def test_a_preview_is_the_plan_that_follows_it(store: Store) -> None:
    store.put("a.wav", wav())
    store.ingest()
    store.put("a.wav", wav(2.0, seed=1))
    for name in ("b.wav", "c.flac", "notes.txt"):
        store.put(name, wav(seed=2))
    for options in ({}, {"max_objects": 2}, {"force": True}):
        pages: list[int] = []
        seen = look(store, on_page=pages.append, **options)
        assert pages == [4]
        batch = store.plan(**options)  # type: ignore[arg-type]
        assert seen.counts == replace(batch.counts, outcomes=seen.counts.outcomes)
        assert sum(group.n_objects for group in seen.groups) == len(planned_keys(store, batch))
        assert set(seen.first_keys) <= set(planned_keys(store, batch))
        gate.settle_batch(store.connection, batch.batch_id, store.source)
        gate.close_batch(store.connection, batch.batch_id, store.source)


def test_a_preview_says_in_words_what_it_takes(store: Store) -> None:
    assert look(store).lines()[-1] == "the next run would find nothing to compute"
    for name in ("a.wav", "b\n[bold].wav", "c.mp3"):
        store.put(name, wav(2.0))
    seen = look(store, max_objects=2, n_cores=4)
    assert seen.n_batches == 2
    text = "\n".join(seen.lines())
    assert "planned 2" in text
    assert "over cap 1" in text
    assert "everything, in 2 runs" in text
    assert "on 4 cores" in text
    assert "b\\n[bold].wav" in text


def test_estimates_come_from_the_rates_of_the_store_once_it_has_enough(store: Store) -> None:
    profile = find_profile("mel128_22k")
    usual = Rates(n_cores=2).forecast([Group("wav", 10, 176_000 * 60)], [profile])
    assert usual.audio_s == pytest.approx(60)
    assert 60 * 43 * 256 < usual.disk_bytes < 60 * 43 * 256 * 2.5
    assert read_rates(store.connection, n_cores=2).measured_s == 0
    store.put("a.wav", wav(601.0))
    store.ingest()
    rates = read_rates(store.connection, n_cores=2)
    store.connection.rollback()
    assert rates.measured_s >= 601.0
    # 16 bits at 22,050 Hz.
    assert rates.audio_s(Group("wav", 1, 44_100 * 60)) == pytest.approx(60, rel=0.01)
    assert 1e-5 < rates.work < 0.5


def test_an_object_from_a_clock_that_is_ahead_settles_by_our_own(store: Store) -> None:
    store.put("a.wav", wav())
    store.source = store.source.model_copy(update={"settle_s": 0.5})
    store.plan()
    store.rows(
        "UPDATE spectralize.objects SET last_modified = now() + interval '1 h' WHERE bucket = %s RETURNING 1",
        store.source.bucket,
    )
    store.rows("UPDATE spectralize.objects SET listed_since = now() WHERE bucket = %s RETURNING 1", store.source.bucket)
    assert not has_work(store.connection, store.client, store.source)
    store.rows(
        "UPDATE spectralize.objects SET listed_since = now() - interval '1 s' WHERE bucket = %s RETURNING 1",
        store.source.bucket,
    )
    assert has_work(store.connection, store.client, store.source)


@pytest.fixture
def history(store: Store) -> dict[str, Batch]:
    """Two days of recordings, one of them no audio; then a second batch with another; then one is gone, one overwritten."""
    store.source = store.source.model_copy(update={"time_patterns": (DAY,)})
    for name in ("20240601_000000", "20240601_235959", "20240602_000000", "gone", "overwritten"):
        store.put(f"x/{name}.wav", wav(seed=1))
    store.put("x/noise.wav", b"no audio")
    first = store.ingest()
    store.put("y/20240603_000000.wav", wav(seed=2))
    store.delete("x/gone.wav")
    store.put("x/overwritten.wav", wav(seed=3))
    second = store.ingest()
    return {"first": first, "second": second}


def selected(store: Store, **fields: Any) -> list[str]:
    """The keys that a selection plans, by preview and by plan alike."""
    selection = Selection(**fields)
    seen = look(store, selection=selection)
    batch = store.plan(store.run(kind="reprocess"), selection=selection)
    keys = planned_keys(store, batch)
    assert (seen.counts.listed, seen.counts.planned) == (len(keys), len(keys))
    gate.close_batch(store.connection, batch.batch_id, store.source)
    # What was planned and not done leaves lines that later selections would see.
    store.rows("DELETE FROM spectralize.batch_objects WHERE batch_id = %s RETURNING 1", batch.batch_id)
    store.rows("DELETE FROM spectralize.alerts WHERE batch_id = %s RETURNING 1", batch.batch_id)
    store.rows("DELETE FROM spectralize.batches WHERE batch_id = %s RETURNING 1", batch.batch_id)
    return [key.removesuffix(".wav") for key in keys]


def test_a_selection_is_what_all_its_fields_say(store: Store, history: dict[str, Batch]) -> None:
    june = datetime(2024, 6, 1, tzinfo=UTC)
    everything = [
        "x/20240601_000000",
        "x/20240601_235959",
        "x/20240602_000000",
        "x/noise",
        "x/overwritten",
        "y/20240603_000000",
    ]
    assert selected(store) == everything
    assert selected(store, start=june, end=june + timedelta(days=1)) == everything[:2]
    assert selected(store, start=june + timedelta(days=1), key_glob="*/2024*") == [everything[2], everything[5]]
    assert selected(store, key_glob="X/*") == everything[:5]
    assert selected(store, batch_id=history["second"].batch_id) == everything[4:]
    assert selected(store, outcomes=("rejected", "failed")) == ["x/noise"]
    assert selected(store, outcomes=("loaded",), batch_id=history["first"].batch_id) == everything[:3]
    assert selected(store, reject_class="not_audio") == ["x/noise"]
    assert selected(store, reject_class="crashed") == []
    assert selected(store, core_version_older_than="0.0.9") == []
    assert selected(store, core_version_older_than="0.10") == everything
    store.rows("UPDATE spectralize.objects SET tombstoned_at = now() WHERE key = 'x/noise.wav' AND bucket = %s RETURNING 1",
               store.source.bucket)  # fmt: skip
    assert selected(store, reject_class="not_audio") == []


def test_reprocessing_makes_new_generations_in_turn_and_keeps_the_old(store: Store, history: dict[str, Batch]) -> None:
    done: list[str] = []
    for _ in range(3):
        batch = store.plan(store.run(kind="reprocess"), selection=Selection(outcomes=("loaded",)), max_objects=2)
        store.compute(batch)
        store.finish(batch)
        done += planned_keys(store, batch)
    assert len(done) == 6
    assert len(set(done)) == 5, "five are loaded: the sixth is the one that was computed longest ago"
    generations = store.rows(
        "SELECT count(*) FILTER (WHERE generation = 0), count(*) FILTER (WHERE generation = s.batch_id) "
        "FROM spectralize.spectrograms AS s JOIN spectralize.objects USING (object_id) WHERE bucket = %s", store.source.bucket,
    )  # fmt: skip
    assert generations == [(7, 6)]
    assert store.breaches() == {}


def test_a_profile_that_is_new_is_computed_for_what_is_selected(store: Store, history: dict[str, Batch]) -> None:
    selection = Selection(key_glob="y/*")
    assert look(store, selection=selection, profile="speech80_16k").n_recomputed == 0
    batch = store.plan(store.run(kind="reprocess"), selection=selection, profile="speech80_16k")
    store.compute(batch)
    assert store.finish(batch).counts.outcomes["loaded"] == 1
    profiles = store.rows(
        "SELECT profile, generation FROM spectralize.current_spectrograms WHERE key LIKE 'y/%%' AND bucket = %s ORDER BY 1",
        store.source.bucket,
    )
    assert profiles == [("mel128_22k", 0), ("speech80_16k", 0)]
    assert not has_work(store.connection, store.client, store.source)


def test_what_is_rejected_again_and_again_does_not_stand_in_the_way_of_the_rest(store: Store) -> None:
    for name in ("r0", "r1"):
        store.put(f"{name}.wav", b"no audio")
    for name in ("a", "b"):
        store.put(f"{name}.wav", wav())
    store.ingest()
    turns = [planned_keys(store, store.ingest(force=True, max_objects=1)) for _ in range(5)]
    assert sorted(key for turn in turns[:4] for key in turn) == ["a.wav", "b.wav", "r0.wav", "r1.wav"]
    assert turns[4] == turns[0]
    rejected = Selection(outcomes=("rejected",))
    turns = []
    for _ in range(2):
        batch = store.plan(store.run(kind="reprocess"), selection=rejected, max_objects=1)
        store.compute(batch)
        store.finish(batch)
        turns.append(planned_keys(store, batch))
    assert sorted(key for turn in turns for key in turn) == ["r0.wav", "r1.wav"]


def test_a_recording_that_was_rejected_once_and_loaded_later_is_computed_again_when_it_returns(store: Store) -> None:
    long = wav(3.0, seed=1)
    limited = store.source.model_copy(update={"max_duration_s": 2.0})
    unlimited, store.source = store.source, limited
    store.put("a.wav", long)
    assert store.ingest().counts.outcomes["rejected"] == 1
    store.source = unlimited
    batch = store.plan(store.run(kind="reprocess"), selection=Selection(reject_class="too_long"))
    store.compute(batch)
    assert store.finish(batch).counts.outcomes["loaded"] == 1
    store.put("a.wav", wav(seed=2))
    store.ingest()
    assert remove_superseded(store.connection, grace=timedelta(0)).n_spectrograms >= 1
    store.put("a.wav", long)
    assert store.ingest().counts.outcomes["loaded"] == 1
    assert store.breaches() == {}


def test_a_hostile_suffix_is_text_on_one_line(store: Store) -> None:
    store.put("a.w\x1b[2Jav\nlisted 0", wav())
    store.source = store.source.model_copy(update={"include": ("*",)})
    lines = look(store).lines()
    assert all(line.isprintable() for line in lines)
    assert "1 w\\x1b[2jav\\nlisted 0" in "\n".join(lines)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"last_day": "9999-12-31"}, "last_day = '9999-12-31': must be a date"),
        ({"first_day": "2024-06-31"}, "first_day = '2024-06-31': must be a date"),
        (
            {"first_day": "2024-06-02", "last_day": "2024-06-01"},
            "last_day = 2024-06-01: is before first_day (2024-06-02)",
        ),
        ({"outcomes": ["lost"]}, "outcome = 'lost': must be one of loaded"),
        ({"reject_class": "odd"}, "reject_class = 'odd': must be one of empty"),
        ({"core_version_older_than": "1.x"}, "must be a version such as"),
    ],
)
def test_a_form_that_makes_no_sense_is_one_clear_line(form: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        Selection.from_form(form)


def test_an_empty_form_selects_all_and_the_last_day_is_meant_whole() -> None:
    assert Selection.from_form({"first_day": None, "outcomes": [], "key_glob": ""}) == Selection()
    found = Selection.from_form({"first_day": "2024-06-01", "last_day": "2024-06-01"})
    assert (found.start, found.end) == (datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 6, 2, tzinfo=UTC))
