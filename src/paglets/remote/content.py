"""The content of artifacts and blobs on its way out of and into files.

Hashing costs about as much time as everything else together, and needs the interpreter as little: it is done beside
the input and output, by a thread of its own.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from paglets.artifacts import ArtifactRef
from paglets.artifacts.compression import Compressor
from paglets.artifacts.errors import FileChangedError, io_error
from paglets.artifacts.hashing import THREAD_BYTES, Digest
from paglets.core.errors import TransferError
from paglets.remote.sockets import Connection, Deadline

__all__ = [
    "PIECE_BYTES",
    "CompressedBody",
    "ContentSink",
    "ContentSource",
    "FileBody",
    "Progress",
    "changed",
    "local_path",
    "open_source",
    "told",
]

# Large enough that calls do not count, small enough to stay in a cache between reading, hashing and writing.
PIECE_BYTES: Final = 256 * 1024

Progress = Callable[[int, int], None]
"""Told how many bytes of how many are done; called from the thread that moves them."""


def told(ref: ArtifactRef, progress: Progress | None) -> ArtifactRef:
    """Return the reference of an artifact that was moved as a whole, after telling that it was."""
    if progress is not None:
        progress(ref.size_bytes, ref.size_bytes)
    return ref


def local_path(path: str | Path) -> Path:
    """Return a path that a caller named, with `~` replaced."""
    return Path(path).expanduser()


def open_source(path: Path) -> BinaryIO:
    """Open a regular file for reading; raise `TransferError` if it is none or cannot be read."""
    try:
        if not path.is_file():
            raise TransferError(f"Not a file: {path}")
        return path.open("rb", buffering=0)
    except (OSError, ValueError) as exc:
        raise TransferError(f"Could not read {path}: {exc}") from exc


# --- out of a file ----------------------------------------------------------------------------------------------------


class ContentSource:
    """An open file as it is to be sent: its size, its checksum, and whether it stays as it is.

    Use it as a context, which ends its thread.
    """

    def __init__(self, stream: BinaryIO, path: Path, *, hashing: bool) -> None:
        self.stream = stream
        self.path = path
        self._status = os.fstat(stream.fileno())
        self.size = self._status.st_size
        self._threads: ThreadPoolExecutor | None = None
        self._sum: Future[str] | None = None
        self._ended = threading.Event()
        if hashing:
            self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        if self._threads is not None:
            self._threads.shutdown()

    def _begin(self) -> None:
        if self.size < THREAD_BYTES:
            self._sum = Future()
            self._sum.set_result(self._hash())
        else:
            self._threads = ThreadPoolExecutor(1, "paglets-hash")
            self._sum = self._threads.submit(self._hash)

    @property
    def sha256(self) -> str:
        """The checksum of the whole file, empty without hashing; waits for it.

        :raises TransferError: the file cannot be read.
        """
        return "" if self._sum is None else self._sum.result()

    def check_unchanged(self) -> None:
        """Raise `TransferError` if the file is no longer the one that was opened."""
        now = os.fstat(self.stream.fileno())
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
            self._status.st_size,
            self._status.st_mtime_ns,
            self._status.st_ctime_ns,
        ):
            raise changed(self.path)

    def _hash(self) -> str:
        digest = hashlib.sha256()
        room = memoryview(bytearray(min(PIECE_BYTES, max(1, self.size))))
        try:
            # A file object of its own: the other one is read at the same time.
            with self.path.open("rb", buffering=0) as stream:
                if not os.path.samestat(os.fstat(stream.fileno()), self._status):
                    raise changed(self.path)
                while not self._ended.is_set() and (count := stream.readinto(room)):
                    digest.update(room[:count])
        except OSError as exc:
            raise TransferError(f"Could not read {self.path}: {exc}") from exc
        return digest.hexdigest()


def changed(path: Path) -> FileChangedError:
    """Return the error for a file that is not what it was when its sending began."""
    return FileChangedError(f"{path} changed while it was sent")


@dataclass(slots=True)
class FileBody:
    """Part of an open file as the body of a request."""

    stream: BinaryIO
    path: Path
    offset: int
    count: int
    progress: Progress | None = None

    def pieces(self) -> Iterator[bytes]:
        """Yield it, for a fabric that has no socket.

        :raises TransferError: while iterating; the file is shorter by now.
        """
        done, end = self.offset, self.offset + self.count
        self.stream.seek(done)
        while done < end:
            data = self.stream.read(min(PIECE_BYTES, end - done))
            if not data:
                raise changed(self.path)
            done += len(data)
            if self.progress is not None:
                self.progress(done, end)
            yield data

    def write_to(self, connection: Connection, deadline: Deadline) -> bool:
        """Send it; return True if the peer answered before the end and the rest was left unsent.

        :raises TransferError: the file is shorter by now, or cannot be read.
        """
        done, end = self.offset, self.offset + self.count
        while done < end:
            if connection.readable_now():
                return True
            sent = connection.send_file(self.stream, done, end - done, deadline)
            if not sent:
                raise changed(self.path)
            done += sent
            if self.progress is not None:
                self.progress(done, end)
        return False


@dataclass(slots=True)
class CompressedBody:
    """Part of an open file as the chunks of a compressed request."""

    stream: BinaryIO
    path: Path
    offset: int
    count: int
    progress: Progress | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Start at the offset.

        :raises TransferError: while iterating; the file is shorter by now, or cannot be read.
        """
        frame = Compressor()
        done, end = self.offset, self.offset + self.count
        while done < end:
            try:
                self.stream.seek(done)
                piece = self.stream.read(min(PIECE_BYTES, end - done))
            except OSError as exc:
                raise TransferError(f"Could not read {self.path}: {exc}") from exc
            if not piece:
                raise changed(self.path)
            done += len(piece)
            if ready := frame.feed(piece):
                yield ready
            if self.progress is not None:
                self.progress(done, end)
        yield frame.finish()


# --- into a file ------------------------------------------------------------------------------------------------------


class ContentSink:
    """Write received pieces to a stream and tell whether they are the content of an artifact.

    Use it as a context around the writing; `check` comes after it.

    :param target: where the stream ends up, for errors.
    """

    def __init__(self, ref: ArtifactRef, stream: BinaryIO, target: Path) -> None:
        self._ref = ref
        self._stream = stream
        self._target = target
        self._digest = Digest(ref.size_bytes)
        self.size = 0
        """Bytes that are written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._digest.close()

    def restart(self) -> None:
        """Forget what was written."""
        if not self.size:
            return
        self._digest.close()
        self._digest = Digest(self._ref.size_bytes)
        self._stream.seek(0)
        self._stream.truncate()
        self.size = 0

    def write(self, piece: bytes | memoryview) -> None:
        """Write the next piece, which must stay as `Digest.update` says.

        :raises TransferError: there are more bytes than announced, or the disk does not take them.
        """
        if self.size + len(piece) > self._ref.size_bytes:
            raise TransferError(
                f"artifact {self._ref.artifact_id}: received more than its {self._ref.size_bytes} bytes"
            )
        self._digest.update(piece)
        try:
            self._stream.write(piece)
        except OSError as exc:
            what = f"Artifact {self._ref.artifact_id} cannot be written"
            raise io_error(what, self._target, exc) from exc
        self.size += len(piece)

    def check(self, announced: str | None) -> None:
        """Raise `TransferError` unless all bytes came and have the right checksum.

        :param announced: the checksum that came with the content, if any.
        """
        if self.size != self._ref.size_bytes:
            raise TransferError(
                f"artifact {self._ref.artifact_id}: received {self.size} of {self._ref.size_bytes} bytes"
            )
        found = self._digest.hexdigest()
        for expected in (self._ref.sha256, announced):
            if expected and expected.lower() != found:
                raise TransferError(
                    f"artifact {self._ref.artifact_id}: received content with checksum {found}, expected {expected}"
                )
