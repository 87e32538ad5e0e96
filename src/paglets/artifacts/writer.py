"""One content on its way into the store: written, hashed beside it, and shown to nobody before it is complete."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from paglets.artifacts.errors import (
    TooLargeError,
    UploadConflictError,
    WrongContentError,
    io_error,
    is_no_room,
)
from paglets.artifacts.hashing import Digest
from paglets.artifacts.parts import Announced
from paglets.artifacts.placing import start_writeback
from paglets.artifacts.sparse import SparseFile
from paglets.core.errors import TransferError

#: Bytes after which the kernel is asked to begin with the disk, so that the sync at the end waits for the last of them.
WRITEBACK_BYTES: Final = 32 * 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """Verified content in the store."""

    sha256: str
    size: int
    durable: bool
    """Whether it survives a loss of power from now on; otherwise it survives the end of the process only."""


class Home(Protocol):
    """What a writer needs of its store."""

    def make_room(self, count: int) -> int:
        """Free about that many bytes of the disk, and return how many it were."""

    def accept(self, writer: BlobWriter, sha256: str, *, durable: bool, owner: str) -> Blob:
        """Take over the verified part of a writer, whose file is closed.

        :raises OSError: the disk does not take it.
        """

    def ended(self, writer: BlobWriter, *, remove: bool) -> None:
        """Know that a writer writes no more; remove its part, if it is still there, or keep it for later."""


class BlobWriter:
    """Receive one content. Its methods block on the disk; any thread may call them, one at a time does.

    Use it as a context: what is not committed at the end is removed, or kept where it may be resumed.
    """

    def __init__(
        self,
        home: Home,
        path: Path,
        descriptor: int,
        digest: Digest,
        announced: Announced,
        *,
        key: str,
        offset: int,
        limit: int | None,
        early: bool,
    ) -> None:
        """Take over an open part of which `offset` bytes are written and hashed; see `BlobStore.receive`."""
        self.path = path
        self.key = key
        self.offset = offset
        """Bytes received up to now, with those of earlier connections."""
        self.announced = announced
        self._home = home
        self._descriptor = descriptor
        self._file = SparseFile(descriptor, offset, is_room=self._find_room)
        self._digest = digest
        self._limit = limit
        self._early = early
        self._sent_to_disk = offset
        self._over = ""
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.key:
            self.keep()
        else:
            self.abort()

    def write(self, data: bytes | bytearray | memoryview, *, held: bool = False) -> int:
        """Take the next bytes and return how many they were.

        :param held: they stay as they are until `PIECES_HELD` more pieces, of at most 1 MB each, were written; others
            are copied.
        :raises TooLargeError: there would be more than the limit.
        :raises WrongContentError: there would be more than announced.
        :raises NoRoomError: the disk takes no more.
        :raises TransferError: they cannot be written, or the writer has ended. After any of these the part is removed.
        """
        with self._guard:
            self._check_open()
            try:
                self._write(memoryview(data).cast("B"), lasting=held or isinstance(data, bytes))
            except OSError as error:
                self._end("failed", remove=True)
                raise io_error("Received content cannot be stored", self.path.parent, error) from error
            except BaseException:
                self._end("failed", remove=True)
                raise
            return len(data) if isinstance(data, bytes | bytearray) else data.nbytes

    def commit(self, *, durable: bool = True, owner: str = "") -> Blob:
        """Make the content visible, now that all of it is here, and return it.

        :param durable: return only when it is on disk.
        :param owner: the artifact that keeps it from the very beginning.
        :raises WrongContentError: its length or checksum is not the announced one. A short content that may be resumed
            stays; everything else is removed.
        :raises NoRoomError: the disk does not take it.
        :raises TransferError: it cannot be stored for another reason, or the writer has ended.
        """
        with self._guard:
            self._check_open()
            if 0 <= self.announced.size != self.offset:
                self._end("was short", remove=not self.key)
                raise WrongContentError(f"received {self.offset:,} of {self.announced.size:,} bytes")
            try:
                self._digest.close()
                found = self._digest.hexdigest()
                if self.announced.sha256 and found != self.announced.sha256:
                    raise WrongContentError(f"received content with checksum {found}, expected {self.announced.sha256}")
                if durable:
                    os.fsync(self._descriptor)
                self._close_file()
                blob = self._home.accept(self, found, durable=durable, owner=owner)
            except OSError as error:
                self._end("failed", remove=True)
                raise io_error("Received content cannot be stored", self.path.parent, error) from error
            except BaseException:
                self._end("failed", remove=True)
                raise
            self._end("is committed", remove=True)
            return blob

    def keep(self) -> None:
        """End, and leave what is here for a later writer with the same key; nothing to do after the end."""
        with self._guard:
            if not self._over:
                self._end("was interrupted", remove=not self.key)

    def abort(self) -> None:
        """End, and remove what is here; nothing to do after the end."""
        with self._guard:
            if not self._over:
                self._end("was given up", remove=True)

    def supersede(self) -> None:
        """End in favour of another writer of the same key, as soon as a write under way is over."""
        with self._guard:
            if not self._over:
                self._end("is continued by another connection", remove=False)

    def _check_open(self) -> None:
        if self._over:
            raise UploadConflictError(f"this upload {self._over}; begin again where the host says that it is")

    def _write(self, view: memoryview, *, lasting: bool) -> None:
        size = self.offset + view.nbytes
        if self._limit is not None and size > self._limit:
            raise TooLargeError(f"the content is larger than the {self._limit:,} bytes that are accepted")
        if 0 <= self.announced.size < size:
            raise WrongContentError(f"received more than the announced {self.announced.size:,} bytes")
        for start in range(0, view.nbytes, _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            # The hash comes later, on its thread; what its owner may change meanwhile is copied.
            self._digest.update(piece if lasting else bytes(piece))
            self._put(piece)
        if self._early and self.offset - self._sent_to_disk >= WRITEBACK_BYTES:
            start_writeback(self._descriptor, self._sent_to_disk, self.offset - self._sent_to_disk)
            self._sent_to_disk = self.offset

    def _put(self, piece: memoryview) -> None:
        self._file.write(piece)
        # So that its length says how much is here, whatever ends this process.
        self._file.finish()
        self.offset = self._file.nbytes

    def _find_room(self, error: OSError) -> bool:
        return is_no_room(error) and self._home.make_room(WRITEBACK_BYTES) > 0

    def _end(self, how: str, *, remove: bool) -> None:
        self._over = how
        self._digest.close()
        self._close_file()
        self._home.ended(self, remove=remove)

    def _close_file(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            del self._file  # it leads back here, and what is left of this would wait for the garbage collector


def hash_part(descriptor: int, count: int, digest: Digest) -> None:
    """Hash the first bytes of an open part, and leave its position behind them.

    :raises TransferError: there are fewer.
    """
    os.lseek(descriptor, 0, os.SEEK_SET)
    left = count
    while left:
        piece = os.read(descriptor, min(left, _PIECE_BYTES))
        if not piece:
            raise TransferError(f"the part ends {left:,} bytes before the {count:,} that were there")
        left -= len(piece)
        digest.update(piece)
