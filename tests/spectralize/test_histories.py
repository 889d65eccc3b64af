"""Random histories of a source: whatever was put, planned, computed, forced, forgotten and removed before, what is looked at is
what is planned, every sum holds, and in the end the store shows what the bucket holds."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spectralize import gate, worklist
from spectralize.expiry import remove_superseded
from spectralize.forget import forget
from spectralize.ledger import Batch
from spectralize.listing import list_pages
from spectralize.planner import has_work
from spectralize.preview import preview_batch
from spectralize.retention import drop_expired_chunks
from spectralize.selection import Selection
from spectralize.tables import ListedObject
from spectralize.worker import run_slice
from tests.store import Store, wav

KEYS = ("a.wav", "B [x]\n.wav", "ü/\U0001f3b5.wav", "d%41+&.wav", "n.txt", "/".join(["x" * 99] * 10) + "/y.wav")
#: Two recordings, one that is none, and one without bytes.
CONTENTS = (wav(0.2), wav(0.25, seed=1), b"no audio", b"")
AUDIO = 2
SETTLE = timedelta(hours=1)
STEPS = 14


@dataclass
class History:
    """One store under random operations. Its S3 has a clock of its own, so that hours pass at once."""

    store: Store
    random: random.Random
    modified: dict[str, datetime] = field(default_factory=dict)
    put_of: dict[str, int] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)

    def listing(self, client: Any, bucket: str, prefix: str) -> Iterator[list[ListedObject]]:
        for page in list_pages(client, bucket, prefix):
            yield [replace(item, last_modified=self.modified[item.key]) for item in page]

    # What happens in S3

    def put(self) -> None:
        key, number = self.random.choice(KEYS), self.random.randrange(len(CONTENTS))
        self.store.put(key, CONTENTS[number])
        self.modified[key] = datetime.now(UTC) - self.random.choice((timedelta(), 2 * SETTLE))
        self.put_of[key] = number
        self.log[-1] += f" {key[:8]!r} {number}"

    def delete(self) -> None:
        if self.put_of:
            key = self.random.choice(sorted(self.put_of))
            self.store.delete(key)
            del self.put_of[key]
            self.log[-1] += f" {key[:8]!r}"

    def wait(self) -> None:
        """Two hours pass."""
        self.modified = {key: at - 2 * SETTLE for key, at in self.modified.items()}
        self.store.rows(
            "UPDATE spectralize.objects SET last_modified = last_modified - %s, listed_since = listed_since - %s, "
            "first_seen_at = first_seen_at - %s WHERE bucket = %s RETURNING 1", *3 * (2 * SETTLE,), self.store.source.bucket,
        )  # fmt: skip

    # What happens in the store

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.random.random() < 0.3:
            options["max_objects"] = self.random.randint(1, 3)
        if self.random.random() < 0.15:
            options["profile"] = "speech80_16k"
        kind = self.random.random()
        if kind < 0.25:
            options["force"] = True
        elif kind < 0.5:
            last = max(
                (batch_id for (batch_id,) in self.store.rows("SELECT batch_id FROM spectralize.batches")), default=1
            )
            options["selection"] = self.random.choice(
                (Selection(), Selection(key_glob="*[[]X]*"), Selection(outcomes=("rejected", "failed")),
                 Selection(batch_id=self.random.randint(max(1, last - 4), last)), Selection(reject_class="empty"),
                 Selection(core_version_older_than="999"))
            )  # fmt: skip
        return options

    def batch(self, options: dict[str, Any] | None = None, share: float | None = None) -> Batch:
        """Look, plan, compare, compute all or some, and close."""
        store = self.store
        options = self.options() if options is None else options
        self.log[-1] += f" {options}"
        is_work = has_work(store.connection, store.client, store.source)
        store.connection.rollback()
        seen = preview_batch(store.connection, store.client, store.source, **options)
        batch = store.plan(**options)
        assert batch.counts.listing_holds(), (batch.counts, self.log)
        assert replace(seen.counts, outcomes=batch.counts.outcomes) == batch.counts, (
            seen.counts,
            batch.counts,
            self.log,
        )
        planned = store.manifest(batch).objects
        again = sum(1 for item in planned for profile in item.profiles if profile.generation)
        assert again == seen.n_recomputed, self.log
        assert set(seen.first_keys) <= {item.key for item in planned}, (seen.first_keys, planned, self.log)
        assert len(planned) == len({item.key for item in planned}), (planned, self.log)
        if "selection" not in options:
            assert batch.counts.listed == len(self.put_of), (batch.counts, self.log)
            if not options.keys() & {"force", "profile"}:
                assert is_work == bool(planned), (is_work, batch.counts, self.log)
        is_calm = share is not None
        share = self.random.choice((0.0, 0.5, 1.0, 1.0, 1.0)) if share is None else share
        chosen = [item for item in planned if self.random.random() < share]
        if not is_calm and self.random.random() < 0.2:
            # Something happens between plan and job.
            self.log[-1] += " meanwhile"
            self.random.choice((self.put, self.delete, self.forget))()
        if chosen:
            run_slice(store.work(store.manifest(batch)), chosen)
            if self.random.random() < 0.2:
                run_slice(store.work(store.manifest(batch)), chosen)
        gate.settle_batch(store.connection, batch.batch_id, store.source)
        store.connection.commit()
        return gate.close_batch(store.connection, batch.batch_id, store.source)

    def ingest(self) -> None:
        self.batch()

    def forget(self) -> None:
        known = [
            key
            for (key,) in self.store.rows(
                "SELECT DISTINCT key FROM spectralize.objects WHERE bucket = %s ORDER BY 1", self.store.source.bucket
            )
        ]
        if known and self.random.random() < 0.4:
            key = self.random.choice(known)
            erasure = forget(self.store.connection, self.store.source.bucket, key, copies=True)
            self.forgotten |= {place.key for place in erasure.places if place.bucket == self.store.source.bucket}
            self.log[-1] += f" {key[:8]!r}"

    def supersede(self) -> None:
        remove_superseded(self.store.connection, grace=timedelta(0))

    def retain(self) -> None:
        if self.random.random() < 0.3:
            drop_expired_chunks(
                self.store.connection, {"test": timedelta(0)}, now=datetime.now(UTC) + timedelta(days=9)
            )
            self.log[-1] += " all"

    def step(self) -> None:
        act = self.random.choices(
            (self.put, self.delete, self.wait, self.ingest, self.forget, self.supersede, self.retain),
            (7, 2, 3, 7, 1, 2, 1),
        )[0]
        self.log.append(act.__name__)
        act()
        assert self.store.breaches() == {}, self.log

    def check_end(self) -> None:
        """Nothing is lost: once all has settled and been computed, what is current is what the bucket holds."""
        self.log.append("end")
        self.wait()
        for _ in range(6):
            if not self.batch({}, share=1.0).counts.planned:
                break
        batch = self.batch({}, share=1.0)
        assert batch.counts.planned == batch.counts.unsettled == 0, (batch.counts, self.log)
        current = {
            key: (etag, status) for key, etag, status in self.store.rows(
                "SELECT key, etag, status FROM spectralize.current_spectrograms WHERE bucket = %s AND profile = 'mel128_22k'",
                self.store.source.bucket)
        }  # fmt: skip
        retained = {
            (key, etag) for key, etag in self.store.rows(
                "SELECT o.key, o.etag FROM spectralize.spectrograms AS s JOIN spectralize.objects AS o USING (object_id) "
                "WHERE o.bucket = %s AND s.expired_because = 'retention'", self.store.source.bucket)
        }  # fmt: skip
        for page in list_pages(self.store.client, self.store.source.bucket, ""):
            for item in page:
                if item.key in self.forgotten or item.key == "n.txt":
                    assert item.key not in current, self.log
                elif self.put_of[item.key] < AUDIO and (item.key, item.etag) not in retained:
                    assert current.get(item.key) == (item.etag, "complete"), (item.key[:9], current, self.log)


@pytest.mark.parametrize("seed", [37, 0, 1, 2, 3])
def test_what_is_looked_at_is_planned_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    store.source = store.source.model_copy(
        update={"settle_s": SETTLE.total_seconds(), "include": ("*.WAV",), "max_failures": 1_000}
    )
    history = History(store, random.Random(seed))
    monkeypatch.setattr(worklist, "list_pages", history.listing)
    for _ in range(STEPS):
        history.step()
    history.check_end()
    assert store.breaches() == {}, history.log
