"""Hold a byte string that may be too large to copy around: in memory, or in a sealed memory file passed by
descriptor."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Sequence

from paglets.runtime import platform

#: Byte strings of this size and above are handed over as a memory file instead of through the socket.
DESCRIPTOR_THRESHOLD_BYTES = 256 * 1024

#: Closing a memory file of this size takes noticeable time.
SLOW_CLOSE_BYTES = 4 * 1024 * 1024

Buffer = bytes | bytearray | memoryview


class _Closer:
    """Close large memory files in a thread of its own: giving back 64 MB of pages takes several milliseconds."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[int, memoryview | None]] = queue.SimpleQueue()
        self._started = False

    def put(self, item: tuple[int, memoryview | None]) -> None:
        """Close a descriptor and forget its mapping, soon."""
        if self._pid != os.getpid():
            self._begin()  # the thread stayed in the process that this one was forked from
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="paglets-closer", daemon=True).start()
        self._queue.put(item)

    def _run(self) -> None:
        while True:
            fd, view = self._queue.get()
            del view
            _close(fd)


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


_closer = _Closer()


class Attachment:
    """Hold bytes that belong to a frame; close it when they are no longer needed."""

    __slots__ = ("_content", "_fd", "_view", "nbytes")

    def __init__(self, content: bytes | None, fd: int, nbytes: int) -> None:
        self._content = content
        self._fd = fd
        self._view: memoryview | None = None
        self.nbytes = nbytes

    @classmethod
    def of(cls, segments: Sequence[Buffer]) -> Attachment:
        """Hold the concatenation of ``segments``, in a memory file when it is large and can be passed on.

        :raises OSError: no memory or descriptors left.
        """
        nbytes = sum(map(len, segments))
        if nbytes >= DESCRIPTOR_THRESHOLD_BYTES and platform.can_pass_descriptors():
            return cls(None, platform.memory_file("paglets", segments), nbytes)
        return cls(bytes(segments[0]) if len(segments) == 1 else b"".join(segments), -1, nbytes)

    @classmethod
    def received(cls, fd: int, nbytes: int) -> Attachment:
        """Take over a descriptor that a peer sent."""
        return cls(None, fd, nbytes)

    @property
    def fd(self) -> int:
        """The descriptor of the memory file, -1 when the bytes are held in memory."""
        return self._fd

    def view(self) -> memoryview:
        """Return the bytes for reading.

        :raises OSError: the file is shorter than its sender announced.
        """
        if self._view is None:
            if self._content is not None:
                self._view = memoryview(self._content)
            else:
                self._view = platform.map_file(self._fd, self.nbytes)
        return self._view

    def bytes(self) -> bytes:
        """Return the bytes as one object, copying a memory file."""
        return self._content if self._content is not None else bytes(self.view())

    def close(self) -> None:
        """Give the memory back; views handed out keep the mapping alive until they are gone."""
        view, self._view = self._view, None
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self.nbytes >= SLOW_CLOSE_BYTES:
            _closer.put((fd, view))
        else:
            _close(fd)

    def __del__(self) -> None:
        self.close()


EMPTY = Attachment(b"", -1, 0)


class AttachmentWriter:
    """Collect bytes as they arrive; what grows large goes straight into a memory file."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._fd = -1
        self.nbytes = 0

    def write(self, piece: Buffer) -> None:
        """Take the next bytes.

        :raises OSError: no memory or descriptors left.
        """
        self.nbytes += len(piece)
        if self._fd >= 0:
            platform.write_all(self._fd, [piece])
            return
        self._head += piece
        if len(self._head) >= DESCRIPTOR_THRESHOLD_BYTES and platform.can_pass_descriptors():
            self._fd = platform.open_memory_file("paglets")
            platform.write_all(self._fd, [self._head])
            self._head = bytearray()

    def finish(self) -> Attachment:
        """Return everything that was written."""
        if self._fd < 0:
            return Attachment(bytes(self._head), -1, self.nbytes) if self.nbytes else EMPTY
        platform.seal(self._fd)
        fd, self._fd = self._fd, -1
        return Attachment(None, fd, self.nbytes)

    def close(self) -> None:
        """Give the memory of an unfinished writer back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()
