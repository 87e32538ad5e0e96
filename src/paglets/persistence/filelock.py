"""One exclusive lock on an open file, the same on every operating system."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
    import time

    _RETRY_SECONDS = 0.02
    # Windows locks are mandatory: the locked byte lies far behind the text, so that others can still read who holds it.
    _LOCKED_BYTE = 0x7FFF_0000

    def lock_file(descriptor: int, *, blocking: bool) -> bool:
        """Lock the open file exclusively; return whether this caller now holds it."""
        while True:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError:
                if not blocking:
                    return False
                time.sleep(_RETRY_SECONDS)
            else:
                return True

    def unlock_file(descriptor: int) -> None:
        """Give back the lock taken with `lock_file`."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock_file(descriptor: int, *, blocking: bool) -> bool:
        """Lock the open file exclusively; return whether this caller now holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock_file(descriptor: int) -> None:
        """Give back the lock taken with `lock_file`."""
        # Said aloud although closing would do: a forked child may still hold a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file, created when absent; wait for other threads and processes.

    The file itself stays: removing it would let two holders lock two different files under one name.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        lock_file(descriptor, blocking=True)
        try:
            yield
        finally:
            unlock_file(descriptor)
    finally:
        os.close(descriptor)
