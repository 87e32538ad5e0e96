"""The body of a request to object storage: a part of a file, and the time that it may take."""

from __future__ import annotations

import io
import os
import threading
import time
from typing import Any, BinaryIO

from paglets.core.errors import StorageUnavailableError

__all__ = ["FilePart", "TimeBudget"]


class TimeBudget:
    """The seconds that a transfer may spend on waiting, so that one which trickles ends too.

    :param place: where it goes, for the error.
    :param over: set when every transfer is to end.
    """

    def __init__(self, seconds: float, place: str, over: threading.Event) -> None:
        self._left = seconds
        self._place = place
        self._over = over

    @property
    def exhausted(self) -> bool:
        """Whether more was spent than there was."""
        return self._left < 0 or self._over.is_set()

    def spend(self, seconds: float) -> None:
        """Take time off the budget.

        :raises StorageUnavailableError: there is nothing left of it.
        """
        self._left -= seconds
        if self.exhausted:
            raise self.error()

    def error(self) -> StorageUnavailableError:
        """Return what to raise when it is exhausted."""
        if self._over.is_set():
            return StorageUnavailableError(f"{self._place} is not used any more: the host stops")
        return StorageUnavailableError(f"{self._place} is too slow; try again later")


class FilePart(io.RawIOBase):
    """A part of an open file as a file of its own; several parts of one file may be read at the same time.

    :param budget: the time between two reads is taken from it.
    """

    def __init__(self, stream: BinaryIO, start: int, length: int, budget: TimeBudget) -> None:
        super().__init__()
        self._descriptor = stream.fileno()
        self._start = start
        self._length = length
        self._position = 0
        self.budget = budget
        self._last = time.monotonic()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Have the next read begin somewhere else, and return where."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is content, and return how far.

        :raises StorageUnavailableError: the time is over.
        """
        now = time.monotonic()
        self.budget.spend(now - self._last)
        self._last = now
        with memoryview(buffer) as view:
            wanted = max(0, min(len(view), self._length - self._position))
            count = os.preadv(self._descriptor, [view[:wanted]], self._start + self._position) if wanted else 0
        self._position += count
        return count
