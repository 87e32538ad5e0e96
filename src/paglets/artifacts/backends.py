"""Where the content of artifacts lies when it is not only on the disk of their host."""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final, Protocol

from paglets.artifacts.errors import io_error
from paglets.artifacts.s3_location import S3Location
from paglets.core.errors import HostError
from paglets.persistence.atomic import make_directories, write_bytes

__all__ = ["BlobBackend", "artifact_place", "open_backend"]

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_STORE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def artifact_place(text: str) -> Path | S3Location:
    """Return where a host is told to keep its artifacts: a directory, or a place in object storage.

    :raises ValueError: it is neither; the text repeats no part that may be secret.
    """
    if _SCHEME.match(text):
        return S3Location.parse(text)
    if not text.strip() or "\0" in text:
        raise ValueError("The place of artifacts must be a directory or s3://BUCKET")
    return Path(text).expanduser().absolute()


def open_backend(location: S3Location, root: Path) -> BlobBackend:
    """Return the backend of a place in object storage for one host. It connects when it is first used.

    :param root: the directory of the host's artifacts. It gets an id, which tells the host's objects from those of
        others at the same place.
    :raises HostError: the extra `paglets[s3]` is not installed.
    :raises TransferError: the directory cannot be used.
    """
    try:
        from paglets.artifacts.s3 import S3Backend
    except ImportError as error:
        raise HostError(f"Artifacts in object storage need paglets[s3]: {error}") from error
    return S3Backend(location, _store_id(root))


def _store_id(root: Path) -> str:
    path = root / "store-id"
    try:
        make_directories(root)
        known = path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else ""
        if not _STORE_ID.fullmatch(known):
            known = secrets.token_hex(16)
            write_bytes(path, f"{known}\n".encode())
    except OSError as error:
        raise io_error("The store of artifacts cannot be opened", root, error) from error
    return known


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
