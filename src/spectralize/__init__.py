"""Spectralize: S3 audio in, indexed spectral features out."""

from spectralize.version import CORE_VERSION as __version__

__all__ = ["__version__"]
