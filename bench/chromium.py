"""Debian's Chromium under Playwright, for what has to be seen in a browser: by the bench, and by the tests of the explorer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

#: No sandbox: where there are no unprivileged user namespaces (containers, root), Chromium does not start with one. It sees
#: no pages but ours.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--mute-audio",
)  # fmt: skip


_POLL_MS = 10


class NoBrowserError(Exception):
    """There is no Chromium; one line for a person."""


def find_chromium() -> str:
    """Return the path of the browser.

    Raises
    ------
    NoBrowserError
        If there is none.
    """
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise NoBrowserError(f"no browser: none of {', '.join(NAMES)} is on the PATH; `make browser` installs one")


@contextmanager
def open_browser(profile: Path, *flags: str, **options: Any) -> Iterator[BrowserContext]:
    """Start Chromium with a profile of its own, in which it keeps what it has compiled, as everybody's browser does.

    Without one Chromium compiles Plotly and Mantine anew for each page, which takes two seconds. `options` are those of
    Playwright's `launch_persistent_context`. Its event loop runs in this thread until the end: nothing else may have one.
    """
    path = find_chromium()
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=path, args=[*FLAGS, *flags], **options
        )
        yield context
        context.close()


def wait_until(page: Page, expression: str, timeout_ms: float) -> Any:
    """Evaluate an expression until it is true, and return its value.

    Playwright's own `wait_for_function` needs ``eval``, which pages of ours forbid.

    Raises
    ------
    TimeoutError
        If it is not true in time.
    """
    until = monotonic() + timeout_ms / 1000
    while not (value := page.evaluate(expression)):
        if monotonic() > until:
            raise TimeoutError(f"not true within {timeout_ms:.0f} ms: {expression}")
        page.wait_for_timeout(_POLL_MS)
    return value
