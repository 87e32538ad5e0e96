"""Pairs of connected sockets in memory, between a host and a paglet of a testing mesh."""

from __future__ import annotations

import itertools
import os
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from paglets.testing.scheduler import MeshThread, Scheduler, this_thread

_numbers = itertools.count(1 << 24)
_sockets: weakref.WeakValueDictionary[int, MemorySocket] = weakref.WeakValueDictionary()


def socket_of(fd: int) -> MemorySocket:
    """Return the socket of a number that looks like a descriptor."""
    return _sockets[fd]


class MemorySocket:
    """One end of a stream; as much of `socket.socket` as hosts and paglets use between each other."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._fd = next(_numbers)
        self._incoming: deque[bytes] = deque()
        self._descriptors: deque[int] = deque()
        self._ended = False
        self._closed = False
        self._reader: MeshThread | None = None
        self.peer: MemorySocket
        self.told = False
        """Whether the loop knows that something can be read."""
        self.on_readable: Callable[[MemorySocket], None] | None = None
        _sockets[self._fd] = self

    @property
    def readable(self) -> bool:
        """Whether reading would not wait."""
        return bool(self._incoming) or self._ended

    def fileno(self) -> int:
        """Return a number by which the loop knows the socket."""
        return self._fd

    def send(self, data: Any) -> int:
        """Send all of some bytes."""
        return self.sendmsg([data])

    def sendall(self, data: Any) -> None:
        """Send all of some bytes."""
        self.sendmsg([data])

    def sendmsg(self, chunks: Iterable[Any], ancillary: Iterable[tuple[int, int, bytes]] = ()) -> int:
        """Send all of some pieces, and copies of descriptors."""
        if self._closed or self.peer._closed:
            raise BrokenPipeError("the other end is gone")
        for _, _, packed in ancillary:
            self.peer._descriptors.extend(os.dup(fd) for fd in memoryview(packed).cast("i").tolist())
        data = b"".join(bytes(chunk) for chunk in chunks)
        if data:
            self.peer._incoming.append(data)
            self.peer._tell()
        return len(data)

    def recvmsg(self, nbytes: int, *_: Any) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        """Return bytes and descriptors; a simulated thread waits for them."""
        data = self.recv(nbytes)
        if not self._descriptors:
            return data, [], 0, None
        packed = b"".join(fd.to_bytes(4, "little") for fd in self._descriptors)
        self._descriptors.clear()
        return data, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)], 0, None

    def recv(self, nbytes: int) -> bytes:
        """Return bytes; a simulated thread waits for them."""
        while not self.readable:
            if self._closed:
                raise OSError("the socket is closed")
            self._reader = this_thread()
            if self._reader is None:
                raise BlockingIOError
            try:
                self._scheduler.park()
            finally:
                self._reader = None
        if not self._incoming:
            return b""
        first = self._incoming.popleft()
        if len(first) <= nbytes:
            return first
        self._incoming.appendleft(first[nbytes:])
        return first[:nbytes]

    def close(self) -> None:
        """Close this end; the other one reads its end."""
        if self._closed:
            return
        self._closed = True
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self.peer._ended = True
        self.peer._tell()

    def _tell(self) -> None:
        if self._reader is not None:
            self._scheduler.wake(self._reader)
        if self.on_readable is not None and not self._closed:
            self.on_readable(self)


def memory_pair(scheduler: Scheduler) -> tuple[Any, Any]:
    """Return two connected ends."""
    ours, theirs = MemorySocket(scheduler), MemorySocket(scheduler)
    ours.peer, theirs.peer = theirs, ours
    return ours, theirs
