"""Where the content of artifacts lies when it is not only on the disk of their host."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol

__all__ = ["BlobBackend"]


class BlobBackend(Protocol):
    """Keep blobs under the SHA-256 of their content, for one host alone.

    Methods block on the network and may be called from several threads; each is bounded in time. A blob is there whole
    or not at all. What comes back is not verified here: whoever reads a blob compares its checksum.

    Methods raise `StorageUnavailableError` when the place cannot be reached, refuses the credentials or is too slow,
    and `InsufficientStorageError` when it has no room.
    """

    @property
    def location(self) -> str:
        """Where it is, for people and to recognise it again; without credentials."""
        ...

    def put(self, sha256: str, path: Path) -> None:
        """Store a file as the blob of this checksum; it has the blob when this returns, and not before."""
        ...

    def read(self, sha256: str, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        """Give a part of a blob in pieces of at most 1 MB; None takes all from `start` on.

        Close the iterator, or take all of it.

        :raises NotStoredError: while iterating; there is no such blob.
        """
        ...

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, or None where there is no such blob."""
        ...

    def delete(self, sha256: str) -> None:
        """Remove a blob; no error where there is none."""
        ...

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Give the checksum and size of every blob, in no order."""
        ...

    def sweep(self) -> int:
        """Remove what broken uploads left and return how many there were; those under way here go on."""
        ...

    def close(self) -> None:
        """End what is under way and let go of connections and threads; no other method may be called after it."""
        ...
