"""A filled store, the explorer in front of it, and a browser that looks at it."""

import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import waitress
from playwright.sync_api import Browser, BrowserContext, Page
from psycopg import sql

from local.stack import Stack
from spectralize import open_store
from spectralize.explorer.app import make_app
from spectralize.explorer.settings import LOOPBACK, Settings
from spectralize.migrations import migrate
from tests.conftest import _superuser_dsn, fresh_database
from tests.explorer.browser import PATIENCE_MS, WIDE, Watch, open_browser
from tests.explorer.recordings import Stock, fill_stock

#: Opens a page; takes what Playwright's `new_context` takes: ``new_page(viewport=PHONE, color_scheme="dark")``.
NewPage = Callable[..., Page]

_GRANT = """
CREATE ROLE {role} LOGIN PASSWORD {password};
ALTER ROLE {role} SET timezone = 'UTC';
ALTER ROLE {role} SET statement_timeout = '5min';
GRANT USAGE ON SCHEMA spectralize TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA spectralize TO {role}
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Keep a picture of the page on which a test has failed."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and page is not None:
        path = Path(item.funcargs["tmp_path"]) / "failed.png"  # type: ignore[attr-defined]
        page.screenshot(path=path)
        report.sections.append(("screenshot", f"{path} of {page.url}"))
    return report


@pytest.fixture(scope="session")
def stock(stack: Stack, aws: None) -> Iterator[Stock]:
    """What the explorer shows; see `tests.explorer.recordings`."""
    with fresh_database(stack, "explorer") as dsn:
        migrate(dsn)
        with fill_stock(dsn) as stock:
            yield stock


@pytest.fixture(scope="session")
def reader_dsn(stack: Stack, stock: Stock) -> Iterator[str]:
    """The store's address for a role that reads and does nothing else: docs/sql.md has the same."""
    parts = urlsplit(stock.dsn)
    role, password = f"explorer_{secrets.token_hex(4)}", secrets.token_hex(8)
    names = {"role": sql.Identifier(role), "password": sql.Literal(password)}
    with psycopg.connect(_superuser_dsn(stack, parts.path.lstrip("/")), autocommit=True) as connection:
        connection.execute(sql.SQL(_GRANT).format(**names))
        yield urlunsplit(parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}"))
        connection.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(**names))


@pytest.fixture(scope="session")
def explorer_url(reader_dsn: str) -> Iterator[str]:
    """The explorer as people reach it on their own machine."""
    settings = Settings(dsn=reader_dsn, port=0)
    with open_store(reader_dsn) as store:
        server = waitress.create_server(make_app(settings, store).server, host=LOOPBACK, port=0, threads=8)
        Thread(target=server.run, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.effective_port}"
        server.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one module: the event loop of Playwright must be gone before others begin one."""
    with open_browser("--autoplay-policy=no-user-gesture-required") as browser:
        yield browser


@pytest.fixture
def watch(explorer_url: str) -> Iterator[Watch]:
    """What the pages of a test have done that no page may do: then the test fails."""
    watch = Watch({explorer_url})
    yield watch
    assert watch.verdict() == []


@pytest.fixture
def new_page(browser: Browser, watch: Watch, explorer_url: str) -> Iterator[NewPage]:
    """Opens pages of visitors who have no cookies and have stored nothing yet."""
    contexts: list[BrowserContext] = []

    def open_page(**options: Any) -> Page:
        standard = {"base_url": explorer_url, "viewport": WIDE, "color_scheme": "light", "reduced_motion": "reduce"}
        context = browser.new_context(**(standard | options))
        context.set_default_timeout(PATIENCE_MS)
        watch.over(context)
        contexts.append(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: NewPage, tmp_path: Path) -> Page:
    """A page of a notebook's size, light."""
    return new_page()
