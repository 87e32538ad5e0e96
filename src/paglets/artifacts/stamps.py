"""Tell whether a file is still the one that was looked at, without reading it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from paglets.core.errors import TransferError


class FileChangedError(TransferError):
    """A file is no longer what it was when it was looked at; whoever reads it begins again."""


class Stamp(NamedTuple):
    """What changes with the content of a file; as long as all five are the same, the bytes are."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp of a file whose status was asked for."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def ensure_same(stamp: Stamp, status: os.stat_result, path: Path | str) -> None:
    """Compare a file with what it was.

    :raises FileChangedError: it has been changed, or replaced by another one.
    """
    if Stamp.of(status) != stamp:
        raise FileChangedError(f"file {path} was changed while it was read")
