"""Open decoders, kept for a while: audio elements ask for one range after the other, and decoding goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spectralize.reader.samples import SampleReader

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

    from spectralize.reader.recording import Recording

#: Each has a decoder and at most some blocks of half a megabyte.
MAX_READERS = 8


class Readers:
    """At most `MAX_READERS` idle ones, the least recently used are closed first. What is in use is not in here."""

    def __init__(self) -> None:
        self._idle: list[SampleReader] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @contextmanager
    def borrow(self, recording: Recording, client: S3Client, first: int, *, mono: bool) -> Iterator[SampleReader]:
        """Lend a reader that can go on at this sample, or a new one; after an error it is not taken back."""
        reader = self._take(recording, first, mono=mono) or SampleReader(recording, client, mono=mono)
        try:
            yield reader
        except BaseException:
            reader.close()
            raise
        self._give_back(reader)

    def _take(self, recording: Recording, first: int, *, mono: bool) -> SampleReader | None:
        with self._lock:
            if self._pid != os.getpid():
                # A child's connections are its own.
                self._pid, self._idle = os.getpid(), []
            for number in reversed(range(len(self._idle))):
                reader = self._idle[number]
                if reader.recording.uid == recording.uid and reader.mono == mono and reader.is_near(first):
                    return self._idle.pop(number)
        return None

    def _give_back(self, reader: SampleReader) -> None:
        with self._lock:
            self._idle.append(reader)
            ended = [self._idle.pop(0)] if len(self._idle) > MAX_READERS else []
        for item in ended:
            item.close()
