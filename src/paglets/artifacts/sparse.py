"""Write files without giving disk space to what is zero, and copy them as they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Final

HOLE_BYTES: Final = 64 * 1024
_ZEROS: Final = bytes(HOLE_BYTES)


class SparseFile:
    """Write to the end of an open file; long runs of zeros become holes where the disk has such.

    :param descriptor: of the file, positioned at its end; it stays the caller's.
    :param nbytes: how long the file is.
    :param is_room: is asked when the disk takes no more; True has the writing tried again.
    """

    def __init__(
        self, descriptor: int, nbytes: int = 0, *, is_room: Callable[[OSError], bool] = lambda _: False
    ) -> None:
        self._descriptor = descriptor
        self._is_room = is_room
        self.nbytes = nbytes
        """How long the file is, holes included."""
        self._ends_in_hole = False

    def write(self, piece: bytes | memoryview) -> None:
        """Write the next bytes.

        :raises OSError: the disk does not take them.
        """
        view = memoryview(piece)
        start = 0
        """Where the bytes begin that are to be written."""
        for here in range(0, len(view), HOLE_BYTES):
            part = view[here : here + HOLE_BYTES]
            # The ends first, since a look at them is enough for almost everything.
            if len(part) == HOLE_BYTES and not part[0] and not part[-1] and bytes(part) == _ZEROS:
                self._write(view[start:here])
                start = here + HOLE_BYTES
                os.lseek(self._descriptor, HOLE_BYTES, os.SEEK_CUR)
                self._ends_in_hole = True
        self._write(view[start:])
        self.nbytes += len(view)

    def finish(self) -> None:
        """Give the file its length where it ends in a hole; more may be written."""
        if self._ends_in_hole:
            os.ftruncate(self._descriptor, self.nbytes)
            self._ends_in_hole = False

    def _write(self, view: memoryview) -> None:
        while view:
            try:
                written = os.write(self._descriptor, view)
            except OSError as error:
                if self._is_room(error):
                    continue
                raise
            view = view[written:]
            self._ends_in_hole = False


def data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Give where an open file has data, as pairs of beginning and end; what is between them is zero.

    :param size: how long the file is.
    """
    position = 0
    while position < size:
        if not hasattr(os, "SEEK_DATA"):
            yield position, size
            return
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # which says that there is nothing but a hole
                yield position, size
            return
        yield start, min(end, size)
        position = end
