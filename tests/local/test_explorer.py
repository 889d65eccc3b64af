"""The explorer as a service: started with the stack, restarted when it dies, and able to do nothing but read."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import psutil
import psycopg
import pytest
from botocore.exceptions import ClientError

from local.processes import MARKER
from local.stack import Stack
from local.state import Secrets, State
from local.waiting import NotReady, wait_until

#: What the explorer is given of the stack's secrets.
ITS_OWN = {"explorer_database", "explorer_s3_access_key", "explorer_s3_secret_key"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The explorer and the stores that it needs, started from a shell that would have it listen everywhere."""
    stack = Stack(name=f"test-{secrets.token_hex(3)}", durable=False, ephemeral_ports=True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPECTRALIZE_EXPLORER_HOST", "0.0.0.0")
            patch.setenv("SOME_TOKEN", "of somebody else")
            stack.up(["explorer"])
        yield stack
    finally:
        stack.clean()


def state_of(stack: Stack) -> State:
    state = State.load(stack.layout.state)
    assert state is not None
    return state


@pytest.fixture
def environ(stack: Stack) -> dict[str, str]:
    pid = stack.pid("explorer")
    assert pid is not None
    return psutil.Process(pid).environ()


def s3_of(environ: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL_S3"],
        region_name=environ["AWS_DEFAULT_REGION"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )


def test_runs_on_loopback_with_the_stores_alone(stack: Stack) -> None:
    stack.explorer.check()
    process = psutil.Process(stack.pid("explorer"))
    family = [process, *process.children(recursive=True)]
    found = {one.laddr for member in family for one in member.net_connections("inet") if one.status == "LISTEN"}
    assert found == {("127.0.0.1", state_of(stack).ports["explorer"])}
    # Airflow's alerts lead there.
    assert stack.addresses()["explorer"] == stack.explorer.url == stack.env()["SPECTRALIZE_EXPLORER_URL"]
    assert {name for name, info in stack.infos().items() if info.pid} == {"s3", "timescale", "explorer"}


def test_sees_none_of_the_other_secrets(stack: Stack, environ: dict[str, str]) -> None:
    known = {name: getattr(state_of(stack).secrets, name) for name in Secrets.__slots__}
    # As the kernel shows it, the process has been nothing else since.
    held = "\n".join(f"{name}={value}" for name, value in environ.items())
    assert {name for name, value in known.items() if value in held} == ITS_OWN
    assert "of somebody else" not in held
    assert environ[MARKER] == str(stack.layout.stack)
    assert environ["SPECTRALIZE_AIRFLOW_URL"] == stack.airflow_url


def test_its_role_reads_what_is_there_and_what_is_to_come_and_writes_nothing(
    stack: Stack, environ: dict[str, str]
) -> None:
    with psycopg.connect(stack.dsn) as owner:
        owner.execute("create schema later; create table later.notes as select 'read me' as text")
    with psycopg.connect(environ["SPECTRALIZE_DSN"], autocommit=True) as reader:
        assert reader.execute("select current_user, text from later.notes").fetchone() == ("explorer", "read me")
        for setting, value in {"statement_timeout": "30s", "transaction_read_only": "on"}.items():
            assert reader.execute("select current_setting(%s)", [setting]).fetchone() == (value,)
        # A role can lift what is a setting only, and has nothing of it.
        reader.execute("set default_transaction_read_only = off")
        for statement in (
            "insert into later.notes values ('wrote')",
            "delete from later.notes",
            "drop table later.notes",
            "create table later.mine (a int)",
            "create table public.mine (a int)",
            "create temporary table mine (a int)",
            "create schema mine",
            "create role mine",
            "alter role spectralize password 'mine'",
            "copy later.notes to program 'true'",
            "select rolpassword from pg_authid",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement)


def test_its_identity_reads_objects_and_writes_none(stack: Stack, environ: dict[str, str]) -> None:
    owner, reader = s3_of(stack.env()), s3_of(environ)
    owner.put_object(Bucket="audio", Key="a.wav", Body=b"0123456789")

    assert reader.get_object(Bucket="audio", Key="a.wav", Range="bytes=2-4")["Body"].read() == b"234"
    assert [found["Key"] for found in reader.list_objects_v2(Bucket="audio")["Contents"]] == ["a.wav"]
    for change in (
        lambda: reader.put_object(Bucket="audio", Key="a.wav", Body=b"mine"),
        lambda: reader.put_object(Bucket="audio", Key="b.wav", Body=b"mine"),
        lambda: reader.copy_object(Bucket="audio", Key="c.wav", CopySource="audio/a.wav"),
        lambda: reader.put_object_tagging(
            Bucket="audio", Key="a.wav", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
        ),
        lambda: reader.delete_object(Bucket="audio", Key="a.wav"),
        lambda: reader.delete_bucket(Bucket="audio"),
        lambda: reader.create_bucket(Bucket="mine"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            change()
    assert owner.get_object(Bucket="audio", Key="a.wav")["Body"].read() == b"0123456789"


def test_is_started_again_when_it_dies(stack: Stack) -> None:
    before = stack.pid("explorer")
    assert before is not None
    os.kill(before, signal.SIGKILL)

    def is_back() -> None:
        if stack.pid("explorer") in (None, before):
            raise NotReady("not started again")
        stack.explorer.check()

    wait_until(is_back, what="explorer", timeout_s=60)


def test_a_given_database_is_read_as_it_was_given(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for own in (stack.dsn, ""):
        monkeypatch.setenv("SPECTRALIZE_DSN", own)
        assert urlsplit(stack.explorer.dsn).username == "explorer"
    monkeypatch.setenv("SPECTRALIZE_DSN", "postgresql://me:pw@elsewhere/db")
    assert stack.explorer.dsn == "postgresql://me:pw@elsewhere/db"


def test_a_stack_of_before_gets_role_and_identity(stack: Stack) -> None:
    stack.down()
    stopped = [
        line.split()[4] for line in stack.layout.log("supervisord").read_text().splitlines() if " stopped: " in line
    ]
    assert stopped.index("explorer") < min(stopped.index("s3"), stopped.index("timescale"))
    raw = json.loads(stack.layout.state.read_text())
    for name in ITS_OWN:
        del raw["secrets"][name]
    stack.layout.state.write_text(json.dumps(raw))
    stack.up(["timescale"])
    assert stack.pid("explorer") is None
    superuser = stack.dsn.replace(
        f"spectralize:{raw['secrets']['timescale']}", f"postgres:{raw['secrets']['postgres_superuser']}"
    )
    with psycopg.connect(superuser) as connection:
        connection.execute("drop owned by explorer")
        connection.execute("drop role explorer")

    stack.up(["explorer"])

    pid = stack.pid("explorer")
    assert pid is not None
    environ = psutil.Process(pid).environ()
    with psycopg.connect(environ["SPECTRALIZE_DSN"]) as reader:
        assert reader.execute("select text from later.notes").fetchone() == ("read me",)
    assert s3_of(environ).get_object(Bucket="audio", Key="a.wav")["ContentLength"] == 10
