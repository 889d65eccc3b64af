"""Several recordings under each other, in a browser."""

import re
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.explorer.browser import PHONE, overflow_px, wait_for
from tests.explorer.conftest import NewPage
from tests.explorer.recordings import CHIRP, CHIRP_S, FIELD, REJECTED, Stock
from tests.explorer.test_recording_page import Zooming, seen

_DRAWN = "performance.getEntriesByName('spectralize:drawn').length > 0"
_IMAGES = "document.querySelectorAll('#viewer-graph .heatmaplayer image').length"


def test_recordings_and_profiles_share_a_time_axis(page: Page, stock: Stock) -> None:
    chirp = stock.ids[CHIRP]
    page.goto(f"/compare?r={chirp}:mel128_22k&r={chirp}:seed2020&r={stock.ids[FIELD]}")
    wait_for(page, _DRAWN)
    compared = page.get_by_role("table", name="What is compared, from top to bottom")
    for text in ("mel128_22k", "seed2020", FIELD.rpartition("/")[2]):
        expect(compared).to_contain_text(text)
    assert page.evaluate(_IMAGES) >= 3
    whole = seen(page)
    assert whole["range"][1] > CHIRP_S
    page.mouse.move(whole["left"] + 3.0 / whole["range"][1] * whole["width"], whole["top"] + 60)
    expect(page.locator("#viewer-readout")).to_have_text(re.compile(r"Hz · −?\d+\.\d dB"))
    page.locator("#viewer").focus()
    # There is nothing to play; the keys that move work all the same.
    page.keyboard.press("Space")
    with Zooming(page):
        page.keyboard.press("+")
    closer = seen(page)
    assert closer["range"][1] - closer["range"][0] == pytest.approx(whole["range"][1] / 2)


def test_what_cannot_be_compared_is_said_beside_what_can(page: Page, stock: Stock) -> None:
    rejected = stock.ids[REJECTED[1]]
    page.goto(f"/compare?r={stock.ids[CHIRP]}&r={rejected}&r=<b>x&r=999999&r={stock.ids[CHIRP]}:nothing")
    wait_for(page, _DRAWN)
    content = page.locator("#page")
    for text in ("the object has no bytes", "'<b>x': must be the id of a recording", "999999", "nothing"):
        expect(content).to_contain_text(text)
    expect(page.get_by_role("table", name="What is compared").get_by_role("row")).to_have_count(2)


def test_one_more_is_added_and_one_is_removed(page: Page, stock: Stock) -> None:
    page.goto(f"/compare?r={stock.ids[CHIRP]}:seed2020&start=2&end=8&colours=grey&low=-60&high=10")
    wait_for(page, _DRAWN)
    page.get_by_label("Add a recording").fill(str(stock.ids[FIELD]))
    page.keyboard.press("Enter")
    page.wait_for_url("**/compare?r=*&r=*")
    rows = page.get_by_role("table", name="What is compared").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("seed2020")
    page.get_by_role("link", name=re.compile("^Remove .*chirp")).click()
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text(FIELD.rpartition("/")[2])
    wait_for(page, _DRAWN)
    assert seen(page)["range"] == pytest.approx([2, 8])
    assert dict(parse_qsl(urlsplit(page.url).query)) == {
        "r": f"{stock.ids[FIELD]}:mel128_22k", "start": "2.000", "end": "8.000", "colours": "grey", "low": "-60", "high": "10",
    }  # fmt: skip


def test_nothing_to_compare_says_how(page: Page) -> None:
    page.goto("/compare")
    expect(page.locator("#page")).to_contain_text("Tick recordings in the list of recordings")


def test_the_comparison_fits_a_phone(new_page: NewPage, stock: Stock) -> None:
    page = new_page(viewport=PHONE)
    page.goto(f"/compare?r={stock.ids[CHIRP]}&r={stock.ids[FIELD]}")
    wait_for(page, _DRAWN)
    assert overflow_px(page) <= 0
