"""The page of a run, from the ledger in TimescaleDB to HTML."""

import base64
import hashlib
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from spectralize.database import connect
from spectralize.ledger import Run, open_batch, record_code
from spectralize.runreport import RunReport, read_run
from spectralize.version import CORE_VERSION
from spectralize.worker import run_slice
from tests.store import Store, wav

HOSTILE = "<script>alert(1)</script>.wav"
QUOTES = "\"onmouseover=alert(1) x='.wav"
BIDI = "gnp\u202e.wav"
INTERVAL = (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))


class Page(HTMLParser):
    """What a browser would make of a page: its tags, and its text outside the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.rows: list[list[str]] = []
        self._words: list[str] = []
        self._in_style = self._in_cell = False
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self._words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._in_style = tag == "style"
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self._words.append(data.strip())
            if self._in_cell:
                self.rows[-1][-1] += data.strip()


def report(store: Store, run: Run, **options: int) -> RunReport:
    with connect(store.dsn) as connection:
        return read_run(connection, run.dag_id, run.run_id, **options)


def show(store: Store, run: Run, **options: int) -> Page:
    return Page(render(store, run, **options))


def render(store: Store, run: Run, **options: int) -> str:
    from spectralize_run_page import render_run

    return render_run(report(store, run, **options), back="http://127.0.0.1/run")


@pytest.fixture
def run(store: Store) -> Run:
    """A run over two good recordings and three that are none."""
    for seed in range(2):
        store.put(f"good {seed}.wav", wav(1.0, seed=seed))
    for key in (HOSTILE, QUOTES, BIDI):
        store.put(key, b"no audio at all")
    return store.run(interval=INTERVAL, parameters={"note": "<b>bold</b>", "force": False})


def test_a_run_that_is_not_planned_yet_says_so(store: Store) -> None:
    page = show(store, store.run())
    assert "The ledger has no batch of this run: it has not been planned yet" in page.text
    assert page.rows == []


def test_a_database_that_nobody_has_migrated_has_no_batches(empty_dsn: str) -> None:
    with connect(empty_dsn) as connection:
        assert read_run(connection, "ingest_audio", "run") == RunReport("ingest_audio", "run")


def test_a_batch_whose_planning_broke_off_has_a_page(store: Store) -> None:
    run = store.run()
    open_batch(store.connection, store.source, run)
    store.connection.commit()
    page = show(store, run)
    assert "Read from nothing Wrote recordings 0" in page.text
    assert "Manifest none" in page.text
    assert "It has not been planned to its end." in page.text


def test_shows_sums_times_and_objects_of_each_try(store: Store, run: Run) -> None:
    batch = store.plan(run)
    page = show(store, run)
    assert "5 planned ≥ 0 loaded + 0 partial + 0 rejected + 0 failed" in page.text
    assert {row[2] for row in page.rows[1:]} == {"waiting"}

    store.compute(batch)
    store.finish(batch)
    page = show(store, run)
    assert "5 listed = 0 unchanged + 5 planned + 0 unsettled + 0 ignored + 0 over cap objects" in page.text
    assert "5 planned = 2 loaded + 0 partial + 3 rejected + 0 failed spectrograms" in page.text
    assert "2026-03-01 00:00:00 to 2026-03-02 00:00:00" in page.text
    assert 'note = "<b>bold</b>"' in page.text
    outcomes = [row[2] for row in page.rows[1:]]
    assert outcomes == ["rejected"] * 3 + ["loaded"] * 2
    [(spectrogram_id,)] = store.rows(
        "SELECT spectrogram_id FROM spectralize.current_spectrograms WHERE bucket = %s AND key = 'good 1.wav'",
        store.source.bucket,
    )
    sha256 = hashlib.sha256(wav(1.0, seed=1)).hexdigest()
    assert page.rows[-1] == [
        "good 1.wav", "mel128_22k", "loaded", "", "", "1", "0:01.0", "44", str(spectrogram_id), sha256[:12],
    ]  # fmt: skip
    assert page.rows[1][3] == "not_audio"

    store.put("good 2.wav", wav(1.0, seed=2))
    store.plan(run)
    page = show(store, run)
    first, second = (page.text.index(f"try {number}") for number in (2, 1))
    assert first < second
    assert "try 1, superseded by try 2" in page.text


def test_keys_and_parameters_are_text_and_nothing_else(store: Store, run: Run) -> None:
    store.plan(store.run(run_id="</title><script>", parameters={"<img src=x>": "<script>"}))
    page = show(store, store.runs[-1])
    assert {row[0] for row in page.rows[1:]} >= {HOSTILE, QUOTES, "gnp\\u202e.wav"}
    assert "</title><script>" in page.text
    assert page.tags.isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for name in page.attributes)


def test_the_lineage_of_each_try_says_what_it_read_wrote_and_ran(store: Store) -> None:
    store.put("in/<i>a.wav", wav(1.0, seed=1))
    store.put("in/<i>b.wav", wav(2.0, seed=2))
    run = store.run(parameters={"force": True})
    batch = store.plan(run)
    # Before the first attempt the batch alone knows its code.
    assert f"core {CORE_VERSION}, not shipped: no attempt yet" in show(store, run).text
    manifest = store.manifest(batch)
    for zip_sha256, planned in zip(("a" * 64, "b" * 64), manifest.objects, strict=True):
        record_code(store.connection, batch.batch_id, zip_sha256)
        store.connection.commit()
        run_slice(store.work(manifest), [planned])
    store.finish(batch)
    page = show(store, run)
    [(digest,)] = store.rows("SELECT manifest_sha256 FROM spectralize.batches WHERE batch_id = %s", batch.batch_id)
    [(fingerprint,)] = store.rows("SELECT fingerprint FROM spectralize.profiles WHERE name = 'mel128_22k'")
    for text in (
        f"s3://{store.source.bucket}/in/<i> * 2 objects, ",
        " bytes planned of 2 listed",
        "recordings 2 spectrograms 2 mel_frames 131 waveform_frames 131 mel_seconds 3",
        "force = true",
        f"core {CORE_VERSION}, zip {'a' * 64} : 1 attempt, 1 loaded core {CORE_VERSION}, zip {'b' * 64} : 1 attempt, 1 loaded",
        f"mel128_22k {fingerprint} 2 planned",
        f"s3://{store.source.bucket}-manifests/test/{batch.batch_id}.jsonl SHA-256 {digest}",
    ):
        assert text.replace(" *", "*") in page.text, page.text
    assert page.tags.isdisjoint({"script", "i"})
    # The newest try has the anchor that links lead to; no id is there twice.
    store.plan(run)
    html = render(store, run)
    ids = re.findall(r'id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert {"lineage", f"lineage-{batch.batch_id}"} <= set(ids)
    assert html.index('id="lineage"') < html.index(f'id="lineage-{batch.batch_id}"')


def test_what_is_left_out_is_counted(store: Store, run: Run) -> None:
    store.plan(run)
    page = show(store, run, max_lines=2)
    assert len(page.rows) - 1 == 2
    assert "3 of 5 lines are left out here. All of them: spectralize status" in page.text
    assert "left out" not in show(store, run, max_lines=5).text


def test_reading_is_read_only_and_bounded_in_time(store: Store, run: Run) -> None:
    settings = []
    with connect(store.dsn) as connection:
        execute = connection.cursor_factory.execute

        class Spy(connection.cursor_factory):  # type: ignore[misc, name-defined]
            def execute(self, query: object, *values: object, **options: object) -> object:
                done = execute(self, query, *values, **options)
                if "FROM spectralize.batches" in str(query):
                    with self.connection.cursor() as cursor:
                        execute(
                            cursor,
                            "SELECT current_setting('transaction_read_only'), current_setting('statement_timeout')",
                        )
                        settings.append(cursor.fetchone())
                return done

        connection.cursor_factory = Spy
        read_run(connection, run.dag_id, run.run_id)
    assert settings == [("on", "10s")]


def test_the_policy_allows_its_own_style_sheet_and_nothing_else() -> None:
    from spectralize_run_page import headers, render_message

    html = render_message("Error 401", "Not <b>authenticated</b>", link=("http://127.0.0.1/?next=%2F", "Log in"))
    policy = dict(part.split(" ", 1) for part in headers()["Content-Security-Policy"].split("; "))
    found = re.search("<style>(.*)</style>", html, re.DOTALL)
    assert found
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert policy["style-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'"
    assert "b" not in Page(html).tags


@pytest.mark.parametrize(
    ("dag_id", "run_id", "path"),
    [
        (
            "ingest_audio",
            "manual__2026-11-23T00:11:15+00:00",
            "ingest_audio/runs/manual__2026-11-23T00%3A11%3A15%2B00%3A00",
        ),
        ("a/b", "c/?#", "a%2Fb/runs/c%2F%3F%23"),
    ],
)
def test_an_address_holds_any_id(dag_id: str, run_id: str, path: str) -> None:
    from spectralize.airflowlinks import page_address

    assert page_address("https://host/airflow/", dag_id, run_id) == f"https://host/airflow/spectralize/dags/{path}"
