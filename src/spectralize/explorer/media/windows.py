"""Windows to take away: samples, frames, or a picture.

Each has a bound, beyond which Python is the better way: `MAX_WAV_S` and `MAX_WAV_BYTES` of sound, which is decoded block by
block while it is sent; `MAX_NPY_BYTES` of frames; a picture is of at most `MAX_COLUMNS` columns, whatever the window.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from flask import Flask, Response, request

from spectralize.errors import ReadError
from spectralize.explorer.context import Explorer
from spectralize.explorer.figures.colours import DEFAULT_SCALE, SCALES
from spectralize.explorer.figures.picture import draw
from spectralize.explorer.figures.spectrogram import RANGE_DB
from spectralize.explorer.media.answers import RefusedError, answers, find
from spectralize.explorer.media.sound import Sound
from spectralize.explorer.media.streams import Wav
from spectralize.reader.audio import sample_span
from spectralize.reader.given import shown
from spectralize.reader.overview import read_columns
from spectralize.reader.recording import Recording
from spectralize.reader.spectrograms import Spectrogram

MAX_WAV_S = 600.0
MAX_WAV_BYTES = 512 << 20
MAX_NPY_BYTES = 64 << 20
MAX_COLUMNS = 2_000

#: Cells are enlarged, by whole numbers, to some such picture.
_WIDTH, _HEIGHT = 1_000, 256

#: dB beyond this are no level of anything.
_MAX_DB = 1_000.0


def register(server: Flask, explorer: Explorer, sound: Sound) -> None:
    """Add the routes."""

    def add(kind: str, make: Callable[[Recording], Response]) -> None:
        @answers
        def window(recording_id: int) -> Response:
            return make(find(explorer, recording_id))

        server.add_url_rule(f"/recordings/<int:recording_id>/window.{kind}", f"window_{kind}", window, methods=["GET"])

    add("wav", lambda recording: _wav(sound, recording))
    add("npy", _npy)
    add("png", lambda recording: _png(explorer, recording))


def _wav(sound: Sound, recording: Recording) -> Response:
    if not recording.decoded_duration_s or not recording.decoded_samplerate_hz:
        raise RefusedError(404, f"recording {recording.id} has no audio: nothing of it was decoded")
    mono = request.args.get("mono", "0")
    if mono not in {"0", "1"}:
        raise RefusedError(400, f"mono = {shown(repr(mono))}: must be 0 or 1")
    first, stop = sample_span(recording, _seconds("start_s"), _seconds("end_s"))
    sr = recording.decoded_samplerate_hz
    wav = Wav(sr, 1 if mono == "1" else recording.decoded_channels or 1, stop - first)
    if stop - first > MAX_WAV_S * sr or wav.size_bytes > MAX_WAV_BYTES:
        raise _too_much(
            f"{(stop - first) / sr:.0f} s of sound", f"store.recording({recording.id}).audio(start_s, end_s)"
        )
    response = _download(recording, "wav", "audio/wav", first / sr, stop / sr)
    response.headers["Content-Length"] = str(wav.size_bytes)
    if request.method != "HEAD":
        sound.put(response, sound.wav_blocks(recording, wav, 0, wav.size_bytes, first_sample=first))
    return response


def _npy(recording: Recording) -> Response:
    spectrogram, start_s, end_s = _chosen(recording)
    first, stop = recording.span(spectrogram, start_s, end_s, step_s=spectrogram.frame_s, n_rows=spectrogram.n_frames)
    if (stop - first) * spectrogram.n_mels * 4 > MAX_NPY_BYTES:
        raise _too_much(f"{stop - first} frames", f"store.recording({recording.id}).mel(start_s, end_s)")
    buffer = io.BytesIO()
    np.save(buffer, recording.mel(start_s, end_s, spectrogram.profile).values)
    response = _download(
        recording, "npy", "application/octet-stream", first * spectrogram.frame_s, stop * spectrogram.frame_s
    )
    response.set_data(buffer.getvalue())
    return response


def _png(explorer: Explorer, recording: Recording) -> Response:
    spectrogram, start_s, end_s = _chosen(recording)
    colour_map = request.args.get("cmap", DEFAULT_SCALE)
    if colour_map not in SCALES:
        raise RefusedError(400, f"cmap = {shown(repr(colour_map))}: must be one of {', '.join(SCALES)}")
    high_db = _level("high_db", spectrogram.peak_db)
    low_db = _level("low_db", high_db - RANGE_DB)
    if low_db >= high_db:
        raise RefusedError(400, f"low_db = {low_db:g}: must be below high_db, {high_db:g}")
    columns = explorer.read(lambda connection: read_columns(connection, spectrogram, start_s, end_s, MAX_COLUMNS))
    n, n_mels = columns.mel.shape
    size = n * max(1, _WIDTH // n), n_mels * max(1, -(-_HEIGHT // n_mels))
    stop_s = columns.start_s + n * columns.step_s
    response = _download(recording, "png", "image/png", columns.start_s, stop_s)
    response.set_data(draw(columns.mel, low_db=low_db, high_db=high_db, colour_map=colour_map, size=size))
    return response


def _chosen(recording: Recording) -> tuple[Spectrogram, float | None, float | None]:
    try:
        spectrogram = recording.spectrogram(request.args.get("profile") or None)
    except ReadError as error:
        raise RefusedError(404, str(error)) from error
    return spectrogram, _seconds("start_s"), _seconds("end_s")


def _seconds(name: str) -> float | None:
    text = request.args.get(name)
    return _number(name, text, "a number of seconds") if text else None


def _level(name: str, otherwise: float) -> float:
    text = request.args.get(name)
    if not text:
        return otherwise
    level = _number(name, text, "a number of dB")
    if not abs(level) <= _MAX_DB:
        raise RefusedError(400, f"{name} = {level:g}: must lie within ±{_MAX_DB:g} dB")
    return level


def _number(name: str, text: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RefusedError(400, f"{name} = {shown(repr(text))}: must be {expected}") from error


def _too_much(what: str, call: str) -> RefusedError:
    return RefusedError(413, f"{what} is more than is sent from here: {call} of spectralize's Python API reads it")


def _download(recording: Recording, kind: str, content_type: str, start_s: float, stop_s: float) -> Response:
    """Return an answer whose name is made of numbers: keys are for those who listed them."""
    response = Response(content_type=content_type)
    name = f"recording-{recording.id}-{_short(start_s)}-{_short(stop_s)}.{kind}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _short(seconds: float) -> str:
    text = f"{seconds:.3f}" if math.isfinite(seconds) else "end"
    return text.rstrip("0").rstrip(".")
