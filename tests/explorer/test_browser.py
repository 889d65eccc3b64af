"""The explorer in a browser: the shell around every page."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from plotly.offline import get_plotlyjs_version

import spectralize.explorer
from tests.explorer.browser import PHONE, Watch, focused, overflow_px, scheme_of
from tests.explorer.conftest import NewPage

ASSETS = Path(spectralize.explorer.__file__).with_name("assets")

LINKS = {"Recordings": "/", "Compare": "/compare", "Batches": "/batches", "Overview": "/overview"}


def test_the_watch_sees_what_no_page_may_do(page: Page, watch: Watch, explorer_url: str) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert watch.verdict() == []
    with page.expect_event("pageerror"):
        page.evaluate("console.error('broken'); setTimeout(() => { throw new Error('thrown') }); alert('hello')")
    page.goto(explorer_url.replace("127.0.0.1", "localhost"))
    assert {one.split(":")[0] for one in watch.verdict()} == {"console", "dialog", "uncaught", "elsewhere"}
    watch.allow("broken|thrown|hello|localhost")
    assert watch.verdict() == []
    page.evaluate("console.error('again')")
    assert len(watch.verdict()) == 1
    watch.problems.clear()


def test_links_lead_to_pages_and_back(page: Page) -> None:
    page.goto("/overview")
    for label, path in LINKS.items():
        page.get_by_role("navigation").get_by_role("link", name=label).click()
        page.wait_for_url(f"**{path}")
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_role("heading", level=1)).to_contain_text(label, ignore_case=True)
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batches", ignore_case=True)
    page.go_forward()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Overview", ignore_case=True)


def test_an_address_that_leads_nowhere_says_so(page: Page, watch: Watch) -> None:
    # Of the page itself.
    watch.allow("status of 404")
    page.goto("/nowhere/<b>at all</b>")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing here")
    expect(page.locator("#page")).to_contain_text("There is no such page.")


def test_the_keyboard_reaches_everything_in_order(page: Page) -> None:
    page.goto("/batches")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    order = []
    for _ in range(7):
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order == ["Skip to content", "Spectralize", *LINKS, "Switch between light and dark"]


def test_one_can_skip_to_the_content(page: Page) -> None:
    page.goto("/batches")
    link = page.get_by_role("link", name="Skip to content")
    # A link that is not there yet is out of sight, too, and a key pressed then is lost.
    expect(link).to_be_attached()
    expect(link).not_to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(link).to_be_in_viewport()
    page.keyboard.press("Enter")
    assert focused(page) == "page"
    expect(page.get_by_role("heading", level=1)).to_contain_text("batches", ignore_case=True)


def test_the_theme_is_the_systems_until_one_is_chosen(new_page: NewPage) -> None:
    page = new_page(is_dark=True)
    page.goto("/")
    button = page.get_by_role("button", name="Switch between light and dark")
    expect(button).to_have_text("Light")
    assert scheme_of(page) == "dark"
    button.click()
    expect(button).to_have_text("Dark")
    assert scheme_of(page) == "light"
    page.goto("/overview")
    expect(button).to_have_text("Dark")
    assert scheme_of(page) == "light"


def test_plots_are_drawn_by_the_bundle_that_is_in_step_with_plotly(page: Page, explorer_url: str) -> None:
    [bundle] = ASSETS.glob("plotly-cartesian-*.min.js")
    assert bundle.name == f"plotly-cartesian-{get_plotlyjs_version()}.min.js"
    head = bundle.read_text(encoding="utf-8")[:100]
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}" in head
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/overview")
    expect(page.locator(".js-plotly-plot .barlayer path").first).to_be_visible()
    assert [url for url in asked if "plotly" in url and "async-" not in url] == [
        url for url in asked if url.startswith(f"{explorer_url}/assets/{bundle.name}")
    ]


def test_a_phone_does_not_scroll_sideways(new_page: NewPage) -> None:
    page = new_page(viewport=PHONE)
    for path in LINKS.values():
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert overflow_px(page) <= 0, path


@pytest.mark.parametrize(
    ("status", "line"), [(0, "The explorer does not answer."), (500, "answers with an error: 500.")]
)
def test_what_fails_in_between_is_said(page: Page, watch: Watch, status: int, line: str) -> None:
    watch.allow("Failed to load resource|Callback")
    page.goto("/overview")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.route(
        "**/_dash-update-component*", lambda route: route.fulfill(status=status, body="") if status else route.abort()
    )
    page.get_by_role("navigation").get_by_role("link", name="Batches").click()
    expect(page.locator("#trouble")).to_contain_text(line)
