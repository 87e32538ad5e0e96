"""Copy and hash files and streams in pieces."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from paglets.artifacts.errors import io_error
from paglets.core.errors import TransferError
from paglets.persistence.atomic import make_directories, replacing

STREAM_CHUNK_BYTES: Final = 1024 * 1024


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in lower-case hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def copy_stream(source: Any, target: Any, *, expected_bytes: int | None = None) -> tuple[int, str]:
    """Copy a binary stream in chunks and return the number of bytes with their SHA-256 in lower-case hex.

    :raises TransferError: the source holds fewer or more bytes than expected; it is not read further than to find out.
    """
    digest = hashlib.sha256()
    count = 0
    while chunk := source.read(STREAM_CHUNK_BYTES):
        count += len(chunk)
        if expected_bytes is not None and count > expected_bytes:
            raise TransferError(f"Received more than the expected {expected_bytes} bytes")
        digest.update(chunk)
        target.write(chunk)
    if expected_bytes is not None and count != expected_bytes:
        raise TransferError(f"Received {count} of the expected {expected_bytes} bytes")
    return count, digest.hexdigest()


def copy_path(source: str | Path, target: str | Path) -> None:
    """Copy a file durably; the target, whose parents are created, is the old or the complete new file at any time.

    :raises TransferError: the source is no file.
    """
    origin = existing_file(source)
    destination = Path(target).expanduser().absolute()
    make_directories(destination.parent)
    with origin.open("rb") as reader, replacing(destination) as writer:
        shutil.copyfileobj(reader, writer, STREAM_CHUNK_BYTES)


@contextmanager
def replacing_target(target: Path, what: str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open the file that takes the place of one that a caller named, like `replacing`; its directories are created.

    :param what: what was not possible, as the beginning of a sentence.
    :raises TransferError: the target is anything but a regular file, or cannot be written. What is raised inside is
        passed on.
    """
    inside: OSError | None = None
    try:
        make_directories(target.parent)
    except OSError as error:
        raise io_error(f"{what}: its directory cannot be made", target.parent, error) from error
    try:
        _check_replaceable(target, what)
        with replacing(target, durable=durable) as stream:
            try:
                yield stream
            except OSError as error:
                inside = error
                raise
    except OSError as error:
        if error is inside:
            raise
        raise io_error(what, target, error) from error


def _check_replaceable(target: Path, what: str) -> None:
    """Raise `TransferError` where a rename would take away something else than a file, such as a device or a pipe."""
    if target.is_dir():
        raise TransferError(f"{what}: {target} is a directory; name a file in it")
    if target.exists() and not target.is_file():
        raise TransferError(f"{what}: {target} is no regular file, and is not replaced; name a file")


def existing_path(path: str | Path) -> Path:
    """Return the resolved path of an existing file or directory.

    :raises TransferError: there is neither at it.
    """
    resolved = Path(path).expanduser().resolve()
    if not resolved.is_file() and not resolved.is_dir():
        raise TransferError(f"Not a file or directory: {resolved}")
    return resolved


def existing_file(path: str | Path) -> Path:
    """Return the resolved path of an existing file.

    :raises TransferError: there is no file at it.
    """
    resolved = Path(path).expanduser().resolve()
    if not resolved.is_file():
        raise TransferError(f"Not a file: {resolved}")
    return resolved
