"""What is around every page: header, links, theme; and the page that says what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from spectralize.explorer.pages import Page

_HEADER_PX = 56

#: Mantine's own blue is too light for text on white.
_THEME = {
    "primaryColor": "indigo",
    "primaryShade": {"light": 8, "dark": 3},
    "fontFamily": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
    "autoContrast": True,
    "respectReducedMotion": True,
}


def make_shell(pages: Sequence[Page]) -> Component:
    """Return everything but the page itself, which goes into ``page``."""
    links = [
        dmc.Anchor(label, href=href, className="nav-link", id={"type": "nav", "href": href})
        for page in pages
        if page.link is not None
        for label, href in [page.link]
    ]
    header = dmc.AppShellHeader(
        dmc.Group(
            [
                dmc.Anchor("Spectralize", href="/", className="brand"),
                html.Nav(dmc.Group(links, gap="md", wrap="nowrap"), className="nav", **{"aria-label": "Pages"}),
                dmc.Button(
                    "Dark", id="theme-toggle", variant="default", size="compact-sm",
                    **{"aria-label": "Switch between light and dark"},
                ),
            ],
            h="100%", px="md", gap="md", wrap="nowrap", className="header",
        )
    )  # fmt: skip
    return dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh=False),
            # The theme that was chosen; empty while nobody has, and the system's counts.
            dcc.Store(id="theme", storage_type="local"),
            # What is looked at, and on what: `Visit.of` reads it.
            dcc.Store(id="visit"),
            html.A("Skip to content", href="#page", className="skip-link"),
            dmc.AppShell(
                [header, dmc.AppShellMain(html.Div(id="page", tabIndex=-1, **{"aria-live": "off"}))],
                header={"height": _HEADER_PX},
                padding="md",
            ),
        ],
        id="provider",
        theme=_THEME,
        defaultColorScheme="auto",
    )


def make_message(title: str, text: str) -> Component:
    """Return a page that says why there is no other."""
    return dmc.Alert(text, title=dmc.Title(title, order=1, size="h4"), color="red", variant="light", mt="md")
