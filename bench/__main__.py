"""`make bench`: write every figure that is measured here to bench/results.json, and print them."""

import json
import os
from pathlib import Path

# Before numpy is imported: one core is the unit of every ratio.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

from rich.console import Console

from bench import core

RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    """Measure and write."""
    figures = {name: round(value, 4) for name, value in core.measure().items()}
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    Console().print_json(data=figures)


if __name__ == "__main__":
    main()
