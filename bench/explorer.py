"""The explorer part of the bench: what a person waits for at the page of a recording, and when looking closer.

Three recordings of the same music, ingested as everything is: ten seconds, three minutes, ten hours. Their pages are opened by
turns in one browser, which has been there before. What is measured ends when Plotly has drawn waveform and spectrogram, which
the page marks; what a zoom costs is told by the server's answers to the browser's own requests.

Beside them, in the same run: a page of the explorer with nothing on it, and the same two plots by matplotlib.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from matplotlib.figure import Figure
from playwright.sync_api import BrowserContext, Page, Request
from rich.console import Console

from bench.chromium import open_browser, wait_until
from bench.corpus import Corpus
from bench.job import BUCKET, MANIFESTS, Services
from bench.long_recording import load_excerpt, load_recording
from bench.measurement import BenchError, Watch
from spectralize import gate, open_store
from spectralize.database import connect
from spectralize.ledger import Run, read_code
from spectralize.manifest import read_manifest
from spectralize.planner import plan_batch
from spectralize.reader import Recording
from spectralize.sources import Source
from spectralize.worker import Work, run_slice

SHORT_S = 10
USUAL_MIN, LONG_MIN = 3, 600
N_ROUNDS = 9
N_ZOOMS = 5
#: Rounds that do not count: Chromium keeps what it has compiled of a script from the second visit on.
_N_WARM = 2

_SCREEN = {"width": 1280, "height": 800}
_PATIENCE_MS = 60_000

_DRAWN = "performance.getEntriesByName('spectralize:drawn').length > 0"
_ZOOMED = "performance.getEntriesByName('spectralize:zoomed').length > 0"
_SHELL = "document.getElementById('page')?.childElementCount ? performance.now() : 0"
_PLACE = """
() => {
  const gd = document.querySelector("#viewer-graph .js-plotly-plot"), full = gd._fullLayout, box = gd.getBoundingClientRect();
  return [box.left + full.xaxis._offset, full.xaxis._length, box.top + full.yaxis2._offset + full.yaxis2._length / 2];
}
"""


@dataclass(slots=True)
class ExplorerResult:
    """What was measured, warm, every value of it.

    Attributes
    ----------
    drawn_s
        By recording: from the start of navigation until both plots are drawn; ``shell``: until an empty page is.
    zoom_ms
        By recording: from the browser's request for a window until the answer begins.
    zoomed_ms
        By recording: from the release of the mouse until the window is drawn.
    by_hand_s
        Reading the three minutes and making a PNG of the same plots with matplotlib.
    """

    drawn_s: dict[str, list[float]] = field(default_factory=dict)
    zoom_ms: dict[str, list[float]] = field(default_factory=dict)
    zoomed_ms: dict[str, list[float]] = field(default_factory=dict)
    by_hand_s: list[float] = field(default_factory=list)
    others_share: float = 0.0


def explorer_figures(result: ExplorerResult) -> dict[str, float]:
    """Return the figures; a page is that of three minutes, a zoom that into the recording where it takes longest."""
    return {
        "page_first_paint_s": median(result.drawn_s["usual"]),
        "page_long_vs_short": median(
            long_s / short_s for long_s, short_s in zip(result.drawn_s["long"], result.drawn_s["short"], strict=True)
        ),
        "zoom_ms": max(median(found) for found in result.zoom_ms.values()),
    }


def measure_explorer(services: Services, home: Path, console: Console) -> ExplorerResult:
    """Ingest three recordings, start the explorer and the browser, and measure by turns."""
    with services.fresh_database() as dsn, ExitStack() as cleanup:
        with console.status("ten hours, three minutes and ten seconds, through the worker"):
            ids = _ingest(services, home, dsn)
            services.settle_database(dsn)
        url = cleanup.enter_context(run_explorer(dsn))
        store = cleanup.enter_context(open_store(dsn))
        with console.status("pages, opened and zoomed"):
            return _Look(url, ids, store.recording(ids["usual"])).measure(services.stack.pid("timescale"))


def _ingest(services: Services, home: Path, dsn: str) -> dict[str, int]:
    """Load the recordings as an executor would; return the id of each by its name."""
    corpora = {
        "short": load_excerpt(home, SHORT_S),
        "usual": load_recording(home, USUAL_MIN),
        "long": load_recording(home, LONG_MIN),
    }
    files = {name: corpus.files[0] for name, corpus in corpora.items()}
    services.upload(Corpus("explorer", tuple(files.values())))
    source = Source(
        name="explorer", bucket=BUCKET, prefix="explorer/", profiles=("mel128_22k",), settle_s=0,
        max_object_bytes=1 << 40, max_duration_s=1e6,
    )  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with connect(dsn) as connection:
        batch = plan_batch(
            connection, services.client, source, Run("bench_explorer", "pages", "manual"), manifests=f"s3://{MANIFESTS}"
        )
        manifest = read_manifest(services.client, str(batch.manifest_uri))
        code = read_code(connection, batch.batch_id)
        connection.commit()
        work = Work(batch.batch_id, dsn, manifest.profiles, manifest.limits, environment, code)
        outcomes = run_slice(work, manifest.objects)
        gate.gate_batch(connection, batch.batch_id, source)
        gate.close_batch(connection, batch.batch_id, source)
        if outcomes["loaded"] != len(files):
            raise BenchError(f"explorer: {dict(outcomes)} of {len(files)} recordings")
        ids = dict(connection.execute("SELECT key, object_id FROM spectralize.objects").fetchall())
    return {name: ids[f"explorer/{file.path.name}"] for name, file in files.items()}


@contextmanager
def run_explorer(dsn: str, *arguments: str, **variables: str) -> Iterator[str]:
    """Run `spectralize explorer` on a free port; yield the address that it prints."""
    command = [sys.executable, "-m", "spectralize.cli", "explorer", "--json", "--port", "0", *arguments]
    environment = os.environ | {"SPECTRALIZE_DSN": dsn} | variables
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise BenchError(f"spectralize explorer: ended with code {process.wait()}")
            yield json.loads(line)["url"]
        finally:
            process.terminate()


class _Look:
    """One browser before one explorer."""

    def __init__(self, url: str, ids: Mapping[str, int], usual: Recording) -> None:
        self._url, self._ids, self._usual = url, ids, usual
        self._result = ExplorerResult()

    def measure(self, server_pid: int | None) -> ExplorerResult:
        with tempfile.TemporaryDirectory() as folder, open_browser(Path(folder), viewport=_SCREEN) as context:
            context.set_default_timeout(_PATIENCE_MS)
            # Left before the browser ends: what its processes took is known to it alone.
            with Watch(server_pid) as watch:
                for number in range(_N_WARM + N_ROUNDS):
                    if number == _N_WARM:
                        self._result = ExplorerResult()
                    self._take_turns(context, number)
            self._result.others_share = watch.others_share
        return self._result

    def _take_turns(self, context: BrowserContext, number: int) -> None:
        contenders = [*self._ids, "shell", "hand"]
        turn = number % len(contenders)
        for name in contenders[turn:] + contenders[:turn]:
            self._take(context, name)

    def _take(self, context: BrowserContext, name: str) -> None:
        if name == "hand":
            self._result.by_hand_s.append(draw_by_hand(self._usual))
            return
        page = context.new_page()
        if name == "shell":
            page.goto(f"{self._url}/nothing-here", wait_until="commit")
            drawn_ms = wait_until(page, _SHELL, _PATIENCE_MS)
        else:
            page.goto(f"{self._url}/recordings/{self._ids[name]}", wait_until="commit")
            wait_until(page, _DRAWN, _PATIENCE_MS)
            drawn_ms = page.evaluate("performance.getEntriesByName('spectralize:drawn')[0].startTime")
            self._zoom(page, name)
        self._result.drawn_s.setdefault(name, []).append(drawn_ms / 1000)
        page.close()

    def _zoom(self, page: Page, name: str) -> None:
        """Draw windows with the mouse, each a third of the one before, somewhere else every time."""
        rng = np.random.default_rng(len(self._result.drawn_s.get(name, ())))
        page.wait_for_load_state("networkidle")
        left, width, middle = page.evaluate(_PLACE)
        for start in rng.uniform(0.1, 0.55, N_ZOOMS):
            page.mouse.move(left + start * width, middle)
            page.mouse.down()
            page.mouse.move(left + (start + 0.2) * width, middle + 2)
            page.mouse.move(left + (start + 0.33) * width, middle + 2)
            page.evaluate("performance.clearMarks('spectralize:zoomed'); window.released = performance.now()")
            with page.expect_request_finished(_is_window) as caught:
                page.mouse.up()
            timing = caught.value.timing
            self._result.zoom_ms.setdefault(name, []).append(timing["responseStart"] - timing["requestStart"])
            wait_until(page, _ZOOMED, _PATIENCE_MS)
            zoomed_ms = page.evaluate(
                "performance.getEntriesByName('spectralize:zoomed')[0].startTime - window.released"
            )
            self._result.zoomed_ms.setdefault(name, []).append(zoomed_ms)


def _is_window(request: Request) -> bool:
    return "_dash-update-component" in request.url and "viewer-columns" in (request.post_data or "")


def draw_by_hand(recording: Recording) -> float:
    """Return how long it takes to read a recording and to make a picture of it, as one would in a notebook."""
    started = perf_counter()
    mel, waveform = recording.mel(), recording.waveform()
    figure = Figure(figsize=(12, 5), dpi=100)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    seconds = np.asarray(waveform["time_s"])
    upper.fill_between(seconds, np.asarray(waveform["min"]), np.asarray(waveform["max"]))
    lower.imshow(
        mel.values.T, origin="lower", aspect="auto", cmap="magma", extent=(0, float(seconds[-1]), 0, mel.shape[1])
    )
    figure.savefig(io.BytesIO(), format="png")
    return perf_counter() - started
