"""Which bytes a request asks for (RFC 9110, section 14)."""

from __future__ import annotations

from werkzeug.http import parse_if_range_header, parse_range_header


class UnsatisfiableError(Exception):
    """None of the bytes asked for is there."""


def choose_range(
    given: str | None, if_range: str | None, *, etag: str, size: int, most_open: int, most: int
) -> tuple[int, int] | None:
    """Return the bytes [start, stop) to answer with, or None for the whole.

    What is malformed, of another unit, or more than one range is passed over, as a server may; so is every range if
    `if_range` names another ETag. An answer may be shorter than what was asked for, and says so: browsers ask again.

    Parameters
    ----------
    given, if_range
        The headers Range and If-Range.
    most_open, most
        Most bytes of an answer to a range without end, and to one with an end.

    Raises
    ------
    UnsatisfiableError
        If the range begins behind the last byte.
    """
    asked = parse_range_header(given)
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if if_range and not _is_same(if_range, etag):
        return None
    start, stop = asked.ranges[0]
    if start < 0:
        # The last so many bytes: all, if there are fewer.
        start, stop = max(0, size + start), size
    elif stop is None:
        most = most_open
        stop = size
    if start >= size:
        raise UnsatisfiableError
    return start, min(stop, size, start + most)


def _is_same(if_range: str, etag: str) -> bool:
    # A weak one does not say that bytes are the same, and we give no dates.
    return not if_range.lstrip().lower().startswith("w/") and parse_if_range_header(if_range).etag == etag
