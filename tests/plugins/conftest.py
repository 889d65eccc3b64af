"""Airflow puts plugins/ on sys.path; so do these tests, before they are collected."""

import sys

from local.paths import REPO

sys.path.append(str(REPO / "plugins"))
