"""The build of the private Debian root, with a stand-in for the tool that downloads Debian."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local import pg_binaries, private_root
from local.errors import StackError
from local.paths import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path / "home", "main")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `mmdebstrap` that makes the folder it is given as its last argument, and counts its calls."""
    script = tmp_path / "bin" / "mmdebstrap"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\necho call >> {tmp_path}/calls\nfor last; do :; done\nmkdir "$last" || exit 1\necho done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    return script


def test_stacks_that_ask_at_once_share_one_build(layout: Layout, tool: Path) -> None:
    lines: list[str] = []
    with ThreadPoolExecutor() as pool:
        for build in [pool.submit(private_root.build, layout, lines.append) for _ in range(4)]:
            build.result()

    assert private_root.is_built(layout)
    assert (tool.parents[1] / "calls").read_text() == "call\n"
    assert lines == ["done"]


def test_a_build_that_fails_does_not_look_complete(layout: Layout, tool: Path) -> None:
    good = tool.read_text()
    tool.write_text(good + "echo no network >&2\nexit 3\n")
    with pytest.raises(StackError, match="mmdebstrap failed with code 3") as caught:
        private_root.build(layout, lambda line: None)
    assert "no network" in caught.value.log_tail
    assert not private_root.is_built(layout)

    tool.write_text(good)
    private_root.build(layout, lambda line: None)
    assert private_root.is_built(layout)


def test_without_root_or_a_database_it_says_what_to_do(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(pg_binaries, "_installed", tuple)
    with pytest.raises(StackError) as caught:
        pg_binaries.place_for("timescale", layout, "abc", extensions=True, progress=lambda _: None)
    line = str(caught.value)
    assert "\n" not in line
    for way_out in ("install postgresql-17-timescaledb", "as root", "SPECTRALIZE_DSN"):
        assert way_out in line
