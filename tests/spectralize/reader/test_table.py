"""The table of recordings against the recordings themselves, on a store where everything that can happen has happened."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from spectralize import gate, open_store
from spectralize.database import connect
from spectralize.errors import ReadError
from spectralize.expiry import mark_expired
from spectralize.forget import forget
from spectralize.ledger import Batch
from spectralize.reader import Recording, table
from spectralize.reader import Store as Reader
from spectralize.reader.catalogue import make_filters
from spectralize.reader.question import SORTS, Question
from spectralize.reader.table import Row, Table, read_choices, read_table
from spectralize.selection import Selection
from spectralize.tables import OUTCOMES, TAG_COLUMNS
from spectralize.worker import run_slice
from tests.spectralize.reader.conftest import bucket_of
from tests.spectralize.test_tags import tagged
from tests.store import Store, encode, make_samples, wav

NOTHING: dict[str, Any] = dict.fromkeys(
    ("text", "bucket", "key_prefix", "tags", "recorded_from", "recorded_to", "min_duration_s", "max_duration_s", "profile")
)  # fmt: skip

PROFILES = ("mel128_22k", "speech80_16k")
#: What a batch does not come to, and the next one does not either.
LOST = "2021/03/05/lost.wav"

FIRST = {
    "2021/03/04/good.wav": wav(1.0, seed=1),
    "2021/03/04/overwritten.wav": wav(1.2, seed=2),
    "2021/03/05/spoiled.wav": wav(1.4, seed=3),
    "2021/03/05/mended.wav": wav(1.6, seed=4),
    "2021/03/06/gone.wav": wav(1.8, seed=5),
    "2021/03/06/expired.wav": wav(2.0, seed=6),
    "2021/03/06/half_expired.wav": wav(2.1, seed=6),
    "2021/03/07/forgotten.wav": wav(2.2, seed=7),
    "2021/03/07/cut.flac": encode(make_samples(6.0, sr=44_100, seed=8), 44_100, "FLAC")[:120_000],
    "2021/03/07/empty.wav": b"",
    "music/100%_So [what]\n.mp3": tagged({"title": "so what", "artist": "Miles", "genre": "jazz", "date": "1959"}),
    "music/blue.mp3": tagged({"title": "So What", "artist": "bill", "track": "2/5", "comment": "<b>ÄRGER</b>"}),
    LOST: wav(1.0, seed=9),
}
SECOND = {
    "2021/03/04/overwritten.wav": wav(2.4, seed=10),
    "2021/03/05/spoiled.wav": b"",
    "single.wav": wav(0.7, seed=11),
}


def compute_all_but(store: Store, batch: Batch, *left_out: str) -> None:
    objects = [item for item in store.manifest(batch).objects if item.key not in left_out]
    run_slice(store.work(store.manifest(batch)), objects)
    close(store, batch)


def close(store: Store, batch: Batch) -> None:
    """Without the thresholds, which so many failures would break."""
    gate.settle_batch(store.connection, batch.batch_id, store.source)
    store.connection.commit()
    gate.close_batch(store.connection, batch.batch_id, store.source)


@pytest.fixture(scope="module")
def mixed(dsn: str, aws: None) -> Iterator[Store]:
    """Two buckets; the first with whatever may become of an object."""
    pattern = r"(?P<year>\d{4})/(?P<month>\d{2})/(?P<day>\d{2})"
    with (
        bucket_of(dsn, "table", profiles=PROFILES, time_patterns=(pattern,), max_failures=100) as store,
        bucket_of(dsn, "other") as other,
    ):
        for key, data in FIRST.items():
            store.put(key, data)
        compute_all_but(store, store.plan(), "2021/03/05/mended.wav", LOST)
        for key, data in SECOND.items():
            store.put(key, data)
        store.delete("2021/03/06/gone.wav")
        compute_all_but(store, store.plan(), LOST)
        # Forced, and it fails: what there is stays.
        close(store, store.plan(force=True, profile=PROFILES[0], selection=Selection(key_glob="*/good.wav")))
        forget(store.connection, store.source.bucket, "2021/03/07/forgotten.wav")
        ids = [
            number for number, in store.rows(
                "SELECT spectrogram_id FROM spectralize.current_spectrograms WHERE key LIKE '%%/expired.wav' "
                "OR (key LIKE '%%/half_expired.wav' AND profile = %s)", PROFILES[1])
        ]  # fmt: skip
        assert len(ids) == 3
        mark_expired(store.connection, ids, "retention")
        store.connection.commit()
        other.put("2021/03/04/good.wav", wav(1.0, seed=1))
        other.ingest()
        yield store


@pytest.fixture
def reader(mixed: Store) -> Iterator[Reader]:
    with open_store(mixed.dsn) as reader:
        yield reader


def make_question(
    filters: dict[str, Any], outcome: tuple[str, ...] = OUTCOMES, formats: tuple[str, ...] = (), **page: Any
) -> Question:
    return Question(make_filters(**NOTHING | filters, outcome=outcome), formats, **page)


def ask(reader: Reader, filters: dict[str, Any], outcome: tuple[str, ...] = OUTCOMES, **page: Any) -> Table:
    question = make_question(filters, outcome, **page)
    return reader.session.run(lambda connection: read_table(connection, question))


def outcome_of(recording: Recording, profile: str | None) -> str:
    if profile is None:
        return recording.outcome
    if profile in recording.spectrograms:
        return "loaded" if recording.spectrograms[profile].status == "complete" else "partial"
    return recording.refusals[profile][0]


FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"bucket": "another"},
    {"text": "miles SO"},
    {"text": "so what so"},
    {"text": "100%_so"},
    {"text": "100_so"},
    {"text": "\\"},
    {"text": "ÄRGER"},
    {"text": "wav"},
    {"text": "nowhere"},
    {"recorded_from": "2021-03-05", "recorded_to": "2021-03-07"},
    {"recorded_to": "2021-03-05"},
    {"min_duration_s": 1.0, "max_duration_s": 1.6},
    {"min_duration_s": 2},
    {"profile": PROFILES[0]},
    {"profile": PROFILES[1]},
    {"profile": PROFILES[1], "text": "expired", "recorded_from": "2021-03-06"},
)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("few", [0, 1_000])
def test_it_has_the_recordings_that_the_store_has(
    reader: Reader, filters: dict[str, Any], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_FEW", few)
    profile = filters.get("profile")
    expected = {
        recording.id: outcome_of(recording, profile)
        for recording in reader.recordings(**filters, outcome=OUTCOMES)
        if profile is None or profile in {*recording.spectrograms, *recording.refusals}
    }
    counts = dict.fromkeys(OUTCOMES, 0) | Counter(expected.values())
    for outcomes in (OUTCOMES, ("loaded",), ("rejected", "failed"), ("partial", "loaded")):
        found = ask(reader, filters, outcomes)
        wanted = {number: outcome for number, outcome in expected.items() if outcome in outcomes}
        assert {row.id: row.outcome for row in found.rows} == wanted
        assert (found.total, found.counts) == (len(wanted), counts)


def test_the_store_has_one_of_each_kind(reader: Reader, mixed: Store) -> None:
    found = ask(reader, {"bucket": mixed.source.bucket}, limit=100)
    outcomes = [(row.key.rpartition("/")[2], row.outcome) for row in found.rows]
    assert Counter(outcomes) == Counter({
        ("good.wav", "loaded"): 1, ("overwritten.wav", "loaded"): 1, ("mended.wav", "loaded"): 1, ("gone.wav", "loaded"): 1,
        ("half_expired.wav", "loaded"): 1, ("cut.flac", "partial"): 1, ("empty.wav", "rejected"): 1,
        # What can be read of a key, and what became of it since.
        ("spoiled.wav", "loaded"): 1, ("spoiled.wav", "rejected"): 1,
        ("100%_So [what]\n.mp3", "loaded"): 1, ("blue.mp3", "loaded"): 1, ("lost.wav", "failed"): 1, ("single.wav", "loaded"): 1,
    })  # fmt: skip
    assert [row.key for row in found.rows if row.is_gone] == ["2021/03/06/gone.wav"]
    assert mixed.rows("TABLE spectralize.catalogue EXCEPT TABLE spectralize.catalogue_now") == []
    assert mixed.rows("TABLE spectralize.catalogue_now EXCEPT TABLE spectralize.catalogue") == []


def test_a_row_says_what_the_recording_says(reader: Reader) -> None:
    for row in ask(reader, {}, limit=100).rows:
        recording = reader.recording(row.id)
        assert (row.bucket, row.key) == (recording.bucket, recording.key)
        values = {
            "key": recording.key, "outcome": recording.outcome, "duration_s": recording.duration_s,
            "size_bytes": recording.size_bytes, "samplerate_hz": recording.decoded_samplerate_hz,
            "n_channels": recording.decoded_channels, "container": recording.container, "codec": recording.decoded_codec,
            "last_modified": recording.last_modified,
        }  # fmt: skip
        values |= {name: recording.tags.get(name) for name in TAG_COLUMNS}
        assert {name: value for name, value in row.values.items() if name != "recorded_at"} == values
        if row.spectrogram_id is None:
            assert recording.refusals[row.profile] == (row.outcome, row.reason_class, row.reason)
        else:
            assert row.values["recorded_at"] == recording.recorded_at
            spectrogram = recording.spectrograms[row.profile]
            assert (row.spectrogram_id, row.reason) == (spectrogram.spectrogram_id, spectrogram.reason)
            assert row.reason_class == ("damaged" if row.outcome == "partial" else None)


def place(row: Row, sort: str) -> Any:
    value = row.values[sort]
    if sort == "outcome":
        return OUTCOMES.index(value)
    return (value.encode().lower(), value.encode()) if isinstance(value, str) and sort != "key" else value


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("is_descending", [False, True])
def test_pages_in_any_order(reader: Reader, sort: str, is_descending: bool) -> None:
    everything = ask(reader, {}, limit=100).rows
    by_key = sorted(everything, key=lambda row: (row.bucket, row.key.encode(), row.id))
    assert list(everything) == by_key
    if sort == "key":
        expected = by_key[::-1] if is_descending else by_key
    else:
        valued = [row for row in by_key if row.values[sort] is not None]
        # Stable, also the wrong way round.
        expected = sorted(valued, key=lambda row: place(row, sort), reverse=is_descending)
        expected += [row for row in by_key if row.values[sort] is None]
    found: list[Row] = []
    for offset in range(0, len(expected), 3):
        page = ask(reader, {}, sort=sort, is_descending=is_descending, offset=offset, limit=3)
        assert page.offset == offset
        found += page.rows
    assert [row.id for row in found] == [row.id for row in expected]


def test_beyond_the_end_is_the_last_page(reader: Reader) -> None:
    total = ask(reader, {}).total
    last = ask(reader, {}, offset=10**9, limit=3)
    assert last.offset == (total - 1) // 3 * 3
    assert len(last.rows) == total - last.offset
    nothing = ask(reader, {"text": "nowhere"}, offset=50)
    assert (nothing.rows, nothing.offset, nothing.total) == ((), 0, 0)


def test_formats_are_containers_or_codecs(reader: Reader, mixed: Store) -> None:
    choices = reader.session.run(read_choices)
    assert set(choices.profiles) == set(PROFILES)
    assert mixed.source.bucket in choices.buckets
    assert choices.n_recordings == ask(reader, {}).total
    assert {"mp3", "flac", "wav", "pcm_s16le"} <= set(choices.formats)
    for formats in (("mp3",), ("pcm_s16le", "flac"), ("nothing",)):
        expected = {
            recording.id for recording in reader.recordings(outcome=OUTCOMES)
            if {recording.container, recording.decoded_codec} & set(formats)
        }  # fmt: skip
        assert {row.id for row in ask(reader, {}, formats=formats, limit=100).rows} == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sort": "key; DROP TABLE"}, "sort = 'key; DROP TABLE': must be one of key, outcome"),
        ({"limit": 101}, "limit = 101: must be 1 to 100 rows"),
        ({"limit": 0}, "limit = 0"),
        ({"offset": -1}, "offset = -1: must be 0 or more"),
        ({"offset": 10**30}, "must be 0 or more"),
        ({"filters": {"text": "x" * 201}}, "text of 201 characters: must be 200 at most"),
        ({"filters": {"tags": {"genre": "jazz"}}}, "not filtered by single tags"),
        ({"formats": ("a\x00",)}, "NUL"),
        ({"filters": {"profile": "nothing"}}, "profile 'nothing': nothing in the store has it; there are mel128_22k, speech"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(reader: Reader, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=re.escape(message)):
        ask(reader, **{"filters": {}} | asked)


def test_it_changes_nothing_and_ends_in_time(reader: Reader, mixed: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_TIMEOUT", "1ms")
    monkeypatch.setattr(table, "_COUNT", f"SELECT pg_sleep(9) FROM ({table._COUNT}) AS counted")
    with pytest.raises(ReadError, match="that takes longer than 1ms: ask for fewer words"):
        ask(reader, {})
    monkeypatch.undo()
    assert ask(reader, {}).total
    assert reader.session.run(lambda connection: connection.execute("SHOW statement_timeout").fetchone()) == ("0",)


def test_two_who_settle_profiles_of_one_object_see_each_other(dsn: str, aws: None) -> None:
    """Each would else leave what the other had not committed out of the row."""
    fail = (
        "UPDATE spectralize.batch_objects SET outcome = 'failed', reason_class = 'x', reason = 'x' "
        "WHERE batch_id = %s AND profile_id = (SELECT profile_id FROM spectralize.profiles WHERE name = %s)"
    )
    with bucket_of(dsn, "race", profiles=PROFILES) as store:
        store.put("contested.wav", wav(0.5))
        batch = store.plan()
        assert store.rows("SELECT FROM spectralize.catalogue WHERE key = 'contested.wav'") == []

        def settle(profile: str) -> None:
            with connect(dsn) as connection:
                connection.execute(fail, (batch.batch_id, profile))
                connection.commit()

        with connect(dsn) as first:
            first.execute(fail, (batch.batch_id, PROFILES[0]))
            second = threading.Thread(target=settle, args=(PROFILES[1],))
            second.start()
            wait_for_lock(store.connection)
            first.commit()
        second.join(30)
        assert not second.is_alive()
        assert store.rows("SELECT cardinality(failed_for) FROM spectralize.catalogue WHERE key = 'contested.wav'") == [
            (2,)
        ]
        # The batch can be computed as if nothing had happened.
        store.compute(batch)
        assert store.rows(
            "SELECT outcome, cardinality(loaded_for) FROM spectralize.catalogue WHERE key = 'contested.wav'"
        ) == [("loaded", 2)]
        store.finish(batch)


def wait_for_lock(connection: psycopg.Connection[Any]) -> None:
    for _ in range(1_000):
        waiting = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
        connection.commit()
        if waiting and waiting[0]:
            return
        threading.Event().wait(0.01)
    raise AssertionError("nobody waits")
