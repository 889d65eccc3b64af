"""The gate's thresholds, closing, and sums that must hold."""

import pytest

from spectralize import gate, ledger
from spectralize.errors import FailedObjectError, GateError, LedgerError
from spectralize.sources import Source
from spectralize.tables import Counts
from tests.store import Store, wav


def counts(*, loaded: int = 0, rejected: int = 0, failed: int = 0) -> Counts:
    planned = loaded + rejected + failed
    outcomes = {"loaded": loaded, "partial": 0, "rejected": rejected, "failed": failed}
    return Counts(listed=planned, planned=planned, planned_spectrograms=planned, outcomes=outcomes)


@pytest.mark.parametrize(
    ("batch", "failure"),
    [
        (counts(), None),
        (counts(loaded=100), None),
        (counts(loaded=99, failed=1), "1 of 100 failed"),
        (counts(rejected=10), None),
        (counts(rejected=11), "11 of 11 were rejected"),
        (counts(loaded=89, rejected=11), None),
        (counts(loaded=80, rejected=20), None),
        (counts(loaded=79, rejected=21), "21 of 100 were rejected"),
    ],
)
def test_any_failed_or_rejects_above_both_bounds_fail_the_batch(batch: Counts, failure: str | None) -> None:
    source = Source(name="test", bucket="birds", profiles=("mel128_22k",))
    verdict = gate.judge(batch, source)
    assert (verdict or "").startswith(failure or "")
    assert (verdict is None) == (failure is None)


def test_failures_are_tolerated_up_to_the_larger_of_number_and_share() -> None:
    source = Source(name="test", bucket="birds", profiles=("mel128_22k",), max_failed=2, max_failed_share=0.05)
    assert gate.judge(counts(loaded=1, failed=2), source) is None
    assert gate.judge(counts(loaded=95, failed=5), source) is None
    assert gate.judge(counts(loaded=94, failed=6), source) == "6 of 100 failed, 2, or 5%, are tolerated"


def test_a_share_is_what_people_take_it_for() -> None:
    """As binary fractions, 29 % of 100 is less than 29."""
    changes = {"max_rejected": 0, "max_rejected_share": 0.29, "max_failed_share": 0.29}
    source = Source(name="test", bucket="birds", profiles=("mel128_22k",)).model_copy(update=changes)
    assert gate.judge(counts(loaded=71, rejected=29), source) is None
    assert gate.judge(counts(loaded=71, failed=29), source) is None
    source = source.model_copy(update={"max_rejected_share": 0.004})
    assert (gate.judge(counts(loaded=99, rejected=1), source) or "").endswith("more than 0 and more than 0.4%")


def test_sums_that_do_not_hold_are_a_failure() -> None:
    source = Source(name="test", bucket="birds", profiles=("mel128_22k",))
    assert "sums do not hold" in (gate.judge(Counts(listed=3, planned=1), source) or "")
    assert "sums do not hold" in (gate.judge(Counts(listed=1, planned=1, planned_spectrograms=1), source) or "")


def test_the_gate_names_the_first_objects_with_their_reasons(store: Store) -> None:
    store.source = store.source.model_copy(update={"max_rejected": 0, "max_rejected_share": 0.0})
    store.put("good.wav", wav())
    store.put("empty.wav", b"")
    batch = store.plan()
    store.compute(batch)
    expected = rf"1 of 2 were rejected.*First: s3://{store.source.bucket}/empty\.wav: the object has no bytes"
    with pytest.raises(GateError, match=expected):
        gate.gate_batch(store.connection, batch.batch_id, store.source)
    closed = gate.close_batch(store.connection, batch.batch_id, store.source)
    assert closed.state == "failed"
    assert closed.failure is not None
    assert closed.failure.startswith("1 of 2 were rejected")
    assert store.breaches() == {}


def test_what_the_job_did_not_reach_is_failed_and_planned_again(store: Store) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    with pytest.raises(GateError, match="the job ended before this object was done"):
        gate.gate_batch(store.connection, batch.batch_id, store.source)
    assert gate.close_batch(store.connection, batch.batch_id, store.source).state == "failed"
    for _ in range(store.source.max_failures):
        batch = store.plan()
        with pytest.raises(GateError):
            gate.gate_batch(store.connection, batch.batch_id, store.source)
        gate.close_batch(store.connection, batch.batch_id, store.source)
    # An outage is no fault of the object: it never becomes poison by it.
    assert store.outcomes(store.ingest()) == {"a.wav": ("loaded", None)}
    assert store.breaches() == {}


def test_a_batch_that_ended_before_the_gate_is_failed(store: Store) -> None:
    store.put("a.wav", wav())
    batch = store.plan()
    store.compute(batch)
    closed = gate.close_batch(store.connection, batch.batch_id, store.source)
    assert (closed.state, closed.failure) == ("failed", "it ended before the gate")
    assert closed.counts.outcomes["loaded"] == 1


def test_closing_twice_changes_nothing(store: Store) -> None:
    first = store.ingest()
    assert gate.close_batch(store.connection, first.batch_id, store.source) == first


def test_closing_again_with_another_error_changes_nothing_and_hostile_errors_close(store: Store) -> None:
    batch = store.plan()
    gate.gate_batch(store.connection, batch.batch_id, store.source)
    for error in ("a\0b \ud800\n\u202e", "another"):
        closed = gate.close_batch(store.connection, batch.batch_id, store.source, errors={"job": error})
        assert (closed.state, closed.failure) == ("failed", r"job: a\x00b \ud800\n\u202e")
    facts = store.rows("SELECT facts->'errors' FROM spectralize.alerts WHERE batch_id = %s", batch.batch_id)
    assert facts == [({"job": r"a\x00b \ud800\n\u202e"},)]


def test_planning_that_did_not_finish_fails_at_the_gate(store: Store) -> None:
    batch = ledger.open_batch(store.connection, store.source, store.run())
    store.connection.commit()
    with pytest.raises(GateError, match="planning did not finish"):
        gate.gate_batch(store.connection, batch.batch_id, store.source)


def test_a_run_without_a_batch_is_one_line(store: Store) -> None:
    with pytest.raises(LedgerError, match="run manual__1 of ingest_x: no batch was planned for it"):
        ledger.find_batch(store.connection, "ingest_x", "manual__1")


def test_the_gate_does_not_touch_a_closed_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a.wav", wav())
    store.source = store.source.model_copy(update={"max_failures": 5, "max_failed": 9})

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("spectralize.isolate.extract", fail)
    first = store.ingest()
    store.ingest()
    store.source = store.source.model_copy(update={"max_failures": 2})
    gate.gate_batch(store.connection, first.batch_id, store.source)
    assert store.outcomes(first) == {"a.wav": ("failed", "RuntimeError")}
    assert store.breaches() == {}


def test_a_hostile_key_cannot_forge_a_line_of_the_log(store: Store) -> None:
    store.source = store.source.model_copy(update={"max_rejected": 0, "max_rejected_share": 0.0})
    store.put("bad\nINFO all is well.wav", b"")
    batch = store.plan()
    store.compute(batch)
    with pytest.raises(GateError) as caught:
        gate.gate_batch(store.connection, batch.batch_id, store.source)
    assert "\n" not in str(caught.value)
    assert "bad\\nINFO all is well.wav: the object has no bytes" in str(caught.value)


def test_a_policy_that_forbids_reading_never_becomes_poison(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> bytes:
        raise FailedObjectError("AccessDenied", "S3 refuses to read it")

    store.put("a.wav", wav())
    store.source = store.source.model_copy(update={"max_failures": 2, "max_failed": 9})
    with monkeypatch.context() as patch:
        patch.setattr("spectralize.objectfile.fetch_range", forbidden)
        for _ in range(3):
            assert store.outcomes(store.ingest()) == {"a.wav": ("failed", "AccessDenied")}
    assert store.outcomes(store.ingest()) == {"a.wav": ("loaded", None)}


def test_an_empty_batch_fails_if_something_new_was_waited_for(store: Store) -> None:
    batch = store.plan()
    with pytest.raises(GateError, match=rf"nothing new in s3://{store.source.bucket}/ within 90 s$"):
        gate.gate_batch(store.connection, batch.batch_id, store.source, waited_s=90)
    assert gate.close_batch(store.connection, batch.batch_id, store.source).state == "failed"


def test_a_batch_whose_planning_failed_for_good_is_closed(store: Store) -> None:
    run = store.run()
    batch = ledger.open_batch(store.connection, store.source, run)
    gate.abandon_batch(store.connection, run.dag_id, run.run_id, {"plan_batch": "S3 is away"}, owner="tests")
    closed = ledger.read_batch(store.connection, batch.batch_id)
    assert (closed.state, closed.failure) == ("failed", "planning did not finish: plan_batch: S3 is away")
    gate.abandon_batch(store.connection, run.dag_id, "another", {"plan_batch": "no such run"}, owner="tests")
    assert ledger.open_batch(store.connection, store.source, run).batch_id != batch.batch_id
    assert store.breaches() == {}


def test_fresh_statistics_are_of_the_chunks_that_a_batch_has_written(store: Store) -> None:
    store.source = store.source.model_copy(
        update={"time_patterns": (r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",)}
    )
    chunks = (
        "SELECT c.range_start::date::text, t.relname, coalesce(u.last_analyze > now() - interval '1 minute', false) "
        "FROM timescaledb_information.chunks AS c JOIN pg_class AS t ON t.relname = c.chunk_name "
        "JOIN pg_stat_user_tables AS u ON u.relid = t.oid WHERE c.hypertable_name = 'mel_frames' ORDER BY 1"
    )
    store.put("19990101.wav", wav(1.0))
    first = store.ingest()
    # Across the end of a chunk, and another one years later.
    store.put("20050106.wav", wav(1.0))
    store.put("20110303.wav", wav(1.0))
    second = store.ingest()
    assert store.rows("SELECT spectralize.analyze_batch(%s)", second.batch_id) == [(6,)]
    store.rows("SELECT pg_stat_clear_snapshot()")
    analysed = {day[:4]: is_fresh for day, _, is_fresh in store.rows(chunks)}
    assert (analysed["2005"], analysed["2011"]) == (True, True)
    assert analysed.get("1999", analysed.get("1998")) is False
    assert store.rows("SELECT spectralize.analyze_batch(%s)", first.batch_id) == [(3,)]
    assert store.rows("SELECT spectralize.analyze_batch(%s)", 2**40) == [(0,)]
