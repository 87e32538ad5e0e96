"""Remove a directory with everything in it, also what forbids to be removed."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a directory with everything in it; what is not there is no error.

    Directories that may not be written to, as a tree may have brought along, are made writable first.

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
        shutil.rmtree(path)
    except PermissionError:
        _open_up(path)
        shutil.rmtree(path)
    except FileNotFoundError:
        # Something else removes it as well; what is left goes now.
        shutil.rmtree(path, ignore_errors=True)


def _open_up(path: Path) -> None:
    """Make every directory of a tree writable for its owner, from the top down."""
    path.chmod(0o700)
    for above, directories, _ in os.walk(path):
        for name in directories:
            found = Path(above, name)
            if not found.is_symlink():
                found.chmod(0o700)
