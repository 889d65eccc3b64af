"""The samples themselves in the database: int16 per hop, beside a row per sample, as the 2020 original kept them.

The original wrote its clean_audio table through JDBC, in batches of prepared inserts; `executemany` does the same, and sends
them in a pipeline besides.
"""

from __future__ import annotations

from datetime import UTC, datetime
from time import perf_counter

import numpy as np
import psycopg

from spectralize.binarycopy import HEADER, TRAILER, RowBlock
from spectralize.features import FeatureStream
from spectralize.profiles import find_profile

SR = 44_100
_OURS_S = 120
_ROWS_S = 2
_BATCH_ROWS = 1_000


def samples_speedup(dsn: str) -> float:
    """Return how many times faster the hops of a recording are stored than a row for each of its samples."""
    y = np.random.default_rng(0).uniform(-1, 1, _OURS_S * SR).astype(np.float32)
    with psycopg.connect(dsn) as connection:
        ours_s = _store_hops(connection, y) / _OURS_S
        rows_s = _store_rows(connection, y[: _ROWS_S * SR]) / _ROWS_S
    return rows_s / ours_s


def _store_hops(connection: psycopg.Connection[tuple[object, ...]], y: np.ndarray) -> float:
    blocks: list[RowBlock] = []
    started = perf_counter()
    stream = FeatureStream(
        find_profile("seed2020_pcm"), SR, datetime(2024, 1, 1, tzinfo=UTC), lambda _, block: blocks.append(block)
    )
    for start in range(0, len(y), 1 << 18):
        stream.push(y[start : start + (1 << 18)])
    stream.finish()
    # Their Mel frames and seconds are computed here too, but are no samples: only the hops are written.
    for block in (block for block in blocks if block.table == "waveform_frames"):
        statement = f"COPY spectralize.{block.table} ({', '.join(block.columns)}) FROM STDIN (FORMAT binary)"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(HEADER)
            copy.write(block.with_spectrogram(1))
            copy.write(TRAILER)
    connection.commit()
    return perf_counter() - started


def _store_rows(connection: psycopg.Connection[tuple[object, ...]], y: np.ndarray) -> float:
    connection.execute("CREATE TABLE clean_audio (recording_id integer, sample_index integer, value real)")
    connection.commit()
    started = perf_counter()
    with connection.cursor() as cursor:
        for start in range(0, len(y), _BATCH_ROWS):
            rows = [(1, start + index, value) for index, value in enumerate(y[start : start + _BATCH_ROWS].tolist())]
            cursor.executemany("INSERT INTO clean_audio VALUES (%s, %s, %s)", rows)
    connection.commit()
    return perf_counter() - started
