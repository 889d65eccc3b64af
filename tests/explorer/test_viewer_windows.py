"""What the viewer asks for when somebody zooms, as a browser that is not ours may say it."""

import json
from typing import Any

import pytest

from spectralize.explorer.settings import Settings
from tests.explorer.asking import AWAY, Browser

VIEW = {"number": 3, "start": 1.0, "end": 2.0, "width": 1000}


@pytest.fixture(scope="module")
def browser() -> Browser:
    return Browser(Settings(dsn=AWAY))


def zoom(browser: Browser, view: Any, facts: Any) -> Any:
    """What comes of it, or None if nothing is changed."""
    body = {
        "output": "viewer-columns.data",
        "outputs": {"id": "viewer-columns", "property": "data"},
        "inputs": [{"id": "viewer-view", "property": "data", "value": view}],
        "state": [{"id": "viewer-facts", "property": "data", "value": facts}],
        "changedPropIds": ["viewer-view.data"],
    }
    answer = browser.ask("/_dash-update-component", "POST", json=body)
    return json.loads(answer.data)["response"].get("viewer-columns", {}).get("data")


@pytest.mark.parametrize("sources", [None, True, 5, "x", {"a": 1}, [5], [[]], [[1, 2]], [[[], "x", 1]], [[1, None, 1]]])
def test_strips_that_no_page_has_get_a_line(browser: Browser, caplog: pytest.LogCaptureFixture, sources: Any) -> None:
    found = zoom(browser, VIEW, {"sources": sources})
    assert (found["number"], found["error"].count("\n")) == (3, 0)
    assert "strip" in found["error"]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("end", [None, "x", [], {}, 1.0, 1e308, -5, float("nan"), float("inf"), 10**400])
def test_windows_that_are_none_get_a_line(browser: Browser, end: Any) -> None:
    assert "must be seconds" in zoom(browser, VIEW | {"end": end}, {"sources": []})["error"]


def test_only_a_number_comes_back(browser: Browser) -> None:
    # It says which window was asked for; the rest of what was sent is not sent again.
    for given in ("x" * 10_000, ["x"], {"x": 1}, None, 10**400):
        assert zoom(browser, VIEW | {"number": given}, {"sources": []})["number"] is None
    assert zoom(browser, VIEW, {"sources": []})["number"] == 3


def test_a_page_that_was_left_meanwhile_asks_for_nothing(browser: Browser) -> None:
    assert zoom(browser, VIEW, None) is None
    assert zoom(browser, None, {"sources": []}) is None
