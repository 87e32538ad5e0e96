"""Remove a directory with everything in it, also what forbids to be removed, and also a bit at a time."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


class RemovalStoppedError(Exception):
    """A removal was called off before its end."""


def remove_tree(path: Path, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Remove a file, a link or a directory with everything in it; what is not there is no error.

    Directories that may not be written to, as a tree may have brought along, are made writable first.

    :param stop: is asked all the while; True ends the removal where it is.
    :raises RemovalStoppedError: it was ended so.
    :raises OSError: something cannot be removed.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        path.unlink(missing_ok=True)
        return
    try:
        _remove(path, stop)
    except PermissionError:
        _open_up(path)
        _remove(path, stop)


def _remove(path: Path, stop: Callable[[], bool]) -> None:
    if not hasattr(os, "fwalk"):
        shutil.rmtree(path)
        return
    for _, directories, files, descriptor in os.fwalk(path, topdown=False, onerror=_raise):
        for name in files:
            if stop():
                raise RemovalStoppedError
            _unless_gone(os.unlink, name, descriptor)
        for name in directories:
            _unless_gone(_remove_directory, name, descriptor)
    path.rmdir()


def _remove_directory(name: str, *, dir_fd: int) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except NotADirectoryError:
        os.unlink(name, dir_fd=dir_fd)  # a link to a directory


def _unless_gone(remove: Callable[..., None], name: str, descriptor: int) -> None:
    try:
        remove(name, dir_fd=descriptor)
    except FileNotFoundError:
        return  # somebody else removes it as well


def _raise(error: OSError) -> None:
    raise error


def _open_up(path: Path) -> None:
    """Make every directory of a tree writable for its owner, from the top down."""
    path.chmod(0o700)
    for above, directories, _ in os.walk(path):
        for name in directories:
            found = Path(above, name)
            if not found.is_symlink():
                found.chmod(0o700)
