"""Many recordings: found when they are asked for, not when they are described."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from spectralize.errors import ReadError
from spectralize.reader.catalogue import PAGE, Filters, Found
from spectralize.reader.given import shown
from spectralize.reader.recording import Recording

if TYPE_CHECKING:
    import pandas as pd

    from spectralize.reader.store import Store

#: Columns of `to_pandas` that every recording has, in this order; its profiles and tags come behind them.
_COLUMNS = (
    "uid", "bucket", "key", "recorded_at", "duration_s", "outcome", "decoded_samplerate_hz", "decoded_channels", "decoded_codec",
    "size_bytes", "last_modified", "sha256",
)  # fmt: skip


class Recordings:
    """The recordings that some filters select, in the order of bucket and key.

    Iterating fetches them page by page, so a hundred thousand take no more memory than a thousand; what is loaded
    meanwhile may or may not be among them. Each iteration looks anew.
    """

    def __init__(self, store: Store, filters: Filters) -> None:
        self._store, self._filters = store, filters

    def __repr__(self) -> str:
        asked = {name: value for name, value in asdict(self._filters).items() if value}
        return f"<Recordings of {self._store}: {', '.join(f'{name}={value!r}' for name, value in asked.items())}>"

    def __len__(self) -> int:
        n = self._store.session.run(lambda connection: self._store.catalogue.count(connection, self._filters))
        if not n:
            self._explain_end(is_empty=True)
        return n

    def __bool__(self) -> bool:
        return self.first() is not None

    def __iter__(self) -> Iterator[Recording]:
        last: Found | None = None
        while True:
            page = self._page(last, PAGE)
            for last in page:
                yield Recording._of(last, self._store)
            if len(page) < PAGE:
                return

    def first(self) -> Recording | None:
        """Return the first one, or None."""
        return next((Recording._of(found, self._store) for found in self._page(None, 1)), None)

    def head(self, n: int) -> list[Recording]:
        """Return the first few."""
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 0:
            raise ReadError(f"n = {shown(n)}: must be a number of recordings, 0 or more")
        # More than that are nowhere.
        n = min(int(n), 1 << 60)
        return [Recording._of(found, self._store) for found in self._page(None, n)]

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row per recording, indexed by id: what is known of each, its profiles, and its tags."""
        import pandas as pd

        rows = [
            {"id": recording.id}
            | {name: getattr(recording, name) for name in _COLUMNS}
            | {"profiles": tuple(recording.spectrograms)}
            | {f"tag.{name}": value for name, value in recording.tags.items()}
            for recording in self
        ]
        table = pd.DataFrame(rows, columns=None if rows else ["id", *_COLUMNS, "profiles"])
        return table.set_index("id")

    def _page(self, after: Found | None, limit: int) -> list[Found]:
        catalogue = self._store.catalogue
        found = self._store.session.run(
            lambda connection: catalogue.page(connection, self._filters, after=after, limit=limit)
        )
        if len(found) < limit:
            self._explain_end(is_empty=not found and after is None)
        return found

    def _explain_end(self, *, is_empty: bool) -> None:
        """Say so if there are no more because there cannot be any: of a profile that is none, or a snapshot that is gone."""
        self._store.require_snapshot()
        if is_empty and self._filters.profile is not None:
            names = self._store.session.run(self._store.catalogue.profiles)
            if self._filters.profile not in names:
                raise ReadError(
                    f"profile {self._filters.profile!r}: nothing in the store has it; there are {', '.join(names) or 'none'}"
                )
