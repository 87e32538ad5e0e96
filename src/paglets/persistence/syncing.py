"""Have a great many new files on disk at once."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

# Older kernels do not say when something could not be written.
_REPORTS_ERRORS = (5, 8)


def can_sync_file_system() -> bool:
    """Return whether this system can sync a file system as a whole, and says whether that went well."""
    return _syncfs() is not None


def sync_file_system(path: Path) -> None:
    """Have everything on disk that was written to the file system of ``path``, by whomever.

    Ten thousand new files take a tenth of the time that one sync for each does.

    :raises OSError: something could not be written, or this system cannot do that.
    """
    syncfs = _syncfs()
    if syncfs is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), str(path))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        number = syncfs(descriptor)
        if number:
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


@cache
def _syncfs() -> Callable[[int], int] | None:
    """Return what calls ``syncfs`` and returns 0 or the number of its error; Python has no such function."""
    if not sys.platform.startswith("linux") or _kernel_version() < _REPORTS_ERRORS:
        return None
    import ctypes  # not in every process that imports this module

    library = ctypes.CDLL(None, use_errno=True)
    function = getattr(library, "syncfs", None)
    if function is None:
        return None
    function.argtypes, function.restype = (ctypes.c_int,), ctypes.c_int

    def call(descriptor: int) -> int:
        return ctypes.get_errno() if function(descriptor) else 0

    return call


def _kernel_version() -> tuple[int, int]:
    major, _, rest = os.uname().release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
