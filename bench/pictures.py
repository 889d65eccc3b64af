"""Takes the pictures of docs/explorer.md: `make demo`, then `python -m bench.pictures <address of the explorer>`."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from PIL import Image
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect

from bench.chromium import open_browser, wait_until

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"

_WIDE, _PHONE = ViewportSize(width=1280, height=860), ViewportSize(width=390, height=844)
#: The whole of a long page matters here.
_TALL = ViewportSize(width=1280, height=1500)
_PATIENCE_MS = 30_000
_DRAWN = "!document.getElementById('viewer') || performance.getEntriesByName('spectralize:drawn').length > 0"
_LOADED = (
    "[...document.images].every((image) => image.complete || image.getBoundingClientRect().top > window.innerHeight)"
)

#: Of the demo's recordings.
_PIECE, _OTHER = "03 Orbital Elevator", "05 March Thee"
_BETWEEN_PX = 16


def main(address: Annotated[str, typer.Argument(help="Of the explorer, such as http://127.0.0.1:8050.")]) -> None:
    """Take all of them."""
    with TemporaryDirectory() as folder, open_browser(Path(folder), base_url=address, viewport=_WIDE) as browser:
        browser.set_default_timeout(_PATIENCE_MS)
        piece, other = _find(browser, _PIECE), _find(browser, _OTHER)
        window = f"{piece}?start=20&end=50"
        _save("recordings", [_take(browser, "/")])
        _save("recording", [_take(browser, window)])
        _save("recording_dark", [_take(browser, window, is_dark=True)])
        compared = f"/compare?r={piece.rpartition('/')[2]}&r={other.rpartition('/')[2]}"
        _save("compare", [_take(browser, compared, is_dark=True)])
        _save("batch", [_take(browser, "/batches/1", viewport=_TALL)])
        _save("overview", [_take(browser, "/overview")])
        phones = [("/", False), (window, False), ("/batches/1", True), ("/overview", True)]
        _save("phone", [_take(browser, path, viewport=_PHONE, is_dark=is_dark) for path, is_dark in phones])


def _find(browser: BrowserContext, words: str) -> str:
    """Return the path of the page of a recording."""
    page = _open(browser, f"/?q={words.replace(' ', '+')}")
    path = page.locator("#recordings-table td:first-child a").first.get_attribute("href")
    page.close()
    if path is None:
        raise typer.BadParameter(f"no recording is called {words}: these pictures are of the demo")
    return path


def _open(browser: BrowserContext, path: str, *, viewport: ViewportSize = _WIDE, is_dark: bool = False) -> Page:
    page = browser.new_page()
    page.set_viewport_size(viewport)
    page.emulate_media(color_scheme="dark" if is_dark else "light", reduced_motion="reduce")
    page.goto(path)
    expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=_PATIENCE_MS)
    wait_until(page, _DRAWN, _PATIENCE_MS)
    wait_until(page, _LOADED, _PATIENCE_MS)
    # Plots grow into their place.
    page.wait_for_timeout(1000)
    return page


def _take(browser: BrowserContext, path: str, *, viewport: ViewportSize = _WIDE, is_dark: bool = False) -> Image.Image:
    page = _open(browser, path, viewport=viewport, is_dark=is_dark)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return image


def _save(name: str, images: list[Image.Image]) -> None:
    """Write pictures, beside each other, with 256 colours: a third of the bytes, and nobody sees it."""
    width = sum(image.width for image in images) + _BETWEEN_PX * (len(images) - 1)
    sheet = Image.new("RGB", (width, max(image.height for image in images)), "#808080")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + _BETWEEN_PX
    path = FOLDER / f"explorer_{name}.png"
    sheet.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
