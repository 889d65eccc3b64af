"""Small parts that pages share: badges, numbers, times, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from spectralize.errors import as_one_line

#: What a cell or a fact may be.
Content: TypeAlias = str | Component | Sequence[str | Component]

#: Stands where there is nothing to say.
NOTHING = "–"

#: Filled badges get black or white letters, whichever can be read; those of what went well are quiet, so that
#: the others stand out.
_BADGES = {
    "loaded": ("green", "dot"),
    "partial": ("yellow.4", "filled"),
    "rejected": ("orange.5", "filled"),
    "failed": ("red.9", "filled"),
    "success": ("green", "dot"),
    "open": ("blue", "dot"),
    "planned": ("blue", "dot"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """Head of a column; numbers stand at the right."""

    label: str
    is_number: bool = False
    #: In CSS, such as "20rem": a column of long texts must not push the others off the screen.
    width: str | None = None


def heading(title: str, *beside: Component) -> Component:
    """Return the one h1 of a page, with what stands beside it."""
    return dmc.Group(
        [dmc.Title(as_one_line(title), order=1, size="h2", style={"overflowWrap": "anywhere"}), *beside],
        gap="sm",
        mb="sm",
    )


def section(title: str, *children: Component, element_id: str | None = None) -> Component:
    """Return a part of a page under a heading of its own."""
    named = {} if element_id is None else {"id": element_id}
    return html.Section([dmc.Title(title, order=2, size="h4", mt="lg", mb="xs"), *children], **named)


def badge(word: str | None, *, text: str | None = None) -> Component:
    """Return an outcome or the state of a batch as a badge; None is an object that nothing has become of yet.

    With a `text`, that is what stands in it, where something else says what it is.
    """
    word = word or "pending"
    color, variant = _BADGES.get(word, ("gray", "dot"))
    # Mantine writes them in capitals, and cuts them where a column is narrow.
    return dmc.Badge(text or word, color=color, variant=variant, tt="none", radius="sm", miw="max-content")


def count_text(number: float | None) -> str:
    """Return 12345 as "12 345", with a space at which no line breaks."""
    return NOTHING if number is None else f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def number_text(number: float | None, digits: int = 3, unit: str = "") -> str:
    """Return a number with so many digits that count, and its unit: 0.004217 as 0.00422, 1234.5 as 1 234."""
    if number is None:
        return NOTHING
    text = count_text(number) if abs(number) >= 10 ** (digits - 1) else f"{number:.{digits}g}"
    return f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text


def duration_text(seconds: float | None) -> str:
    """Return 0.512 as 0.51 s, 75.5 as 1:15.5, 3675 as 1:01:15."""
    if seconds is None:
        return NOTHING
    if abs(seconds) < 10:
        return f"{seconds:.2f}\N{NO-BREAK SPACE}s"
    if abs(seconds) < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    if seconds < 3600:
        minutes, tenths = divmod(round(seconds * 10), 600)
        if minutes < 60:
            return f"{minutes}:{tenths / 10:04.1f}"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{count_text(hours)}:{minutes:02d}:{left:02d}"


def bytes_text(size: float | None) -> str:
    """Return 1536000 as 1.54 MB."""
    if size is None:
        return NOTHING
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return number_text(size, unit=unit)
        size /= 1000
    return number_text(size, unit="TB")


def time_text(at: datetime | None) -> str:
    """Return a time to the second in UTC, without saying so: a column's head or the page does."""
    return NOTHING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def moment(at: datetime | None) -> Component:
    """Return a time to the second, which programs can read, too; "Z" says that it is UTC."""
    if at is None:
        return html.Span(NOTHING)
    utc = at.astimezone(UTC)
    return html.Time(f"{utc:%Y-%m-%d %H:%M:%S}Z", dateTime=utc.isoformat(), style={"whiteSpace": "nowrap"})


def dim(text: str, *, size: str = "sm", **more: Any) -> Component:
    """Return text that steps back, and can still be read: Mantine's own dim grey is too light for that."""
    return dmc.Text(text, size=size, style={"opacity": 0.75}, **more)


def plain(text: str | None, *, longest: int = 1000) -> str:
    """Return hostile text for a child of a component: printable, on one line, and not without end."""
    if not text:
        return NOTHING
    line = as_one_line(text[: longest + 1])
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def link(text: Content, href: str, **more: Any) -> Component:
    """Return a link inside the explorer. A text may be hostile; its address is ours, and so is what is more than a text."""
    shown = plain(text) if isinstance(text, str) else text
    return dmc.Anchor(shown, href=href, underline="always", inherit=True, **more)


def outside_link(text: str, href: str) -> Component:
    """Return a link to another program, which opens beside the explorer and is not told where it came from."""
    return html.A(
        f"{plain(text)} ↗",
        href=href,
        target="_blank",
        rel="noopener noreferrer",
        style={"color": "var(--mantine-color-anchor)"},
    )


def facts_table(facts: Iterable[tuple[str, Content]], *, label: str, element_id: str | None = None) -> Component:
    """Return names and values in two columns; `label` is what a screen reader calls them."""
    rows = [dmc.TableTr([dmc.TableTh(name, w="14rem"), dmc.TableTd(value, style=_FOLDED)]) for name, value in facts]
    named = {} if element_id is None else {"id": element_id}
    return dmc.Table(dmc.TableTbody(rows), verticalSpacing="4px", **{"aria-label": label}, **named)


def rows_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Content] | Component],
    *,
    label: str,
    element_id: str | None = None,
    min_width_px: int = 600,
    head: Literal["visible", "sticky"] = "visible",
) -> Component:
    """Return a table that scrolls sideways by itself where the screen is narrow.

    Parameters
    ----------
    label
        What a screen reader calls it.
    rows
        Contents by column, or a row as it is.
    min_width_px
        What it needs to be readable.
    """
    heads = [
        dmc.TableTh(column.label, ta="right" if column.is_number else "left", w=column.width) for column in columns
    ]
    lines = [
        row
        if isinstance(row, Component)
        else dmc.TableTr([_cell(column, content) for column, content in zip(columns, row, strict=True)])
        for row in rows
    ]
    named = {} if element_id is None else {"id": element_id}
    table = dmc.Table(
        [dmc.TableThead(dmc.TableTr(heads)), dmc.TableTbody(lines)],
        highlightOnHover=True, verticalSpacing="4px", stickyHeader=head == "sticky", **{"aria-label": label}, **named,
    )  # fmt: skip
    return scrolling(table, label=label, min_width_px=min_width_px)


def scrolling(table: Component, *, label: str, min_width_px: int) -> Component:
    """Return a table in a frame in which it is moved sideways, by keyboard, too, where the screen is narrow."""
    return dmc.TableScrollContainer(
        table, minWidth=min_width_px, type="native", tabIndex=0, **{"aria-label": f"{label}, can be moved sideways"}
    )


#: Keys have no spaces at which a line could break.
_FOLDED = {"overflowWrap": "anywhere"}


def _cell(column: Column, content: Content) -> Component:
    if column.is_number:
        return dmc.TableTd(content, ta="right", style={"fontVariantNumeric": "tabular-nums", "whiteSpace": "nowrap"})
    return dmc.TableTd(content, style=_FOLDED if column.width else None)


def disclosure(summary: str, *children: Component, element_id: str | None = None) -> Component:
    """Return something that is folded away until somebody wants it."""
    named = {} if element_id is None else {"id": element_id}
    return html.Details(
        [html.Summary(summary, style={"cursor": "pointer", "fontSize": "var(--mantine-font-size-sm)"}), *children],
        **named,
    )


def notice(text: Content, *, color: str = "red", title: str | None = None, element_id: str | None = None) -> Component:
    """Return a box that says what is the matter."""
    named = {} if element_id is None else {"id": element_id}
    edge = {"borderLeft": f"4px solid var(--mantine-color-{color}-6)"}
    return dmc.Alert(text, title=title, color=color, variant="default", my="sm", style=_FOLDED | edge, **named)


def pager(page: int, n_pages: int, address: Callable[[int], str], *, label: str, element_id: str) -> Component:
    """Return links to the pages beside this one; `address` makes that of a page. Pages count from 1."""
    steps = [("First", 1, page > 2), ("Previous", page - 1, page > 1), ("Next", page + 1, page < n_pages)]
    steps.append(("Last", n_pages, page < n_pages - 1))
    links = [link(name, address(to), **{"aria-label": f"{name} page"}) for name, to, is_there in steps if is_there]
    here = dmc.Text(f"Page {count_text(page)} of {count_text(n_pages)}", size="sm", span=True)
    return html.Nav(dmc.Group([here, *links], gap="md", my="sm"), id=element_id, **{"aria-label": label})


def choices(
    options: Iterable[tuple[str, int | None, str, bool]], *, label: str, element_id: str | None = None
) -> Component:
    """Return links of which one is chosen: (text, how many or None, address, whether it is this one)."""
    links = [
        link(
            text if n is None else [f"{plain(text)} {count_text(n)}"],
            href, fw=700 if is_chosen else 400,
            **({"aria-current": "true"} if is_chosen else {}),
        )
        for text, n, href, is_chosen in options
    ]  # fmt: skip
    named = {} if element_id is None else {"id": element_id}
    return html.Nav(dmc.Group(links, gap="md", my="xs"), **{"aria-label": label}, **named)
