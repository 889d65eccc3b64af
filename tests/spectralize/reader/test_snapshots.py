"""Pinned snapshots: readable for as long as they are there, whatever becomes of what was current."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from spectralize import open_store
from spectralize.database import connect
from spectralize.errors import ConfigError, ReadError
from spectralize.forget import forget
from spectralize.maintenance import remove_superseded
from tests.spectralize.reader.conftest import bucket_of
from tests.store import Store, wav


def remove(dsn: str) -> int:
    with connect(dsn) as connection:
        return remove_superseded(connection, grace=timedelta(0)).n_spectrograms


def test_a_snapshot_outlives_supersession_and_maintenance(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "snap") as store, open_store(dsn) as reader:
        for number, key in enumerate(("a.wav", "b.wav", "c.wav")):
            store.put(key, wav(1.0 + number, seed=number))
        store.ingest()
        pinned = reader.snapshot("training 1", note="first try")
        content = {recording.key: recording.mel() for recording in pinned.recordings()}
        assert sorted(content) == ["a.wav", "b.wav", "c.wav"]
        assert all(mel.attrs["snapshot"] == "training 1" for mel in content.values())
        store.put("a.wav", wav(5.0, seed=9))
        store.put("d.wav", wav(1.0, seed=10))
        store.ingest()
        # What is current goes on; the snapshot does not.
        assert {r.key: r.duration_s for r in reader.recordings()} == {
            "a.wav": 5.0,
            "b.wav": 2.0,
            "c.wav": 3.0,
            "d.wav": 1.0,
        }
        assert remove(dsn) == 0
        again = reader.snapshot("training 1", create=False)
        assert {recording.key: recording.mel() for recording in again.recordings()}.keys() == content.keys()
        for recording in again.recordings():
            assert recording.mel().identical(content[recording.key])
            assert (
                again.recording(recording.key)
                == recording
                == again.recording(recording.id)
                == again.recording(recording.uid)
            )
        assert len(again.recordings(min_duration_s=2.0)) == 2
        [kept] = [recording for recording in again.recordings() if recording.key == "a.wav"]
        windows = again.mel_windows([kept.id, kept], [0.0, 0.25], 0.5)
        assert windows.values[0].tolist() == content["a.wav"].values[:21].tolist()
        with pytest.raises(ReadError, match=r"recording d.wav: not in the snapshot 'training 1'"):
            again.recording("d.wav")
        # Its name now stands for what it was, not for what is current.
        same = reader.snapshot("training 1")
        assert len(same.recordings()) == 3
        [listed] = reader.snapshots()
        assert (listed.name, listed.note, listed.n_spectrograms) == ("training 1", "first try", 3)
        reader.drop_snapshot("training 1")
        assert remove(dsn) == 1
        with pytest.raises(ReadError, match=r"was removed since this recording was looked up"):
            kept.mel()
        with pytest.raises(ReadError, match=r"snapshot 'training 1': there is none of that name; there are none"):
            reader.snapshot("training 1", create=False)
        with pytest.raises(ReadError, match="there is none of that name"):
            reader.drop_snapshot("training 1")
        assert store.breaches() == {}


def test_a_snapshot_of_some_recordings(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "some", profiles=("mel128_22k", "speech80_16k")) as store, open_store(dsn) as reader:
        for number, key in enumerate(("x/1.wav", "x/2.wav", "y/1.wav")):
            store.put(key, wav(1.3, seed=20 + number))
        store.ingest()
        some = reader.snapshot("x only", recordings=reader.recordings(bucket=store.source.bucket, key_prefix="x/"))
        assert [recording.key for recording in some.recordings()] == ["x/1.wav", "x/2.wav"]
        assert list(some.recording("x/1.wav").spectrograms) == ["mel128_22k", "speech80_16k"]
        for name, chosen in (("empty", []), ("  ", None), ("a\nb", None)):
            with pytest.raises(ReadError, match="snapshot"):
                reader.snapshot(name, recordings=chosen)
        assert [item.name for item in reader.snapshots()] == ["x only"]
        # Consent goes before repeatability.
        with connect(dsn) as connection:
            forget(connection, store.source.bucket, "x/1.wav")
        assert [recording.key for recording in some.recordings()] == ["x/2.wav"]
        reader.drop_snapshot("x only")
        assert store.breaches() == {}


def test_the_same_name_at_the_same_time_is_one_snapshot(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "race") as store, open_store(dsn) as reader:
        store.put("a.wav", wav(1.0))
        store.ingest()
        barrier = threading.Barrier(4)

        def make(_: int) -> int:
            barrier.wait(timeout=30)
            pinned = reader.snapshot("race")
            return len(list(pinned.recordings(bucket=store.source.bucket)))

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(make, range(4))) == [1, 1, 1, 1]
        assert len(reader.snapshots()) == 1
        reader.drop_snapshot("race")


def test_pinning_while_maintenance_removes(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "both") as store, open_store(dsn) as reader:
        for number in range(6):
            store.put(f"{number}.wav", wav(0.5, seed=number))
        store.ingest()
        for number in range(6):
            store.put(f"{number}.wav", wav(0.6, seed=number))
        store.ingest()
        old = [reader.recording(store_id) for (store_id,) in store.rows(
            "SELECT s.object_id FROM spectralize.spectrograms AS s JOIN spectralize.objects AS o USING (object_id) "
            "WHERE o.bucket = %s AND s.status <> 'expired' AND s.n_samples < 12000", store.source.bucket,
        )]  # fmt: skip
        assert len(old) == 6
        with ThreadPoolExecutor(2) as pool:
            removing = pool.submit(remove, dsn)
            pinned = pool.submit(reader.snapshot, "during").result()
            removing.result()
        # Only what is current is pinned, and all of it can be read.
        assert {recording.mel().shape for recording in pinned.recordings(bucket=store.source.bucket)} == {(26, 128)}
        assert store.breaches() == {}
        reader.drop_snapshot("during")


def test_a_role_that_may_only_read_cannot_pin(dsn: str, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_store(dsn)
    monkeypatch.setattr(reader.session, "write", reader.session.run)
    with pytest.raises(ConfigError, match="refuses this role: cannot execute INSERT in a read-only transaction"):
        reader.snapshot("not mine")
    assert "not mine" not in {item.name for item in reader.snapshots()}


def test_readers_always_see_exactly_one_current_spectrogram(dsn: str, aws: None) -> None:
    lengths = [1.0 + 0.5 * number for number in range(8)]
    with bucket_of(dsn, "current") as store, open_store(dsn) as reader:
        key = f"s3://{store.source.bucket}/a.wav"
        store.put("a.wav", wav(lengths[0]))
        store.ingest()
        is_over = threading.Event()

        def look() -> tuple[list[float], int]:
            """Read all the while, as an application does that looks recordings up when it needs them."""
            seen, n_removed = [lengths[0]], 0
            while not is_over.is_set():
                assert len(reader.recordings(bucket=store.source.bucket)) == 1
                [current] = reader.recordings(bucket=store.source.bucket)
                recording = reader.recording(key)
                assert recording.id >= current.id
                try:
                    mel = recording.mel()
                except ReadError as error:
                    # Looked up before maintenance, read after it: said, and the next look finds the new one.
                    if "was removed since this recording was looked up" not in str(error):
                        raise
                    n_removed += 1
                    continue
                assert mel.shape == (recording.spectrogram().n_frames, 128)
                seen.append(recording.duration_s or 0.0)
            return seen, n_removed

        with ThreadPoolExecutor(2) as pool:
            looks = [pool.submit(look) for _ in range(2)]
            try:
                for number, length in enumerate(lengths[1:], start=1):
                    store.put("a.wav", wav(length, seed=number))
                    store.ingest()
                    remove(dsn)
            finally:
                is_over.set()
            for seen, n_removed in (found.result() for found in looks):
                # From old to new, and never back.
                assert seen == sorted(seen)
                assert set(seen) <= set(lengths)
                assert len(seen) > n_removed
        assert reader.recording(key).duration_s == lengths[-1]
        assert store.breaches() == {}


def test_a_snapshot_that_is_dropped_while_it_is_read_is_not_an_empty_one(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "dropped") as store, open_store(dsn) as reader:
        for number in range(3):
            store.put(f"{number}.wav", wav(0.5, seed=number))
        store.ingest()
        pinned = reader.snapshot("dropped")
        under_way = iter(pinned.recordings())
        assert next(under_way).key == "0.wav"
        reader.drop_snapshot("dropped")
        said = "snapshot 'dropped' was dropped since it was opened"
        for look in (
            lambda: list(pinned.recordings()),
            lambda: len(pinned.recordings()),
            lambda: pinned.recordings().first(),
            lambda: pinned.recording(f"s3://{store.source.bucket}/0.wav"),
        ):
            with pytest.raises(ReadError, match=said):
                look()


def test_what_is_no_longer_current_is_not_left_out_silently(dsn: str, aws: None) -> None:
    with bucket_of(dsn, "stale") as store, open_store(dsn) as reader:
        for key in ("a.wav", "b.wav"):
            store.put(key, wav(0.5))
        store.ingest()
        before = list(reader.recordings(bucket=store.source.bucket))
        store.put("a.wav", wav(0.6))
        store.ingest()
        with pytest.raises(
            ReadError, match="1 of the 2 spectrograms given are no longer current: look the recordings up"
        ):
            reader.snapshot("stale", recordings=before)
        for wrong in ([before[0].id], before[0], ["a.wav"]):
            with pytest.raises(ReadError, match=r"recordings.*: must be a"):
                reader.snapshot("stale", recordings=wrong)  # type: ignore[arg-type]
        assert "stale" not in {item.name for item in reader.snapshots()}


@pytest.mark.parametrize(
    "name", [5, None, "a\x00", "a\ud800", b"x", "x" * 201], ids=["int", "none", "nul", "surrogate", "bytes", "long"]
)
def test_names_that_no_snapshot_can_have(dsn: str, name: Any) -> None:
    with open_store(dsn) as reader:
        for use in (reader.snapshot, reader.drop_snapshot):
            with pytest.raises(ReadError, match="snapshot"):
                use(name)
