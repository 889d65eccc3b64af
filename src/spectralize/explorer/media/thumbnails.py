"""A recording at a glance: a small picture of its whole spectrogram.

Making one costs what `read_columns` does, which has a bound whatever the length. A spectrogram never changes, so pictures are
kept: by browsers where the address names the spectrogram, and the last `MAX_KEPT` here, 10 to 25 kB each.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from flask import Flask, Response, request

from spectralize.errors import ReadError
from spectralize.explorer.context import Explorer
from spectralize.explorer.figures.picture import choose_levels, draw
from spectralize.explorer.media.answers import RefusedError, answers, find
from spectralize.reader.overview import read_columns
from spectralize.reader.recording import Recording
from spectralize.reader.spectrograms import Spectrogram

#: Twice what it is shown at, for dense screens.
WIDTH, HEIGHT = 320, 80
MAX_KEPT = 1_000

_YEAR_S = 365 * 86_400


class Thumbnails:
    """Pictures by spectrogram; the least recently asked for are made again."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def picture(self, spectrogram: Spectrogram) -> bytes:
        """Return the PNG."""
        number = spectrogram.spectrogram_id
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        columns = self._explorer.read(lambda connection: read_columns(connection, spectrogram, None, None, WIDTH))
        low_db, high_db = choose_levels(columns.mel)
        data = draw(columns.mel, low_db=low_db, high_db=high_db, colour_map="magma", size=(WIDTH, HEIGHT))
        with self._lock:
            self._kept[number] = data
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return data


def register(server: Flask, explorer: Explorer) -> None:
    """Add the route."""
    thumbnails = Thumbnails(explorer)

    @server.get("/recordings/<int:recording_id>/thumbnail.png")
    @answers
    def thumbnail(recording_id: int) -> Response:
        try:
            # Looked up each time: what was forgotten is not shown from memory.
            spectrogram = _choose(find(explorer, recording_id), request.args.get("profile") or None)
            response = Response(thumbnails.picture(spectrogram), content_type="image/png")
        except ReadError as error:
            raise RefusedError(404, str(error)) from error
        is_named = request.args.get("v") == str(spectrogram.spectrogram_id)
        response.headers["Cache-Control"] = (
            f"private, max-age={_YEAR_S}, immutable" if is_named else "private, no-cache"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _choose(recording: Recording, profile: str | None) -> Spectrogram:
    """Return the spectrogram to show: one that there is, if none is named."""
    if profile is None and len(recording.spectrograms) > 1:
        return recording.spectrograms[min(recording.spectrograms)]
    return recording.spectrogram(profile)
