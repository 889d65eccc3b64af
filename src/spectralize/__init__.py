"""Spectralize: S3 audio in, indexed spectral features out."""

from typing import TYPE_CHECKING, Any

from spectralize.version import CORE_VERSION as __version__

if TYPE_CHECKING:
    from spectralize.reader import Recording, Recordings, Snapshot, Spectrogram, Store, open_store

__all__ = ["Recording", "Recordings", "Snapshot", "Spectrogram", "Store", "__version__", "open_store"]


def __getattr__(name: str) -> Any:
    # Airflow imports this package while it parses DAGs: the reader, with numpy and xarray, is for those who read.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spectralize import reader

    return getattr(reader, name)
