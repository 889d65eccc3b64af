"""The page of a recording in a browser: what is drawn, zoomed, played and taken away."""

import io
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from spectralize.melscale import hz_to_mel
from tests.explorer.browser import PHONE, focused, overflow_px, wait_for
from tests.explorer.conftest import NewPage
from tests.explorer.recordings import (
    CHIRP,
    CHIRP_S,
    FIELD,
    HOSTILE,
    HOSTILE_TAGGED,
    HOSTILE_TAGS,
    LONG,
    LONG_S,
    PARTIAL,
    REJECTED,
    TAGGED,
    TAGS,
    Stock,
    chirp_hz,
)

N_MELS, FMAX_HZ = 128, 11_025.0

#: What is drawn: the time axis, the cells' step in seconds, and where the spectrogram lies on the screen.
_SEEN = """
() => {
  const gd = document.querySelector("#viewer-graph .js-plotly-plot"), full = gd._fullLayout;
  const box = gd.getBoundingClientRect(), finer = gd.data[2].visible === false ? gd.data[1] : gd.data[2];
  return {
    range: full.xaxis.range.map(Number), step_s: finer.dx,
    left: box.left + full.xaxis._offset, width: full.xaxis._length,
    top: box.top + full.yaxis2._offset, height: full.yaxis2._length,
    image: gd.querySelectorAll(".heatmaplayer image").length,
    labels: [...gd.querySelectorAll(".xtick text")].map((text) => text.textContent),
  };
}
"""


def show(page: Page, stock: Stock, key: str, query: str = "") -> dict[str, Any]:
    """Open the page of a recording and wait until it is drawn."""
    page.goto(f"/recordings/{stock.ids[key]}{query}")
    wait_for(page, "performance.getEntriesByName('spectralize:drawn').length > 0")
    return seen(page)


def seen(page: Page) -> dict[str, Any]:
    return dict(page.evaluate(_SEEN))


def drag(page: Page, from_s: float, to_s: float) -> dict[str, Any]:
    """Zoom as people do, and wait for what the server sends."""
    at = seen(page)
    start_s, end_s = at["range"]
    from_x, to_x = (at["left"] + (each - start_s) / (end_s - start_s) * at["width"] for each in (from_s, to_s))
    y = at["top"] + at["height"] / 2
    page.mouse.move(from_x, y)
    page.mouse.down()
    page.mouse.move((from_x + to_x) / 2, y + 3)
    page.mouse.move(to_x, y + 3)
    with Zooming(page):
        page.mouse.up()
    return seen(page)


class Zooming:
    """Waits, at the end of the block, until what the server has read is drawn."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def __enter__(self) -> None:
        self.page.evaluate("performance.clearMarks('spectralize:zoomed')")

    def __exit__(self, *_: object) -> None:
        wait_for(self.page, "performance.getEntriesByName('spectralize:zoomed').length > 0")


def brightness(page: Page, at: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Return the picture of the spectrogram as it is on the screen, shape (height, width): magma grows lighter with level."""
    clip = {"x": round(at["left"]), "y": round(at["top"]), "width": int(at["width"]), "height": int(at["height"])}
    page.mouse.move(0, 0)
    image = Image.open(io.BytesIO(page.screenshot(clip=clip)))
    return np.asarray(image.convert("RGB"), dtype=np.float64).sum(axis=2)


def band_of(frequency_hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return where a frequency lies among the bands of the default profile: 0 is the lowest one's centre."""
    return np.asarray(hz_to_mel(frequency_hz) / hz_to_mel(FMAX_HZ) * (N_MELS + 1) - 1)


@pytest.mark.parametrize("window", [None, (4.0, 6.0)], ids=["whole", "zoomed"])
def test_a_chirp_is_seen_where_it_is(page: Page, stock: Stock, window: tuple[float, float] | None) -> None:
    at = show(page, stock, CHIRP, "?profile=mel128_22k")
    if window:
        at = drag(page, *window)
    picture = brightness(page, at)
    height, width = picture.shape
    start_s, end_s = at["range"]
    assert (start_s, end_s) == pytest.approx(window or (0.0, CHIRP_S), abs=0.03)
    columns = np.arange(round(0.03 * width), round(0.97 * width))
    times = start_s + (columns + 0.5) / width * (end_s - start_s)
    rows = picture[:, columns].argmax(axis=0)
    bands = (1 - (rows + 0.5) / height) * N_MELS - 0.5
    error = bands - band_of([chirp_hz(time) for time in times])
    assert np.abs(error).max() < 2.0
    assert abs(np.median(error)) < 0.5


def test_a_drag_shows_a_finer_picture_of_less_and_keys_go_on(page: Page, stock: Stock) -> None:
    whole = show(page, stock, LONG)
    assert whole["range"] == pytest.approx([0, LONG_S], abs=0.1)
    closer = drag(page, 120.0, 180.0)
    assert closer["range"] == pytest.approx([120, 180], abs=1.5)
    assert closer["step_s"] < whole["step_s"] / 2
    page.locator("#viewer").focus()
    with Zooming(page):
        page.keyboard.press("+")
    closest = seen(page)
    # Labels are those of the window: some seconds apart, and not as many as there are seconds.
    assert {"2:00", "2:10", "2:50"} <= set(closer["labels"])
    assert {"2:20", "2:25", "2:30"} <= set(closest["labels"])
    span_s = closer["range"][1] - closer["range"][0]
    assert closest["range"][1] - closest["range"][0] == pytest.approx(span_s / 2)
    assert closest["step_s"] < closer["step_s"]
    with Zooming(page):
        page.keyboard.press("ArrowRight")
    assert seen(page)["range"][0] == pytest.approx(closest["range"][0] + span_s / 8)
    expect(page.locator("#viewer-window")).to_contain_text("of 10:00")
    with Zooming(page):
        page.keyboard.press("0")
    assert seen(page)["range"] == pytest.approx([0, LONG_S], abs=0.1)


def test_other_colours_are_those_of_the_same_window(page: Page, stock: Stock) -> None:
    show(page, stock, LONG)
    closer = drag(page, 120.0, 180.0)
    page.get_by_label("Highest level, dB").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**high=*")
    page.get_by_role("combobox", name="Colours").or_(page.get_by_label("Colours").first).first.click()
    page.get_by_role("option", name="Viridis").click()
    page.wait_for_url("**colours=viridis*")
    page.wait_for_timeout(500)
    after = seen(page)
    assert (after["range"], after["step_s"]) == (closer["range"], closer["step_s"])
    assert after["labels"] == closer["labels"]


def test_a_mouse_leaves_the_keyboard_to_the_picture(page: Page, stock: Stock) -> None:
    at = show(page, stock, LONG, "?start=100&end=200")
    page.get_by_role("button", name="Zoom in").click()
    page.keyboard.press("0")
    wait_for(page, "document.getElementById('viewer-window').textContent.includes('all of it')")
    drag(page, 300.0, 360.0)
    page.mouse.click(at["left"] + 0.5 * at["width"], at["top"] + 40)
    assert focused(page) == f"Waveform and Mel-spectrogram of {LONG.rpartition('/')[2]}"
    page.wait_for_timeout(500)
    page.mouse.dblclick(at["left"] + 0.5 * at["width"], at["top"] + 40)
    wait_for(page, "document.getElementById('viewer-window').textContent.includes('all of it')")


def test_fingers_move_the_window_and_leave_the_page_its_own(new_page: NewPage, stock: Stock) -> None:
    page = new_page(viewport=PHONE)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    at = show(page, stock, LONG, "?start=200&end=300")
    page.evaluate("window.scrollTo(0, 100)")
    at = seen(page)
    x, y, step = at["left"] + at["width"] / 2, at["top"] + at["height"] / 2, at["width"] / 5

    def touch(*paths: list[tuple[float, float]]) -> None:
        for number, points in enumerate(zip(*paths, strict=True)):
            kind = "touchMove" if number else "touchStart"
            devtools.send(
                "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]}
            )
            page.wait_for_timeout(30)
        devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    touch([(x + step * n / 10, y) for n in range(-10, 1)])
    wait_for(page, "Math.abs(window.spectralizeViewer.seen().start - 180) < 3")
    assert seen(page)["range"][1] - seen(page)["range"][0] == pytest.approx(100, abs=0.01)
    # Apart to twice the distance: half of it is seen, around the middle.
    touch([(x - step * n / 10, y) for n in range(10, 21)], [(x + step * n / 10, y) for n in range(10, 21)])
    wait_for(page, "Math.abs(window.spectralizeViewer.seen().end - window.spectralizeViewer.seen().start - 50) < 5")
    assert sum(seen(page)["range"]) / 2 == pytest.approx(230, abs=5)
    before = seen(page)["range"]
    touch([(x, y - 15 * n) for n in range(12)])
    wait_for(page, "window.scrollY > 150")
    assert seen(page)["range"] == before


def test_another_theme_leaves_the_sound_alone(page: Page, stock: Stock) -> None:
    show(page, stock, LONG, "?start=60&end=90&colours=viridis")
    page.locator("#viewer").focus()
    page.get_by_label("Loop the window").check(force=True)
    page.locator("#viewer").focus()
    page.keyboard.press("Space")
    wait_for(page, "document.getElementById('recording-audio').currentTime > 60.3")
    page.evaluate("performance.clearMarks(); document.getElementById('recording-audio').dataset.old = 'yes'")
    page.get_by_role("button", name="Switch between light and dark").click()
    wait_for(page, "!document.getElementById('recording-audio').dataset.old")
    wait_for(
        page,
        "!document.getElementById('recording-audio').paused && document.getElementById('recording-audio').currentTime > 60.3",
    )
    expect(page.get_by_label("Loop the window")).to_be_checked()
    expect(page.locator("#viewer-window")).to_contain_text("1:00")


def test_an_address_leads_to_its_window_again(page: Page, new_page: NewPage, stock: Stock) -> None:
    show(page, stock, LONG)
    left = drag(page, 300.0, 330.0)
    path = page.url.partition("/recordings/")[2]
    other = new_page()
    other.goto(f"/recordings/{path}")
    wait_for(other, "performance.getEntriesByName('spectralize:drawn').length > 0")
    assert seen(other)["range"] == pytest.approx(left["range"], abs=0.002)
    assert seen(other)["step_s"] == pytest.approx(left["step_s"])


@pytest.mark.parametrize(
    ("key", "seconds", "title"),
    [
        pytest.param(CHIRP, 10.0, "chirp.wav", id="wav"),
        pytest.param(TAGGED, 16.0, f"{TAGS['artist']} – {TAGS['title']}", id="mp3"),
        # Debian's Chromium may decode it by itself; if not, the server does.
        pytest.param("music/chords.m4a", 1.0, "Somebody – In a box", id="m4a", marks=pytest.mark.slow),
    ],
)
def test_a_recording_can_be_heard(page: Page, stock: Stock, key: str, seconds: float, title: str) -> None:
    show(page, stock, key)
    expect(page.get_by_role("heading", level=1)).to_contain_text(title)
    audio = page.locator("#recording-audio")
    wait_for(page, "document.getElementById('recording-audio').readyState >= 1")
    assert audio.evaluate("audio => audio.duration") == pytest.approx(seconds, abs=0.15)
    page.locator("#viewer").focus()
    page.keyboard.press("Space")
    wait_for(page, "document.getElementById('recording-audio').currentTime > 0.3")
    expect(page.locator("#viewer-cursor")).to_be_visible()
    expect(page.locator("#recording-audio-error")).to_be_empty()


def test_a_click_in_the_picture_seeks(page: Page, stock: Stock) -> None:
    at = show(page, stock, LONG)
    for share in (0.25, 0.8):
        page.mouse.click(at["left"] + share * at["width"], at["top"] + 40)
        wait_for(page, f"Math.abs(document.getElementById('recording-audio').currentTime - {share * LONG_S}) < 2")
    assert seen(page)["range"] == at["range"]


@pytest.mark.slow
def test_a_looped_window_begins_again(page: Page, stock: Stock) -> None:
    show(page, stock, FIELD, "?start=5&end=5.4")
    page.get_by_label("Loop the window").check(force=True)
    page.locator("#viewer").focus()
    page.keyboard.press("Space")
    times: list[float] = []
    while len(times) < 200 and not any(later < earlier for earlier, later in pairwise(times[1:])):
        times.append(page.evaluate("document.getElementById('recording-audio').currentTime"))
        page.wait_for_timeout(20)
    assert any(later < earlier for earlier, later in pairwise(times[1:]))
    assert 4.9 <= times[-1] <= 5.5


def test_what_is_taken_away_is_the_window(page: Page, stock: Stock) -> None:
    show(page, stock, CHIRP, "?profile=mel128_22k&start=2&end=3")
    for kind in ("wav", "npy", "png"):
        with page.expect_download() as caught:
            page.locator(f"#recording-{kind}").click()
        data = caught.value.path().read_bytes()
        if kind == "wav":
            assert len(data) == pytest.approx(2 * 22_050, rel=0.02)
        elif kind == "npy":
            assert sorted(np.load(io.BytesIO(data)).shape) == [pytest.approx(44, abs=1), N_MELS]
        else:
            assert Image.open(io.BytesIO(data)).width > 100


def test_tags_that_are_markup_are_text(page: Page, stock: Stock) -> None:
    show(page, stock, HOSTILE_TAGGED)
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text(HOSTILE_TAGS["title"])
    expect(heading).to_contain_text(HOSTILE_TAGS["artist"])
    tags = page.get_by_role("table", name="Tags")
    for text in HOSTILE_TAGS.values():
        expect(tags).to_contain_text(text)
    assert page.locator("#page script, #page iframe, #page a[href^='javascript:']").count() == 0


def test_a_key_that_is_markup_is_text(page: Page, stock: Stock) -> None:
    show(page, stock, HOSTILE)
    shown = HOSTILE.replace("\u202e", r"\u202e")
    expect(page.locator("#page")).to_contain_text(shown)
    assert "\u202e" not in page.locator("body").inner_text()
    assert page.locator("#page img[onerror]").count() == 0


def test_a_damaged_recording_says_what_it_lacks(page: Page, stock: Stock) -> None:
    show(page, stock, PARTIAL)
    expect(page.locator("#page .reason").first).to_contain_text("partial", ignore_case=True)
    expect(page.get_by_role("heading", level=1)).to_contain_text("cut.flac")


def test_what_was_rejected_has_a_page_with_the_reason(page: Page, stock: Stock) -> None:
    page.goto(f"/recordings/{stock.ids[REJECTED[1]]}")
    expect(page.locator("#page")).to_contain_text("the object has no bytes")
    expect(page.locator("#page")).to_contain_text("rejected", ignore_case=True)
    assert page.locator("#viewer, #recording-audio").count() == 0


def test_one_profile_after_the_other(page: Page, stock: Stock) -> None:
    show(page, stock, CHIRP, "?profile=mel128_22k")
    page.get_by_role("combobox", name="Profile").or_(page.get_by_label("Profile").first).first.click()
    page.get_by_role("option", name="seed2020").click()
    page.wait_for_url("**profile=seed2020*")
    expect(page.get_by_role("table", name="Provenance")).to_contain_text("seed2020: ")


def test_the_page_fits_a_phone(new_page: NewPage, stock: Stock) -> None:
    page = new_page(viewport=PHONE)
    for key in (TAGGED, HOSTILE, HOSTILE_TAGGED):
        show(page, stock, key)
        assert overflow_px(page) <= 0, key
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_an_unknown_recording_is_one_line(page: Page) -> None:
    page.goto("/recordings/999999")
    expect(page.locator("#page")).to_contain_text("999999")
    assert page.locator("#viewer").count() == 0
