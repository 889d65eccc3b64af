"""The pages of batches: what they read, how much of it, and that hostile text stays text."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from dash.development.base_component import Component

from spectralize import open_store
from spectralize.database import connect
from spectralize.errors import ReadError
from spectralize.explorer.callbacks import batches
from spectralize.explorer.context import Explorer
from spectralize.explorer.layout import parts
from spectralize.explorer.layout.batches import count_cell, rates
from spectralize.explorer.settings import Settings
from spectralize.explorer.visits import Visit, read_query
from spectralize.ledgerpages import ORDER, AudioSums, read_batch_page, read_line_counts, read_lines
from tests.explorer.looking import addresses, by_id, rows, texts, walk

HOSTILE = '<img src=x onerror=alert(1)>/\u202enew\nline & "quote".wav'
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

BATCH = """
INSERT INTO spectralize.batches (source, dag_id, run_id, try, kind, state, failure, core_version, listed, unchanged, planned,
    unsettled, ignored, over_cap, planned_spectrograms, loaded, partial, rejected, failed, opened_at, planned_at, gated_at,
    closed_at)
VALUES (%(source)s, 'ingest_audio', %(run)s, %(try)s, 'scheduled', %(state)s, %(failure)s, '0.1', %(n)s, 0, %(n)s, 0, 0, 0, %(n)s,
    0, 0, %(rejected)s, %(failed)s, %(at)s, %(at)s, %(at)s + INTERVAL '10 s', %(at)s + INTERVAL '11 s')
RETURNING batch_id
"""

#: Of three thousand lines every tenth is rejected, every hundredth failed; the rest is pending, which needs no spectrogram.
LINES = """
WITH objects AS (
    INSERT INTO spectralize.objects (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin)
    SELECT 'b', CASE WHEN i = 100 THEN %(hostile)s ELSE 'key ' || lpad(i::text, 4, '0') END, i::text, 1, now(), now(), 'key'
    FROM generate_series(1, 3000) AS i RETURNING object_id, etag::integer AS i
)
INSERT INTO spectralize.batch_objects (batch_id, object_id, profile_id, generation, outcome, reason_class, reason, attempts)
SELECT %(batch_id)s, object_id, %(profile_id)s, 0,
       CASE WHEN i %% 100 = 0 THEN 'failed' WHEN i %% 10 = 0 THEN 'rejected' END,
       CASE WHEN i %% 100 = 0 THEN 'SlowDown' WHEN i %% 20 = 0 THEN 'empty' WHEN i %% 10 = 0 THEN 'not_audio' END,
       CASE WHEN i = 100 THEN %(hostile)s WHEN i %% 10 = 0 THEN 'why' END, 1
FROM objects
"""


def add_batch(connection: psycopg.Connection[Any], run: str, **values: Any) -> int:
    values = {
        "source": "audio",
        "try": 1,
        "state": "success",
        "failure": None,
        "n": 0,
        "rejected": 0,
        "failed": 0,
    } | values
    row = connection.execute(BATCH, values | {"run": run, "at": AT}).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture(scope="module")
def ledger(dsn: str) -> dict[str, int]:
    """A store with 120 small batches, a failed one of 3,000 objects, and a second try of it."""
    with connect(dsn) as connection:
        for number in range(120):
            add_batch(connection, f"small_{number}", source="field" if number % 4 else "audio")
        big = add_batch(
            connection, "big", state="failed", failure=f"too many: {HOSTILE}", n=3000, rejected=270, failed=30
        )
        again = add_batch(connection, "big", **{"try": 2})
        [[profile_id]] = connection.execute(
            "INSERT INTO spectralize.profiles (name, fingerprint, parameters) VALUES ('p', 'f', '{}') RETURNING profile_id"
        ).fetchall()
        connection.execute(LINES, {"batch_id": big, "profile_id": profile_id, "hostile": HOSTILE})
    return {"big": big, "again": again}


@pytest.fixture
def explorer(dsn: str, ledger: dict[str, int]) -> Explorer:
    return open_explorer(dsn)


def open_explorer(dsn: str, airflow_url: str = "https://airflow.example/base/") -> Explorer:
    return Explorer(Settings(airflow_url=airflow_url), open_store(dsn))


def visit(path: str, search: str = "") -> Visit:
    return Visit(path, read_query(search))


def test_batches_are_listed_newest_first_and_by_pages(explorer: Explorer, ledger: dict[str, int]) -> None:
    page = batches.render_list(explorer, visit("/batches"))
    listed = rows(by_id(page, "batches-table"))
    assert [listed[0][0], listed[1][0]] == [str(ledger["again"]), str(ledger["big"])]
    assert len(listed) == 50
    assert texts(by_id(page, "batches-count")) == ["122 batches"]
    assert {"/batches?page=2", "/batches?page=3"} <= addresses(by_id(page, "batches-pages"))

    last = batches.render_list(explorer, visit("/batches", "?page=3"))
    assert len(rows(by_id(last, "batches-table"))) == 22
    # An address of when there were more: the last page, not an empty one.
    assert rows(by_id(batches.render_list(explorer, visit("/batches", "?page=999")), "batches-table")) == rows(
        by_id(last, "batches-table")
    )


def test_a_failed_batch_says_why_in_the_list(explorer: Explorer) -> None:
    table = by_id(batches.render_list(explorer, visit("/batches", "?state=failed")), "batches-table")
    assert rows(table)[0][3] == "failed"
    assert any("onerror" in text and "\\u202e" in text and "\n" not in text for text in texts(table))
    assert rows(table)[0][10:12] == ["270", "30"]


def test_filters_are_kept_by_the_links_to_other_pages(explorer: Explorer) -> None:
    page = batches.render_list(explorer, visit("/batches", "?source=field&state=success"))
    assert texts(by_id(page, "batches-count")) == ["90 batches"]
    assert {row[1] for row in rows(by_id(page, "batches-table"))} == {"field"}
    assert "/batches?source=field&state=success&page=2" in addresses(by_id(page, "batches-pages"))
    assert by_id(page, "batches-source").data == ["audio", "field"]


@pytest.mark.parametrize("search", ["?source=nobody", "?source=%00", "?state=open", "?source=nobody&page=0&page=-1"])
def test_nothing_found_is_said(explorer: Explorer, search: str) -> None:
    if "%00" in search:
        # No text of the database holds NUL: an error that the shell shows as a page.
        with pytest.raises(ReadError):
            batches.render_list(explorer, visit("/batches", search))
        return
    assert texts(by_id(batches.render_list(explorer, visit("/batches", search)), "batches-none")) == [
        "No batch is like that."
    ]


def test_a_batch_shows_its_sums_and_what_to_do(explorer: Explorer, ledger: dict[str, int]) -> None:
    page = batches.render_batch(explorer, visit(f"/batches/{ledger['big']}"), str(ledger["big"]))
    sums = rows(by_id(page, "batch-sums"))
    assert all(row in sums for row in (["Objects listed", "3\u202f000"], ["+ rejected", "270"], ["+ failed", "30"]))
    assert all(row in sums for row in (["+ pending", "2\u202f700"], ["+ partial", "0"]))
    classes = rows(by_id(page, "batch-classes"))
    assert [row[:3] for row in classes] == [
        ["rejected", "not_audio", "150"], ["rejected", "empty", "120"], ["failed", "SlowDown", "30"],
    ]  # fmt: skip
    # The source "audio" is configured: at most 20 % may be rejected, and no failure is tolerated.
    assert [row[3] for row in rows(by_id(page, "batch-gate"))] == ["does not hold", "does not hold", "holds"]

    assert by_id(page, "batch-reprocess").href == "https://airflow.example/base/dags/reprocess_audio"
    [values] = texts(by_id(page, "batch-reprocess-values"))
    assert json.loads(values) == {
        "source": "audio", "batch_id": ledger["big"], "outcomes": ["rejected", "failed"], "dry_run": True,
    }  # fmt: skip
    assert by_id(page, "batch-reprocess-copy").value == values
    assert {
        "https://airflow.example/base/dags/ingest_audio/runs/big",
        "https://airflow.example/base/spectralize/dags/ingest_audio/runs/big",
        f"/batches/{ledger['again']}",
    } <= addresses(by_id(page, "batch-facts"))


def test_without_an_address_of_airflow_the_page_says_how_to_set_it(dsn: str, ledger: dict[str, int]) -> None:
    page = batches.render_batch(open_explorer(dsn, ""), visit(f"/batches/{ledger['big']}"), str(ledger["big"]))
    assert "SPECTRALIZE_AIRFLOW_URL" in "".join(texts(by_id(page, "batch-reprocess")))
    assert not any(address.startswith("http") for address in addresses(page))


def test_objects_come_worst_first_and_by_pages(explorer: Explorer, ledger: dict[str, int]) -> None:
    number = ledger["big"]
    page = batches.render_batch(explorer, visit(f"/batches/{number}"), str(number))
    shown = rows(by_id(page, "batch-lines"))
    assert [row[2] for row in shown] == ["failed"] * 30 + ["rejected"] * 70
    assert addresses(by_id(page, "batch-outcomes")) == {
        f"/batches/{number}", *(f"/batches/{number}?outcome={name}" for name in ("failed", "rejected", "pending")),
    }  # fmt: skip

    assert "pending 2\u202f700" in texts(by_id(page, "batch-outcomes"))

    # Every object is on one page, once.
    seen = []
    for at in range(1, 31):
        seen += rows(by_id(batches.render_batch(explorer, visit("", f"?page={at}"), str(number)), "batch-lines"))
    assert len(seen) == len({row[0] for row in seen}) == 3000
    order = [word or "pending" for word in ORDER]
    assert [order.index(row[2]) for row in seen] == sorted(order.index(row[2]) for row in seen)

    last = rows(
        by_id(batches.render_batch(explorer, visit("", "?outcome=rejected&page=99"), str(number)), "batch-lines")
    )
    assert [row[2] for row in last] == ["rejected"] * 70


def test_hostile_keys_and_reasons_are_text(explorer: Explorer, ledger: dict[str, int]) -> None:
    page = batches.render_batch(explorer, visit("", "?outcome=failed"), str(ledger["big"]))
    first = rows(by_id(page, "batch-lines"))[0]
    assert first[0] == first[4] == '<img src=x onerror=alert(1)>/\\u202enew\\nline & "quote".wav'
    # As children of components, which React escapes; nothing on the page takes markup.
    names = {type(item).__name__ for item in walk(page) if isinstance(item, Component)}
    assert not names & {"Markdown", "DangerouslySetInnerHTML", "Iframe"}
    assert all("img" not in address for address in addresses(page))


def test_a_page_reads_what_it_shows_and_no_more(dsn: str, ledger: dict[str, int]) -> None:
    with connect(dsn, autocommit=True, read_only=True) as connection:
        counts = read_line_counts(connection, ledger["big"])
        assert counts.outcomes == {None: 2700, "rejected": 270, "failed": 30}
        read: list[int] = []

        class CountingCursor(psycopg.Cursor[Any]):
            def execute(self, *args: Any, **more: Any) -> Any:
                super().execute(*args, **more)
                read.append(self.rowcount)
                return self

        connection.cursor_factory = CountingCursor
        # The 30 failed, and 70 of the rejected: a statement of each, and no row beside those shown.
        assert len(read_lines(connection, ledger["big"], counts, ORDER, limit=100, offset=0)) == 100
        assert read == [30, 70]
        del read[:]
        read_lines(connection, ledger["big"], counts, ORDER, limit=100, offset=2900)
        assert read == [100]
        del read[:]
        # The page, the audio of its batches (none has any), how many there are, and the two sources.
        assert len(read_batch_page(connection, limit=50, offset=50).batches) == 50
        assert read == [50, 0, 1, 2]


def test_audio_of_a_closed_batch_is_summed_up_once(dsn: str, ledger: dict[str, int]) -> None:
    sums = AudioSums(most=2)
    closed = [{"batch_id": number, "closed_at": AT} for number in (1, 2, 3)]
    with connect(dsn, autocommit=True, read_only=True) as connection:
        assert sums.read(connection, closed) == {}
        assert [number for _, number in sums._known] == [2, 3]
        assert sums.read(connection, [{"batch_id": 4, "closed_at": None}]) == {}
        assert [number for _, number in sums._known] == [2, 3]


def test_there_is_no_batch(explorer: Explorer) -> None:
    for number in ("999999999", "9" * 19):
        with pytest.raises(ReadError, match=f"no batch {number}"):
            batches.render_batch(explorer, visit(""), number)


def test_rates_are_of_the_time_between_plan_and_gate() -> None:
    batch = {"planned_at": AT, "gated_at": AT + timedelta(seconds=20), "audio_s": 3600.0, "n_recordings": 10}
    assert rates(batch) == (180.0, 0.5)
    assert rates(batch | {"gated_at": None}) is None
    assert rates(batch | {"gated_at": AT}) is None
    assert rates(batch | {"n_recordings": 0}) is None


def test_only_what_is_bad_stands_out() -> None:
    assert [type(count_cell(outcome, n)).__name__ for outcome, n in (("failed", 1), ("failed", 0), ("loaded", 1))] == [
        "Badge", "Text", "str",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.512, "0.51\xa0s"),
        (59.96, "60.0\xa0s"),
        (75.5, "1:15.5"),
        (3599.97, "1:00:00"),
        (360_000, "100:00:00"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert parts.duration_text(seconds) == text


def test_hostile_text_has_an_end_and_one_line() -> None:
    assert parts.plain("a\nb\x1b[31m\u202e") == "a\\nb\\x1b[31m\\u202e"
    assert len(parts.plain("x" * 100_000)) == 1000
    assert parts.plain("") == parts.plain(None) == "–"
