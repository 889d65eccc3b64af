"""docs/sql.md, run as it stands: its role is created and granted, and every query is typed into psql as that role."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from local import pg_binaries
from local.paths import REPO
from local.stack import Stack
from spectralize import open_store
from spectralize.errors import ConfigError
from spectralize.reader import Store as Reader
from tests.conftest import _superuser_dsn
from tests.docs.pages import Block, read_blocks, read_tables
from tests.docs.sounds import SR, as_flac, dawn
from tests.servers import place_of
from tests.store import Store

PAGE = REPO / "docs" / "sql.md"
ROLE = "analyst"

#: Whose statements change something, and when: the first one's at once, the other's in the test of snapshots.
GRANTS, MORE_GRANTS = "A role that only reads", "Snapshots"


def queries() -> list[Block]:
    """What an analyst types."""
    return [block for block in read_blocks(PAGE) if block.heading not in {GRANTS, MORE_GRANTS} or block.kind != "sql"]


def grants(heading: str) -> str:
    [block] = [block for block in read_blocks(PAGE) if block.heading == heading and block.kind == "sql"]
    assert block.shown is None
    return block.text


def superuser_dsn(stack: Stack, filled: Store) -> str:
    return _superuser_dsn(stack, urlsplit(filled.dsn).path.lstrip("/"))


def type_into_psql(stack: Stack, dsn: str, text: str) -> str:
    """Return what psql prints, errors and all."""
    parts = urlsplit(dsn)
    variables = {
        "PGHOST": str(parts.hostname), "PGPORT": str(parts.port), "PGUSER": str(parts.username),
        "PGPASSWORD": unquote(str(parts.password)), "PGDATABASE": parts.path.lstrip("/"), "PGCLIENTENCODING": "UTF8",
        "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    done = subprocess.run(
        [*pg_binaries.command(place_of(stack), "psql"), "-X", "-q", "-P", "pager=off", "-c", text],
        cwd="/", env={name: value for name, value in os.environ.items() if not name.startswith("PG")} | variables,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def analyst(stack: Stack, filled: Store) -> Iterator[str]:
    """The address of the page's role, which has what the page grants it, and nothing else."""
    admin = superuser_dsn(stack, filled)
    password = secrets.token_hex(8)
    with psycopg.connect(admin, autocommit=True) as connection:
        assert type_into_psql(stack, admin, grants(GRANTS)) == ""
        # What `\password` does at a terminal.
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(password)))
        parts = urlsplit(filled.dsn)
        yield urlunsplit(parts._replace(netloc=f"{ROLE}:{password}@{parts.hostname}:{parts.port}"))
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(ROLE)))


@pytest.fixture
def reader(analyst: str) -> Iterator[Reader]:
    with open_store(analyst, profile="mel128_22k") as reader:
        yield reader


@pytest.mark.parametrize("block", queries(), ids=lambda block: f"line {block.line}")
def test_every_query_prints_what_the_page_shows(stack: Stack, analyst: str, block: Block) -> None:
    assert block.kind in {"sql", "sql analyst"}
    assert block.shown, f"{block.where}: shows no result"
    block.check(type_into_psql(stack, analyst, block.text))


def chunks_opened(dsn: str, query: str) -> tuple[int, int]:
    """How many chunks of mel_frames a query reads from, or asks in vain; and of how many."""
    with psycopg.connect(dsn) as connection:
        connection.execute(query.encode())
        [[opened]] = connection.execute(
            "SELECT count(*) FROM pg_stat_xact_user_tables "
            "WHERE schemaname = '_timescaledb_internal' AND (seq_scan > 0 OR idx_scan > 0)"
        ).fetchall()
        [[chunks]] = connection.execute(
            "SELECT num_chunks FROM timescaledb_information.hypertables WHERE hypertable_name = 'mel_frames'"
        ).fetchall()
    return opened, chunks


@pytest.mark.parametrize(
    "block", [block for block in queries() if "chunks" in block.text], ids=lambda block: f"line {block.line}"
)
def test_queries_open_as_many_chunks_as_the_page_says(analyst: str, block: Block) -> None:
    [[opened, chunks]] = re.findall(r"^-- opens (\d+) of (\d+) chunks$", block.text, re.MULTILINE)
    assert chunks_opened(analyst, block.text) == (int(opened), int(chunks))


@pytest.mark.parametrize(
    ("bounds", "opened"),
    [
        ("frame_time >= now() - INTERVAL '1 day'", 1),
        (
            "spectrogram_id = 1 AND frame_time >= (SELECT min(recorded_at) FROM spectralize.spectrograms) "
            "AND frame_time < (SELECT min(recorded_at) + INTERVAL '1 day' FROM spectralize.spectrograms)",
            1,
        ),
    ],
)
def test_times_that_are_known_before_a_query_begins(analyst: str, bounds: str, opened: int) -> None:
    assert chunks_opened(analyst, f"SELECT count(mel) FROM spectralize.mel_frames WHERE {bounds}") == (opened, 3)


@pytest.mark.parametrize("view", ["current_spectrograms", "current_outcomes"])
def test_views_find_keys_and_prefixes_by_the_index(analyst: str, view: str) -> None:
    for condition, is_found in (
        ("bucket = 'recordings' AND key = 'music/chords.mp3'", True),
        ("bucket = 'recordings' AND key LIKE 'music/%'", True),
        ("profile = 'mel128_22k'", False),
    ):
        with psycopg.connect(analyst) as connection:
            # So few rows are read whole, unless that is forbidden.
            connection.execute("SET LOCAL enable_seqscan = off")
            query = f"EXPLAIN SELECT * FROM spectralize.{view} WHERE {condition}"
            plan = "\n".join(line for (line,) in connection.execute(query.encode()))
        assert bool(re.search(r"Index Cond: \(\(bucket = 'recordings'::text\) AND \(key >?=", plan)) == is_found, plan


def test_the_page_names_what_there_is(filled: Store) -> None:
    there = {
        name
        for (name,) in filled.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'spectralize'::regnamespace AND relkind IN ('r', 'v') "
            "UNION SELECT proname FROM pg_proc WHERE pronamespace = 'spectralize'::regnamespace"
        )
    }
    named = {name for row in read_tables(PAGE, "What is where") for name in re.findall(r"`(\w+)", row[0])}
    assert len(named) >= 17
    assert named <= there


def test_the_role_reads_and_changes_nothing(analyst: str, reader: Reader, filled: Store) -> None:
    recording = reader.recording("field/site-7/20240601_043000.flac")
    assert recording.mel(4, 14).shape == (430, 128)
    assert recording.audio(4, 5).shape == (SR,)
    assert len(reader.recordings()) == 7
    tables = [
        name
        for (name,) in filled.rows(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'spectralize' ORDER BY tablename"
        )
    ]
    assert {"objects", "mel_frames", "snapshots"} <= set(tables)
    with psycopg.connect(analyst, autocommit=True) as connection:
        for name in tables:
            table = sql.SQL("spectralize.{}").format(sql.Identifier(name))
            connection.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(table))
            for statement in ("INSERT INTO {} DEFAULT VALUES", "DELETE FROM {}", "TRUNCATE {}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(sql.SQL(statement).format(table))
        for statement in ("CREATE TABLE spectralize.mine ()", "SELECT drop_chunks('spectralize.mel_frames', now())"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_what_comes_later_can_be_read_too(analyst: str, reader: Reader, filled: Store) -> None:
    # A migration of some later version; the page's own counts are of the recordings before.
    filled.connection.execute("CREATE TABLE spectralize.later AS SELECT 1 AS number")
    filled.connection.commit()
    filled.put("later/20230115_120000.flac", as_flac(dawn(3.0, seed=9)))
    try:
        filled.ingest()
        [[chunk]] = filled.rows(
            "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks "
            "WHERE hypertable_name = 'mel_frames' ORDER BY range_start LIMIT 1"
        )
        assert reader.recording("later/20230115_120000.flac").mel(1, 2).shape == (43, 128)
        with psycopg.connect(analyst) as connection:
            assert connection.execute("SELECT number FROM spectralize.later").fetchone() == (1,)
            count = connection.execute(f"SELECT count(*) > 100 FROM {chunk}".encode())
            assert count.fetchone() == (True,)
    finally:
        filled.connection.execute("DROP TABLE spectralize.later")
        filled.connection.commit()


def test_snapshots_need_the_grants_that_the_page_names(
    stack: Stack, analyst: str, reader: Reader, filled: Store
) -> None:
    with open_store(filled.dsn) as owner:
        owner.snapshot("the owner's", recordings=owner.recordings(key_prefix="music/"))
    pinned = reader.snapshot("the owner's", create=False)
    assert pinned.recording("music/chords.mp3").mel(0, 1).attrs["snapshot"] == "the owner's"
    for refused in (lambda: reader.snapshot("mine"), lambda: reader.drop_snapshot("the owner's")):
        with pytest.raises(ConfigError, match="permission denied"):
            refused()

    assert type_into_psql(stack, superuser_dsn(stack, filled), grants(MORE_GRANTS)) == ""
    mine = reader.snapshot("mine", recordings=reader.recordings(key_prefix="field/site-7/"))
    assert len(mine.recordings()) == 3
    for name in ("mine", "the owner's"):
        reader.drop_snapshot(name)
    assert reader.snapshots() == []
    with psycopg.connect(analyst, autocommit=True) as connection:
        for column in ("spectrogram_id", "status"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"UPDATE spectralize.spectrograms SET {column} = DEFAULT".encode())
    assert filled.breaches() == {}


def test_every_line_is_read_by_somebody() -> None:
    """No query of the page stands in a block that no test runs."""
    text = PAGE.read_text(encoding="utf-8")
    n_run = len(queries()) + 2
    assert n_run == len(re.findall(r"^```sql", text, re.MULTILINE))
    assert set(re.findall(r"^```(\w*)", text, re.MULTILINE)) == {"sql", "text", ""}
