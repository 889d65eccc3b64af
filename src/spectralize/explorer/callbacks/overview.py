"""The overview: what the store holds, read at most twice a minute however many look."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from dash import Dash
from dash.development.base_component import Component

from spectralize.explorer.context import Explorer
from spectralize.explorer.layout.overview import make_overview
from spectralize.explorer.visits import Visit
from spectralize.storefacts import StoreFacts, read_store_facts

KEPT_S = 30.0

#: Stores of one process: tests have several, an explorer has one.
_MOST_STORES = 4


class FactsOfStores:
    """The facts of a few stores, kept for a while. One thread reads them, the others wait for it."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._facts: OrderedDict[object, tuple[float, StoreFacts]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, explorer: Explorer) -> StoreFacts:
        """Return the facts of this store; errors as in `Explorer.read`, and they are not kept."""
        store = explorer.store.session.database
        with self._lock:
            kept = self._facts.get(store)
            if kept is not None and time.monotonic() - kept[0] < self._kept_s:
                return kept[1]
            facts = explorer.read(read_store_facts)
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
