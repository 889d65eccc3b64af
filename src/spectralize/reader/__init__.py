"""Reading the store: recordings, and windows of their features as arrays.

>>> from spectralize import open_store
>>> store = open_store()
>>> recording = store.recording("s3://audio/music/one.flac")
>>> recording.mel(10, 20)
"""

from spectralize.reader.recording import Recording
from spectralize.reader.recordings import Recordings
from spectralize.reader.snapshots import Snapshot
from spectralize.reader.spectrograms import Spectrogram
from spectralize.reader.store import Store, open_store

__all__ = ["Recording", "Recordings", "Snapshot", "Spectrogram", "Store", "open_store"]
