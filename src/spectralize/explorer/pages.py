"""Which page an address leads to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dash.development.base_component import Component

from spectralize.explorer.context import Explorer
from spectralize.explorer.visits import Visit

#: Makes a page. Groups of the path's pattern come as keyword arguments.
Render = Callable[..., Component]


class NoSuchPageError(Exception):
    """An address that leads nowhere: the message says what there is not."""


@dataclass(frozen=True, slots=True)
class Page:
    """A kind of page.

    Attributes
    ----------
    pattern
        Of its path, whole.
    render
        Called as ``render(explorer, visit, **groups)``.
    link
        What the header calls it, or None if it has no link there.
    """

    pattern: re.Pattern[str]
    render: Render
    link: tuple[str, str] | None = None


def find_page(pages: tuple[Page, ...], path: str) -> tuple[Page, dict[str, Any]]:
    """Return the page of a path and the groups of its pattern.

    Raises
    ------
    NoSuchPageError
        If there is none.
    """
    for page in pages:
        match = page.pattern.fullmatch(path)
        if match:
            return page, match.groupdict()
    raise NoSuchPageError("There is no such page.")


def render_page(pages: tuple[Page, ...], explorer: Explorer, visit: Visit) -> Component:
    """Return what was asked for; errors as in `find_page`, and those of reading."""
    page, groups = find_page(pages, visit.path)
    return page.render(explorer, visit, **groups)
