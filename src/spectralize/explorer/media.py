"""What is not a page: audio, downloads, thumbnails."""

from flask import Flask

from spectralize.explorer.context import Explorer


def register(server: Flask, explorer: Explorer) -> None:
    """Add the routes."""
