"""A filled store, the explorer in front of it, and a browser that looks at it."""

import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect
from psycopg import sql

from bench.chromium import open_browser
from bench.explorer import run_explorer
from local.stack import Stack
from spectralize.migrations import migrate
from tests.conftest import _superuser_dsn, fresh_database
from tests.explorer.browser import PATIENCE_MS, WIDE, Watch
from tests.explorer.recordings import Stock, fill_stock

#: Opens a page: ``new_page(viewport=PHONE, is_dark=True)``.
NewPage = Callable[..., Page]

#: Where links to Airflow lead; nobody follows them.
AIRFLOW_URL = "https://airflow.example/base"

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
    """The explorer as people start it on their own machine."""
    with run_explorer(reader_dsn, SPECTRALIZE_AIRFLOW_URL=AIRFLOW_URL) as url:
        yield url


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which Chromium keeps what it has compiled, from one module to the next."""
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="module")
def browser(profile: Path, explorer_url: str) -> Iterator[BrowserContext]:
    """Chromium, for one module: the event loop of Playwright must be gone before others begin one."""
    with open_browser(
        profile, "--autoplay-policy=no-user-gesture-required", base_url=explorer_url, viewport=WIDE
    ) as browser:
        browser.set_default_timeout(PATIENCE_MS)
        # Of what `expect` waits for, which has a time of its own.
        expect.set_options(timeout=PATIENCE_MS)
        yield browser


@pytest.fixture
def watch(explorer_url: str) -> Iterator[Watch]:
    """What the pages of a test have done that no page may do: then the test fails."""
    watch = Watch({explorer_url})
    yield watch
    assert watch.verdict() == []


@pytest.fixture
def new_page(browser: BrowserContext, watch: Watch, explorer_url: str) -> Iterator[NewPage]:
    """Opens pages of a visitor who has no cookies and has stored nothing when the test begins."""
    browser.clear_cookies()
    pages: list[Page] = []

    def open_page(*, viewport: ViewportSize = WIDE, is_dark: bool = False) -> Page:
        page = watch.over(browser.new_page())
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme="dark" if is_dark else "light", reduced_motion="reduce")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    forget = browser.new_page()
    # A page of the same origin that is no page of ours.
    forget.goto(f"{explorer_url}/_dash-layout")
    forget.evaluate("localStorage.clear(); sessionStorage.clear()")
    forget.close()


@pytest.fixture
def page(new_page: NewPage, tmp_path: Path) -> Page:
    """A page of a notebook's size, light."""
    return new_page()
