"""The page of one DAG run as HTML: what the ledger says about it. Knows no Airflow, and imports jinja2 when it is needed."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from spectralize.errors import as_one_line

if TYPE_CHECKING:
    from jinja2 import Environment

    from spectralize.runreport import RunReport

#: Beside the plugins, but no .py: Airflow imports each of those.
_FOLDER = Path(__file__).with_name("templates")


def headers() -> Mapping[str, str]:
    """Return the headers of every page: keys, tags and messages are hostile text, so nothing in it may run or load."""
    style = b64encode(sha256(_style().encode()).digest()).decode()
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def render_run(report: RunReport, *, back: str | None = None) -> str:
    """Render a run's batches; ``back`` is the address of the run in Airflow's UI."""
    return _environment().get_template("run.html").render(report=report, back=back, style=_style())


def render_message(title: str, message: str, *, link: tuple[str, str] | None = None) -> str:
    """Render one line instead of the page, with a link given as (address, text)."""
    return _environment().get_template("message.html").render(title=title, message=message, link=link, style=_style())


@cache
def _style() -> str:
    return (_FOLDER / "page.css").read_text()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": lambda text: as_one_line(str(text)),
        "moment": _moment,
        "duration": _duration,
        "count": lambda number: "–" if number is None else f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}"),
        "json_text": lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True),
    }
    return environment


def _moment(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _duration(seconds: float | None) -> str:
    """Return 75.5 as 1:15.5, 3675 as 1:01:15.0, and nothing for None."""
    if seconds is None:
        return ""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02d}:{tenths / 10:04.1f}" if hours else f"{minutes}:{tenths / 10:04.1f}"
    return f"{hours}:{text}" if hours else text
