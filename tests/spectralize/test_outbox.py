"""The outbox: each failure is told once, whoever dies, and whoever is away."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from spectralize import gate, outbox
from spectralize.alerts import Alert, RunFacts, Sent
from spectralize.database import connect
from spectralize.errors import GateError, LedgerError
from spectralize.ledger import Batch, Run
from tests.store import Store, wav


class Postman:
    """Sends to the receivers it has, and keeps what it sent to each."""

    def __init__(self, *receivers: str) -> None:
        self.receivers = receivers or ("chat",)
        self.away: set[str] = set()
        self.sent: dict[str, list[Alert]] = {name: [] for name in self.receivers}

    def __call__(self, alert: Alert) -> Sent:
        reached, errors = [], []
        for name in self.receivers:
            if name in alert.reached:
                continue
            if name in self.away:
                errors.append(f"{name}: connection refused")
            else:
                self.sent[name].append(alert)
                reached.append(name)
        return Sent(reached, errors)

    @property
    def kinds(self) -> list[str]:
        return [alert.kind for alert in self.sent[self.receivers[0]]]


@pytest.fixture
def scoped(store: Store) -> Store:
    """A store whose source no other test has: alerts of a source end with its next success."""
    store.source = store.source.model_copy(
        update={"name": store.source.bucket.replace("-", "_"), "owner": "biologists"}
    )
    return store


def fail(store: Store, run: Run | None = None) -> Batch:
    """A batch that fails the gate."""
    store.source = store.source.model_copy(update={"max_rejected": 0, "max_rejected_share": 0.0})
    store.put(f"empty-{datetime.now(UTC).timestamp()}.wav", b"")
    batch = store.plan(run)
    store.compute(batch)
    with pytest.raises(GateError):
        gate.gate_batch(store.connection, batch.batch_id, store.source)
    store.connection.commit()
    return gate.close_batch(store.connection, batch.batch_id, store.source)


def succeed(store: Store, **changes: Any) -> Batch:
    batch = store.ingest(run=store.run(**changes))
    assert batch.state == "success"
    run = store.runs[-1]
    outbox.tell_recovery(store.connection, facts_of(store, run))
    return batch


def facts_of(store: Store, run: Run, **changes: Any) -> RunFacts:
    return RunFacts(run.dag_id, run.run_id, store.source.name, store.source.owner, **changes)


def deliver(store: Store, postman: Callable[[Alert], Sent]) -> list[Alert]:
    return outbox.deliver(store.connection, postman, scope=store.source.name)


def due(store: Store) -> None:
    """Let the wait for the next try be over."""
    store.rows("UPDATE spectralize.alerts SET next_try_at = now() WHERE scope = %s RETURNING 1", store.source.name)


def test_a_batch_that_fails_is_told_once_with_all_there_is_to_say(scoped: Store) -> None:
    store, postman = scoped, Postman()
    start = datetime(2024, 6, 1, tzinfo=UTC)
    store.put("sound\n.wav", wav())
    batch = fail(store, store.run(interval=(start, start + timedelta(days=1))))
    for _ in range(2):
        deliver(store, postman)
        outbox.tell_run_failed(store.connection, facts_of(store, store.runs[-1], errors={"gate": "too many"}))
    [alert] = postman.sent["chat"]
    assert (alert.kind, alert.batch_id, alert.owner, alert.scope) == (
        "failed", batch.batch_id, "biologists", store.source.name,
    )  # fmt: skip
    facts = alert.facts
    assert facts["failure"].startswith("1 of 2 were rejected")
    assert (facts["interval_start"], facts["interval_end"]) == (
        "2024-06-01T00:00:00+00:00",
        "2024-06-02T00:00:00+00:00",
    )
    assert facts["listing"] == {"listed": 2, "unchanged": 0, "planned": 2, "unsettled": 0, "ignored": 0, "over_cap": 0}
    assert facts["outcomes"] == {"loaded": 1, "partial": 0, "rejected": 1, "failed": 0, "waiting": 0}
    assert facts["classes"] == [{"outcome": "rejected", "reason_class": "empty", "count": 1}]
    [example] = facts["examples"]
    assert (example["reason_class"], example["reason"]) == ("empty", "the object has no bytes")


def test_examples_are_few_on_one_line_and_the_failed_come_first(scoped: Store) -> None:
    store = scoped
    for number in range(7):
        store.put(f"empty\n{number}.wav", b"")
    batch = store.plan()
    store.compute(batch)
    store.rows(
        "UPDATE spectralize.batch_objects SET outcome = 'failed', reason_class = 'SlowDown', reason = repeat('x', 9000) "
        "WHERE batch_id = %s AND object_id = (SELECT max(object_id) FROM spectralize.objects) RETURNING 1", batch.batch_id,
    )  # fmt: skip
    facts = outbox.batch_facts(store.connection, batch.batch_id)
    assert [line["outcome"] for line in facts["examples"]] == ["failed"] + ["rejected"] * 4
    assert len(facts["examples"][0]["reason"]) <= 2_001
    assert facts["examples"][1]["key"] == "empty\\n0.wav"
    store.connection.rollback()


def test_the_failure_is_in_the_outbox_by_the_transaction_that_closes(scoped: Store) -> None:
    store = scoped
    store.put("empty.wav", b"")
    batch = store.plan()
    store.compute(batch)
    # What cannot be told is not closed, and is found open by the watch.
    with connect(store.dsn, autocommit=True) as other:
        other.execute("ALTER TABLE spectralize.alerts ADD CONSTRAINT full_up CHECK (false) NOT VALID")
        with pytest.raises(psycopg.errors.CheckViolation):
            gate.close_batch(store.connection, batch.batch_id, store.source, errors={"mel_spectrogram": None})
        other.execute("ALTER TABLE spectralize.alerts DROP CONSTRAINT full_up")
    assert store.rows("SELECT closed_at FROM spectralize.batches WHERE batch_id = %s", batch.batch_id) == [(None,)]
    assert gate.close_batch(store.connection, batch.batch_id, store.source).state == "failed"
    assert store.rows("SELECT kind FROM spectralize.alerts WHERE batch_id = %s", batch.batch_id) == [("failed",)]


def test_a_step_that_failed_fails_its_batch_and_is_quoted(scoped: Store) -> None:
    store, postman = scoped, Postman()
    store.put("sound.wav", wav())
    batch = store.plan()
    store.compute(batch)
    gate.gate_batch(store.connection, batch.batch_id, store.source)
    errors = {"check_batch": "failed checks: frames_are_stored", "analyze_tables": None}
    closed = gate.close_batch(store.connection, batch.batch_id, store.source, errors=errors)
    assert closed.state == "failed"
    assert closed.failure == "check_batch: failed checks: frames_are_stored; analyze_tables: it ended without a word"
    [alert] = deliver(store, postman)
    assert alert.facts["errors"] == errors
    assert store.breaches() == {}


def test_what_no_batch_came_of_is_told_as_the_run(scoped: Store) -> None:
    store, postman = scoped, Postman()
    run = facts_of(store, store.run(), errors={"sense": "bucket birds: not there"})
    for _ in range(2):
        outbox.tell_run_failed(store.connection, run)
    deliver(store, postman)
    [alert] = postman.sent["chat"]
    assert (alert.batch_id, alert.run_id) == (None, run.run_id)
    assert alert.facts["errors"] == {"sense": "bucket birds: not there"}
    # Cleared, it may fail again, and that is news.
    again = facts_of(store, store.runs[-1], number=1)
    outbox.tell_run_failed(store.connection, again)
    assert len(deliver(store, postman)) == 1


def test_a_cleared_run_that_fails_before_planning_does_not_hide_behind_its_old_batch(scoped: Store) -> None:
    store, postman = scoped, Postman()
    batch = fail(store)
    deliver(store, postman)
    again = facts_of(store, store.runs[-1], number=1, started_at=datetime.now(UTC) + timedelta(seconds=1))
    outbox.tell_run_failed(store.connection, again)
    deliver(store, postman)
    assert [alert.batch_id for alert in postman.sent["chat"]] == [batch.batch_id, None]


def test_recovery_is_said_once_and_only_if_something_was_told(scoped: Store) -> None:
    store, postman = scoped, Postman()
    succeed(store)
    assert deliver(store, postman) == []
    first, second = fail(store), fail(store)
    succeed(store)
    recovered = succeed(store)
    deliver(store, postman)
    assert postman.kinds == ["failed", "failed", "recovered"]
    ended = postman.sent["chat"][-1].facts["ended"]
    assert [alert["batch_id"] for alert in ended] == [first.batch_id, second.batch_id]
    assert recovered.batch_id != postman.sent["chat"][-1].batch_id


def test_a_backfill_ends_its_own_failure_only(scoped: Store) -> None:
    store, postman = scoped, Postman()
    day = datetime.combine(datetime.now(UTC), datetime.min.time(), UTC)
    failed_run = store.run(kind="backfill", interval=(day, day + timedelta(days=2)))
    fail(store, failed_run)
    succeed(store, kind="backfill", interval=(day - timedelta(days=9), day - timedelta(days=8)))
    deliver(store, postman)
    assert postman.kinds == ["failed"]
    # Cleared, the same run succeeds.
    store.runs.append(failed_run)
    store.ingest(run=failed_run)
    outbox.tell_recovery(store.connection, facts_of(store, failed_run))
    deliver(store, postman)
    assert postman.kinds == ["failed", "recovered"]


def test_a_run_that_takes_up_nothing_ends_no_batch_that_failed(scoped: Store) -> None:
    """As a dry run of reprocess_audio, which has no batch."""
    store, postman = scoped, Postman()
    fail(store)
    later = datetime.now(UTC) + timedelta(seconds=1)
    dry = RunFacts("reprocess_audio", "dry", store.source.name, store.source.owner, started_at=later)
    outbox.tell_recovery(store.connection, dry)
    deliver(store, postman)
    assert postman.kinds == ["failed"]
    # What came to no batch either, and is of the same DAG, has ended.
    broken = RunFacts("reprocess_audio", "broken", store.source.name, store.source.owner)
    outbox.tell_run_failed(store.connection, broken)
    outbox.tell_recovery(store.connection, dry)
    deliver(store, postman)
    assert postman.kinds == ["failed", "failed", "recovered"]
    assert [alert["run_id"] for alert in postman.sent["chat"][-1].facts["ended"]] == ["broken"]


def test_a_success_that_began_before_the_failure_does_not_end_it(scoped: Store) -> None:
    store, postman = scoped, Postman()
    early = store.plan()
    fail(store)
    early_run = store.runs[0]
    store.finish(early)
    outbox.tell_recovery(store.connection, facts_of(store, early_run))
    deliver(store, postman)
    assert postman.kinds == ["failed"]


def test_a_receiver_that_was_away_hears_it_later_and_the_others_do_not_hear_it_twice(scoped: Store) -> None:
    store, postman = scoped, Postman("chat", "mail")
    postman.away = {"mail"}
    fail(store)
    assert deliver(store, postman) == []
    # Not before its time.
    assert deliver(store, postman) == []
    [(tries, error, sent_at, wait)] = store.rows(
        "SELECT tries, last_error, sent_at, next_try_at - now() FROM spectralize.alerts WHERE scope = %s",
        store.source.name,
    )
    assert (tries, error, sent_at) == (1, "mail: connection refused", None)
    assert timedelta(seconds=20) < wait <= timedelta(seconds=30)
    postman.away = set()
    due(store)
    assert len(deliver(store, postman)) == 1
    assert {name: len(sent) for name, sent in postman.sent.items()} == {"chat": 1, "mail": 1}
    due(store)
    assert deliver(store, postman) == []


def test_waits_grow_to_an_hour_and_old_news_is_given_up(scoped: Store) -> None:
    store, postman = scoped, Postman()
    postman.away = {"chat"}
    fail(store)
    waits = []
    for _ in range(9):
        due(store)
        deliver(store, postman)
        [(wait,)] = store.rows("SELECT next_try_at - now() FROM spectralize.alerts WHERE scope = %s", store.source.name)
        waits.append(round(wait.total_seconds() / 30))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 120, 120]
    postman.away = set()
    store.rows(
        "UPDATE spectralize.alerts SET created_at = now() - interval '8 days', next_try_at = now() WHERE scope = %s RETURNING 1",
        store.source.name,
    )
    assert deliver(store, postman) == []


def test_two_who_deliver_at_once_send_once(scoped: Store) -> None:
    store = scoped
    fail(store)
    sending, may_end = threading.Event(), threading.Event()
    sent: list[str] = []

    def slow(alert: Alert) -> Sent:
        sent.append("first")
        sending.set()
        assert may_end.wait(30)
        return Sent(["chat"])

    def deliver_slowly() -> None:
        with connect(store.dsn) as other:
            outbox.deliver(other, slow, scope=store.source.name)

    thread = threading.Thread(target=deliver_slowly)
    thread.start()
    assert sending.wait(30)
    assert deliver(store, Postman()) == []
    may_end.set()
    thread.join()
    assert deliver(store, Postman()) == []
    assert sent == ["first"]


def test_one_alert_that_cannot_be_sent_does_not_keep_back_the_others(scoped: Store) -> None:
    store, postman = scoped, Postman()
    bad, good = fail(store), fail(store)

    def send(alert: Alert) -> Sent:
        if alert.batch_id == bad.batch_id:
            raise ValueError("no such template")
        return postman(alert)

    assert [alert.batch_id for alert in deliver(store, send)] == [good.batch_id]
    [(error,)] = store.rows("SELECT last_error FROM spectralize.alerts WHERE batch_id = %s", bad.batch_id)
    assert error == "ValueError: no such template"


def test_receivers_that_hang_do_not_use_up_the_time_of_whoever_delivers(scoped: Store) -> None:
    store, postman = scoped, Postman()
    for _ in range(3):
        fail(store)

    def slow(alert: Alert) -> Sent:
        time.sleep(0.2)
        return postman(alert)

    assert len(outbox.deliver(store.connection, slow, scope=store.source.name, within_s=0.1)) == 1
    assert len(deliver(store, postman)) == 2


def test_a_crash_while_sending_leaves_the_alert_to_the_next(scoped: Store) -> None:
    store, postman = scoped, Postman()
    fail(store)

    def crash(alert: Alert) -> Sent:
        raise SystemExit

    with pytest.raises(SystemExit):
        deliver(store, crash)
    store.connection.rollback()
    assert [alert.kind for alert in deliver(store, postman)] == ["failed"]


def test_late_is_told_once_and_ends_with_the_batch(scoped: Store) -> None:
    store, postman = scoped, Postman()
    store.put("sound.wav", wav())
    batch = store.plan()
    for _ in range(2):
        outbox.tell_late(store.connection, batch.batch_id, store.source.owner, 3_600.0)
    deliver(store, postman)
    [alert] = postman.sent["chat"]
    assert (alert.kind, alert.facts["late_after_s"]) == ("late", 3_600.0)
    assert alert.facts["outcomes"]["waiting"] == 1
    [found] = [found for found in outbox.open_batches(store.connection) if found.batch_id == batch.batch_id]
    assert found.is_told_late
    assert 0 <= found.open_s < 3_600
    store.compute(batch)
    store.finish(batch)
    outbox.tell_recovery(store.connection, facts_of(store, store.runs[-1]))
    deliver(store, postman)
    assert postman.kinds == ["late", "recovered"]
    assert batch.batch_id not in {found.batch_id for found in outbox.open_batches(store.connection)}


def test_lateness_that_a_batch_overtakes_is_not_told(scoped: Store) -> None:
    store, postman = scoped, Postman()
    batch = store.plan()
    outbox.tell_late(store.connection, batch.batch_id, store.source.owner, 3_600.0)
    store.finish(batch)
    outbox.tell_recovery(store.connection, facts_of(store, store.runs[-1]))
    # What nobody has heard of need not end.
    assert deliver(store, postman) == []
    assert postman.kinds == []


def test_an_outage_is_recorded_and_the_runs_that_it_cut_off_are_not_told_again(scoped: Store) -> None:
    store, postman = scoped, Postman()
    store.put("sound.wav", wav())
    batch = store.plan()
    since = datetime.now(UTC)
    cut_off, unplanned = facts_of(store, store.runs[-1]), facts_of(store, store.run())
    for _ in range(2):
        outbox.record_outage(store.connection, since, "connection refused", [store.source.owner], [cut_off, unplanned])
    # What the watch does after that.
    gate.close_batch(store.connection, batch.batch_id, store.source, errors={"close_batch": "left open"})
    outbox.tell_run_failed(store.connection, cut_off)
    outbox.deliver(store.connection, postman)
    [alert] = [
        alert for alert in postman.sent["chat"] if alert.owner == "biologists" and alert.scope == outbox.OUTAGE_SCOPE
    ]
    assert alert.kind == "recovered"
    assert alert.facts["error"] == "connection refused"
    assert [run["run_id"] for run in alert.facts["runs"]] == [cut_off.run_id, unplanned.run_id]
    assert [alert for alert in postman.sent["chat"] if alert.scope == store.source.name] == []
    # It has been said that it is over.
    succeed(store)
    assert deliver(store, postman) == []


def test_the_end_of_an_outage_ends_the_failures_of_all_owners_behind_a_connection(scoped: Store) -> None:
    """Each connection is told once, by the name of the first owner who failed."""
    store, postman = scoped, Postman()
    outbox.record_outage(store.connection, datetime.now(UTC), "refused", ["geologists"], [facts_of(store, store.run())])
    succeed(store)
    assert deliver(store, postman) == []


def test_a_batch_that_nobody_has_planned_yet_can_be_told_of(scoped: Store) -> None:
    store = scoped
    batch = store.plan()
    store.rows(
        "UPDATE spectralize.batches SET listed = NULL, unchanged = NULL, planned = NULL, unsettled = NULL, ignored = NULL, "
        "over_cap = NULL, planned_spectrograms = NULL, planned_at = NULL, state = 'open' WHERE batch_id = %s RETURNING 1",
        batch.batch_id,
    )
    postman = Postman()
    gate.abandon_batch(store.connection, store.runs[-1].dag_id, store.runs[-1].run_id, {"plan_batch": None}, owner="x")
    [alert] = deliver(store, postman)
    assert alert.facts["failure"] == "planning did not finish: plan_batch: it ended without a word"
    assert set(alert.facts["listing"].values()) == {None}


def test_facts_of_a_batch_that_is_not_there(store: Store) -> None:
    with pytest.raises(LedgerError, match="batch 4711: not in the ledger"):
        outbox.batch_facts(store.connection, 4711)
    store.connection.rollback()


def test_a_store_without_an_outbox_is_seen(empty_dsn: str, store: Store) -> None:
    with psycopg.connect(empty_dsn) as connection:
        assert not outbox.is_there(connection)
    assert outbox.is_there(store.connection)
    store.connection.rollback()
