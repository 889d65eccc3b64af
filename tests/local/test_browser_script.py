"""Finding a browser for the tests, with a folder of programs as the whole of the machine, and a stand-in for what installs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from local.paths import REPO


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """What every Debian has, and neither a browser nor apt."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "mkdir", "chmod", "cat"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    add(folder, "id", "echo 0")
    return folder


def add(programs: Path, name: str, text: str) -> None:
    (programs / name).write_text(f"#!/bin/bash\n{text}\n")
    (programs / name).chmod(0o755)


def run(programs: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(programs), "SPECTRALIZE_HOME": str(programs.parent / "home")}
    command = ["bash", str(REPO / "local/browser.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_a_browser_that_is_there_costs_nothing(programs: Path, name: str) -> None:
    add(programs, name, "exit 9")
    add(programs, "apt-get", "exit 9")
    done = run(programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (programs.parent / "home").exists()


@pytest.mark.parametrize("is_root", [True, False])
def test_where_it_cannot_install_one_line_says_what_to_do(programs: Path, is_root: bool) -> None:
    if not is_root:
        add(programs, "id", "echo 1000")
        add(programs, "apt-get", "exit 9")
    done = run(programs)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: ")
    assert "install chromium and fonts-liberation" in done.stderr


def test_installs_what_draws_letters_too_and_only_once(programs: Path) -> None:
    calls = programs.parent / "calls"
    browser = "printf '#!/bin/bash\\necho Chromium 1\\n' > {0}; chmod 755 {0}".format(programs / "chromium")
    # Package lists that are out of reach may be good enough.
    add(programs, "apt-get", f'echo "$*" >> {calls}; echo noise; [ "$1" = install ] || exit 100; {browser}')
    first, second = run(programs), run(programs)
    assert (first.returncode, first.stdout.count("\n"), first.stderr) == (0, 1, "")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert calls.read_text() == "update\ninstall -y --no-install-recommends chromium fonts-liberation\n"


@pytest.mark.parametrize(
    ("install", "reason"), [("echo no network; exit 100", "apt-get install chromium failed"), ("", "does not start")]
)
def test_what_fails_is_one_line_and_a_log(programs: Path, install: str, reason: str) -> None:
    """With the second, apt-get succeeds and there is no browser, as with Ubuntu's wrapper in a container."""
    add(programs, "apt-get", install or "echo done")
    done = run(programs)
    log = programs.parent / "home" / "browser.log"
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert reason in done.stderr
    assert str(log) in done.stderr
    assert log.read_text().splitlines() == ["no network" if install else "done"] * 2
