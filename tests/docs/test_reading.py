"""docs/reading.md, run as it stands: every block of Python, in order, against a real store; and its pictures."""

import contextlib
import doctest
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from local.paths import REPO
from spectralize.errors import SpectralizeError
from tests.docs.pages import Block, read_blocks, read_links, read_tables
from tests.store import Store

PAGE = REPO / "docs" / "reading.md"
README = REPO / "README.md"
PICTURES = REPO / "docs" / "pictures"

#: Set, the pictures of this run become those of the page: SPECTRALIZE_PICTURES=1 make test ARGS=tests/docs/test_reading.py
IS_DRAWING = bool(os.environ.get("SPECTRALIZE_PICTURES"))

#: A page is read on slow lines, too.
LARGEST_BYTES = 150_000

#: How much the means of 16 × 16 pixels of two pictures of the same thing differ: fonts and palettes vary a little.
SAME = 3.0


def blocks_of(page: Path, kind: str) -> list[Block]:
    return [block for block in read_blocks(page) if block.kind == kind]


def compiled(block: Block) -> CodeType:
    """The code of a block; tracebacks show the lines of the page."""
    return compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")


def run(block: Block, namespace: dict[str, Any]) -> str:
    """Run a block, and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compiled(block), namespace)  # the page is ours
    return printed.getvalue()


@pytest.fixture(scope="module")
def place(filled: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder and the settings of one who follows the page."""
    folder = tmp_path_factory.mktemp("reading")
    before = mpl.get_backend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTRALIZE_DSN", filled.dsn)
        patch.chdir(folder)
        mpl.use("Agg")
        yield folder
        plt.close("all")
        mpl.use(before)


@pytest.fixture(scope="module")
def followed(place: Path) -> Iterator[dict[str, Any]]:
    """The names that the page has defined when all of its blocks have run; each printed what the page shows."""
    # A module by that name, so that what the page defines can be sent to other processes.
    module = ModuleType("reading_page")
    sys.modules[module.__name__] = module
    for block in blocks_of(PAGE, "python"):
        block.check(run(block, vars(module)))
    yield vars(module)
    vars(module)["store"].close()
    del sys.modules[module.__name__]


def test_every_block_prints_what_the_page_shows(followed: dict[str, Any]) -> None:
    assert len(blocks_of(PAGE, "python")) >= 12
    assert {block.kind for block in read_blocks(PAGE)} == {"shell", "python", "python torch"}


def test_errors_read_as_the_page_says(followed: dict[str, Any]) -> None:
    rows = read_tables(PAGE, "Errors")
    assert len(rows) >= 8
    checker = doctest.OutputChecker()
    for code, message, _ in rows:
        with pytest.raises(SpectralizeError) as raised:
            eval(code.strip("`"), followed)  # the page is ours
        kind, expected = message.strip("`").split(": ", 1)
        assert type(raised.value).__name__ == kind, code
        assert checker.check_output(expected.replace("…", "..."), str(raised.value), doctest.ELLIPSIS), raised.value


def test_what_needs_torch_is_python(followed: dict[str, Any]) -> None:
    [block] = blocks_of(PAGE, "python torch")
    assert "windows" in compiled(block).co_names
    # The loader asks for a list of indices, in any order.
    windows = followed["windows"]
    some = windows.__getitems__([5, 1])
    assert some.dtype == np.float32
    np.testing.assert_array_equal(some[::-1], windows.__getitems__([1, 5]))


def shrunk(picture: Image.Image) -> np.ndarray:
    small = picture.convert("RGB").resize((picture.width // 16, picture.height // 16), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def test_the_pictures_are_those_that_the_page_draws(followed: dict[str, Any], place: Path) -> None:
    linked = {Path(link).name for link in read_links(PAGE) if link.endswith(".png")}
    made = {path.name for path in place.glob("*.png")}
    assert linked == made
    assert {path.name for path in PICTURES.glob("reading_*.png")} == made or IS_DRAWING
    for name in sorted(made):
        new = Image.open(place / name)
        if IS_DRAWING:
            # A palette is a third of the size, and the eye sees no difference.
            palette = new.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            palette.save(PICTURES / name, optimize=True)
        committed = Image.open(PICTURES / name)
        assert (PICTURES / name).stat().st_size <= LARGEST_BYTES, name
        assert committed.size == new.size, name
        assert np.asarray(committed.convert("L")).std() > 20, f"{name} is blank"
        difference = np.abs(shrunk(committed) - shrunk(new)).mean()
        assert difference < SAME, f"{name} shows something else than the page draws: {difference:.1f}"


def test_the_readme_reads_the_store(place: Path) -> None:
    [block] = blocks_of(README, "python")
    namespace: dict[str, Any] = {"__name__": "readme"}
    block.check(run(block, namespace))
    namespace["store"].close()
    assert {link for link in read_links(README) if "reading_" in link} <= {
        f"docs/pictures/{path.name}" for path in PICTURES.glob("reading_*.png")
    }


@pytest.mark.parametrize(
    "page",
    [README, *sorted((REPO / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_lead_somewhere(page: Path) -> None:
    links = read_links(page)
    assert links
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            headings = {
                line.lstrip("# ").lower().replace(" ", "-").replace(",", "").replace("`", "").replace(":", "")
                for line in target.read_text(encoding="utf-8").splitlines()
                if line.startswith("#")
            }
            assert anchor in headings, link
