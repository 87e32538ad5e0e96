"""A file system of a few megabytes of its own, which can be full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BALLAST = "ballast"
_PIECE = b"\0" * 65536


class CannotMountError(Exception):
    """This process may not mount anything here; the text says why."""


class SmallDisk:
    """A mounted file system."""

    def __init__(self, path: Path, nbytes: int) -> None:
        self.path = path
        path.mkdir(parents=True)
        if os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0:
            raise CannotMountError("only root can mount a small file system")
        _mount("-t", "tmpfs", "-o", f"size={nbytes},mode=700", "tmpfs", str(path))

    def fill(self) -> None:
        """Leave no room for a single byte."""
        with (self.path / _BALLAST).open("ab", buffering=0) as ballast:
            piece = _PIECE
            while piece:
                try:
                    ballast.write(piece)
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    piece = piece[: len(piece) // 2]

    def make_room(self) -> None:
        """Give back what was filled."""
        (self.path / _BALLAST).unlink()

    def read_only(self) -> None:
        """Refuse every write from now on; nobody may have a file open for writing."""
        _mount("-o", "remount,ro", str(self.path))

    def read_write(self) -> None:
        """Take writes again."""
        _mount("-o", "remount,rw", str(self.path))

    def close(self) -> None:
        """Take it away with everything on it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise CannotMountError("there is no mount command here") from None
    if done.returncode:
        raise CannotMountError(done.stderr.strip())


@contextmanager
def small_disk(path: Path, nbytes: int) -> Iterator[SmallDisk]:
    """Give a small disk and take it away again."""
    disk = SmallDisk(path, nbytes)
    try:
        yield disk
    finally:
        disk.close()
