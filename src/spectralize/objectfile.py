"""An S3 object as a file: read in blocks with look-ahead, hashed in passing, never whole in memory or on disk."""

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from spectralize.s3 import fetch_range
from spectralize.tables import PlannedObject

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

#: One GET. Smaller ones wait for S3 more often, larger ones hold more memory per recording.
BLOCK_BYTES = 4 << 20

#: Blocks on their way while one is being decoded.
_AHEAD_BLOCKS = 2

#: Blocks kept after they were read: headers, indexes and tags are read again and out of turn.
_KEPT_BLOCKS = 3

#: How much of the next objects is fetched while one is being computed: whichever comes first.
_AHEAD_OBJECTS = 16
_AHEAD_BYTES = 16 << 20

_THREADS = 4

Wait = Callable[[], AbstractContextManager[object]]


class ObjectFile(io.RawIOBase):
    """A read-only, seekable view of one object.

    Reading in turn costs one ranged GET per block, made ahead of time; out of turn, one when it is asked for.

    Parameters
    ----------
    size_bytes
        Size of the object.
    fetch
        Returns the bytes [start, stop). Its exceptions pass through `read` and are kept in `failure`, because a decoder
        between us and the caller may swallow them.
    pool
        Where look-ahead runs.
    wait
        Makes the context in which `read` waits for bytes: whoever measures or limits time looks away there.
    """

    def __init__(
        self, size_bytes: int, fetch: Callable[[int, int], bytes], pool: Executor, wait: Wait = nullcontext
    ) -> None:
        super().__init__()
        self.size_bytes = size_bytes
        self.failure: Exception | None = None
        self._fetch, self._pool, self._wait = fetch, pool, wait
        self._position = 0
        self._n_blocks = -(-size_bytes // BLOCK_BYTES)
        self._ahead: dict[int, Future[bytes]] = {}
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._hash = hashlib.sha256()
        self._n_hashed = 0

    def start(self) -> None:
        """Fetch the first block ahead of time."""
        self._look_ahead(1)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position, which may lie beyond the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset}: must not be negative")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Read up to size bytes, as few as are left in the present block; all that is left if size is negative."""
        if size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        index, start = divmod(self._position, BLOCK_BYTES)
        if size == 0 or index >= self._n_blocks:
            return b""
        data = self._block(index)[start : start + size]
        self._position += len(data)
        # A parser that asks for eight bytes means eight.
        return data if len(data) == size or self._position >= self.size_bytes else data + self.read(size - len(data))

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Read into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sha256(self) -> bytes:
        """Return the digest of the whole object, fetching what nobody has read."""
        while self._n_hashed < self._n_blocks:
            self._block(self._n_hashed)
        return self._hash.digest()

    def start_again(self) -> None:
        """Forget what was read and hashed, after something may have been interrupted half-way."""
        self._position = self._n_hashed = 0
        self._hash = hashlib.sha256()

    def close(self) -> None:
        """Drop what was fetched."""
        for future in self._ahead.values():
            future.cancel()
        self._ahead.clear()
        self._kept.clear()
        super().close()

    def _block(self, index: int) -> bytes:
        block = self._kept.get(index)
        if block is None:
            block = self._receive(index)
            self._kept[index] = block
            if len(self._kept) > _KEPT_BLOCKS:
                self._kept.popitem(last=False)
        if index == self._n_hashed:
            self._hash.update(block)
            self._n_hashed += 1
            self._look_ahead(_AHEAD_BLOCKS)
        return block

    def _receive(self, index: int) -> bytes:
        future = self._ahead.pop(index, None)
        try:
            with self._wait():
                return future.result() if future is not None else self._fetch(*self._bounds(index))
        except Exception as error:
            self.failure = error
            raise

    def _look_ahead(self, n_blocks: int) -> None:
        for index in range(self._n_hashed, min(self._n_hashed + n_blocks, self._n_blocks)):
            if index not in self._ahead and index not in self._kept:
                self._ahead[index] = self._pool.submit(self._fetch, *self._bounds(index))

    def _bounds(self, index: int) -> tuple[int, int]:
        return index * BLOCK_BYTES, min((index + 1) * BLOCK_BYTES, self.size_bytes)


def open_objects(
    client: "S3Client", objects: Sequence[PlannedObject], *, max_object_bytes: int, wait: Wait = nullcontext
) -> Iterator[tuple[PlannedObject, ObjectFile]]:
    """Yield each object as a file, while the first blocks of the next ones are on their way.

    Objects larger than `max_object_bytes` are yielded too, but nothing is fetched of them ahead of time.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool:

        def open_one(planned: PlannedObject) -> ObjectFile:
            file = ObjectFile(
                planned.size_bytes, lambda start, stop: fetch_range(client, planned, start, stop), pool, wait
            )
            if planned.size_bytes <= max_object_bytes:
                file.start()
            return file

        opened: dict[int, ObjectFile] = {}
        n_opened = 0
        try:
            for index, planned in enumerate(objects):
                ahead_bytes = 0
                while n_opened < len(objects) and (
                    n_opened <= index or (n_opened <= index + _AHEAD_OBJECTS and ahead_bytes < _AHEAD_BYTES)
                ):
                    opened[n_opened] = open_one(objects[n_opened])
                    n_opened += 1
                    ahead_bytes = sum(min(file.size_bytes, BLOCK_BYTES) for file in opened.values())
                with opened.pop(index) as file:
                    yield planned, file
        finally:
            for file in opened.values():
                file.close()
            pool.shutdown(wait=False, cancel_futures=True)
