"""What an address asks for, and on what kind of screen it will be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

#: Of a screen that has not been measured yet, in CSS pixels.
_WIDTH_PX = 1200
#: Beyond these a width is a mistake, or somebody who wants to see how much work we can be made to do.
_NARROWEST_PX, _WIDEST_PX = 200, 4000

#: Longer ones are no address of ours.
_LONGEST_QUERY = 8_000
_MOST_VALUES = 64


@dataclass(frozen=True, slots=True)
class Visit:
    """A look at one page.

    Attributes
    ----------
    path
        Such as ``/recordings/17``.
    query
        Name -> values, as in the address behind ``?``.
    width_px
        Width of the browser's window in CSS pixels.
    is_dark
        Whether figures are drawn for a dark page.
    is_touch
        Whether fingers do what a mouse does elsewhere.
    """

    path: str
    query: Mapping[str, tuple[str, ...]]
    width_px: int = _WIDTH_PX
    is_dark: bool = False
    is_touch: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any] | None) -> Visit:
        """Read what the browser sent; nothing in it is trusted, and None is a visit to the first page."""
        data = data or {}
        path, search = str(data.get("path") or "/"), str(data.get("search") or "")
        width = data.get("width")
        width_px = round(width) if isinstance(width, int | float) and 0 < width < 1e6 else _WIDTH_PX
        return cls(
            path=path.rstrip("/") or "/",
            query=read_query(search),
            width_px=min(max(width_px, _NARROWEST_PX), _WIDEST_PX),
            is_dark=data.get("dark") is True,
            is_touch=data.get("touch") is True,
        )

    def first(self, name: str, default: str = "") -> str:
        """Return the first value of a name in the query."""
        return next(iter(self.query.get(name, ())), default)


def read_query(search: str) -> Mapping[str, tuple[str, ...]]:
    """Return the values of each name in what stands behind ``?``; one that is far too long is taken for none."""
    if len(search) > _LONGEST_QUERY:
        return {}
    # Browsers put no lone surrogates into an address, and nothing behind it could take them.
    search = search.encode(errors="replace").decode()
    try:
        found = parse_qs(search.removeprefix("?"), max_num_fields=_MOST_VALUES)
    except ValueError:
        return {}
    return {name: tuple(values) for name, values in found.items()}


def write_query(values: Mapping[str, object]) -> str:
    """Return ``?name=value…``, without what is None, empty or an empty list; empty if nothing is left."""
    kept = {
        name: [str(item) for item in value] if isinstance(value, list | tuple) else str(value)
        for name, value in values.items()
        if value not in (None, "", [], ())
    }
    # Lone surrogates, which a browser's text may hold, are in no address.
    return f"?{urlencode(kept, doseq=True, errors='replace')}" if kept else ""
