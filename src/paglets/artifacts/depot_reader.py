"""A content that is in a backend, read like a file, and kept in the cache when all of it was read."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Generator
from contextlib import closing
from typing import Any

from paglets.artifacts.backends import BlobBackend
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import WrongContentError
from paglets.artifacts.hashing import Digest
from paglets.artifacts.writer import BlobWriter
from paglets.core.errors import TransferError

__all__ = ["DepotReader"]

logger = logging.getLogger(__name__)


class DepotReader(io.RawIOBase):
    """Read a content from a backend, from any position on. Not safe for threads.

    Whoever reads it from beginning to end gets a verified content: before the last piece is given away, all of them
    have been compared with the checksum. Then it is in the cache, too, if it fits.
    """

    def __init__(self, backend: BlobBackend, blobs: BlobStore, sha256: str, size: int) -> None:
        super().__init__()
        self._backend = backend
        self._blobs = blobs
        self._sha256 = sha256
        self._size = size
        self._position = 0
        self._end = size
        self._pieces: Generator[bytes, None, None] | None = None
        self._rest = memoryview(b"")
        self._digest: Digest | None = None
        self._writer: BlobWriter | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Have the next read begin somewhere else, and return where."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        position = max(0, base + offset)
        if position != self._position:
            self._leave()
            self._position = position
        return position

    def begin(self, start: int, end: int) -> None:
        """Have reads begin and end at these bytes, and wait for the first of them.

        :raises NotStoredError: the backend does not have the content any more.
        :raises WrongContentError: it has another content.
        :raises StorageUnavailableError: it cannot be reached.
        """
        self._leave()
        self._position, self._end = min(start, self._size), min(end, self._size)
        if self._position < self._end:
            self._rest = memoryview(self._next())

    def fetch(self) -> None:
        """Bring all of it into the cache, however large it is; read nothing before or after.

        :raises TransferError: it is not what was stored, or the disk does not take it.
        :raises StorageUnavailableError: it cannot be had now.
        """
        with self._blobs.receive(sha256=self._sha256, size=self._size, durable=False) as writer:
            with closing(self._backend.read(self._sha256, 0, self._size)) as pieces:
                for piece in pieces:
                    writer.write(piece)
            writer.commit(durable=False)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or a part of it, and return how many bytes these are; 0 at the end.

        :raises NotStoredError: the backend does not have the content any more.
        :raises WrongContentError: it has another content.
        :raises StorageUnavailableError: it cannot be reached.
        """
        with memoryview(buffer) as view:
            wanted = min(len(view), self._end - self._position)
            if wanted <= 0:
                return 0
            if not self._rest:
                self._rest = memoryview(self._next())
            count = min(wanted, len(self._rest))
            view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count

    def close(self) -> None:
        """Let go of the connection; what was not read to its end is not kept."""
        self._leave()
        super().close()

    # inside

    def _next(self) -> bytes:
        if self._pieces is None:
            self._pieces = self._begin()
        try:
            piece = next(self._pieces, b"")
            if not piece:
                raise WrongContentError(f"content {self._sha256} ends at byte {self._position:,} in its backend")
            self._check(piece)
        except BaseException:
            self._leave()
            raise
        return piece

    def _begin(self) -> Generator[bytes, None, None]:
        whole = self._position == 0 and self._end == self._size
        if whole and self._size <= self._blobs.cache_bytes:
            try:
                self._writer = self._blobs.receive(sha256=self._sha256, size=self._size, durable=False)
            except TransferError as error:
                logger.info("content %s is not cached: %s", self._sha256, error)
        if whole and self._writer is None:
            self._digest = Digest(self._size)
        return self._backend.read(self._sha256, self._position, self._end - self._position)

    def _check(self, piece: bytes) -> None:
        """Take note of a piece that comes next; with the last one, compare all of them with the checksum."""
        last = self._position + len(piece) >= self._size
        if self._digest is not None:
            self._digest.update(piece)
            if last:
                self._digest.close()
                if (found := self._digest.hexdigest()) != self._sha256:
                    raise WrongContentError(f"content {self._sha256} has checksum {found} in its backend")
        elif self._writer is not None:
            self._cache(self._writer, piece, last)

    def _cache(self, writer: BlobWriter, piece: bytes, last: bool) -> None:
        try:
            writer.write(piece)
            if last:
                writer.commit(durable=False)
        except WrongContentError as error:
            raise WrongContentError(f"content {self._sha256} in its backend: {error}") from None
        except TransferError as error:
            # The disk is full, most likely. Whoever reads has the checksum as well.
            logger.info("content %s is not cached: %s", self._sha256, error)
            self._writer = None

    def _leave(self) -> None:
        if self._pieces is not None:
            self._pieces.close()
            self._pieces = None
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        if self._digest is not None:
            self._digest.close()
            self._digest = None
        self._rest = memoryview(b"")
