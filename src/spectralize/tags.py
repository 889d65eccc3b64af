"""What a file says about itself, read by tinytag: the columns of the 2020 original, and everything else as JSON."""

import io
import logging
import math
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, cast

from tinytag import TinyTag

from spectralize.claims import SeekableFile
from spectralize.tables import TAG_COLUMNS

logger = logging.getLogger(__name__)

TagValue = str | int | float | None

_MAX_INTEGER = 2**31 - 1

#: Longer values are cut, and values beyond the count left out: a tag may hold a whole picture, or a hundred megabytes of text.
_MAX_CHARACTERS = 16_384
_MAX_VALUES = 256


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside the file: noted, not kept."""

    kind: str
    mime_type: str | None
    size_bytes: int
    description: str | None


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags as declared: `columns` has every name of `tables.TAG_COLUMNS`, `other` the rest."""

    columns: dict[str, TagValue]
    other: dict[str, list[str]]
    pictures: list[Picture]


def clean_text(text: str) -> str:
    """Drop what PostgreSQL's text cannot hold, NUL and lone surrogates, and cut what is absurdly long."""
    return text[:_MAX_CHARACTERS].replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _typed(name: str, value: object) -> TagValue:
    kind = TAG_COLUMNS[name]
    if value is None:
        return None
    if kind == "text":
        return clean_text(str(value)) or None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    if kind == "double precision":
        return number
    bound = _MAX_INTEGER if kind == "integer" else 2**63 - 1
    return int(number) if abs(number) <= bound else None


def read_tags(file: SeekableFile) -> Tags:
    """Read the tags of a file. One that tinytag cannot read has none: tags are claims, never a reason to reject."""
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        found = TinyTag.get(file_obj=cast(BinaryIO, file), image=True)
    except Exception:
        # A parser of hostile bytes: whatever it raises, the file has no tags.
        logger.debug("tinytag cannot read this file", exc_info=True)
        return no_tags(size_bytes)
    # tinytag 2 no longer knows where the audio starts; the column stays for the seed's sake.
    columns = {name: _typed(name, getattr(found, name, None)) for name in TAG_COLUMNS if name != "audio_offset"}
    columns |= {"audio_offset": None, "filesize": size_bytes}
    # A second artist or genre is among the others, under the name of its column.
    other: dict[str, list[str]] = {}
    for name, value in islice(((name, value) for name, values in found.other.items() for value in values), _MAX_VALUES):
        other.setdefault(clean_text(str(name)), []).append(clean_text(str(value)))
    pictures = [
        Picture(clean_text(kind), _text(image.mime_type), len(image.data), _text(image.description))
        for kind, images in found.images.as_dict().items()
        for image in images
    ]
    return Tags(columns, other, pictures[:_MAX_VALUES])


def no_tags(size_bytes: int) -> Tags:
    """Return the tags of a file that has none."""
    return Tags(dict.fromkeys(TAG_COLUMNS) | {"filesize": size_bytes}, {}, [])


def _text(value: str | None) -> str | None:
    return None if value is None else clean_text(value) or None
