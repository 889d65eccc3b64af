"""The command line as people and programs call it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store import Store, wav


def call(*arguments: str, dsn: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SPECTRALIZE_DSN"} | {"COLUMNS": "200"}
    if dsn:
        environment["SPECTRALIZE_DSN"] = dsn
    command = [str(Path(sys.executable).parent / "spectralize"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_database_it_says_what_to_set() -> None:
    done = call("status")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no database given: set SPECTRALIZE_DSN to postgresql://user:password@host:port/database\n"
    )


@pytest.mark.parametrize("command", ["status", "verify", "migrate", "forget a.wav"])
def test_a_database_that_is_away_is_one_line(command: str) -> None:
    done = call(*command.split(), dsn="postgresql://u:topsecret@127.0.0.1:9/d")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: database u@127.0.0.1:9/d is unreachable: ")
    assert "topsecret" not in done.stderr


def test_a_malformed_dsn_is_one_line() -> None:
    done = call("status", dsn="not a dsn")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_wrong_call_has_exit_code_2() -> None:
    assert call("status", "--nope").returncode == 2
    assert call("nope").returncode == 2


def test_an_unmigrated_database_is_said(empty_dsn: str) -> None:
    for command in ("status", "verify", "forget a.wav"):
        done = call(*command.split(), dsn=empty_dsn)
        assert (done.returncode, done.stderr) == (
            1, "error: the database has no spectralize schema yet: run spectralize migrate\n",
        )  # fmt: skip
    assert "0001_create_objects.sql" in call("migrate", dsn=empty_dsn).stdout
    assert call("migrate", dsn=empty_dsn).stdout == "nothing to apply: the schema is up to date\n"
    assert "no batches yet" in call("status", dsn=empty_dsn).stdout


def test_status_and_verify_of_a_store(store: Store) -> None:
    store.put("a.wav", wav(2.0))
    store.put("bad [red]key[/].wav", b"")
    batch = store.ingest()
    found = json.loads(call("status", "--json", dsn=store.dsn).stdout)
    assert (found["recordings"], found["spectrograms"], found["mel_frames"]) == (1, 1, 87)
    assert found["outcomes"] == {"loaded": 1, "partial": 0, "rejected": 1, "failed": 0}
    assert found["reject_classes"] == {"empty": 1}
    [line] = found["batches"]
    assert (line["batch_id"], line["state"], line["listed"], line["planned"]) == (batch.batch_id, "success", 2, 2)
    assert "1 recordings" in call("status", dsn=store.dsn).stdout
    shown = call("status", str(batch.batch_id), dsn=store.dsn).stdout
    assert "bad [red]key[/].wav" in shown
    assert "the object has no bytes" in shown
    assert "planned 2 = loaded 1 + partial 0 + rejected 1 + failed 0" in shown
    objects = json.loads(call("status", str(batch.batch_id), "--json", dsn=store.dsn).stdout)["objects"]
    assert [(line["key"], line["outcome"]) for line in objects] == [
        ("a.wav", "loaded"),
        ("bad [red]key[/].wav", "rejected"),
    ]
    missing = call("status", "999", dsn=store.dsn)
    assert (missing.returncode, missing.stderr) == (
        1, "error: batch 999: not in the ledger; spectralize status lists the batches\n",
    )  # fmt: skip
    assert call("verify", dsn=store.dsn).returncode == 0
    store.connection.execute("DELETE FROM spectralize.mel_frames WHERE frame_index = 3")
    store.connection.commit()
    broken = call("verify", dsn=store.dsn)
    assert broken.returncode == 1
    assert "86 frames, 86 distinct, from 0 to 86; n_frames is 87" in broken.stdout
    assert json.loads(call("verify", "--json", dsn=store.dsn).stdout)["breaches"] == 1
