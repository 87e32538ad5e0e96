"""Files that are either the old ones or the new ones, whatever dies in between."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_PART_NAME = re.compile(r"\.paglets-[0-9a-f]{16}\.part")


def is_part_name(name: str) -> bool:
    """Return whether a file of this name is an unfinished write of `replacing`."""
    return _PART_NAME.fullmatch(name) is not None


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable; a no-op where a directory cannot be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> None:
    """Create a directory with its parents, each of them durable."""
    missing: list[Path] = []
    current = path
    while not current.exists():
        missing.append(current)
        current = current.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        fsync_directory(directory.parent)
    # An existing file in that place is the caller's mistake and is reported as such.
    path.mkdir(exist_ok=True)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a hidden sibling for writing that takes the place of `path` when the block ends without an error.

    The new content and its name are on disk when the block has been left. On an error the sibling is removed and `path`
    is as before. The permission bits of an existing file are kept.

    :param durable: without it the content need not be on disk yet, only be the new one as a whole for whoever looks.
    """
    part = path.with_name(f".paglets-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            with suppress(FileNotFoundError):
                part.chmod(path.stat().st_mode & 0o7777)
            if durable:
                os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        fsync_directory(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of a file atomically and durably; its directory must exist."""
    with replacing(path) as stream:
        stream.write(data)
