"""What a file says about itself, read by tinytag: the columns of the 2020 original, and everything else as JSON."""

import io
import math
from dataclasses import dataclass

from tinytag import TinyTag, TinyTagException

from spectralize.tables import TAG_COLUMNS

TagValue = str | int | float | None

_MAX_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags as declared: `columns` has every name of `tables.TAG_COLUMNS`, `other` the rest."""

    columns: dict[str, TagValue]
    other: dict[str, list[str]]


def clean_text(text: str) -> str:
    """Drop what PostgreSQL's text cannot hold: NUL and lone surrogates."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _typed(name: str, value: object) -> TagValue:
    kind = TAG_COLUMNS[name]
    if value is None:
        return None
    if kind == "text":
        return clean_text(str(value)) or None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    if not math.isfinite(number):
        return None
    if kind == "double precision":
        return number
    bound = _MAX_INTEGER if kind == "integer" else 2**63 - 1
    return int(number) if abs(number) <= bound else None


def read_tags(data: bytes) -> Tags:
    """Read the tags of a file. One that tinytag cannot read has none: tags are claims, never a reason to reject."""
    empty = Tags(dict.fromkeys(TAG_COLUMNS) | {"filesize": len(data)}, {})
    try:
        found = TinyTag.get(file_obj=io.BytesIO(data), image=False)
    except (TinyTagException, ValueError, IndexError, KeyError, OverflowError, ArithmeticError, OSError, EOFError):
        return empty
    # tinytag 2 no longer knows where the audio starts; the column stays for the seed's sake.
    columns = {name: _typed(name, getattr(found, name, None)) for name in TAG_COLUMNS if name != "audio_offset"}
    columns |= {"audio_offset": None, "filesize": len(data)}
    other = {
        clean_text(str(name)): [clean_text(str(value)) for value in values]
        for name, values in found.other.items()
        if name not in TAG_COLUMNS
    }
    for name in TAG_COLUMNS:
        # A second artist or genre is kept beside the first.
        if name in found.other:
            other[name] = [clean_text(str(value)) for value in found.other[name]]
    return Tags(columns, other)
