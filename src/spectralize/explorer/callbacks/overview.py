"""The overview: what the store holds, read at most twice a minute however many look."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from dash import Dash
from dash.development.base_component import Component

from spectralize.errors import SpectralizeError
from spectralize.explorer.context import Explorer
from spectralize.explorer.layout.overview import make_overview
from spectralize.explorer.visits import Visit
from spectralize.storefacts import StoreFacts, read_store_facts

KEPT_S = 30.0

#: Stores of one process: tests have several, an explorer has one.
_MOST_STORES = 4


class FactsOfStores:
    """The facts of a few stores, kept for a while. One thread reads them, the others wait for it, also if it fails."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._facts: OrderedDict[object, tuple[float, StoreFacts]] = OrderedDict()
        #: When reading failed last, and of what: kinds and lines, as an error itself keeps what it went through.
        self._failed: tuple[float, object, type[SpectralizeError], str] | None = None
        self._lock = threading.Lock()

    def read(self, explorer: Explorer) -> StoreFacts:
        """Return the facts of this store; errors as in `Explorer.read`, and they are not kept."""
        store, asked_at = explorer.store.session.database, time.monotonic()
        with self._lock:
            kept = self._facts.get(store)
            if kept is not None and time.monotonic() - kept[0] < self._kept_s:
                return kept[1]
            # Whoever waited for a database that did not answer would else wait for it once more, one after the other.
            if self._failed is not None and self._failed[0] >= asked_at and self._failed[1] == store:
                raise self._failed[2](self._failed[3])
            try:
                facts = explorer.read(read_store_facts)
            except SpectralizeError as error:
                self._failed = time.monotonic(), store, type(error), str(error)
                raise
            self._facts[store] = time.monotonic(), facts
            self._facts.move_to_end(store)
            while len(self._facts) > _MOST_STORES:
                self._facts.popitem(last=False)
            return facts


_FACTS = FactsOfStores()


def render(explorer: Explorer, visit: Visit, **groups: str) -> Component:
    """Make the page."""
    return make_overview(_FACTS.read(explorer), is_dark=visit.is_dark)


def register(app: Dash, explorer: Explorer) -> None:
    """Connect the page's callbacks: there are none, it changes only with the theme."""
