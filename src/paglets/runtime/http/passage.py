"""The socket of a connection, for the time of one large body.

As pieces of the event loop's buffer, 1 GB is 4,000 turns of the loop and as many runs of the parser. Through a passage
threads read the socket into what takes the body, and files into the socket, without the loop. A thread is lent for a
slice of time and only while the peer gives or takes at speed: the loop watches a socket that has nothing to do. So any
number of slow peers holds no thread, and what a peer may take of time and memory has a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from paglets.artifacts.hashing import PIECES_HELD
from paglets.core.errors import HostError
from paglets.runtime.http.errors import ClientGoneError, SlowClientError

T = TypeVar("T")

#: Whether this system has what a passage needs.
AVAILABLE: Final = hasattr(os, "sendfile") and hasattr(select, "poll")

SLICE_SECONDS: Final = 0.25
# What a thread waits for more before it leaves the socket to the loop, and what has to come for each such wait.
_PATIENCE_MS: Final = 2
_WORTH_WAITING_BYTES: Final = 256 * 1024
_READ_BYTES: Final = 1024 * 1024
# A peer that sends a few bytes at a time wakes the loop for this many.
_WAKE_BYTES: Final = 64 * 1024
_SEND_BYTES: Final = 16 * 1024 * 1024

Take = Callable[[bytes | memoryview], object]
"""Takes a piece, whose memory may be another piece's after `PIECES_HELD` more."""


class Passage:
    """A socket that is read or written past the event loop. Close it when the body is over, however it ended.

    :param sock: a duplicate of the socket of a connection, which nobody else reads or writes meanwhile.
    :param pause_seconds: the longest time in which the peer may do nothing.
    :param whole_seconds: for a whole body, plus what `bytes_per_second` grants for its size.
    """

    def __init__(
        self, sock: socket.socket, *, pause_seconds: float, whole_seconds: float, bytes_per_second: int
    ) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._pause_seconds = pause_seconds
        self._whole_seconds = whole_seconds
        self._bytes_per_second = bytes_per_second
        self._began = self._loop.time()

    def cut(self) -> None:
        """End the stream, which wakes whoever waits on it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket; the connection goes on without the passage."""
        self._sock.close()

    async def receive(self, count: int, take: Take, threads: Executor) -> None:
        """Have the next bytes taken, in pieces, on a thread at a time.

        :param take: called with each piece; what it raises ends this.
        :raises ClientGoneError: the stream ended before.
        :raises SlowClientError: the peer took too long.
        """
        left = count
        try:
            while left:
                got, ended = await self._slice(threads, _receive, self._sock, left, take)
                left -= got
                if ended:
                    raise ClientGoneError
                if left:
                    self._wake_at(min(left, _WAKE_BYTES))
                    await self._ready(self._loop.add_reader, self._loop.remove_reader, count - left, at_all=bool(got))
        finally:
            self._wake_at(1)

    async def send(self, head: bytes, descriptor: int, offset: int, count: int, threads: Executor) -> None:
        """Send a head and part of an open file.

        :raises ClientGoneError: the peer is gone.
        :raises SlowClientError: it took too long.
        :raises HostError: the file is shorter.
        """
        rest = memoryview(head)
        done = 0
        while rest or done < count:
            if rest:
                rest = rest[await self._slice(threads, _send, self._sock, rest) :]
                moved = 1
            else:
                moved = await self._slice(threads, _send_file, self._sock, descriptor, offset + done, count - done)
                done += moved
            if rest or done < count:
                await self._ready(self._loop.add_writer, self._loop.remove_writer, done, at_all=bool(moved))

    async def _slice(self, threads: Executor, work: Callable[..., T], *args: Any) -> T:
        """Do some work on a thread, and see it end even when the request is called off: it uses the socket."""
        running = self._loop.run_in_executor(threads, work, *args)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.cut()
            await asyncio.wait((running,))
            running.exception()
            raise

    async def _ready(
        self, watch: Callable[..., Any], unwatch: Callable[[int], Any], done: int, *, at_all: bool
    ) -> None:
        """Wait for the peer.

        :param done: how many bytes there were up to now.
        :param at_all: whether there were some since the last wait.
        """
        descriptor = self._sock.fileno()
        now = self._loop.time()
        left = min(self._pause_seconds, self._began + self._whole_seconds + done / self._bytes_per_second - now)
        ready: asyncio.Future[None] = self._loop.create_future()
        watch(descriptor, _wake, ready)
        try:
            await asyncio.wait((ready,), timeout=max(0.0, left))
        finally:
            unwatch(descriptor)
        # Fewer bytes than wake the loop may have come all the same, which the next slice finds.
        if not ready.done() and (left < self._pause_seconds or not at_all):
            raise SlowClientError("the client did not keep up with the transfer")

    def _wake_at(self, count: int) -> None:
        with contextlib.suppress(OSError):  # not everywhere, and not needed
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _receive(sock: socket.socket, count: int, take: Take) -> tuple[int, bool]:
    """Take what comes at speed; return how many bytes it was, and whether the stream ended."""
    received, waits = 0, 0
    end = time.monotonic() + SLICE_SECONDS
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    # Fresh memory for each piece would be a page fault for every 4 KB. None is kept while the peer is waited for.
    rooms: list[memoryview] = []
    pieces = filled = 0
    ended = False
    while received < count and not ended and time.monotonic() < end:
        if pieces == len(rooms) < PIECES_HELD:
            rooms.append(memoryview(bytearray(min(_READ_BYTES, count - received))))
        room = rooms[pieces % PIECES_HELD]
        try:
            got = sock.recv_into(room[filled:], min(len(room) - filled, count - received))
        except BlockingIOError:
            waits += 1
            if received < (waits - 1) * _WORTH_WAITING_BYTES or not poll.poll(_PATIENCE_MS):
                break
            continue
        except ConnectionError:
            got = 0
        ended = not got
        received += got
        filled += got
        if filled == len(room) or received == count:
            # Whole rooms, because whoever takes them wakes another thread for each.
            take(room[:filled])
            pieces, filled = pieces + 1, 0
    if filled:
        take(rooms[pieces % PIECES_HELD][:filled])
    return received, ended


def _send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        raise ClientGoneError from None


def _send_file(sock: socket.socket, descriptor: int, offset: int, count: int) -> int:
    """Send what is taken at speed; return how many bytes it was."""
    done, waits = 0, 0
    end = time.monotonic() + SLICE_SECONDS
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while done < count and time.monotonic() < end:
        try:
            sent = os.sendfile(sock.fileno(), descriptor, offset + done, min(_SEND_BYTES, count - done))
        except BlockingIOError:
            waits += 1
            if done < (waits - 1) * _WORTH_WAITING_BYTES or not poll.poll(_PATIENCE_MS):
                break
            continue
        except OSError:
            raise ClientGoneError from None
        if not sent:
            raise HostError("the content became shorter while it was sent")
        done += sent
    return done
