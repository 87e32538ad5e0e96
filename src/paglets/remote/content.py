"""Read and write the content of artifacts piece by piece, counting and hashing on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

from paglets.artifacts import ArtifactRef
from paglets.artifacts.hashing import Digest
from paglets.core.errors import TransferError

__all__ = ["PIECE_BYTES", "ContentSink", "ContentSource", "local_path", "open_source"]

# Large enough that calls do not count, small enough to stay in a cache between reading, hashing and sending.
PIECE_BYTES: Final = 256 * 1024


def local_path(path: str | Path) -> Path:
    """Return a path that a caller named, with `~` replaced."""
    return Path(path).expanduser()


def open_source(path: Path) -> BinaryIO:
    """Open a regular file for reading; raise `TransferError` if it is none or cannot be read."""
    try:
        if not path.is_file():
            raise TransferError(f"Not a file: {path}")
        return path.open("rb", buffering=0)
    except OSError as exc:
        raise TransferError(f"Could not read {path}: {exc}") from exc


class ContentSource:
    """Give the content of an open file as pieces that add up to the size it had at first.

    :raises TransferError: while iterating; the file cannot be read or its size changed.
    """

    def __init__(self, stream: BinaryIO, path: Path, *, hashing: bool) -> None:
        self._stream = stream
        self._path = path
        self._hashing = hashing
        self.size = os.fstat(stream.fileno()).st_size
        self.sha256 = ""
        """The checksum, there with the last piece; empty without hashing."""

    def __iter__(self) -> Iterator[bytes]:
        """Start at the beginning of the file."""
        if not self._hashing:
            yield from self._pieces()
            return
        # One behind: whoever has the last piece may ask for the checksum.
        last = b""
        with Digest(self.size) as digest:
            for piece in self._pieces():
                digest.update(piece)
                if last:
                    yield last
                last = piece
        self.sha256 = digest.hexdigest()
        if last:
            yield last

    def _pieces(self) -> Iterator[bytes]:
        left = self.size
        try:
            self._stream.seek(0)
            while left and (piece := self._stream.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                if not left and os.fstat(self._stream.fileno()).st_size != self.size:
                    break
                yield piece
            else:
                if not left:
                    return
        except OSError as exc:
            raise TransferError(f"Could not read {self._path}: {exc}") from exc
        raise TransferError(f"{self._path} changed while it was sent")


class ContentSink:
    """Write received pieces to a stream and tell whether they are the content of an artifact.

    Use it as a context around the writing; `check` comes after it.
    """

    def __init__(self, ref: ArtifactRef, stream: BinaryIO) -> None:
        self._ref = ref
        self._stream = stream
        self._digest = Digest(ref.size_bytes)
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._digest.__exit__(*error)

    def write(self, piece: bytes) -> None:
        """Write the next piece; raise `TransferError` as soon as there are more bytes than announced."""
        self._size += len(piece)
        if self._size > self._ref.size_bytes:
            raise TransferError(
                f"artifact {self._ref.artifact_id}: received more than its {self._ref.size_bytes} bytes"
            )
        self._digest.update(piece)
        self._stream.write(piece)

    def check(self, announced: str | None) -> None:
        """Raise `TransferError` unless all bytes came and have the right checksum.

        :param announced: the checksum that came with the content, if any.
        """
        if self._size != self._ref.size_bytes:
            raise TransferError(
                f"artifact {self._ref.artifact_id}: received {self._size} of {self._ref.size_bytes} bytes"
            )
        found = self._digest.hexdigest()
        for expected in (self._ref.sha256, announced):
            if expected and expected.lower() != found:
                raise TransferError(
                    f"artifact {self._ref.artifact_id}: received content with checksum {found}, expected {expected}"
                )
