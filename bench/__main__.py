"""`make bench`: measure everything against its peers, in one run and by turns; see README.

Real music in six formats and three thousand clips of half a second go, round by round, through (a) decoding alone, (b) what
a user would otherwise write, (c) the core without database and (d) the whole Spark job. Then come ten hours in one file, and
reading: windows and recordings from a store of 30 million frames, and from a small one, beside SQL by hand and `.npy` files;
and the table of a hundred thousand recordings, beside the reader's own way to find them.
"""

import json
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from local.paths import default_home

# Before numpy is imported: one core is the unit of every ratio.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
# The addresses of a developer's own store are not for us; empty counts as not given.
os.environ |= dict.fromkeys(("SPECTRALIZE_DSN", "SPECTRALIZE_CONFIG"), "")
os.environ |= {"NUMBA_CACHE_DIR": str(default_home().absolute() / "numba")}

import typer
from rich.console import Console

from bench.figures import TARGETS
from bench.measurement import BenchError
from bench.run import Bench
from bench.store import LARGE_FRAMES
from local.errors import StackError
from spectralize.errors import SpectralizeError

RESULTS = Path(__file__).with_name("results.json")
PLOT = RESULTS.with_suffix(".png")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Part(StrEnum):
    """What `--only` can ask for."""

    MEL = "mel"
    MUSIC = "music"
    CLIPS = "clips"
    SAMPLES = "samples"
    TABLE = "table"
    MEMORY = "memory"
    STORE = "store"
    EXPLORER = "explorer"


@app.command()
def main(
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part alone; can be given several times.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything but memory is measured.")] = 3,
    frames: Annotated[
        int, typer.Option(min=100_000, help="Frames of the large store; with fewer, its figures are left out.")
    ] = LARGE_FRAMES,
) -> None:
    """Measure, print tables, and write bench/results.json and bench/results.png.

    With --only, the figures of the other parts stay in results.json as they were. A figure that was not measured is absent.
    """
    # Tables need more than the 80 columns that rich assumes where there is no terminal.
    console = Console(width=None if sys.stdout.isatty() else 170)
    # Ended from outside, the servers must not stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    bench = Bench(default_home().absolute(), console)
    parts = set(only or Part)
    try:
        figures = bench.run(parts=parts, rounds=rounds, n_frames=frames, plot=PLOT)
    except (BenchError, StackError, SpectralizeError) as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    before = json.loads(RESULTS.read_text()) if only and RESULTS.exists() else {}
    kept = {name: value for name, value in before.items() if name in TARGETS and TARGETS[name].part not in parts}
    RESULTS.write_text(json.dumps(kept | {name: round(value, 4) for name, value in figures.items()}, indent=2) + "\n")
    console.print(f"figures in {RESULTS.name}, plot in {PLOT.name}", highlight=False)


if __name__ == "__main__":
    app()
