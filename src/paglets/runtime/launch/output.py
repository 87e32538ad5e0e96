"""Carry what paglet processes print to the host's own standard output and error, without ever making them wait.

A paglet that floods its output, or a host whose output nobody reads, must not stop another paglet's ``print``. What
does not fit into the buffer is dropped, and how much was dropped is said in its place.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque

_READ_BYTES = 64 * 1024
_WRITE_BYTES = 4096  # PIPE_BUF: a write of this size to a pipe that polls writable does not block
BUFFER_BYTES = 1024 * 1024


class _Stream:
    def __init__(self, target_fd: int) -> None:
        self.target_fd = target_fd
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.pending: deque[bytes] = deque()
        self.pending_bytes = 0
        self.dropped = 0
        self.ended = False

    def take(self) -> None:
        """Read what is there; keep it, or count it as dropped when the buffer is full."""
        try:
            data = os.read(self.read_fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.ended = True
            return
        if self.pending_bytes + len(data) > BUFFER_BYTES:
            self.dropped += len(data)
            return
        if self.dropped:
            note = f"\n[paglets: {self.dropped} bytes of output dropped, nobody read them in time]\n".encode()
            self.dropped = 0
            self._append(note)
        self._append(data)

    def _append(self, data: bytes) -> None:
        for start in range(0, len(data), _WRITE_BYTES):
            self.pending.append(data[start : start + _WRITE_BYTES])
        self.pending_bytes += len(data)

    def give(self) -> None:
        """Write one piece; output that nobody can receive any more is forgotten."""
        piece = self.pending[0]
        try:
            written = os.write(self.target_fd, piece)
        except OSError:
            self.pending.clear()
            self.pending_bytes = 0
            return
        self.pending_bytes -= written
        if written == len(piece):
            self.pending.popleft()
        else:
            self.pending[0] = piece[written:]


class OutputPump:
    """Own the pipes that paglet processes use as standard output and error, and the one thread that empties them."""

    def __init__(self, stdout_fd: int = 1, stderr_fd: int = 2) -> None:
        self._streams = (_Stream(stdout_fd), _Stream(stderr_fd))
        self._thread = threading.Thread(target=self._run, name="paglets-output", daemon=True)
        self._thread.start()

    @property
    def write_fds(self) -> tuple[int, int]:
        """The descriptors that children get as standard output and error."""
        return self._streams[0].write_fd, self._streams[1].write_fd

    def seal(self) -> None:
        """Close this process's write ends, so that the pump ends with the last process that prints."""
        for stream in self._streams:
            os.close(stream.write_fd)

    def join(self, timeout: float) -> None:
        """Wait until everything printed was passed on or ``timeout`` seconds passed."""
        self._thread.join(timeout)

    def _run(self) -> None:
        open_streams = list(self._streams)
        while open_streams:
            poller = select.poll()
            by_read = {stream.read_fd: stream for stream in open_streams if not stream.ended}
            by_write: dict[int, list[_Stream]] = {}
            for stream in open_streams:
                if stream.pending:
                    by_write.setdefault(stream.target_fd, []).append(stream)
            for fd in by_read:
                poller.register(fd, select.POLLIN)
            for fd in by_write:
                poller.register(fd, select.POLLOUT)
            for fd, event in poller.poll():
                if fd in by_read:
                    by_read[fd].take()
                elif event & select.POLLNVAL:
                    for stream in by_write[fd]:
                        stream.pending.clear()
                        stream.pending_bytes = 0
                else:
                    for stream in by_write[fd]:
                        stream.give()
            for stream in list(open_streams):
                if stream.ended and not stream.pending:
                    os.close(stream.read_fd)
                    open_streams.remove(stream)
