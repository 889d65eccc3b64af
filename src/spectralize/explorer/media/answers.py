"""What the routes answer with when there is nothing to send: one line of plain text."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Response

from spectralize.errors import ConfigError, ReadError, ServiceError, SpectralizeError, as_one_line
from spectralize.explorer.context import Explorer
from spectralize.reader.recording import Recording
from spectralize.reader.samples import GoneError, SlowError


class RefusedError(Exception):
    """A request that gets no more than a status and a line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


def answers(route: Callable[..., Response]) -> Callable[..., Response]:
    """Turn what a route raises into an answer; what is no fault of the reader's own is the store's or S3's."""

    @wraps(route)
    def answer(*args: Any, **kwargs: Any) -> Response:
        try:
            return route(*args, **kwargs)
        except RefusedError as error:
            return plain(error.status, error.line)
        except SpectralizeError as error:
            return plain(status_of(error), str(error))

    return answer


def status_of(error: SpectralizeError) -> int:
    """Return the status that says whose fault it is."""
    if isinstance(error, GoneError):
        return 410
    if isinstance(error, SlowError):
        return 413
    if isinstance(error, ServiceError | ConfigError):
        return 503
    return 400 if isinstance(error, ReadError) else 500


def plain(status: int, line: str) -> Response:
    """Return a line of text. It may hold a key: nothing of it is markup, and browsers are told so."""
    response = Response(as_one_line(line) + "\n", status=status, content_type="text/plain; charset=utf-8")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


def find(explorer: Explorer, recording_id: int) -> Recording:
    """Look a recording up by its number in the store: bucket, key and ETag come from there, and from nowhere else.

    Raises
    ------
    RefusedError
        If there is none.
    """
    try:
        return explorer.store.recording(recording_id)
    except ReadError as error:
        raise RefusedError(404, str(error)) from error
