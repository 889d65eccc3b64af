"""The table part of the bench: what the explorer's table of recordings asks, of a store of a hundred thousand.

Beside it, in the same run, the same through `Store.recordings`: the number of all that match, and the first of them. That one
goes by the views, cannot sort by anything but the key, and counts no outcomes. There are no frames: neither looks at any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table as Shown

from bench.job import Services
from bench.measurement import BenchError, Watch
from spectralize import open_store
from spectralize.database import connect
from spectralize.reader import Store
from spectralize.reader.catalogue import make_filters
from spectralize.reader.question import Question
from spectralize.reader.table import read_table
from spectralize.tables import OUTCOMES

N_RECORDINGS = 100_000
#: Of each question in a round; the peer is asked once, which takes seconds.
_N_ASKED = 7
_PER_PAGE = 25

#: Every fortieth key was overwritten, every twentieth object refused, every fifth computed for two profiles.
_FILL = (
    """
    INSERT INTO spectralize.batches (source, dag_id, run_id, try, kind, core_version, state, closed_at)
    VALUES ('bench', 'bench', 'table', 1, 'manual', '1', 'success', clock_timestamp())
    """,
    """
    INSERT INTO spectralize.profiles (name, fingerprint, parameters)
    VALUES ('mel128_22k', 'f', '{}'), ('speech80_16k', 'g', '{}')
    """,
    """
    INSERT INTO spectralize.objects (bucket, key, etag, size_bytes, last_modified, partition_at, partition_origin)
    SELECT 'music', format('collection/%%s/%%s/%%s.%%s', 1950 + n %% 70, lpad((n * 7919 %% 100000)::text, 6, '0'), md5(n::text),
                           (ARRAY['flac', 'mp3', 'wav', 'ogg'])[1 + n %% 4]),
           md5('x' || n || v), 1000000 + n * 13 %% 9000000, at, at, 'last_modified'
    FROM generate_series(1, %(n)s::bigint) AS n, generate_series(1, CASE WHEN n %% 40 = 0 THEN 2 ELSE 1 END) AS v,
         LATERAL (SELECT timestamptz '2014-01-01' + (n * 48271 %% 3650) * INTERVAL '1 day' + (n + v * 3600) * INTERVAL '1 second'
                 ) AS t (at)
    """,
    """
    INSERT INTO spectralize.recordings (object_id, sha256, album, albumartist, artist, bitrate, channels, comment, composer, disc,
        disc_total, duration, filesize, genre, samplerate, title, track, track_total, year, tags, container, declared_codec,
        declared_duration_s, declared_samplerate_hz, declared_channels, decoded_codec, decoded_duration_s, decoded_samples,
        decoded_samplerate_hz, decoded_channels, batch_id)
    SELECT object_id, sha256(key::bytea), 'The Album ' || object_id %% 8000, 'Various', 'Artist Number ' || object_id %% 3000,
           128 + object_id %% 192, 2, CASE WHEN object_id %% 3 = 0 THEN 'Digitised from the archive, take ' || object_id END,
           'Composer ' || object_id %% 500, 1, 1, length_s, size_bytes,
           (ARRAY['Jazz', 'Blues', 'Classical', 'Field recording', 'Speech', 'Rock'])[1 + object_id %% 6], 44100,
           initcap(md5(object_id::text)) || ' in D', object_id %% 20, 20, (1950 + object_id %% 70)::text,
           jsonb_build_object('encoder', jsonb_build_array('LAME 3.100'), 'isrc', jsonb_build_array('DE' || object_id)),
           'mp3', 'mp3', length_s, 44100, 2, 'mp3', length_s, 44100 * length_s, 44100, 2, 1
    FROM spectralize.objects, LATERAL (SELECT 60 + object_id %% 600) AS l (length_s) WHERE object_id %% 20 <> 7
    """,
    """
    INSERT INTO spectralize.spectrograms (object_id, profile_id, batch_id, status, sr, hop_length, n_mels, n_samples, n_frames,
        n_hops, n_seconds, peak_db, recorded_at, recorded_at_origin, core_version, library_versions)
    SELECT object_id, p, 1, CASE WHEN object_id %% 50 = 1 THEN 'partial' ELSE 'complete' END, 22050, 512, 128, 1000, 10, 0, 1, 0,
           partition_at, 'last_modified', '1', '{}'
    FROM spectralize.recordings JOIN spectralize.objects USING (object_id), generate_series(1, 2) AS p
    WHERE p = 1 OR object_id %% 5 = 0
    """,
    """
    INSERT INTO spectralize.batch_objects
        (batch_id, object_id, profile_id, generation, outcome, reason_class, reason, spectrogram_id, attempts)
    SELECT 1, object_id, profile_id, 0, CASE status WHEN 'complete' THEN 'loaded' ELSE 'partial' END, NULL, NULL,
           spectrogram_id, 1
    FROM spectralize.spectrograms
    UNION ALL
    SELECT 1, object_id, 1, 0, CASE WHEN object_id %% 40 = 7 THEN 'rejected' ELSE 'failed' END, 'not_audio', 'a codec of nobody',
           NULL, 1
    FROM spectralize.objects WHERE object_id %% 20 = 7
    """,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, as the page and as `Store.recordings` put it."""

    filters: Mapping[str, Any]
    outcome: tuple[str, ...] = OUTCOMES
    sort: str = "key"
    offset: int = 0

    def question(self) -> Question:
        """Return what the page asks."""
        nothing: dict[str, Any] = dict.fromkeys(
            (
                "text",
                "bucket",
                "key_prefix",
                "tags",
                "recorded_from",
                "recorded_to",
                "min_duration_s",
                "max_duration_s",
                "profile",
            )
        )
        filters = make_filters(**nothing | self.filters, outcome=self.outcome)
        return Question(filters, sort=self.sort, offset=self.offset, limit=_PER_PAGE)


#: What the page is asked most, and what costs most.
QUESTIONS = {
    "first page": Asked({}),
    "sorted by genre": Asked({}, sort="genre"),
    "sorted by title": Asked({}, sort="title"),
    "a rare word": Asked({"text": "9973f"}),
    "a word in all": Asked({"text": "artist"}),
    "rejected": Asked({}, outcome=("rejected",)),
    "page 2000": Asked({}, offset=50_000),
}


@dataclass(frozen=True, slots=True)
class TableResult:
    """Milliseconds by question, one value per round; what the peer took for the same."""

    ours_ms: dict[str, list[float]]
    peer_ms: dict[str, list[float]]
    n_recordings: int
    others_share: float

    @property
    def table_query_ms(self) -> float:
        """The slowest of the medians."""
        return max(median(values) for values in self.ours_ms.values())


def measure_table(
    services: Services, console: Console, *, rounds: int, n_recordings: int = N_RECORDINGS
) -> TableResult:
    """Make the store, ask all by turns, and drop it.

    Raises
    ------
    BenchError
        If the two do not find as many.
    """
    ours: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    peer: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    with services.fresh_database() as dsn:
        with console.status(f"a store of {n_recordings:,} recordings"):
            fill(dsn, n_recordings)
            services.settle_database(dsn)
        with open_store(dsn) as store, console.status("the table of recordings"):
            for asked in QUESTIONS.values():
                _ask(store, asked)
            with Watch(services.stack.pid("timescale")) as watch:
                for number in range(rounds):
                    names = list(QUESTIONS)
                    for name in names[number % len(names) :] + names[: number % len(names)]:
                        times = [_ask(store, QUESTIONS[name]) for _ in range(_N_ASKED)]
                        ours[name].append(median(ms for ms, _ in times))
                        peer_ms, n_found = _ask_peer(store, QUESTIONS[name])
                        peer[name].append(peer_ms)
                        if n_found != times[0][1]:
                            raise BenchError(f"{name}: the table finds {times[0][1]} recordings, the reader {n_found}")
    return TableResult(ours, peer, n_recordings, watch.others_share)


def fill(dsn: str, n_recordings: int) -> None:
    """Write a ledger, recordings and spectrograms without frames; the catalogue follows by itself."""
    with connect(dsn) as connection:
        for statement in _FILL:
            connection.execute(statement, {"n": n_recordings})


def _ask(store: Store, asked: Asked) -> tuple[float, int]:
    question = asked.question()
    started = perf_counter()
    found = store.session.run(lambda connection: read_table(connection, question))
    return (perf_counter() - started) * 1e3, found.total


def _ask_peer(store: Store, asked: Asked) -> tuple[float, int]:
    started = perf_counter()
    found = store.recordings(**asked.filters, outcome=asked.outcome)
    n_found = len(found)
    found.head(_PER_PAGE)
    return (perf_counter() - started) * 1e3, n_found


def table_of(result: TableResult) -> Shown:
    """Show each question beside the peer's answer to it."""
    rounds = len(next(iter(result.ours_ms.values())))
    shown = Shown(
        title=f"table of {result.n_recordings:,} recordings, median of {rounds} rounds (from - to), ms",
        title_justify="left",
    )
    shown.add_column("asked for")
    for heading in ("page and counts", "by Store.recordings: count and first page", "times as fast"):
        shown.add_column(heading, justify="right")
    for name, ours in result.ours_ms.items():
        peer = result.peer_ms[name]
        ratio = median(theirs / own for theirs, own in zip(peer, ours, strict=True))
        shown.add_row(name, _spread(ours), _spread(peer), f"{ratio:,.0f}")
    return shown


def _spread(values: list[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"
