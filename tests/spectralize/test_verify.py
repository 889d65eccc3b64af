"""Each invariant, broken on purpose: verify must name it, and nothing else."""

import pytest

from tests.store import Store, wav

FIRST = "(SELECT min(spectrogram_id) FROM spectralize.spectrograms)"

BREACHES = {
    "frames_are_contiguous": f"DELETE FROM spectralize.mel_frames WHERE spectrogram_id = {FIRST} AND frame_index = 7",
    "frames_are_on_time": (
        f"UPDATE spectralize.mel_frames SET frame_time = frame_time + interval '1 microsecond' "
        f"WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "waveform_is_contiguous": (
        f"INSERT INTO spectralize.waveform_frames SELECT * FROM spectralize.waveform_frames "
        f"WHERE spectrogram_id = {FIRST} AND frame_index = 7"
    ),
    "seconds_are_contiguous": f"DELETE FROM spectralize.mel_seconds WHERE spectrogram_id = {FIRST} AND second_index = 0",
    "no_orphan_rows": (
        "INSERT INTO spectralize.mel_frames SELECT frame_time, 999999, frame_index, mel FROM spectralize.mel_frames LIMIT 3"
    ),
    "claims_are_unique": (
        "ALTER TABLE spectralize.spectrograms DROP CONSTRAINT spectrograms_object_id_profile_id_generation_key"
    ),
    "batch_sums_hold": "UPDATE spectralize.batches SET listed = listed + 1",
    "batch_counts_match_lines": (
        "UPDATE spectralize.batches SET loaded = loaded - 1, rejected = rejected + 1 WHERE loaded > 0"
    ),
    "outcomes_match_spectrograms": (
        "UPDATE spectralize.batch_objects SET spectrogram_id = (SELECT max(spectrogram_id) FROM spectralize.spectrograms) "
        f"WHERE spectrogram_id = {FIRST}"
    ),
    "spectrograms_are_in_the_ledger": (
        f"UPDATE spectralize.batch_objects SET outcome = 'failed', reason_class = 'x', reason = 'x', spectrogram_id = NULL "
        f"WHERE spectrogram_id = {FIRST}"
    ),
    "attempts_match_lines": f"UPDATE spectralize.batch_objects SET attempts = 2 WHERE spectrogram_id = {FIRST}",
    "spectrograms_have_recordings": (
        "DELETE FROM spectralize.recordings "
        f"WHERE object_id = (SELECT object_id FROM spectralize.spectrograms WHERE spectrogram_id = {FIRST})"
    ),
    "forgotten_is_gone": (
        "UPDATE spectralize.objects SET forgotten_at = now() "
        f"WHERE object_id = (SELECT object_id FROM spectralize.spectrograms WHERE spectrogram_id = {FIRST})"
    ),
    "snapshots_are_kept": (
        "INSERT INTO spectralize.snapshots (name) VALUES ('kept'); "
        "INSERT INTO spectralize.snapshot_spectrograms "
        f"SELECT snapshot_id, {FIRST} FROM spectralize.snapshots WHERE name = 'kept'; "
        "UPDATE spectralize.spectrograms SET status = 'expired', expired_at = now(), expired_because = 'retention' "
        f"WHERE spectrogram_id = {FIRST}"
    ),
}

#: Breaking one thing may break what follows from it.
CONSEQUENCES = {
    "outcomes_match_spectrograms": {"spectrograms_are_in_the_ledger"},
    "spectrograms_are_in_the_ledger": {"batch_counts_match_lines"},
    "snapshots_are_kept": {"no_orphan_rows"},
}


@pytest.fixture
def two_recordings(store: Store) -> Store:
    if not store.rows("SELECT FROM spectralize.spectrograms LIMIT 1"):
        store.put("a.wav", wav(2.5, seed=1))
        store.put("b.wav", wav(2.5, seed=2))
        store.ingest()
    return store


@pytest.mark.parametrize("name", BREACHES)
def test_verify_names_the_breach(name: str, two_recordings: Store) -> None:
    from spectralize.verify import verify_store

    store = two_recordings
    assert store.breaches() == {}
    connection = store.connection
    # In a transaction that is rolled back: verify sees it through the same connection's own snapshot.
    with connection.transaction(force_rollback=True):
        connection.execute(BREACHES[name])
        found = {finding.name for finding in verify_store(connection, own_transaction=False) if finding.n_breaches}
    assert name in found
    assert found <= {name} | CONSEQUENCES.get(name, set())
    assert store.breaches() == {}


def test_every_invariant_that_can_be_broken_here_is_broken_above(two_recordings: Store) -> None:
    from spectralize.verify import verify_store

    names = {finding.name for finding in verify_store(two_recordings.connection)}
    # An invalid index cannot be made by a role that does not own the catalogue.
    assert names - set(BREACHES) == {"indexes_are_valid"}


def test_every_invariant_says_what_it_is(two_recordings: Store) -> None:
    from spectralize.verify import verify_store

    assert all(len(finding.statement) > 20 for finding in verify_store(two_recordings.connection))
