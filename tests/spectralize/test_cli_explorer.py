"""`spectralize explorer` as a process, and what keeps it from starting."""

import http.client
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from local.stack import Stack
from tests.conftest import _superuser_dsn
from tests.spectralize.test_cli import call_here

AWAY = "postgresql://someone:topsecret@127.0.0.1:9/features"
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # A shell has what it starts in the background ignore interrupts, and whom that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def running(*arguments: str, **settings: str) -> Iterator[tuple["subprocess.Popen[str]", str, int]]:
    """The command, once it has said where it listens: its process, that line, and the port."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPECTRALIZE_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "spectralize"), "explorer", "--port", "0", *arguments],
        env=inherited | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        match = re.search(r":([0-9]+)\b(?!.*:[0-9])", said)
        if match is None:
            pytest.fail(f"said {said!r}, {process.communicate(timeout=60)}")
        yield process, said, int(match[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


def say(port: int, data: bytes) -> bytes:
    """What it answers to bytes that need not be a request, until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        parts = []
        # What it has not read by the time it closes makes the system reset the connection.
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def ask(port: int, path: str, method: str = "GET", body: str = "", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined]
    connection.close()
    return answer


@pytest.fixture(scope="module")
def reader_dsn(stack: Stack, dsn: str) -> Iterator[str]:
    """The address of a role that only reads."""
    name, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    role = {"role": sql.Identifier(name), "password": sql.Literal(password)}
    parts = urlsplit(dsn)
    with psycopg.connect(_superuser_dsn(stack, parts.path.lstrip("/")), autocommit=True) as connection:
        for line in (
            "CREATE ROLE {role} LOGIN PASSWORD {password}",
            "GRANT USAGE ON SCHEMA spectralize TO {role}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA spectralize TO {role}",
        ):
            connection.execute(sql.SQL(line).format(**role))
        yield urlunsplit(parts._replace(netloc=f"{name}:{password}@{parts.hostname}:{parts.port}"))
        connection.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(**role))


def test_for_oneself(dsn: str) -> None:
    with running(SPECTRALIZE_DSN=dsn) as (process, said, port):
        assert said == f"explorer: http://127.0.0.1:{port}\n"
        assert (ask(port, "/").status, ask(port, "/readyz").status, ask(port, "/x.js").status) == (200, 200, 404)
        assert ask(port, "/healthz").getheader("Server") is None
        assert (
            b" 400 "
            in say(port, b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").split(b"\r\n")[0]
        )
        assert b" 400 " in say(port, b"GET / HTTP/1.0\r\n\r\n").split(b"\r\n")[0]
        assert b" 400 " in say(port, b"\x16\x03\x01 nonsense\r\n\r\n").split(b"\r\n")[0]
        head = b"POST /_dash-update-component HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        # Refused for what it announces, without being waited for; and what announces nothing, once it is too long.
        assert b" 413 " in say(port, head + b"Content-Length: 99999999999\r\n\r\n").split(b"\r\n")[0]
        chunk = b"80000\r\n" + b"x" * 0x80000 + b"\r\n"
        sent = say(port, head + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk + b"0\r\n\r\n")
        assert b" 413 " in sent.split(b"\r\n")[0]
        assert b"nosniff" in sent
        too_long = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 33_000 + b"\r\n\r\n"
        assert say(port, too_long).split(b"\r\n")[0] in {b"", b"HTTP/1.0 431 Request Header Fields Too Large"}

        taken = call_here("explorer", "--port", str(port), dsn=dsn)
        assert (taken.returncode, taken.stderr.count("\n"), taken.stdout) == (1, 1, "")
        assert taken.stderr.startswith(f"error: port {port} of 127.0.0.1 cannot be listened on: Address already in use")

        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert time.monotonic() - begun < 10
        assert err.count("\n") == err.count("this role may write") == 1


def test_for_others(reader_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    settings = {
        "SPECTRALIZE_DSN": reader_dsn,
        "SPECTRALIZE_EXPLORER_HOST": "0.0.0.0",
        "SPECTRALIZE_EXPLORER_PASSWORD_FILE": str(tmp_path / "password"),
    }
    with running("--json", **settings) as (process, said, port):
        assert said == f'{{"url": "http://0.0.0.0:{port}"}}\n'
        assert ask(port, "/readyz").status == 200
        assert ask(port, "/batches").getheader("Location") == "/sign-in?next=%2Fbatches"
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        entered = ask(port, "/sign-in", "POST", urlencode({"password": PASSWORD, "next": "/batches"}), **form)
        assert (entered.status, entered.getheader("Location")) == (303, "/batches")
        cookie = str(entered.getheader("Set-Cookie")).partition(";")[0]
        assert ask(port, "/batches", Cookie=cookie).status == 200
        # More than it has threads: they wait, and the log does not tell of each.
        with ThreadPoolExecutor(40) as pool:
            assert {
                answer.status for answer in pool.map(lambda _: ask(port, "/batches", Cookie=cookie), range(40))
            } == {200}
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0


def test_a_database_that_is_away_keeps_nobody_from_starting() -> None:
    with running("--dsn", AWAY) as (process, _, port):
        assert (ask(port, "/").status, ask(port, "/healthz").status, ask(port, "/readyz").status) == (200, 200, 503)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, "the database is away" in err, "topsecret" in err) == (0, True, False)


def test_others_need_a_role_that_only_reads(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRALIZE_EXPLORER_PASSWORD", PASSWORD)
    done = call_here("explorer", "--host", "0.0.0.0", "--port", "0", dsn=dsn)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (1, 1, "")
    assert "may write, and others reach the explorer: give it one that only reads, as in docs/sql.md" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--host", "0.0.0.0"),
            1,
            "error: bound to 0.0.0.0, others reach it: set SPECTRALIZE_EXPLORER_PASSWORD, or SPECT",
        ),
        (("--port", "65536"), 2, "Invalid value for '--port'"),
        (("--port", "http"), 2, "Invalid value for '--port'"),
        (("--password", "x"), 2, "No such option"),
        (("--dsn", "nonsense"), 1, "error: SPECTRALIZE_DSN: not a PostgreSQL address"),
        (("--host", "127.0.0.1.nowhere"), 1, "error: bound to 127.0.0.1.nowhere, others reach it"),
    ],
)
def test_wrong_calls(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = call_here("explorer", *arguments, dsn=AWAY)
    assert done.returncode == code
    assert message in " ".join(done.stderr.split())
    assert code == 2 or done.stderr.count("\n") == 1


def test_without_a_database_or_the_extra_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set SPECTRALIZE_DSN to" in call_here("explorer", dsn="").stderr
    # As where it is not installed: importing it fails.
    monkeypatch.setitem(sys.modules, "waitress", None)
    monkeypatch.setitem(sys.modules, "waitress.server", None)
    monkeypatch.delitem(sys.modules, "spectralize.explorer.serve", raising=False)
    done = call_here("explorer", dsn=AWAY)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the extra explorer is not installed (waitress" in done.stderr
    assert "pip install 'spectralize[explorer]'" in done.stderr
