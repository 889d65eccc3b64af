"""Every page under axe, light and dark, on a notebook and on a phone: nothing that keeps somebody out."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

from tests.explorer.browser import PHONE, WIDE, wait_for
from tests.explorer.conftest import NewPage
from tests.explorer.recordings import CHIRP, HOSTILE_TAGGED, PARTIAL, REJECTED, Stock

#: Minor and moderate findings are advice.
GRAVE = {"serious", "critical"}

_DRAWN = "!document.getElementById('viewer') || performance.getEntriesByName('spectralize:drawn').length > 0"


def grave_findings(page: Page) -> list[str]:
    """Return what axe says of a page, each with the first elements that it means."""
    violations: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['impact']} {one['id']}: {one['help']}: {' | '.join(node['html'][:160] for node in one['nodes'][:4])}"
        for one in violations
        if one["impact"] in GRAVE
    ]


def paths(stock: Stock) -> list[str]:
    ids = stock.ids
    return [
        "/", "/compare", f"/compare?r={ids[CHIRP]}:mel128_22k&r={ids[CHIRP]}:seed2020", "/overview", "/batches",
        f"/batches/{stock.spotted}", f"/batches/{stock.failed}", f"/recordings/{ids[CHIRP]}", f"/recordings/{ids[PARTIAL]}",
        f"/recordings/{ids[HOSTILE_TAGGED]}", f"/recordings/{ids[REJECTED[0]]}", "/recordings/999999",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("viewport", "is_dark"),
    [
        pytest.param(WIDE, False, id="notebook-light"),
        pytest.param(PHONE, True, id="phone-dark", marks=pytest.mark.slow),
        pytest.param(WIDE, True, id="notebook-dark", marks=pytest.mark.slow),
        pytest.param(PHONE, False, id="phone-light", marks=pytest.mark.slow),
    ],
)
def test_no_page_keeps_anybody_out(new_page: NewPage, stock: Stock, viewport: ViewportSize, is_dark: bool) -> None:
    page = new_page(viewport=viewport, is_dark=is_dark)
    found: dict[str, list[str]] = {}
    for path in paths(stock):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        wait_for(page, _DRAWN)
        for finding in grave_findings(page):
            found.setdefault(finding, []).append(path)
    assert not found, "\n".join(f"{finding} ({', '.join(where)})" for finding, where in found.items())


def test_axe_finds_what_is_wrong(page: Page) -> None:
    page.goto("/overview")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.evaluate(
        "document.getElementById('page').innerHTML += '<button></button><p style=\"color:#ddd;background:#fff\">faint</p>'"
    )
    assert {"critical button-name", "serious color-contrast"} <= {one.split(":")[0] for one in grave_findings(page)}
