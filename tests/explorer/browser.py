"""Debian's Chromium under Playwright, and a watch on what no page of ours may do in it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

#: No sandbox: who has no unprivileged user namespaces (containers, root) has no Chromium otherwise. It sees only pages of ours.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--mute-audio",
)  # fmt: skip

#: In CSS pixels: a notebook's window, and a phone.
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 740}

#: How long something that has to appear may take, on a machine that does other things besides.
PATIENCE_MS = 15_000

#: Told to the console, where the watch hears of it.
_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`forbidden by ${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


class NoBrowserError(Exception):
    """There is no Chromium; one line for a person."""


def find_chromium() -> str:
    """Return the path of the browser."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise NoBrowserError(f"no browser: none of {', '.join(NAMES)} is on the PATH; `make browser` installs one")


@contextmanager
def open_browser(*flags: str) -> Iterator[Browser]:
    """Start Chromium. Playwright's event loop runs in this thread until the end, so nothing else may have one meanwhile."""
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        yield browser
        browser.close()


@dataclass
class Watch:
    """Notes errors, dialogs, and requests to anybody but the explorer, of every page of a context."""

    origins: set[str]
    problems: list[str] = field(default_factory=list)
    _allowed: list[re.Pattern[str]] = field(default_factory=list)

    def over(self, context: BrowserContext) -> "Watch":
        """Begin to watch a context."""
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.problems.append(f"uncaught: {error.error}"))
        context.on("dialog", self._dismiss)
        context.on("request", self._see)
        return self

    def allow(self, pattern: str) -> None:
        """Say what a test brings about by intention: such problems are none, but one there must be."""
        self._allowed.append(re.compile(pattern))

    def verdict(self) -> list[str]:
        """Return what was not allowed, and what was allowed and did not happen."""
        found = [one for one in self.problems if not any(pattern.search(one) for pattern in self._allowed)]
        missed = [
            f"did not happen: {pattern.pattern}"
            for pattern in self._allowed
            if not any(pattern.search(one) for one in self.problems)
        ]
        return found + missed

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _dismiss(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _see(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and f"{parts.scheme}://{parts.netloc}" not in self.origins:
            self.problems.append(f"elsewhere: {request.method} {request.url}")


def scheme_of(page: Page) -> str | None:
    """Return which theme is shown: light or dark."""
    return page.locator("html").get_attribute("data-mantine-color-scheme")


def focused(page: Page) -> str:
    """Return what a screen reader would say of the element that has the focus, or its id if only a program gives it that."""
    said: str = page.evaluate(
        "(() => { const e = document.activeElement;"
        " return e.getAttribute('aria-label') || (e.tabIndex < 0 ? e.id : e.textContent.trim()) || e.tagName; })()"
    )
    return said


def overflow_px(page: Page) -> int:
    """Return by how much the page is wider than the window: above 0, it scrolls sideways."""
    width: int = page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth")
    return width
