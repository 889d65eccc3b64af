"""What tests see of a page that has been made, without a browser: its components, their texts, rows and links."""

from collections.abc import Iterator
from typing import Any

from dash.development.base_component import Component


def walk(page: Any) -> Iterator[Any]:
    """Every component and text, in order."""
    if isinstance(page, list | tuple):
        for child in page:
            yield from walk(child)
    elif page is not None:
        yield page
        yield from walk(getattr(page, "children", None))


def by_id(page: Any, name: str) -> Any:
    """The one component that is called so."""
    found = [item for item in walk(page) if getattr(item, "id", None) == name]
    assert len(found) == 1, f"{len(found)} components called {name}"
    return found[0]


def texts(page: Any) -> list[str]:
    """Every text."""
    return [item for item in walk(page) if isinstance(item, str)]


def rows(table: Any) -> list[list[str]]:
    """The cells of each row of a table's body; rows of one cell over all columns are left out."""
    body = next(item for item in walk(table) if type(item).__name__ == "TableTbody")
    return [
        ["".join(texts(cell.children)) for cell in row.children]
        for row in body.children
        if isinstance(row.children, list)
    ]


def addresses(page: Any) -> set[str]:
    """Where its links lead."""
    return {item.href for item in walk(page) if isinstance(item, Component) and getattr(item, "href", None)}
