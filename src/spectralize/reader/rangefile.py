"""An object of S3 as a file that FFmpeg reads."""

from __future__ import annotations

import io
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING, Any

from spectralize.s3 import fetch_range

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

    from spectralize.reader.recording import Recording

#: One GET: half a minute of mp3. Smaller ones wait for S3 more often, larger ones fetch what nobody wants.
_GET_BYTES = 1 << 19

#: Blocks kept after they were read: header and index are looked at again on the way to the window.
_KEPT_BLOCKS = 4


class LateError(Exception):
    """The time is up."""


class RangeFile(io.RawIOBase):
    """An object of S3 as a file: blocks of it by ranged GETs, bound to the ETag that was indexed; the last few are kept."""

    def __init__(self, client: S3Client, recording: Recording) -> None:
        super().__init__()
        self._client, self._recording = client, recording
        self._position = 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        #: FFmpeg swallows what its file raises, an interrupt with the rest, and asks again.
        self.failure: BaseException | None = None
        #: When to give up, by the clock of `monotonic`.
        self.until = float("inf")

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position, which may lie behind the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._recording.size_bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer, as far as the block at the position goes."""
        if self._position >= self._recording.size_bytes:
            return 0
        index, start = divmod(self._position, _GET_BYTES)
        data = self._block(index)[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _block(self, index: int) -> bytes:
        if self.failure is None and index not in self._kept:
            stop = min((index + 1) * _GET_BYTES, self._recording.size_bytes)
            try:
                if monotonic() > self.until:
                    raise LateError
                self._kept[index] = fetch_range(self._client, self._recording, index * _GET_BYTES, stop)
            except BaseException as error:  # noqa: BLE001 - it is raised again where FFmpeg is done
                self.failure = error
            if len(self._kept) > _KEPT_BLOCKS:
                self._kept.popitem(last=False)
        if self.failure is not None:
            raise OSError("S3 does not answer")
        return self._kept[index]
