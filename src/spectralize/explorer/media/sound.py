"""Audio of a recording: the object's own bytes, or those of a wav that is decoded as it is asked for.

What one request costs has a bound. An answer to a range is at most 16 MB of the object, or 10 s of audio; to a range without
end, with which players begin, at most 4 MB. Only a request for no range at all gets everything, in blocks that are fetched
as the client takes them: a slow one holds a thread of the server, so there are `MOST_WHOLE` of them at a time. Decoding that
does not reach its place within `DECODE_S` is given up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import BoundedSemaphore

from flask import Flask, Response, request

from spectralize.errors import FailedObjectError, RejectedObjectError, ServiceError, SpectralizeError, as_one_line
from spectralize.explorer.context import Explorer
from spectralize.explorer.media.answers import RefusedError, answers, find
from spectralize.explorer.media.ranges import UnsatisfiableError, choose_range
from spectralize.explorer.media.readers import Readers
from spectralize.explorer.media.streams import HEADER_BYTES, Wav, content_type, plan_wav, to_pcm
from spectralize.reader.recording import Recording
from spectralize.reader.samples import GoneError
from spectralize.s3 import fetch_range

#: Bytes of the object in an answer to a range: without an end, and with one. Browsers go on where an answer ends.
MOST_OPEN_BYTES = 4 << 20
MOST_BYTES = 16 << 20

#: Seconds of audio in an answer to a range of the wav, and decoded at a time where everything is sent.
MOST_S = 10.0

#: Samples of all channels that are decoded at a time: 16 MB of floats.
MOST_NUMBERS = 1 << 22

#: Seconds that a request may decode for, up to the end of its first block.
DECODE_S = 20.0

#: Bytes of the object that are fetched at a time where everything is sent.
_BLOCK_BYTES = 1 << 20

#: Recordings that are sent whole at the same time; the server has eight threads for everybody.
MOST_WHOLE = 3

_LOG = logging.getLogger(__name__)


class Sound:
    """The bytes of both streams."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._readers = Readers()
        self._whole = BoundedSemaphore(MOST_WHOLE)

    def put(self, response: Response, blocks: Iterator[bytes]) -> None:
        """Give an answer its bytes.

        Raises
        ------
        RefusedError
            If it is a whole recording, and as many as may be are on their way.
        """
        is_whole = response.status_code == 200
        if is_whole and not self._whole.acquire(blocking=False):
            raise RefusedError(
                503, f"{MOST_WHOLE} whole recordings are on their way already: ask for a range, or try again in a while"
            )
        try:
            response.response = _send(blocks)
        except BaseException:
            if is_whole:
                self._whole.release()
            raise
        if is_whole:
            response.call_on_close(self._whole.release)

    def object_blocks(self, recording: Recording, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes [start, stop) of the object that was indexed."""
        for first in range(start, stop, _BLOCK_BYTES):
            yield self._fetch(recording, first, min(first + _BLOCK_BYTES, stop))

    def _fetch(self, recording: Recording, start: int, stop: int) -> bytes:
        name = as_one_line(recording.url)
        try:
            return fetch_range(self._explorer.store.s3(), recording, start, stop)
        except RejectedObjectError as error:
            raise GoneError(f"{name}: {error}: its audio is no longer what was indexed") from error
        except FailedObjectError as error:
            raise ServiceError(f"{name}: {as_one_line(str(error))}") from error

    def wav_blocks(
        self, recording: Recording, wav: Wav, start: int, stop: int, *, first_sample: int = 0
    ) -> Iterator[bytes]:
        """Yield the bytes [start, stop) of the wav, which begins with this sample of the recording."""
        # With the first samples: what is wrong with those shows before anything is sent.
        head = wav.header()[start:stop] if start < HEADER_BYTES else b""
        first, last = wav.samples_of(start, stop)
        if first == last:
            yield head
        step = _step(wav)
        for begin in range(first, last, step):
            end = min(begin + step, last)
            data = self.pcm(recording, wav, first_sample + begin, first_sample + end)
            offset = HEADER_BYTES + begin * wav.block_bytes
            yield head + data[max(0, start - offset) : stop - offset]
            head = b""

    def pcm(self, recording: Recording, wav: Wav, first: int, stop: int) -> bytes:
        """Return the samples [first, stop) as 16-bit numbers."""
        client = self._explorer.store.s3()
        with self._readers.borrow(recording, client, first, mono=wav.is_mono) as reader:
            y = reader.read(first, stop, within_s=DECODE_S)
        return to_pcm(y)


def register(server: Flask, explorer: Explorer) -> Sound:
    """Add the route, and return what it reads with."""
    sound = Sound(explorer)

    @server.get("/recordings/<int:recording_id>/audio")
    @answers
    def audio(recording_id: int) -> Response:
        recording = find(explorer, recording_id)
        if not recording.decoded_duration_s:
            raise RefusedError(404, f"recording {recording_id} has no audio: nothing of it was decoded")
        if request.args.get("as") == "wav":
            return _answer_wav(sound, recording)
        return _answer_object(sound, recording)

    return sound


def _answer_object(sound: Sound, recording: Recording) -> Response:
    response, span = _begin(
        recording.size_bytes, recording.uid, content_type(recording, "object"), MOST_OPEN_BYTES, MOST_BYTES
    )
    if span is not None:
        sound.put(response, sound.object_blocks(recording, *span))
    return response


def _answer_wav(sound: Sound, recording: Recording) -> Response:
    wav = plan_wav(recording)
    if wav is None:
        raise RefusedError(
            413, f"recording {recording.id} does not fit a wav (4 GiB); recording.audio() of spectralize's Python API reads it"
        )  # fmt: skip
    most = HEADER_BYTES + _step(wav) * wav.block_bytes
    response, span = _begin(wav.size_bytes, f"{recording.uid}.wav", content_type(recording, "wav"), most, most)
    if span is not None:
        sound.put(response, sound.wav_blocks(recording, wav, *span))
    return response


def _step(wav: Wav) -> int:
    """Return how many samples are decoded at a time: `MOST_S`, but of fast rates and many channels not more than fit."""
    return max(1, min(int(MOST_S * wav.sr), MOST_NUMBERS // wav.channels))


def _begin(size: int, etag: str, kind: str, most_open: int, most: int) -> tuple[Response, tuple[int, int] | None]:
    """Return an answer without its bytes, and which these are; None if there are to be none."""
    response = Response(content_type=kind)
    response.set_etag(etag)
    headers = response.headers
    headers["Accept-Ranges"] = "bytes"
    headers["X-Content-Type-Options"] = "nosniff"
    # An object may be forgotten: nobody keeps it for longer than a visit.
    headers["Cache-Control"] = "private, no-cache"
    try:
        # Ranges are of GET only.
        given = request.headers.get("Range") if request.method == "GET" else None
        span = choose_range(
            given, request.headers.get("If-Range"), etag=etag, size=size, most_open=most_open, most=most
        )
    except UnsatisfiableError:
        response.status_code = 416
        headers["Content-Range"] = f"bytes */{size}"
        headers["Content-Type"] = "text/plain; charset=utf-8"
        return response, None
    start, stop = span or (0, size)
    if span is not None:
        response.status_code = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    return response, None if request.method == "HEAD" else (start, stop)


def _send(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Return the same blocks, with the first one made: what is wrong with that is still an answer of its own."""
    first = next(blocks, b"")
    return _rest(first, blocks)


def _rest(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    try:
        yield from blocks
    except SpectralizeError as error:
        # The answer has begun: it ends short of its length, which clients notice.
        _LOG.warning("%s", error)
