"""Airflow puts plugins/ on sys.path; so do these tests."""

import sys

import pytest

from local.paths import REPO


@pytest.fixture(scope="session", autouse=True)
def _plugins_on_path() -> None:
    sys.path.append(str(REPO / "plugins"))
