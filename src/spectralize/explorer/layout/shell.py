"""What is around every page: header, links, theme; and the page that says what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from spectralize.explorer.pages import Page

_HEADER_PX = 56

#: However far down the page has been scrolled.
_IN_SIGHT = {"position": "sticky", "top": _HEADER_PX + 8, "zIndex": 10}

#: Mantine's own blue is too light for text on white.
_THEME = {
    "primaryColor": "indigo",
    "primaryShade": 8,
    "fontFamily": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
    "autoContrast": True,
    "respectReducedMotion": True,
}


def make_shell(pages: Sequence[Page], *, signs_out: bool = False) -> Component:
    """Return everything but the page itself, which goes into ``page``, and what went wrong there, into ``trouble``."""
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
                *([_make_sign_out()] if signs_out else []),
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
                [
                    header,
                    dmc.AppShellMain(
                        [
                            html.Div(id="trouble", style=_IN_SIGHT),
                            html.Div(id="page", tabIndex=-1, **{"aria-live": "off"}),
                        ]
                    ),
                ],
                header={"height": _HEADER_PX},
                padding="md",
            ),
        ],
        id="provider",
        theme=_THEME,
        defaultColorScheme="auto",
    )


def _make_sign_out() -> Component:
    # A form, so that a link from elsewhere cannot do it.
    button = dmc.Button("Sign out", buttonProps={"type": "submit"}, variant="default", size="compact-sm")
    return html.Form(button, action="/sign-out", method="POST")


def make_trouble(text: str) -> Component:
    """Return a note above the page that a part of it could not be brought up to date."""
    return dmc.Alert(
        text, title="That did not work", color="red.9", variant="filled", mb="md", withCloseButton=True,
        closeButtonLabel="Close", duration=20_000,
    )  # fmt: skip


def make_message(title: str, text: str) -> Component:
    """Return a page that says why there is no other."""
    return dmc.Alert(
        text,
        title=dmc.Title(title, order=1, size="h4", c="var(--mantine-color-text)"),
        color="red",
        variant="light",
        mt="md",
    )
