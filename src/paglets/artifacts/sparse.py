"""Write files without giving disk space to what is zero, and copy them as they are."""

from __future__ import annotations

import os
from typing import Final

HOLE_BYTES: Final = 64 * 1024
_ZEROS: Final = bytes(HOLE_BYTES)


class SparseFile:
    """Write to an open, empty file from its beginning; long runs of zeros become holes where the disk has such.

    :param descriptor: of the file; it stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.nbytes = 0
        """How much was written, holes included."""
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
        """Give the file its length where it ends in a hole."""
        if self._ends_in_hole:
            os.ftruncate(self._descriptor, self.nbytes)

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[os.write(self._descriptor, view) :]
            self._ends_in_hole = False
