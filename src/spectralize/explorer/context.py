"""What every page and every answer of the explorer has at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg

from spectralize.explorer.settings import Settings
from spectralize.reader import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Explorer:
    """The store, opened for reading, and the settings."""

    settings: Settings
    store: Store

    def read(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Call `work` with this thread's connection, in autocommit mode and read-only; errors as in `Session.run`."""
        return self.store.session.run(work)
