"""What is not a page: audio, downloads, thumbnails."""

from flask import Flask

from spectralize.explorer.context import Explorer
from spectralize.explorer.media import sound, thumbnails, windows
from spectralize.explorer.media.streams import choose_stream, content_type

__all__ = ["choose_stream", "content_type", "register"]


def register(server: Flask, explorer: Explorer) -> None:
    """Add the routes."""
    windows.register(server, explorer, sound.register(server, explorer))
    thumbnails.register(server, explorer)
