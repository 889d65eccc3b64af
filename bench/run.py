"""One run of the bench: corpora, processes and services first, then round by round, contender by contender."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench import contenders
from bench.chromium import NoBrowserError
from bench.corpus import Corpus, load_clips, load_music
from bench.explorer import explorer_figures, measure_explorer
from bench.explorer_table import measure_table, table_of
from bench.figures import reading_figures, speed_figures
from bench.job import Driver, Services, open_services
from bench.measurement import Measurement
from bench.memory import LONG_MIN, SHORT_MIN, Trace, measure_memory
from bench.pool import N_PROCESSES, Contender, ProcessPool
from bench.report import TITLES, corpus_table, explorer_table, figures_table, reading_table, save_plot
from bench.samples import samples_speedup
from bench.store import LARGE_FRAMES, find_lack_of_disk, measure_store
from local.errors import StackError

#: Measures one contender on one corpus in the round of that number.
Step = Callable[[int], Measurement]
JobOf = Callable[[Corpus], Step]

#: So many clips go through the job before each batch that is measured: Spark ends Python workers that have rested for a
#: minute, and new ones have to import everything.
_WARM_UP_CLIPS = 16

#: The parts that are measured on audio files.
_OF_FILES = {"mel", "music", "clips"}

#: What the kernel and this process take beside a contender stays below this share of the machine.
_QUIET_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class Pools:
    """Processes for (a) and (c), set up as the job's are, and processes as a user's own, for (b)."""

    ours: ProcessPool
    peers: ProcessPool


@dataclass(slots=True)
class Bench:
    """What one run has measured so far."""

    home: Path
    console: Console
    measurements: list[Measurement] = field(default_factory=list)
    traces: dict[str, Trace] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def run(self, *, parts: Collection[str], rounds: int, n_frames: int, plot: Path) -> dict[str, float]:
        """Measure the given parts, show tables and plot, and return the figures."""
        with ExitStack() as cleanup:
            with ExitStack() as shared:
                measure_files = self._prepare_files(shared, parts, rounds) if set(parts) & _OF_FILES else None
                services = self._open_services(cleanup) if set(parts) - {"mel"} else None
                if measure_files:
                    measure_files(services)
            if "samples" in parts and services:
                with self.console.status("samples by hop and by row"), services.fresh_database() as dsn:
                    self.figures["samples_vs_rows"] = samples_speedup(dsn)
            if "table" in parts and services:
                self._measure_table(services, rounds)
            if "memory" in parts and services:
                self._measure_memory(services)
            if "store" in parts and services:
                self._measure_store(services, rounds, n_frames)
            if "explorer" in parts and services:
                self._measure_explorer(services)
        self.console.print(figures_table(self.figures))
        save_plot(self.measurements, self.traces, plot)
        return self.figures

    def _prepare_files(
        self, shared: ExitStack, parts: Collection[str], rounds: int
    ) -> Callable[[Services | None], None]:
        """Build the corpora and fork the processes; return what measures them, once there are services."""
        with self.console.status("corpora: real music in six formats, and clips of it"):
            music, clips = load_music(self.home), load_clips(self.home)
        corpora = [corpus for corpus in (music, clips) if corpus.name in parts]
        # Forked before this process has clients with threads of their own, and ended before memory is measured: what they
        # have mapped would lessen the others' share of it.
        pools = self._open_pools(shared, clips)

        def measure(services: Services | None) -> None:
            if "mel" in parts:
                self._measure_mel(pools.peers, music)
            if corpora:
                job = shared.enter_context(self._open_job(services, corpora, clips)) if services else None
                self._measure_speed(pools, job, corpora, rounds)

        return measure

    def _open_pools(self, shared: ExitStack, clips: Corpus) -> Pools:
        path = clips.files[0].path
        ours = [contenders.settle_as_in_the_job, contenders.decode_packets, contenders.decode_only, contenders.core]
        with tempfile.TemporaryDirectory() as folder:
            peers = list(self._peers(Path(folder)).values())
            return Pools(shared.enter_context(ProcessPool(ours, path)), shared.enter_context(ProcessPool(peers, path)))

    def _peers(self, folder: Path) -> dict[str, Contender]:
        peers: dict[str, Contender] = {"librosa": partial(contenders.librosa_to_npy, folder)}
        if contenders.has_lhotse():
            peers["lhotse"] = partial(contenders.lhotse_to_npy, folder)
        return peers

    def _open_services(self, cleanup: ExitStack) -> Services | None:
        try:
            return cleanup.enter_context(open_services(self.console))
        except StackError as error:
            self._note(f"[yellow]left out: the whole job, memory and the store, because {escape(str(error))}[/]")
            return None

    @contextmanager
    def _open_job(self, services: Services, corpora: Sequence[Corpus], clips: Corpus) -> Iterator[JobOf]:
        """Upload the corpora and start a driver; yield what makes a step of the job for a corpus."""
        warm_up = Corpus("warmup", clips.files[:_WARM_UP_CLIPS])
        for corpus in (*corpora, warm_up):
            with self.console.status(f"uploading {corpus.name}"):
                services.upload(corpus)
        with Driver(services.stack, n_cores=N_PROCESSES) as driver:
            self._note(f"left out of the job's time: {driver.session_s:.1f} s to start the JVM and the Spark session")
            self._note(f"PostgreSQL: {services.durability()}; Spark, PostgreSQL and S3 share the cores")

            def step(corpus: Corpus, number: int) -> Measurement:
                with services.fresh_database() as dsn:
                    services.run_batch(driver, dsn, warm_up, number)
                    return services.run_batch(driver, dsn, corpus, number)

            yield lambda corpus: partial(step, corpus)

    def _measure_speed(self, pools: Pools, job: JobOf | None, corpora: Sequence[Corpus], rounds: int) -> None:
        with tempfile.TemporaryDirectory(prefix="npy.", dir=self.home / "bench") as folder:
            steps = [
                (f"{corpus.name}: {TITLES[name]}", step)
                for corpus in corpora
                for name, step in self._steps(pools, job, corpus, Path(folder)).items()
            ]
            with Progress(
                SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                console=self.console, transient=True,
            ) as progress:  # fmt: skip
                task = progress.add_task("", total=rounds * len(steps))
                for number in range(rounds):
                    # Each round begins with another contender, so that none always has the same one before it.
                    for title, step in steps[number:] + steps[:number]:
                        progress.update(task, description=f"round {number + 1}, {escape(title)}")
                        self.measurements.append(step(number))
                        progress.advance(task)
        for corpus in corpora:
            self._note(f"\n{corpus.describe()}")
            self.console.print(corpus_table(self.measurements, corpus.name))
        self._warn_if_busy(max(item.others_share for item in self.measurements))
        self.figures |= speed_figures(self.measurements)

    def _steps(self, pools: Pools, job: JobOf | None, corpus: Corpus, folder: Path) -> dict[str, Step]:
        readable = corpus.only(contenders.is_readable_by_librosa)
        if left_out := corpus.only(lambda file: file not in readable.files).files:
            formats = ", ".join(sorted({file.format for file in left_out}))
            self._note(f"left out of (b): {len(left_out)} files that librosa cannot read ({formats})")
        steps: dict[str, Step] = {
            "packets": partial(pools.ours.measure, "packets", contenders.decode_packets, corpus),
            "decode": partial(pools.ours.measure, "decode", contenders.decode_only, corpus),
        }
        for name, peer in self._peers(folder).items():
            steps[name] = partial(pools.peers.measure, name, peer, readable)
        steps["core"] = partial(pools.ours.measure, "core", contenders.core, corpus)
        if job is not None:
            steps["job"] = job(corpus)
        return steps

    def _measure_table(self, services: Services, rounds: int) -> None:
        result = measure_table(services, self.console, rounds=rounds)
        self.figures["table_query_ms"] = result.table_query_ms
        self.console.print(table_of(result))
        self._warn_if_busy(result.others_share)

    def _measure_memory(self, services: Services) -> None:
        peaks = []
        for minutes in (SHORT_MIN, LONG_MIN):
            with self.console.status(f"memory of the worker for {minutes} minutes in one file"):
                measurement, trace = measure_memory(services, self.home, minutes)
            self.traces[f"{minutes} min"] = trace
            peaks.append(trace.peak_mb)
            self._note(
                f"{minutes} minutes: peak {trace.peak_mb:.0f} MB (PSS of worker and children), {trace.peak_rss_mb:.0f} MB "
                f"(RSS of the larger one); {measurement.wall_s:.1f} s on one core, x {measurement.x_realtime:.0f} real time"
            )
        self.figures["ten_hour_peak_mb"] = peaks[1]
        self.figures["ten_hour_vs_ten_minutes_memory"] = peaks[1] / peaks[0]

    def _measure_mel(self, pool: ProcessPool, music: Corpus) -> None:
        with self.console.status("Mel alone"):
            ratios = pool.call(contenders.mel_speedup, music.files[0].path)
        self.figures["mel_speedup_vs_librosa"] = median(ratios)

    def _measure_store(self, services: Services, rounds: int, n_frames: int) -> None:
        if lack := find_lack_of_disk(services, n_frames):
            self._note(f"[yellow]left out: the store, because {lack}[/]")
            return
        result = measure_store(services, self.home, self.console, rounds=rounds, n_frames=n_frames)
        self.figures |= reading_figures(result.rounds)
        self.figures["disk_vs_half"] = result.extents["large"].disk_vs_half
        self._note(f"PostgreSQL: {services.durability()}; loaded {result.frames_per_s:,.0f} frames/s")
        opened = ", ".join(f"{n_chunks} by {count}" for n_chunks, count in sorted(result.chunk_counts.items()))
        self._note(f"chunks opened by the plans of windows of the large store: {opened} windows")
        self.console.print(reading_table(result))
        self._warn_if_busy(max(one.others_share for one in result.rounds))
        if not result.is_large:
            for name in ("window_large_vs_small", "disk_vs_half"):
                del self.figures[name]
            self._note(f"[yellow]left out: the figures of a large store, which has {LARGE_FRAMES:,} frames and more[/]")

    def _measure_explorer(self, services: Services) -> None:
        try:
            result = measure_explorer(services, self.home, self.console)
        except NoBrowserError as error:
            self._note(f"[yellow]left out: the explorer, because there is {escape(str(error))}[/]")
            return
        self.figures |= explorer_figures(result)
        self.console.print(explorer_table(result))
        self._warn_if_busy(result.others_share)

    def _warn_if_busy(self, others_share: float) -> None:
        if others_share > _QUIET_SHARE:
            self._note(
                f"[yellow]up to {others_share:.0%} of the machine was taken by others meanwhile: what is measured "
                "in wall time is worth little; run again on a quiet machine[/]"
            )

    def _note(self, line: str) -> None:
        self.console.print(line, highlight=False)
