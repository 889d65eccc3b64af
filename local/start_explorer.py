"""Become the explorer of a stack: ``python -m local.start_explorer <folder of the stack>``.

Children of the process manager inherit its environment, where Airflow's secrets are, and their own settings are in a file that
holds none. So the explorer is started from here, with an environment that is made anew from the stack's state.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from local.stack import Stack


def main() -> None:
    """Replace this process, which keeps its id: to the process manager it is the explorer."""
    folder = Path(sys.argv[1])
    explorer = Stack(folder.parents[1], folder.name).explorer
    os.chdir(folder)
    os.execve(explorer.command[0], explorer.command, explorer.environment(os.environ))  # noqa: S606


if __name__ == "__main__":
    main()
