"""Read files piece by piece, each piece whole lines, without ever holding a large one."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from typing import Final

#: What is read at once. Most files are smaller, and need no second look.
BLOCK_BYTES: Final = 256 * 1024
#: The longest line that is kept whole; of a longer one only the beginning is searched.
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
#: Where a NUL makes a file a binary one.
BINARY_PROBE_BYTES: Final = 8 * 1024

#: A named pipe, or a device, that took the place of a file must neither block nor become our terminal.
_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class Room:
    """Where the beginning of one file after the other is read to."""

    def __init__(self) -> None:
        self.content = bytearray(BLOCK_BYTES)
        self._view = memoryview(self.content)

    def open(self, path: str) -> int:
        """Open a file and return its descriptor.

        :raises OSError: it cannot be read.
        """
        return os.open(path, _FLAGS)

    def fill(self, descriptor: int) -> int:
        """Read until the room is full or the file ends, and return how many bytes there are.

        :raises OSError: it cannot be read.
        """
        size = os.readv(descriptor, [self.content]) if _VECTORED else self._read_into(descriptor, 0)
        if not size or size == BLOCK_BYTES:
            return size
        # A file that is no ordinary one, below /proc for example, comes in pieces.
        while size < BLOCK_BYTES and (more := self._read_into(descriptor, size)):
            size += more
        return size

    def _read_into(self, descriptor: int, begin: int) -> int:
        if _VECTORED:
            return os.readv(descriptor, [self._view[begin:]])
        read = os.read(descriptor, BLOCK_BYTES - begin)
        self._view[begin : begin + len(read)] = read
        return len(read)


_VECTORED: Final = hasattr(os, "readv")


def line_blocks(descriptor: int, first: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield a file in pieces that end with a line, and whether the last line of the piece was cut.

    :param first: what was read from the beginning.
    :raises OSError: it cannot be read on.
    """
    pending = first
    while True:
        end = pending.rfind(b"\n") + 1
        if end:
            yield pending[:end], False
            pending = pending[end:]
        elif len(pending) > MAX_LINE_BYTES:
            yield pending[:MAX_LINE_BYTES] + b"\n", True
            pending = _after_line(descriptor)
            if not pending:
                return
            continue
        more = os.read(descriptor, BLOCK_BYTES)
        if not more:
            if pending:
                yield pending, False
            return
        pending += more


def _after_line(descriptor: int) -> bytes:
    """Return what is read behind the end of the present line."""
    while more := os.read(descriptor, BLOCK_BYTES):
        end = more.find(b"\n") + 1
        if end:
            return more[end:] or os.read(descriptor, BLOCK_BYTES)
    return b""


def text_blocks(descriptor: int, first: bytes, encoding: str) -> Iterator[tuple[str, bool]]:
    """Yield a file in an encoding whose lines cannot be told apart undecoded, as `line_blocks` does."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    pending = ""
    piece = first
    cut = False
    while True:
        more = decoder.decode(piece, final=not piece)
        if cut:
            end = more.find("\n") + 1
            more, cut = (more[end:], False) if end else ("", True)
        pending += more
        end = pending.rfind("\n") + 1
        if end:
            yield pending[:end], False
            pending = pending[end:]
        elif len(pending) > MAX_LINE_BYTES:
            yield pending[:MAX_LINE_BYTES] + "\n", True
            pending, cut = "", True
        if not piece:
            if pending:
                yield pending, False
            return
        piece = os.read(descriptor, BLOCK_BYTES)
