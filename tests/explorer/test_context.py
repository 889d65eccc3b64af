"""The database as the explorer reads it: given up after a while, and told of in one line."""

import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from spectralize.database import connect
from spectralize.errors import ReadError, SpectralizeError
from spectralize.explorer.context import BoundedSession, RoleError, check_database
from spectralize.explorer.settings import Settings
from tests.explorer.asking import AWAY, PASSWORD, Browser, line


@pytest.fixture(scope="module")
def open_one() -> Browser:
    """One on loopback, which asks nobody who they are."""
    return Browser(Settings(dsn=AWAY))


def test_a_database_that_is_away_is_one_line(open_one: Browser, caplog: pytest.LogCaptureFixture) -> None:
    session = BoundedSession(Settings(dsn=AWAY))
    with pytest.raises(SpectralizeError) as caught:
        session.run(lambda connection: connection.execute("SELECT 1"))
    assert str(caught.value) == "The database cannot be reached. Please try again in a while."
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    [record] = caplog.records
    assert "someone@127.0.0.1:9/features" in record.getMessage()
    ready = open_one.ask("/readyz")
    assert (ready.status_code, line(ready)) == (503, "not ready: the database is away\n")
    # Who asks over and over has the database asked once.
    n_records = len(caplog.records)
    assert [open_one.ask("/readyz").status_code for _ in range(5)] == [503] * 5
    assert len(caplog.records) == n_records
    assert open_one.ask("/healthz").status_code == 200
    assert "topsecret" not in caplog.text


@pytest.fixture
def session(dsn: str) -> Iterator[BoundedSession]:
    """A session of the tables' owner, on loopback."""
    session = BoundedSession(Settings(dsn=dsn))
    yield session
    session.close()


def test_statements_are_given_up(dsn: str, session: BoundedSession) -> None:
    def settings_of(connection: psycopg.Connection[Any]) -> list[str]:
        names = ("statement_timeout", "application_name", "default_transaction_read_only", "lock_timeout")
        return [str(connection.execute(f"SHOW {name}").fetchone()[0]) for name in names]  # type: ignore[index]

    assert session.run(settings_of) == ["10s", "spectralize explorer", "on", "5s"]
    # What the address itself says counts.
    brief = BoundedSession(Settings(dsn=f"{dsn}?options=-c%20statement_timeout%3D50ms"))
    with pytest.raises(ReadError, match=r"^The database was given 10 s for that and did not finish: ask for less\.$"):
        brief.run(lambda connection: connection.execute("SELECT pg_sleep(20)"))
    assert brief.run(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
    brief.close()
    with pytest.raises(SpectralizeError) as caught:
        session.run(lambda connection: connection.execute("DELETE FROM spectralize.objects"))
    assert str(caught.value).startswith(
        "The database refuses this role: cannot execute DELETE in a read-only transaction"
    )
    assert "127.0.0.1" not in str(caught.value)


def test_a_role_that_may_write(dsn: str, session: BoundedSession, caplog: pytest.LogCaptureFixture) -> None:
    assert check_database(session) == ""
    assert check_database(session) == ""
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "this role may write" in warning
    assert "docs/sql.md" in warning
    settings = Settings(dsn=dsn, host="0.0.0.0", password=PASSWORD)
    strict = BoundedSession(settings)
    for _ in range(2):
        with pytest.raises(RoleError, match=r"may write, and others reach the explorer.*docs/sql\.md"):
            strict.run(lambda connection: connection.execute("SELECT 1"))
    strict.close()
    ready = Browser(settings).ask("/readyz")
    assert (ready.status_code, line(ready)) == (503, "not ready: the database role may write\n")


def test_a_database_without_a_schema(empty_dsn: str) -> None:
    session = BoundedSession(Settings(dsn=empty_dsn, host="0.0.0.0", password=PASSWORD))
    assert check_database(session) == "the database has no schema of this version"
    with connect(empty_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA spectralize; CREATE TABLE spectralize.objects (object_id bigint)")
    # It is looked at again once there is something to write to.
    with pytest.raises(RoleError):
        check_database(session)
    session.close()


def test_ready_with_a_database(dsn: str) -> None:
    ready = Browser(Settings(dsn=dsn)).ask("/readyz")
    assert (ready.status_code, ready.data) == (200, b"ready\n")
