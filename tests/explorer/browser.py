"""What tests see of a page in Chromium, and a watch on what no page of ours may do."""

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Dialog, Page, Request, ViewportSize

from bench.chromium import wait_until

#: In CSS pixels: a notebook's window, and a phone.
WIDE = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=375, height=740)

#: How long something that has to appear may take, on a machine that does other things besides.
PATIENCE_MS = 15_000

#: Told to the console, where the watch hears of it.
_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`forbidden by ${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@dataclass
class Watch:
    """Notes errors, dialogs, and requests to anybody but the explorer, of the pages of a test."""

    origins: set[str]
    problems: list[str] = field(default_factory=list)
    _allowed: list[re.Pattern[str]] = field(default_factory=list)

    def over(self, page: Page) -> Page:
        """Begin to watch a page."""
        page.add_init_script(_TELL_VIOLATIONS)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.problems.append(f"uncaught: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", self._see)
        return page

    def allow(self, pattern: str) -> None:
        """Say what a test brings about by intention: such problems are none."""
        self._allowed.append(re.compile(pattern))

    def verdict(self) -> list[str]:
        """Return what was not allowed."""
        return [one for one in self.problems if not any(pattern.search(one) for pattern in self._allowed)]

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


def wait_for(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page."""
    wait_until(page, expression, PATIENCE_MS)


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
