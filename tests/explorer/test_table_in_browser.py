"""The table of recordings in a browser: search, filter, sort, turn pages, open, and pick what is compared."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.explorer.browser import PHONE, focused, overflow_px
from tests.explorer.conftest import NewPage
from tests.explorer.recordings import (
    CHIRP,
    HOSTILE,
    HOSTILE_TAGGED,
    HOSTILE_TAGS,
    INTOLERABLE,
    PARTIAL,
    REJECTED,
    TAGGED,
    TAGS,
    Stock,
)


def rows(page: Page) -> Locator:
    return page.get_by_role("table", name="Recordings", exact=True).get_by_role("row").filter(has=page.locator("td"))


def keys(page: Page) -> list[str]:
    return [link.inner_text() for link in rows(page).locator("td:first-child a").all()]


def search(page: Page, text: str) -> None:
    page.get_by_label("Search", exact=True).fill(text)


def test_a_recording_is_found_by_its_tags_and_opened(page: Page, stock: Stock) -> None:
    page.goto("/")
    expect(page.locator("#recordings-total")).to_have_text(re.compile(r"^\d+ recordings$"))
    search(page, "inparticular chords")
    expect(page.locator("#recordings-total")).to_have_text("1 recording")
    assert keys(page) == [TAGGED]
    expect(rows(page).first).to_contain_text(TAGS["title"])
    page.wait_for_url("**/?q=inparticular+chords")
    page.get_by_role("link", name=TAGGED).click()
    page.wait_for_url(f"**/recordings/{stock.ids[TAGGED]}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(TAGS["title"])
    expect(page).to_have_title(re.compile(f"{TAGS['title']}.* · Spectralize"))
    assert page.evaluate("document.activeElement.id") == "page"
    page.go_back()
    expect(page).to_have_title("Recordings · Spectralize")
    expect(page.get_by_label("Search", exact=True)).to_have_value("inparticular chords")
    expect(page.locator("#recordings-total")).to_have_text("1 recording")


def test_what_was_not_loaded_is_found_with_its_reason(page: Page, stock: Stock) -> None:
    page.goto("/")
    page.get_by_text(re.compile(r"^rejected \d+$")).click()
    page.wait_for_url("**outcome=rejected*")
    expect(page.locator("#recordings-total")).to_have_text("3 recordings")
    assert set(keys(page)) == {*REJECTED, INTOLERABLE}
    expect(rows(page).filter(has_text=REJECTED[1])).to_contain_text("the object has no bytes")
    page.get_by_role("checkbox", name=re.compile(r"^partial \d+$")).focus()
    page.keyboard.press("Space")
    expect(page.locator("#recordings-total")).to_have_text("4 recordings")
    expect(rows(page).filter(has_text=PARTIAL)).to_contain_text("declared")
    page.wait_for_timeout(100)
    assert page.evaluate("document.activeElement.value") == "partial"
    page.go_back()
    expect(page.locator("#recordings-total")).to_have_text("3 recordings")
    page.get_by_role("link", name="Clear all filters").click()
    expect(page.locator("#recordings-total")).not_to_have_text("3 recordings")


def test_columns_sort_both_ways_and_the_keyboard_stays_where_it_is(page: Page, stock: Stock) -> None:
    page.goto("/")
    length = page.get_by_role("columnheader", name="Length")
    length.get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**sort=duration_s*")
    expect(length).to_have_attribute("aria-sort", "ascending")
    page.wait_for_timeout(100)
    assert "Length" in focused(page)
    page.keyboard.press("Enter")
    page.wait_for_url("**desc=1*")
    expect(length).to_have_attribute("aria-sort", "descending")
    expect(rows(page).first).to_contain_text("10:00")


def test_pages_are_turned_and_hold_what_they_should(page: Page, stock: Stock) -> None:
    page.goto("/?per=25&outcome=loaded")
    total = int(page.locator("#recordings-total").inner_text().split()[0])
    assert total > 50
    pages = page.get_by_role("navigation", name="Pages of the table")
    seen: set[str] = set()
    for number in range(1, -(-total // 25) + 1):
        expect(pages.get_by_role("button", name=str(number), exact=True)).to_have_attribute("aria-current", "page")
        on_page = keys(page)
        assert len(on_page) == min(25, total - len(seen))
        assert not seen & set(on_page)
        seen |= set(on_page)
        if len(seen) < total:
            pages.get_by_role("link", name="Next").click()
            page.wait_for_url(f"**page={number + 1}*")
    assert len(seen) == total
    page.goto("/?page=4000&outcome=rejected")
    expect(rows(page)).to_have_count(3)


def test_hostile_names_are_text_in_the_table(page: Page, stock: Stock) -> None:
    page.goto("/?column=title&column=artist&column=album&column=genre")
    search(page, "hostile")
    expect(page.locator("#recordings-total")).to_have_text("2 recordings")
    assert HOSTILE.replace("\u202e", r"\u202e") in keys(page)
    row = rows(page).filter(has_text=HOSTILE_TAGGED)
    for name in ("title", "artist", "album", "genre"):
        expect(row).to_contain_text(HOSTILE_TAGS[name])
    assert page.locator("#page script, #page iframe, #page img[onerror]").count() == 0


def test_words_that_nothing_has_and_bounds_that_nothing_meets(page: Page, stock: Stock) -> None:
    page.goto("/?q=%25_%27%3B+DROP+TABLE")
    expect(page.locator("#recordings-empty")).to_contain_text("Nothing matches")
    page.goto("/?since=2024-02-02&until=2024-02-01")
    expect(page.locator("#recordings-error")).to_contain_text("until 2024-02-01: must not be before 2024-02-02")


def test_two_that_are_picked_are_compared(page: Page, stock: Stock) -> None:
    page.goto("/?q=chirp")
    page.get_by_role("checkbox", name=f"Compare {CHIRP}").check()
    expect(page.locator("#recordings-compare")).to_contain_text("Choose another one")
    search(page, "chords.flac")
    expect(page.locator("#recordings-total")).to_have_text("1 recording")
    page.get_by_role("checkbox", name="Compare music/chords.flac").check()
    page.get_by_role("link", name="Compare (2)").click()
    page.wait_for_url(f"**/compare?r={stock.ids[CHIRP]}&r={stock.ids['music/chords.flac']}")
    compared = page.get_by_role("table", name="What is compared, from top to bottom")
    expect(compared.get_by_role("row")).to_have_count(3)


def test_pictures_are_there(page: Page, stock: Stock) -> None:
    page.goto("/?q=chirp")
    picture = rows(page).filter(has_text=CHIRP).locator("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_the_table_fits_a_phone_and_says_what_failed(new_page: NewPage, stock: Stock) -> None:
    page = new_page(viewport=PHONE)
    page.goto("/?outcome=rejected&outcome=partial")
    expect(rows(page)).to_have_count(4)
    assert overflow_px(page) <= 0
    badge = rows(page).filter(has_text=REJECTED[0]).locator("td:first-child").get_by_text("rejected", exact=True)
    expect(badge).to_be_in_viewport()
