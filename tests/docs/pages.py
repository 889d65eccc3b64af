"""The blocks of a page in docs/, in their order, and what each is said to print."""

import doctest
import re
from dataclasses import dataclass
from pathlib import Path

from local.paths import REPO

_FENCE = re.compile(r"^```(?P<kind>.*)\n(?P<text>(?:.*\n)*?)^```$|^#+ (?P<heading>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes
    ----------
    kind
        What the opening fence says: the language, and whatever follows it.
    line
        Number of its first line in the page, from 1.
    shown
        The block of kind ``text`` that follows it directly: what it prints.
    """

    page: Path
    heading: str
    kind: str
    text: str
    line: int
    shown: str | None = None

    def check(self, printed: str) -> None:
        """Assert that it printed what the page shows; ``...`` stands for anything."""
        printed = _without_trailing_blanks(printed)
        if self.shown is None:
            assert not printed.strip(), f"{self.where}: the page does not show what this prints:\n{printed}"
            return
        shown = _without_trailing_blanks(self.shown)
        checker = doctest.OutputChecker()
        difference = checker.output_difference(doctest.Example(self.text, shown), printed, doctest.ELLIPSIS)
        assert checker.check_output(shown, printed, doctest.ELLIPSIS), f"{self.where}:\n{difference}"

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPO)}:{self.line}"


def _without_trailing_blanks(text: str) -> str:
    return re.sub(r" +$", "", text, flags=re.MULTILINE).strip("\n") + "\n"


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page, but for those that show what another prints."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    heading, end = "", 0
    for found in _FENCE.finditer(text):
        if found["heading"] is not None:
            heading = found["heading"]
            continue
        is_shown = found["kind"] == "text" and not text[end : found.start()].strip()
        if is_shown and blocks:
            last = blocks[-1]
            blocks[-1] = Block(page, last.heading, last.kind, last.text, last.line, found["text"])
        else:
            line = text.count("\n", 0, found.start("text")) + 1
            blocks.append(Block(page, heading, found["kind"], found["text"], line))
        end = found.end()
    return blocks


def read_tables(page: Path, heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, a list of cells each; without their heads."""
    text = page.read_text(encoding="utf-8")
    [section] = re.findall(rf"^#+ {re.escape(heading)}\n((?:(?!#+ ).*\n)*)", text, re.MULTILINE)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    rules = {number for number, row in enumerate(rows) if set("".join(row)) <= set("-:")}
    return [row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules]


def read_links(page: Path) -> list[str]:
    """Where a page's links and pictures lead, those to other sites left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
