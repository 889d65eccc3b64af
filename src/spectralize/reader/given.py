"""What callers give: taken for what it is, or refused with a line that says what would be right."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import numpy as np

from spectralize.errors import ReadError, as_one_line

#: Longer values are cut in messages: no key is longer.
_SHOWN = 1_024


def shown(value: object) -> str:
    """Show a hostile value on one line of bounded length."""
    try:
        text = as_one_line(str(value) if isinstance(value, str | UUID | np.generic) else repr(value))
    except ValueError:
        # Python does not write out integers of thousands of digits.
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def as_number(name: str, value: object, expected: str) -> float:
    """Return a real number, also if numpy, Decimal or an array without dimensions holds it.

    Raises
    ------
    ReadError
        If it is none. What only could be taken for one is not: text, a truth, or a timedelta, whose unit would be lost.
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if not isinstance(value, str | bytes | bool) and kind in "iuf":
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            pass
    raise ReadError(f"{name} = {_quoted(value)}: must be {expected}")


def as_seconds(name: str, value: object) -> float:
    """Return a number of seconds."""
    return as_number(name, value, "a number of seconds")


def as_text(name: str, value: object) -> str:
    """Return text that the database can hold."""
    if not isinstance(value, str):
        raise ReadError(f"{name} = {_quoted(value)}: must be text")
    if not is_storable_text(value):
        raise ReadError(f"{name} = {_quoted(value)}: must be text without NUL and lone surrogates")
    return value


def is_storable_text(text: str) -> bool:
    """Tell whether PostgreSQL's text can hold it."""
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def as_list(name: str, values: Any) -> list[Any]:
    """Return several values; text is one value, not its letters."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ReadError(f"{name} = {_quoted(values)}: must be a list, also of one")
    return list(values)


def _quoted(value: object) -> str:
    return shown(repr(value)) if isinstance(value, str) else shown(value)
