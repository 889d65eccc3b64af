"""Batches in a browser: what went wrong is as easy to see as what went well; and who may see anything at all."""

import json
import re
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from bench.explorer import run_explorer
from tests.explorer.browser import PHONE, Watch, overflow_px
from tests.explorer.conftest import AIRFLOW_URL, NewPage
from tests.explorer.recordings import HOSTILE, INTOLERABLE, PARTIAL, REJECTED, Stock

PASSWORD = "correct horse battery"


def test_the_list_says_which_batch_failed_and_why(page: Page, stock: Stock) -> None:
    page.goto("/batches")
    table = page.get_by_role("table", name="Batches, newest first")
    expect(table.get_by_role("link", name=re.compile(r"^Batch \d+$"))).to_have_count(4)
    failed = table.get_by_role("row").filter(has=page.get_by_role("link", name=f"Batch {stock.failed}"))
    expect(failed).to_contain_text("failed", ignore_case=True)
    expect(table).to_contain_text("2 of 2 were rejected")
    page.get_by_role("link", name=f"Batch {stock.spotted}", exact=True).click()
    page.wait_for_url(f"**/batches/{stock.spotted}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Batch {stock.spotted}")
    page.go_back()
    expect(table).to_be_visible()


def test_rejected_objects_are_there_with_their_reasons(page: Page, stock: Stock) -> None:
    page.goto(f"/batches/{stock.spotted}")
    objects = page.locator("#batch-objects")
    for key in (*REJECTED, PARTIAL):
        expect(objects.get_by_role("row").filter(has_text=key).first).to_be_visible()
    empty = objects.get_by_role("row").filter(has_text=REJECTED[1]).first
    expect(empty).to_contain_text("rejected", ignore_case=True)
    expect(empty).to_contain_text("the object has no bytes")
    # The worst come first.
    text = objects.inner_text()
    assert text.index(REJECTED[1]) < text.index(PARTIAL)
    page.get_by_role("link", name=re.compile(r"^rejected \d+$")).click()
    page.wait_for_url("**outcome=rejected*")
    expect(objects.get_by_role("row").filter(has_text=PARTIAL)).to_have_count(0)
    page.go_back()
    expect(objects.get_by_role("row").filter(has_text=PARTIAL).first).to_be_visible()


def test_a_failed_batch_leads_to_the_form_that_computes_again(page: Page, stock: Stock) -> None:
    page.goto(f"/batches/{stock.failed}")
    expect(page.locator("#batch-failure")).to_contain_text("2 of 2 were rejected")
    expect(page.locator("#batch-objects")).to_contain_text(INTOLERABLE)
    address = page.locator("#batch-reprocess").get_attribute("href")
    assert address is not None
    assert address.startswith(f"{AIRFLOW_URL}/")
    values = json.loads(page.locator("#batch-reprocess-values").inner_text())
    assert (values["batch_id"], values["outcomes"], values["dry_run"]) == (stock.failed, ["rejected"], True)
    expect(page.get_by_role("link", name="Run in Airflow")).to_have_attribute("href", re.compile(f"^{AIRFLOW_URL}/"))


def test_a_hostile_key_is_text_in_the_ledger(page: Page, stock: Stock) -> None:
    page.goto(f"/batches/{stock.good}")
    expect(page.locator("#batch-objects")).to_contain_text(HOSTILE.replace("\u202e", r"\u202e"))
    assert page.locator("#page img[onerror]").count() == 0
    assert "\u202e" not in page.locator("body").inner_text()


def test_batches_fit_a_phone(new_page: NewPage, stock: Stock) -> None:
    page = new_page(viewport=PHONE)
    for path in ("/batches", f"/batches/{stock.good}", f"/batches/{stock.failed}"):
        page.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert overflow_px(page) <= 0, path


def test_who_comes_from_elsewhere_signs_in(reader_dsn: str, new_page: NewPage, watch: Watch, stock: Stock) -> None:
    # Wrong passwords are refused with a status that the console mentions.
    watch.allow("status of 40[13]")
    with run_explorer(reader_dsn, "--host", "0.0.0.0", SPECTRALIZE_EXPLORER_PASSWORD=PASSWORD) as everywhere:
        url = f"http://127.0.0.1:{urlsplit(everywhere).port}"
        watch.origins.add(url)
        page = new_page()
        page.goto(f"{url}/batches/{stock.good}")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to Spectralize")
        page.get_by_label("Password").fill("wrong horse battery")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to Spectralize")
        assert page.request.get(f"{url}/_dash-layout").status in (401, 403)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{url}/batches/{stock.good}")
        expect(page.get_by_role("heading", level=1)).to_contain_text(f"Batch {stock.good}")
