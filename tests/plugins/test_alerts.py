"""What alerts say, and how they are sent: rendered here, sent from a process that has Airflow to real receivers."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.paths import REPO
from spectralize.alerts import Alert
from spectralize_messages import Addresses, Message, render_alert
from tests.receivers import SECRET, Receivers, free_port, open_receivers
from tests.store import Store

BATCH = {
    "batch_id": 17, "source": "field", "dag_id": "ingest_field", "run_id": "scheduled__2024-06-02", "try": 2, "kind": "scheduled",
    "interval_start": "2024-06-01T00:00:00+00:00", "interval_end": "2024-06-02T00:00:00+00:00",
    "opened_at": "2024-06-02T00:00:03+00:00", "planned_at": None, "closed_at": "2024-06-02T00:10:00+00:00", "state": "failed",
    "failure": "21 of 100 were rejected, more than 10 and more than 20%", "core_version": "9.9.9",
    "code_zip_sha256": "ab" * 32, "planned_spectrograms": 100,
    "listing": {"ignored": 3, "listed": 120, "over_cap": 0, "planned": 100, "unchanged": 17, "unsettled": 0},
    "outcomes": {"failed": 0, "loaded": 79, "partial": 0, "rejected": 21, "waiting": 0},
    "classes": [{"outcome": "rejected", "reason_class": "not_audio", "count": 21}],
    "examples": [{
        "bucket": "field", "key": "a/<img src=x>.mp3", "profile": "mel128_22k", "outcome": "rejected",
        "reason_class": "not_audio", "reason": "FFmpeg finds no <audio> container",
    }],
    "errors": {"gate": "batch 17 of field: 21 of 100 were rejected", "close_batch": "batch 17 of field failed"},
}  # fmt: skip

ALERT = Alert(
    alert_id=1, kind="failed", batch_id=17, scope="field", owner="biologists", dag_id="ingest_field",
    run_id="scheduled__2024-06-02", facts=BATCH, created_at=datetime(2024, 6, 2, tzinfo=UTC), reached=(), tries=0,
)  # fmt: skip

ADDRESSES = Addresses("http://airflow.example.org/", "http://explorer.example.org/")


def test_a_failed_batch_says_what_failed_why_and_what_now() -> None:
    message = render_alert(ALERT, ADDRESSES)
    assert message.title == "batch 17 of field failed: 21 of 100 were rejected, more than 10 and more than 20%"
    assert message.text == (
        """\
batch 17 of field failed: 21 of 100 were rejected, more than 10 and more than 20%

Source:    field
Batch:     17 (scheduled, try 2), opened 2024-06-02 00:00 UTC, closed 2024-06-02 00:10 UTC
Run:       scheduled__2024-06-02 of ingest_field
Interval:  2024-06-01 00:00 UTC to 2024-06-02 00:00 UTC
Code:      core 9.9.9, zip abababababab
Listed 120 = unchanged 17 + planned 100 + unsettled 0 + ignored 3 + over cap 0
Planned 100 = loaded 79 + partial 0 + rejected 21 + failed 0

By class:
  21 rejected: not_audio

First objects:
  rejected s3://field/a/<img src=x>.mp3 (mel128_22k)
    not_audio: FFmpeg finds no <audio> container

What to do:
  Look at the rejected objects. They stay rejected and are not tried again, so the next run will pass. If files of that kind """
        """are expected here, raise max_rejected or max_rejected_share of the source, or exclude them; once the cause is """
        """mended, the DAG reprocess_audio computes them again.

Run in Airflow: http://airflow.example.org/dags/ingest_field/runs/scheduled__2024-06-02
Batch, objects and lineage: http://airflow.example.org/spectralize/dags/ingest_field/runs/scheduled__2024-06-02
Explorer: http://explorer.example.org/batches/17
"""
    )


def test_hostile_keys_and_reasons_are_text_in_mail() -> None:
    html = render_alert(ALERT, ADDRESSES).html
    assert "&lt;img src=x&gt;" in html
    assert "<img" not in html
    assert "no &lt;audio&gt; container" in html


def test_titles_are_one_line_of_bounded_length() -> None:
    facts = BATCH | {"failure": "first\r\nBcc: everybody@example.org " + "x" * 500}
    title = render_alert(replace(ALERT, facts=facts), ADDRESSES).title
    assert "\n" not in title
    assert "\r" not in title
    assert len(title) == 180


@pytest.mark.parametrize(
    ("changes", "facts", "said"),
    [
        ({"kind": "late"}, {"late_after_s": 21_600.0}, "is late: not closed 6 h after it was opened"),
        ({}, {"failure": "5 of 9 failed, 0 are tolerated", "outcomes": {"loaded": 4, "partial": 0, "rejected": 0, "failed": 5,
              "waiting": 0}}, "Failed objects are planned again by the next run"),
        ({}, {"errors": {"mel_spectrogram": None}}, "it died without a word"),
        ({"kind": "recovered"}, {"ended": [{"kind": "failed", "batch_id": 16, "run_id": "r", "created_at":
              "2024-06-01T00:00:00+00:00"}]}, "failed since 2024-06-01 00:00 UTC: batch 16"),
    ],
    ids=["late", "failed objects", "killed", "recovered"],
)  # fmt: skip
def test_each_kind_says_what_it_is(changes: dict[str, Any], facts: dict[str, Any], said: str) -> None:
    message = render_alert(replace(ALERT, facts=BATCH | facts, **changes), ADDRESSES)
    assert said in message.text
    assert said in message.html


def test_a_run_without_a_batch_and_an_outage() -> None:
    run = {"dag_id": "ingest_field", "run_id": "r1", "source": "field", "interval_start": None, "interval_end": None,
           "errors": {"sense": "bucket field: not there"}}  # fmt: skip
    message = render_alert(replace(ALERT, batch_id=None, run_id="r1", facts=run), ADDRESSES)
    assert message.title == "run r1 of ingest_field failed: sense: bucket field: not there"
    assert "none was planned" in message.text
    assert "Read the log of the failed task" in message.text
    cut_off = render_alert(
        replace(ALERT, batch_id=None, run_id="r1", facts=run | {"away": "database is unreachable"}), ADDRESSES
    )
    assert "Bring the database back" in cut_off.text
    away = render_alert(
        replace(ALERT, kind="away", batch_id=None, dag_id="", run_id="", facts={"error": "refused"}), ADDRESSES
    )
    assert away.title == "the features database cannot be used: refused"
    assert "http" not in away.text
    back = {"since": "2024-06-02T00:00:00+00:00", "error": "refused", "runs": [run]}
    message = render_alert(replace(ALERT, kind="recovered", batch_id=None, dag_id="", facts=back), ADDRESSES)
    assert message.title == "the features database is back; it was away since 2024-06-02 00:00 UTC"
    assert "r1 of ingest_field" in message.html


SEND = """
import json, sys
from spectralize_apprise import connection_of, send_message
from spectralize_messages import Message
given = json.loads(sys.argv[1])
sent = send_message(given["owner"], Message(**given["message"]), given["reached"])
print("RESULT " + json.dumps([connection_of(given["owner"]), sorted(sent.reached), list(sent.errors)]))
"""


def run_with_airflow(home: Path, script: str, given: Any, **variables: str) -> tuple[Any, str]:
    """Run a script in a process with Airflow; return what it says is its result, and all that was printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__OPENLINEAGE__DISABLED": "True",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
        "PYTHONPATH": os.pathsep.join([str(REPO / "plugins"), str(REPO / "src")]),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    } | variables  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(given)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stderr[-3000:]
    return json.loads(results[0]), done.stdout + done.stderr


def connection(addresses: list[str]) -> str:
    config = [{"path": address} for address in addresses]
    return json.dumps({"conn_type": "apprise", "extra": {"config": config}})


def send(
    home: Path, owner: str, message: Message, connections: dict[str, list[str]], reached: list[str] | None = None
) -> tuple[str, list[str], list[str], str]:
    """Send from a process with Airflow; return the connection, who has it, the errors, and all that was printed."""
    given = {"owner": owner, "reached": reached or [],
             "message": {"kind": message.kind, "title": message.title, "text": message.text, "html": message.html}}  # fmt: skip
    variables = {f"AIRFLOW_CONN_{conn_id.upper()}": connection(addresses) for conn_id, addresses in connections.items()}
    (conn_id, now, errors), printed = run_with_airflow(home, SEND, given, **variables)
    return conn_id, now, errors, printed


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


def test_webhook_and_mail_get_it_in_their_own_form_and_only_once(home: Path) -> None:
    message = render_alert(ALERT, ADDRESSES)
    with open_receivers() as receivers:
        connections = {
            "alerts_default": ["json://127.0.0.1:9/"],
            "alerts_biologists": [receivers.webhook, receivers.mail],
        }
        conn_id, reached, errors, _ = send(home, "biologists", message, connections)
        assert (conn_id, errors) == ("alerts_biologists", [])
        assert len(reached) == 2
        [payload], [mail] = receivers.payloads, receivers.mails
        assert (payload["title"], payload["type"]) == (message.title, "failure")
        assert payload["message"].strip() == message.text.strip()
        assert mail["Subject"] == message.title
        html = mail.get_body(("html",))
        assert html is not None
        assert "&lt;img src=x&gt;" in html.get_content()
        # Whom it has reached is known, and is not told again.
        _, again, errors, _ = send(home, "biologists", message, connections, reached)
        assert (again, errors) == ([], [])
        assert (len(receivers.payloads), len(receivers.mails)) == (1, 1)


def test_one_receiver_that_is_away_or_misspelt_does_not_keep_it_from_the_others(home: Path) -> None:
    message = render_alert(ALERT, ADDRESSES)
    away = Receivers(webhook_port=free_port())
    with open_receivers() as receivers:
        connections = {"alerts_default": [away.webhook, f"nonsense://user:{SECRET}@x", receivers.webhook]}
        conn_id, reached, errors, printed = send(home, "no such owner", message, connections)
        assert len(receivers.payloads) == 1
    assert conn_id == "alerts_default"
    assert len(reached) == 1
    assert errors[0].startswith("connection alerts_default: address 1 of 3 (JSON): ")
    assert errors[1] == "connection alerts_default: address 2 of 3 is none that Apprise knows"
    assert SECRET not in printed


def test_without_receivers_it_is_in_the_log(home: Path) -> None:
    message = render_alert(ALERT, ADDRESSES)
    _, reached, errors, printed = send(home, "biologists", message, {})
    assert (reached, errors) == ([], [])
    assert "no receivers in connection alerts_default" in printed
    assert "21 of 100 were rejected" in printed


def test_two_mailboxes_of_one_server_are_two_receivers(home: Path) -> None:
    """What has reached the one has not reached the other."""
    message = render_alert(ALERT, ADDRESSES)
    with open_receivers() as receivers:
        other = receivers.mail.replace("on-call", "boss")
        _, reached, errors, _ = send(home, "biologists", message, {"alerts_default": [receivers.mail]})
        assert errors == []
        _, reached_now, errors, _ = send(
            home, "biologists", message, {"alerts_default": [receivers.mail, other]}, reached
        )
        assert errors == []
        assert len(reached_now) == 1
        assert [mail["To"] for mail in receivers.mails] == ["on-call@example.org", "boss@example.org"]


@pytest.mark.slow
def test_a_long_alert_is_split_where_the_service_takes_no_more(home: Path) -> None:
    """Mattermost takes 4,000 letters; more it refuses, each time."""
    facts = BATCH | {"examples": [BATCH["examples"][0] | {"reason": f"{number} " + "x" * 2_000} for number in range(5)]}  # type: ignore[index]
    message = render_alert(replace(ALERT, facts=facts), ADDRESSES)
    with open_receivers() as receivers:
        address = f"mmost://127.0.0.1:{receivers.webhook_port}/aaaaaaaaaaaaaaaaaaaaaaaa"
        _, _, errors, _ = send(home, "biologists", message, {"alerts_default": [address]})
        assert errors == []
        texts = [payload["text"] for payload in receivers.payloads]
    assert len(texts) > 1
    assert max(map(len, texts)) <= 4_000
    assert "Explorer: http" in texts[-1]


SEND_TO_A_TRAP = SEND.replace(
    "import json, sys", "import json, sys, spectralize_apprise\nspectralize_apprise._DEADLINE_S = 3.0"
)


@pytest.mark.slow
def test_a_receiver_that_drips_takes_nobodys_time_but_its_own(home: Path) -> None:
    """No time limit of a socket ends an answer that never ends."""

    def drip(trap: socket.socket) -> None:
        with suppress(OSError):
            client, _ = trap.accept()
            client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                client.sendall(b"x")
                time.sleep(0.2)

    message = render_alert(ALERT, ADDRESSES)
    with open_receivers() as receivers, socket.create_server(("127.0.0.1", 0)) as trap:
        threading.Thread(target=drip, args=(trap,), daemon=True).start()
        addresses = [f"json://127.0.0.1:{trap.getsockname()[1]}/", receivers.webhook]
        (_, reached, errors), _ = run_with_airflow(
            home,
            SEND_TO_A_TRAP,
            {
                "owner": "o",
                "reached": [],
                "message": {"kind": "failed", "title": message.title, "text": "t", "html": "h"},
            },
            AIRFLOW_CONN_ALERTS_DEFAULT=connection(addresses),
        )
        assert len(receivers.payloads) == 1
    assert len(reached) == 1
    assert errors == ["connection alerts_default: address 1 of 2 (JSON): no answer within 3 s"]


SEND_TO_EACH = """
import json, os, sys
from spectralize_apprise import send_message
from spectralize_messages import Message
message = Message("failed", "title", "text", "html")
results = []
for connection in json.loads(sys.argv[1]):
    os.environ["AIRFLOW_CONN_ALERTS_DEFAULT"] = connection
    sent = send_message("o", message, [])
    results.append([len(sent.reached), list(sent.errors)])
print("RESULT " + json.dumps(results))
"""


def test_a_connection_that_is_written_wrongly_is_one_line_that_shows_no_password(home: Path) -> None:
    form = 'connection alerts_default: its extra must be {"config": [{"path": "an address"}, …]}'
    with open_receivers() as receivers:
        good = {"path": receivers.webhook}
        extras: list[tuple[Any, int, list[str]]] = [
            (None, 0, [form]),
            ("not json", 0, [form]),
            ([good], 0, [form]),
            (good, 0, [form]),
            ({"config": f"[{json.dumps(good)}"}, 0, [form]),
            ({"config": receivers.webhook}, 0, [form]),
            ({"config": 5}, 0, [form]),
            ({"config": json.dumps([good])}, 1, []),
            ({"config": good}, 1, []),
            ({"config": [receivers.webhook]}, 1, []),
            ({"config": [{"path": [receivers.webhook]}]}, 1, []),
            ({"config": [{"url": SECRET}, good, 5]}, 1, [
                f"connection alerts_default: address {number} of 3 is none that Apprise knows" for number in (1, 3)
            ]),
            # Nobody is to be told.
            ({"config": []}, 0, []),
        ]  # fmt: skip
        connections = [json.dumps({"conn_type": "apprise", "extra": extra}) for extra, _, _ in extras]
        results, printed = run_with_airflow(home, SEND_TO_EACH, connections)
    assert results == [[reached, errors] for _, reached, errors in extras]
    assert SECRET not in printed


LOAD = """
import json, os, sys
from spectralize_outage import Outage
results = []
for kept in json.loads(sys.argv[1]):
    os.environ["AIRFLOW_VAR_SPECTRALIZE_OUTAGE"] = kept
    results.append(Outage.load() is not None)
print("RESULT " + json.dumps(results))
"""


def test_an_outage_that_somebody_has_edited_is_passed_over(home: Path) -> None:
    run = {"dag_id": "d", "run_id": "r", "scope": "s", "owner": "o", "number": 0, "started_at": None, "interval": None,
           "errors": {}}  # fmt: skip
    sound = {"since": "2024-06-02T00:00:00+00:00", "error": "refused", "runs": [run], "told": {}}
    edits = [{"since": "yesterday"}, {"runs": [{}]}, {"told": {"alerts_default": {}}}, {"told": []}, {}]
    kept = ["", "x", "5", "null", "[]", "{}", *(json.dumps(sound | edit) for edit in edits)]
    results, _ = run_with_airflow(home, LOAD, kept)
    assert results == [False] * 10 + [True]


KEEP = """
import json
from spectralize_errors import keep_error
kept = {}
class Task:
    def xcom_push(self, key, value):
        kept[key] = value
class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no")
results = []
for error in (Unspeakable(), ValueError("a\\0b \\ud800 \\u202e"), ValueError("first\\n" + "x" * 10**7),
              ValueError("connecting to postgresql://user:s3cret@host:5432/db and s3://bucket/a:b@c failed")):
    keep_error({"exception": error, "ti": Task()})
    results.append(kept["error"])
print("RESULT " + json.dumps(results))
"""


def test_whatever_a_task_says_is_kept_as_a_short_line_without_passwords(home: Path) -> None:
    results, _ = run_with_airflow(home, KEEP.replace("\\\\", "\\"), None)
    assert results[:2] == ["Unspeakable, which cannot be shown: RuntimeError", r"a\x00b \ud800 \u202e"]
    assert results[2] == "x" * 1_000
    assert results[3] == "connecting to postgresql://user:***@host:5432/db and s3://bucket/a:b@c failed"


@pytest.mark.parametrize(
    "mention", ["<!channel>", "<@U123|x>", "!here>", "@everyone", "@here", "<@&42>", "<#C42>", "< !channel>"]
)
def test_a_key_wakes_nobody(mention: str) -> None:
    example = BATCH["examples"][0] | {"key": f"a/{mention}.wav"}  # type: ignore[index]
    facts = BATCH | {"examples": [example], "failure": f"it was {mention}"}
    message = render_alert(replace(ALERT, facts=facts), ADDRESSES)
    assert mention not in message.text
    assert mention not in message.title
    assert f"a/{mention}.wav" in message.text.replace("\u200b", "")


def test_a_batch_that_nobody_has_planned_has_no_counts() -> None:
    facts = BATCH | {"listing": dict.fromkeys(BATCH["listing"]), "planned_spectrograms": None, "closed_at": None}  # type: ignore[call-overload]
    message = render_alert(replace(ALERT, facts=facts), ADDRESSES)
    for said in (message.text, message.html):
        assert "Listed" not in said
        assert "None" not in said


def test_a_run_id_of_two_lines_is_a_title_of_one() -> None:
    for kind in ("failed", "late", "recovered"):
        alert = replace(ALERT, kind=kind, batch_id=None, run_id="r\r\nBcc: x", facts=BATCH | {"late_after_s": 1.0})  # type: ignore[arg-type]
        assert r"r\r\nBcc: x" in render_alert(alert, ADDRESSES).title


def test_a_run_that_an_outage_cut_off_without_a_word_says_that() -> None:
    facts = {"dag_id": "d", "run_id": "r", "source": "s", "interval_start": None, "interval_end": None, "errors": {},
             "away": "database is unreachable"}  # fmt: skip
    message = render_alert(replace(ALERT, batch_id=None, facts=facts), ADDRESSES)
    assert message.title.endswith("failed: database is unreachable")


WATCH = """
import json
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from spectralize_alerts import owner_of, watch
class Task:
    try_number, max_tries = 1, 2
    def get_dagrun_state(self, dag_id, run_id):
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.DAGRUN_NOT_FOUND))
print("RESULT " + json.dumps([owner_of("field"), watch(ti=Task())]))
"""


def test_a_slip_in_the_sources_or_a_source_that_is_gone_stops_no_alert(
    home: Path, tmp_path: Path, store: Store
) -> None:
    """A batch of what is no source any more is late like any other."""
    (tmp_path / "sources.toml").write_text("manifests = ")
    batch = store.plan()
    store.rows(
        "UPDATE spectralize.batches SET opened_at = now() - interval '7 hours' WHERE batch_id = %s RETURNING 1",
        batch.batch_id,
    )
    for _ in range(2):
        (owner, done), printed = run_with_airflow(
            home, WATCH, None, SPECTRALIZE_CONFIG=str(tmp_path), AIRFLOW_VAR_SPECTRALIZE_OUTAGE="",
            AIRFLOW_CONN_TIMESCALE_DEFAULT=store.dsn,
        )  # fmt: skip
        assert owner == "spectralize"
        assert "sources.toml: " in printed
        assert done["closed"] == 0
        if done["late"]:
            assert (done["sent"], done["unsent"]) == (1, 0)
            assert f"batch {batch.batch_id} of test is late: not closed 6 h after it was opened" in printed
    [(kind, owner)] = store.rows("SELECT kind, owner FROM spectralize.alerts WHERE batch_id = %s", batch.batch_id)
    assert (kind, owner) == ("late", "spectralize")
