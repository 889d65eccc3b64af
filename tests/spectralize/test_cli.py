"""The command line as people and programs call it."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer

from spectralize import cli
from tests.store import Store, wav


def call(*arguments: str, dsn: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SPECTRALIZE_DSN"} | {"COLUMNS": "200"}
    if dsn:
        environment["SPECTRALIZE_DSN"] = dsn
    command = [str(Path(sys.executable).parent / "spectralize"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def call_here(*arguments: str, dsn: str) -> "subprocess.CompletedProcess[str]":
    """The same without a process of its own, which takes a second to start."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", "200")
        patch.setenv("SPECTRALIZE_DSN", dsn)
        patch.setattr(sys, "argv", ["spectralize", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


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
    found = json.loads(call_here("status", "--json", dsn=store.dsn).stdout)
    assert (found["recordings"], found["spectrograms"], found["mel_frames"]) == (1, 1, 87)
    assert found["outcomes"] == {"loaded": 1, "partial": 0, "rejected": 1, "failed": 0}
    assert found["reject_classes"] == {"empty": 1}
    [line] = found["batches"]
    assert (line["batch_id"], line["state"], line["listed"], line["planned"]) == (batch.batch_id, "success", 2, 2)
    assert "1 recordings" in call_here("status", dsn=store.dsn).stdout
    shown = call_here("status", str(batch.batch_id), dsn=store.dsn).stdout
    assert "bad [red]key[/].wav" in shown
    assert "the object has no bytes" in shown
    assert "planned 2 = loaded 1 + partial 0 + rejected 1 + failed 0" in shown
    objects = json.loads(call_here("status", str(batch.batch_id), "--json", dsn=store.dsn).stdout)["objects"]
    assert [(line["key"], line["outcome"]) for line in objects] == [
        ("a.wav", "loaded"),
        ("bad [red]key[/].wav", "rejected"),
    ]
    missing = call_here("status", "999", dsn=store.dsn)
    assert (missing.returncode, missing.stderr) == (
        1, "error: batch 999: not in the ledger; spectralize status lists the batches\n",
    )  # fmt: skip
    assert call_here("verify", dsn=store.dsn).returncode == 0
    store.connection.execute("DELETE FROM spectralize.mel_frames WHERE frame_index = 3")
    store.connection.commit()
    broken = call_here("verify", dsn=store.dsn)
    assert broken.returncode == 1
    assert "86 frames, 86 distinct, from 0 to 86; n_frames is 87" in broken.stdout
    assert json.loads(call_here("verify", "--json", dsn=store.dsn).stdout)["breaches"] == 1


def test_ls_and_show_of_a_store(store: Store) -> None:
    store.put("music/a [red].wav", wav(2.0))
    store.put("music/bad.wav", b"")
    store.put("speech/b.wav", wav(1.0, seed=1))
    store.ingest()
    bucket = store.source.bucket

    def ls(*arguments: str) -> list[str]:
        found = json.loads(call_here("ls", *arguments, "--json", dsn=store.dsn).stdout)
        assert found["total"] >= len(found["recordings"])
        return [item["key"] for item in found["recordings"]]

    assert ls(f"s3://{bucket}") == ["music/a [red].wav", "speech/b.wav"]
    assert ls(f"s3://{bucket}/music/") == ["music/a [red].wav"]
    assert ls(f"s3://{bucket}/music/", "--outcome", "rejected", "--outcome", "loaded") == [
        "music/a [red].wav",
        "music/bad.wav",
    ]
    assert ls(f"s3://{bucket}", "--limit", "1") == ["music/a [red].wav"]
    assert ls(f"s3://{bucket}", "--max-s", "1.5", "--profile", "mel128_22k") == ["speech/b.wav"]
    assert ls(f"s3://{bucket}", "--tag", "artist=nobody") == []
    assert ls(f"s3://{bucket}", "--text", "SPEECH b.wav", "--from", "2020-01-01") == ["speech/b.wav"]
    shown = call_here("ls", f"s3://{bucket}", "-n", "1", dsn=store.dsn).stdout
    assert "music/a [red].wav" in shown
    assert "1 of 2; --limit 0 lists all" in shown
    assert "the object has no bytes" in call_here("ls", f"s3://{bucket}", "--outcome", "rejected", dsn=store.dsn).stdout
    assert "no recordings" in call_here("ls", "nothing/", dsn=store.dsn).stdout
    for arguments, code, message in (
        (("--tag", "x"), 2, "must be NAME=VALUE"),
        (("--outcome", "good"), 2, "is not one of"),
        (("--from", "tomorrow"), 1, "error: recorded_from = 'tomorrow': must be a time such as 2024-05-01"),
        (("--profile", "mel129"), 1, "error: profile 'mel129': nothing in the store has it"),
        (("--snapshot", "none"), 1, "error: snapshot 'none': there is none of that name"),
    ):
        done = call_here("ls", *arguments, dsn=store.dsn)
        assert (done.returncode, message in " ".join(done.stderr.split())) == (code, True), done.stderr
    url = f"s3://{bucket}/music/a [red].wav"
    found = json.loads(call_here("show", url, "--json", dsn=store.dsn).stdout)
    recording = found["recording"]
    assert (recording["decoded_duration_s"], recording["outcome"], recording["tags"]["channels"]) == (2.0, "loaded", 1)
    assert [(item["status"], item["is_current"], item["n_frames"]) for item in found["spectrograms"]] == [
        ("complete", True, 87)
    ]
    assert [(item["outcome"], item["attempts"]) for item in found["ledger"]] == [("loaded", 1)]
    for name in (str(recording["id"]), recording["uid"], url):
        text = call_here("show", name, dsn=store.dsn).stdout
        assert url in text
        assert "complete, current" in text
        assert "2.000 s, 22050 Hz, 1 channel, pcm_s16le" in text
    rejected = call_here("show", f"s3://{bucket}/music/bad.wav", dsn=store.dsn).stdout
    assert "mel128_22k: rejected (empty): the object has no bytes" in rejected
    missing = call_here("show", "nothing.wav", dsn=store.dsn)
    assert (missing.returncode, missing.stderr) == (1, "error: recording nothing.wav: not in the store\n")


def test_snapshots_by_command(store: Store) -> None:
    store.put("a.wav", wav(1.0, seed=2))
    store.put("b.wav", wav(1.0, seed=3))
    store.ingest()
    bucket = store.source.bucket
    made = call_here(
        "snapshot", "create", "one [x]", "--bucket", bucket, "--prefix", "a", "--note", "why", dsn=store.dsn
    )
    assert made.stdout == "snapshot 'one [x]', 1 spectrograms: created\n", made.stderr
    assert "there already" in call_here("snapshot", "create", "one [x]", dsn=store.dsn).stdout
    [listed] = json.loads(call_here("snapshot", "ls", "--json", dsn=store.dsn).stdout)["snapshots"]
    assert (listed["name"], listed["note"], listed["n_spectrograms"]) == ("one [x]", "why", 1)
    assert "one [x]" in call_here("snapshot", "ls", dsn=store.dsn).stdout
    found = json.loads(call_here("ls", "--snapshot", "one [x]", "--json", dsn=store.dsn).stdout)
    assert [item["key"] for item in found["recordings"]] == ["a.wav"]
    shown = json.loads(call_here("show", f"s3://{bucket}/a.wav", "--json", dsn=store.dsn).stdout)
    assert shown["spectrograms"][0]["snapshots"] == ["one [x]"]
    assert call_here("snapshot", "drop", "one [x]", dsn=store.dsn).returncode == 2
    assert (
        json.loads(call_here("snapshot", "drop", "one [x]", "--yes", "--json", dsn=store.dsn).stdout)["done"]
        == "dropped"
    )
    assert call_here("snapshot", "ls", dsn=store.dsn).stdout == "no snapshots\n"
    assert call_here("snapshot", "drop", "one [x]", "--yes", dsn=store.dsn).returncode == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_options_and_names(shell: str) -> None:
    def complete(*words: str) -> str:
        line = " ".join(words)
        environment = os.environ | {
            "_SPECTRALIZE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
        }  # fmt: skip
        command = [str(Path(sys.executable).parent / "spectralize")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False).stdout

    assert "status" in complete("spectralize", "st")
    assert "rejected" in complete("spectralize", "ls", "--outcome", "re")
    assert "speech80_16k" in complete("spectralize", "ls", "--profile", "sp")
    assert "audio" in complete("spectralize", "plan", "au")


def test_every_command_speaks_json() -> None:
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        if hasattr(command, "commands"):
            for word, below in command.commands.items():
                walk(below, f"{name} {word}".strip())
        else:
            found[name] = {option for parameter in command.params for option in parameter.opts}

    walk(typer.main.get_command(cli.app), "")
    assert {name.split()[0] for name in found} == {
        "migrate",
        "status",
        "ls",
        "show",
        "plan",
        "verify",
        "snapshot",
        "forget",
        "explorer",
    }
    assert len(found) == 11
    assert [name for name, options in found.items() if "--json" not in options] == []


def test_narrow_and_foreign_terminals(store: Store) -> None:
    store.put("long/日本語 [red].wav", wav(0.5))
    store.ingest()
    bucket = store.source.bucket
    command = [str(Path(sys.executable).parent / "spectralize"), "ls", f"s3://{bucket}"]

    def ls(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
        settings = os.environ | {"SPECTRALIZE_DSN": store.dsn} | environment
        return subprocess.run([*command, *arguments], env=settings, capture_output=True, timeout=60, check=False)

    # The object is what a listing is for.
    assert "日本語" in "".join(ls(COLUMNS="40").stdout.decode().split())
    plain = ls(PYTHONIOENCODING="ascii", COLUMNS="200")
    assert (plain.returncode, plain.stderr) == (0, b"")
    assert rb"long/\u65e5\u672c\u8a9e [red].wav" in plain.stdout
    [found] = json.loads(ls("--json", PYTHONIOENCODING="ascii").stdout)["recordings"]
    assert found["key"] == "long/日本語 [red].wav"
    store.connection.execute("UPDATE spectralize.spectrograms SET peak_db = 'NaN'")
    store.connection.commit()
    [found] = json.loads(ls("--json").stdout, parse_constant=pytest.fail)["recordings"]
    assert found["spectrograms"]["mel128_22k"]["peak_db"] is None
    store.connection.execute("UPDATE spectralize.spectrograms SET peak_db = 0")
    store.connection.commit()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk here that is always full")
def test_output_that_cannot_be_written_is_one_line(store: Store) -> None:
    settings = os.environ | {"SPECTRALIZE_DSN": store.dsn}
    command = [str(Path(sys.executable).parent / "spectralize"), "ls", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=settings, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"error: [Errno 28] No space left on device\n")


def test_an_empty_name_is_not_none(store: Store) -> None:
    store.put("a.wav", wav(0.5))
    store.ingest()
    for command, message in (
        (("show", "9" * 5_000), "error: recording 99999"),
        (("show", "007"), "error: recording 007: not in the store"),
        (("ls", "--snapshot", ""), "error: snapshot '': there is none of that name"),
        (("ls", "--profile", ""), "error: profile '': nothing in the store has it"),
        (("snapshot", "create", "x", "--bucket", ""), "error: snapshot 'x': nothing is current that would be in it"),
        (("show", "a\udcff"), "not in the store: no key has NUL or lone surrogates"),
    ):
        done = call_here(*command, dsn=store.dsn)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert message in done.stderr
