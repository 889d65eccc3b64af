"""Which index and which chunk interval should the hypertable ``mel_frames`` have?

Loads the same synthetic recordings under every combination of index, chunk interval and time layout, and
measures what each costs to write, to keep and to read. Each combination starts from an empty table, and the
table is dropped before the next one, so about 2.5 GB of disk (data and write-ahead log) is enough for the
default size.

The frame values are noise: a halfvec of 128 bands takes 264 bytes whatever it holds, and nothing here compresses.

Example
-------
``python bench/store_layout.py --dsn postgresql://user:secret@127.0.0.1/postgres --frames 2500000``

The role needs the right to create the extensions ``timescaledb`` and ``vector`` if they are missing, and to create
and drop the schema ``store_layout_bench``.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import psycopg
import typer
from psycopg import sql

log = logging.getLogger("store_layout")

N_MELS: Final = 128
SR: Final = 22_050
HOP_LENGTH: Final = 512
WINDOW_S: Final = 10.0
N_LOADERS: Final = 2
RAW_FRAME_BYTES: Final = N_MELS * 2

SCHEMA: Final = "store_layout_bench"
TABLE: Final = sql.Identifier(SCHEMA, "mel_frames")
PG_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)

COPY_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
COPY_HEADER: Final = COPY_SIGNATURE + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"

IdType = Literal["INT", "BIGINT"]
Layout = Literal["bulk", "spread"]
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """One candidate: the index, the type of the id, and the column a window is addressed by."""

    name: str
    definition: str
    id_type: IdType = "INT"
    is_brin: bool = False
    has_frame_index: bool = False


INDEXES: Final = (
    IndexChoice("brin(id, time)", "USING brin (spectrogram_id, frame_time) WITH (pages_per_range = 16)", is_brin=True),
    IndexChoice("btree(id, time)", "USING btree (spectrogram_id, frame_time)"),
    IndexChoice("btree(id, index)", "USING btree (spectrogram_id, frame_index)", has_frame_index=True),
    IndexChoice("btree(id, time), 8-byte id", "USING btree (spectrogram_id, frame_time)", id_type="BIGINT"),
)


@dataclass(frozen=True, slots=True)
class Recording:
    """A synthetic recording: nothing but an id, the instant of its first frame and its length."""

    spectrogram_id: int
    recorded_at: datetime
    n_frames: int


@dataclass(frozen=True, slots=True)
class Reads:
    """Medians of one kind of read: client side in milliseconds, and what EXPLAIN says about it."""

    client_ms: float
    planning_ms: float
    chunks_touched: float
    pages: float


@dataclass(frozen=True, slots=True)
class Result:
    """All figures of one combination."""

    layout: Layout
    index: str
    chunk_days: int
    n_frames: int
    n_chunks: int
    load_frames_per_s: float
    load_cpu_us_per_frame: float | None
    heap_bytes_per_frame: float
    index_bytes_per_frame: float
    disk_vs_half: float
    window: Reads
    window_by_index: Reads | None
    recording: Reads
    recording_without_time: Reads


def plan_recordings(layout: Layout, n_frames: int, recording_s: float, rng: np.random.Generator) -> list[Recording]:
    """Place recordings in time.

    ``bulk`` starts all of them at random instants of one day, in no order: files without a date in their key, whose
    clock is that of the upload. ``spread`` puts them over two years in the order of their ids: dated keys.
    """
    # Frames are centred, so there is one more than whole hops: 7752 for three minutes.
    each = 1 + int(recording_s * SR // HOP_LENGTH)
    n_recordings = max(N_LOADERS, round(n_frames / each))
    span = timedelta(days=1) if layout == "bulk" else timedelta(days=730)
    starts = rng.uniform(0.0, span.total_seconds() - recording_s, n_recordings)
    if layout == "spread":
        starts.sort()
    return [
        Recording(i, FIRST_DAY + timedelta(microseconds=round(start * 1e6)), each)
        for i, start in enumerate(starts, start=1)
    ]


def frame_dtype(id_type: IdType) -> np.dtype[np.void]:
    """One row of COPY BINARY: big-endian, fixed width, every field preceded by its length."""
    return np.dtype(
        [
            ("n_fields", ">i2"),
            ("time_len", ">i4"),
            ("frame_time", ">i8"),
            ("id_len", ">i4"),
            ("spectrogram_id", ">i4" if id_type == "INT" else ">i8"),
            ("index_len", ">i4"),
            ("frame_index", ">i4"),
            ("mel_len", ">i4"),
            ("mel_dim", ">i2"),
            ("mel_unused", ">i2"),
            ("mel", ">f2", (N_MELS,)),
        ]
    )


READ_DTYPE: Final = np.dtype(
    [
        ("n_fields", ">i2"),
        ("index_len", ">i4"),
        ("frame_index", ">i4"),
        ("mel_len", ">i4"),
        ("mel_dim", ">i2"),
        ("mel_unused", ">i2"),
        ("mel", ">f2", (N_MELS,)),
    ]
)


def encode_frames(recording: Recording, mel: npt.NDArray[np.float16], *, id_type: IdType) -> bytes:
    """Encode a recording for COPY BINARY without a Python loop over its rows."""
    rows = np.zeros(recording.n_frames, dtype=frame_dtype(id_type))
    index = np.arange(recording.n_frames)
    start_us = (recording.recorded_at - PG_EPOCH) // timedelta(microseconds=1)
    rows["n_fields"] = 4
    rows["time_len"] = 8
    rows["frame_time"] = start_us + np.rint(index * (1e6 * HOP_LENGTH / SR)).astype(np.int64)
    rows["id_len"] = 4 if id_type == "INT" else 8
    rows["spectrogram_id"] = recording.spectrogram_id
    rows["index_len"] = 4
    rows["frame_index"] = index
    rows["mel_len"] = 4 + RAW_FRAME_BYTES
    rows["mel_dim"] = N_MELS
    rows["mel"] = mel
    return COPY_HEADER + rows.tobytes() + COPY_TRAILER


@dataclass(frozen=True, slots=True)
class Load:
    """What a load cost: wall seconds and, if the server runs on this machine, CPU seconds of both sides."""

    wall_s: float
    cpu_s: float | None


def backend_cpu_s(connection: psycopg.Connection[Any]) -> float | None:
    """CPU seconds this connection's server process has used, or None if it cannot be seen from here."""
    stat = Path("/proc", str(connection.info.backend_pid), "stat")
    try:
        name, _, fields = stat.read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    if not name.startswith("postgres"):
        return None
    user_ticks, system_ticks = fields.split()[11:13]
    return (int(user_ticks) + int(system_ticks)) / os.sysconf("SC_CLK_TCK")


def load_share(dsn: str, recordings: list[Recording], id_type: IdType, seed: int, start_at: float) -> Load:
    """Load one loader's recordings, a transaction each; the wall time counts from the clock time `start_at`.

    Waits for `start_at` first, so that start-up of the processes is not part of the measurement.
    """
    mel = np.random.default_rng(seed).normal(-40.0, 15.0, (recordings[0].n_frames, N_MELS)).astype(np.float16)
    statement = sql.SQL("COPY {} (frame_time, spectrogram_id, frame_index, mel) FROM STDIN (FORMAT binary)")
    with psycopg.connect(dsn, autocommit=True) as connection:
        time.sleep(max(0.0, start_at - time.time()))
        client_before_s, server_before_s = time.process_time(), backend_cpu_s(connection)
        for recording in recordings:
            payload = encode_frames(recording, mel, id_type=id_type)
            with connection.cursor() as cursor, cursor.copy(statement.format(TABLE)) as copy:
                copy.write(payload)
        wall_s = time.time() - start_at
        client_s, server_s = time.process_time() - client_before_s, backend_cpu_s(connection)
    if server_s is None or server_before_s is None:
        return Load(wall_s, None)
    return Load(wall_s, client_s + server_s - server_before_s)


def load(dsn: str, recordings: list[Recording], id_type: IdType, pool: ProcessPoolExecutor) -> Load:
    """Load all recordings with `N_LOADERS` processes: the wall time of the slower, the CPU time of both."""
    start_at = time.time() + 1.0
    shares = [
        pool.submit(load_share, dsn, recordings[worker::N_LOADERS], id_type, worker, start_at)
        for worker in range(N_LOADERS)
    ]
    loads = [share.result() for share in shares]
    cpu_s = [one.cpu_s for one in loads if one.cpu_s is not None]
    return Load(max(one.wall_s for one in loads), sum(cpu_s) if len(cpu_s) == N_LOADERS else None)


def create_table(connection: psycopg.Connection[Any], choice: IndexChoice, chunk_days: int) -> None:
    """Create an empty hypertable with one candidate index."""
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    # Widest alignment first: any other order costs a row per page.
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (frame_time timestamptz NOT NULL, spectrogram_id {} NOT NULL,"
            " frame_index integer NOT NULL, mel halfvec NOT NULL)"
        ).format(TABLE, sql.SQL("integer" if choice.id_type == "INT" else "bigint"))
    )
    connection.execute(
        "SELECT create_hypertable(%s::regclass, 'frame_time', chunk_time_interval => %s, create_default_indexes => false)",
        (f"{SCHEMA}.mel_frames", timedelta(days=chunk_days)),
    )
    definition = sql.SQL(choice.definition)
    connection.execute(sql.SQL("CREATE INDEX ON {} {}").format(TABLE, definition))


def summarize_brin(connection: psycopg.Connection[Any]) -> None:
    """Bring the BRIN of every chunk up to date: ranges filled since the last summary are otherwise always read."""
    connection.execute(
        "SELECT brin_summarize_new_values(i.indexrelid)"
        " FROM show_chunks(%s::regclass) AS c JOIN pg_index i ON i.indrelid = c",
        (f"{SCHEMA}.mel_frames",),
    )


def measure_disk(connection: psycopg.Connection[Any]) -> tuple[int, int, int]:
    """Return the number of chunks, the bytes of their heaps and the bytes of their indexes."""
    row = connection.execute(
        "SELECT count(*), sum(pg_table_size(c))::bigint, sum(pg_indexes_size(c))::bigint"
        " FROM show_chunks(%s::regclass) AS c",
        (f"{SCHEMA}.mel_frames",),
    ).fetchone()
    if row is None or row[0] == 0:
        raise RuntimeError("the hypertable has no chunks after the load")
    return row[0], row[1], row[2]


def time_window(recording: Recording, first_frame: int, n_frames: int) -> sql.Composed:
    """Frames ``[first_frame, first_frame + n_frames)`` by id and time."""
    start, stop = frame_interval(recording, first_frame, n_frames)
    return sql.SQL(
        "SELECT frame_index, mel FROM {} WHERE spectrogram_id = {} AND frame_time >= {} AND frame_time < {}"
        " ORDER BY frame_time"
    ).format(TABLE, recording.spectrogram_id, start, stop)


def index_window(recording: Recording, first_frame: int, n_frames: int) -> sql.Composed:
    """The same frames by id and index; the time bounds remain, because only they can exclude chunks."""
    start, stop = frame_interval(recording, first_frame, n_frames)
    return sql.SQL(
        "SELECT frame_index, mel FROM {} WHERE spectrogram_id = {} AND frame_index >= {} AND frame_index < {}"
        " AND frame_time >= {} AND frame_time < {} ORDER BY frame_index"
    ).format(TABLE, recording.spectrogram_id, first_frame, first_frame + n_frames, start, stop)


def whole_without_time(recording: Recording, _first_frame: int, _n_frames: int) -> sql.Composed:
    """A whole recording by its id alone: what a reader who forgets the time bounds pays."""
    return sql.SQL("SELECT frame_index, mel FROM {} WHERE spectrogram_id = {} ORDER BY frame_index").format(
        TABLE, recording.spectrogram_id
    )


def frame_interval(recording: Recording, first_frame: int, n_frames: int) -> tuple[datetime, datetime]:
    """The half-open time interval that holds exactly these frames: its edges lie half a hop before them."""
    hop = timedelta(seconds=HOP_LENGTH / SR)
    start = recording.recorded_at + (first_frame - 0.5) * hop
    return start, start + n_frames * hop


def read_frames(connection: psycopg.Connection[Any], query: sql.Composed) -> npt.NDArray[np.float16]:
    """Run a query by COPY BINARY and view its rows as an array of shape (frames, mels)."""
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        body = b"".join(copy)
    rows = np.frombuffer(body[len(COPY_HEADER) : -len(COPY_TRAILER)], dtype=READ_DTYPE)
    return rows["mel"].astype(np.float16)


def walk_plan(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of an EXPLAIN tree."""
    yield node
    for child in node.get("Plans", ()):
        yield from walk_plan(child)


def explain(connection: psycopg.Connection[Any], query: sql.Composed) -> tuple[float, int, int]:
    """Return planning time in milliseconds, the chunks in the plan and the pages executing it touched."""
    row = connection.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {}").format(query)).fetchone()
    if row is None:
        raise RuntimeError("EXPLAIN returned nothing")
    plan = row[0][0]
    chunks = {node["Relation Name"] for node in walk_plan(plan["Plan"]) if "Relation Name" in node}
    pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return plan["Planning Time"], len(chunks), pages


def measure_reads(
    connection: psycopg.Connection[Any],
    targets: list[tuple[Recording, int]],
    n_frames: int,
    build: Callable[[Recording, int, int], sql.Composed],
) -> Reads:
    """Read every target twice, time the second pass, and check that each read returned the frames it asked for."""
    queries = [build(recording, first_frame, n_frames) for recording, first_frame in targets]
    times_ms = []
    for is_timed in (False, True):
        for query in queries:
            started = time.perf_counter()
            mel = read_frames(connection, query)
            if is_timed:
                times_ms.append((time.perf_counter() - started) * 1e3)
            if len(mel) != n_frames:
                raise RuntimeError(f"read {len(mel)} frames where {n_frames} were expected")
    explained = [explain(connection, query) for query in queries[:50]]
    planning_ms, chunks, pages = (statistics.median(column) for column in zip(*explained, strict=True))
    return Reads(statistics.median(times_ms), planning_ms, chunks, pages)


def run_one(
    dsn: str,
    choice: IndexChoice,
    chunk_days: int,
    layout: Layout,
    *,
    n_frames: int,
    recording_s: float,
    n_windows: int,
    seed: int,
    pool: ProcessPoolExecutor,
) -> Result:
    """Load and read one combination on an empty table."""
    rng = np.random.default_rng(seed)
    recordings = plan_recordings(layout, n_frames, recording_s, rng)
    each = recordings[0].n_frames
    with psycopg.connect(dsn, autocommit=True) as connection:
        create_table(connection, choice, chunk_days)
        connection.execute("CHECKPOINT")
        cost = load(dsn, recordings, choice.id_type, pool)
        load_s = cost.wall_s
        if choice.is_brin:
            started = time.perf_counter()
            summarize_brin(connection)
            load_s += time.perf_counter() - started
        connection.execute(sql.SQL("ANALYZE {}").format(TABLE))
        # What the load left dirty must not be written out while the reads are timed.
        connection.execute("CHECKPOINT")
        n_chunks, heap_bytes, index_bytes = measure_disk(connection)

        window_frames = round(WINDOW_S * SR / HOP_LENGTH)
        picked = rng.integers(0, len(recordings), n_windows)
        offsets = rng.integers(0, each - window_frames, n_windows)
        windows = [(recordings[r], int(offset)) for r, offset in zip(picked, offsets, strict=True)]
        wholes = [(recording, 0) for recording, _ in windows[: max(1, n_windows // 10)]]
        loaded = len(recordings) * each
        return Result(
            layout=layout,
            index=choice.name,
            chunk_days=chunk_days,
            n_frames=loaded,
            n_chunks=n_chunks,
            load_frames_per_s=loaded / load_s,
            load_cpu_us_per_frame=None if cost.cpu_s is None else cost.cpu_s / loaded * 1e6,
            heap_bytes_per_frame=heap_bytes / loaded,
            index_bytes_per_frame=index_bytes / loaded,
            disk_vs_half=(heap_bytes + index_bytes) / loaded / RAW_FRAME_BYTES,
            window=measure_reads(connection, windows, window_frames, time_window),
            window_by_index=(
                measure_reads(connection, windows, window_frames, index_window) if choice.has_frame_index else None
            ),
            recording=measure_reads(connection, wholes, each, time_window),
            recording_without_time=measure_reads(connection, wholes, each, whole_without_time),
        )


HEADER: Final = (
    "| layout | index | chunk, days | chunks | load, frames/s | load CPU, µs/frame | heap B/frame | index B/frame | disk ÷ half |"
    " 10 s window, ms | of which planning | chunks read | pages read | by frame_index, ms | whole recording, ms |"
    " … by id alone, ms |\n" + "|---" * 16 + "|"
)


def format_row(result: Result) -> str:
    """One line of the Markdown table."""
    by_index = "–" if result.window_by_index is None else f"{result.window_by_index.client_ms:.2f}"
    cells = [
        result.layout,
        result.index,
        str(result.chunk_days),
        str(result.n_chunks),
        f"{result.load_frames_per_s:,.0f}",
        "–" if result.load_cpu_us_per_frame is None else f"{result.load_cpu_us_per_frame:.2f}",
        f"{result.heap_bytes_per_frame:.1f}",
        f"{result.index_bytes_per_frame:.1f}",
        f"{result.disk_vs_half:.3f}",
        f"{result.window.client_ms:.2f}",
        f"{result.window.planning_ms:.2f} ({result.window.planning_ms / result.window.client_ms:.0%})",
        f"{result.window.chunks_touched:.0f}",
        f"{result.window.pages:.0f}",
        by_index,
        f"{result.recording.client_ms:.1f}",
        f"{result.recording_without_time.client_ms:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main(
    dsn: Annotated[str, typer.Option(envvar="SPECTRALIZE_DSN", help="A PostgreSQL with TimescaleDB and pgvector.")],
    frames: Annotated[int, typer.Option(min=10_000, help="Frames loaded per combination.")] = 2_500_000,
    recording_s: Annotated[float, typer.Option(min=20.0, max=7200.0, help="Length of each recording.")] = 180.0,
    layouts: Annotated[str, typer.Option(help="Time layouts to try, separated by a comma.")] = "bulk,spread",
    windows: Annotated[int, typer.Option(min=10, help="Random windows read per combination.")] = 200,
    chunk_days: Annotated[list[int] | None, typer.Option(help="Chunk intervals to try (default 1, 7, 30).")] = None,
    seed: Annotated[int, typer.Option(help="Seeds the starts of the recordings and the windows.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also append one JSON object per combination here.")] = None,
) -> None:
    """Measure every combination and print a Markdown table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    chosen = [layout for layout in LAYOUTS if layout in layouts.split(",")]
    typer.echo(HEADER)
    with ProcessPoolExecutor(N_LOADERS, mp_context=get_context("spawn")) as pool:
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            for layout, days, choice in product(chosen, chunk_days or (1, 7, 30), INDEXES):
                log.info("%s, %d-day chunks, %s", layout, days, choice.name)
                result = run_one(
                    dsn,
                    choice,
                    days,
                    layout,
                    n_frames=frames,
                    recording_s=recording_s,
                    n_windows=windows,
                    seed=seed,
                    pool=pool,
                )
                typer.echo(format_row(result))
                if out is not None:
                    with out.open("a") as lines:
                        lines.write(json.dumps(asdict(result)) + "\n")
        finally:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))


if __name__ == "__main__":
    typer.run(main)
