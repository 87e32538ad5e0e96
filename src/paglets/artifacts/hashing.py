"""SHA-256 beside the input and output of the thread that moves the bytes."""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import Final, Self

#: From this many bytes on a thread pays for itself.
THREAD_BYTES: Final = 4 * 1024 * 1024
_PIECES_AHEAD: Final = 4
#: After how many more pieces the memory of one may be used again: those that wait, the one that is hashed, and itself.
PIECES_HELD: Final = _PIECES_AHEAD + 2


class Digest:
    """Compute a SHA-256 beside the input and output of the calling thread.

    Hashing costs about as much time as moving the bytes, and needs the interpreter for neither: from some size on it
    runs on a thread of its own. Use it as a context, or call `close`, which ends that thread.
    """

    def __init__(self, size: int = -1) -> None:
        """Begin with no bytes.

        :param size: how many there will be, where that is known; the thread then starts with the first of them.
        """
        self._digest = hashlib.sha256()
        self._inline = THREAD_BYTES if size < 0 else 0 if size >= THREAD_BYTES else size
        self._pieces: queue.Queue[bytes | memoryview | None] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next piece, which must not change until `PIECES_HELD` more were taken; wait while many are ahead."""
        if self._pieces is None and self._inline >= len(piece):
            self._inline -= len(piece)
            self._digest.update(piece)
            return
        if self._pieces is None:
            self._pieces = queue.Queue(_PIECES_AHEAD)
            self._thread = threading.Thread(target=self._work, args=(self._pieces,), name="paglets-hash", daemon=True)
            self._thread.start()
        self._pieces.put(piece)

    def close(self) -> None:
        """Wait for the last piece and end the thread; a second call does nothing."""
        if self._pieces is not None and self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    def hexdigest(self) -> str:
        """Return the checksum of all pieces; call it after the end of the context."""
        return self._digest.hexdigest()

    def _work(self, pieces: queue.Queue[bytes | memoryview | None]) -> None:
        while (piece := pieces.get()) is not None:
            self._digest.update(piece)
