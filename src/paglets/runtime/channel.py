"""The host's end of the socket to one paglet process, on the host's event loop.

Requests go both ways with correlation ids. The number of requests in flight is bounded by the callers: one message at a
time, a few lifecycle steps and queries; what the socket does not take at once is kept until it does.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from paglets.runtime import platform
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.frames import Frame, FrameError, FrameParser, FrameType, encode

_READ_BYTES = 256 * 1024

ReplyHandler = Callable[[Frame | None], None]


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """How busy a channel is."""

    pending_requests: int
    """Requests the paglet process has not answered yet."""
    unsent_bytes: int
    """Bytes the socket has not taken yet."""


class HostChannel:
    """Speak frames with one paglet process; every method must be called on the loop's thread.

    :param on_frame: called with each request and notice of the other side.
    :param on_lost: called once when the connection ended by itself; pending requests are told (with None) by
        :meth:`close`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        on_frame: Callable[[Frame], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._parser = FrameParser()
        self._pending: dict[int, ReplyHandler] = {}
        self._next_id = 1
        self._unsent: deque[tuple[bytes | memoryview, Attachment | None]] = deque()
        self._unsent_bytes = 0
        self._closed = False
        self._ended = False
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._closed

    def statistics(self) -> ChannelStatistics:
        """Return how many requests wait and how many bytes the socket has not taken."""
        return ChannelStatistics(len(self._pending), self._unsent_bytes)

    def request(
        self, op: int, payload: bytes, done: ReplyHandler, *, attachment: Attachment = EMPTY, parent: int = 0
    ) -> int:
        """Send a request; ``done`` gets the reply or failure frame, or None when the connection ends first.

        :return: the request's id.
        """
        if self._closed:
            self._loop.call_soon(done, None)
            return 0
        id_ = self._next_id
        self._next_id = id_ + 1 if id_ < 0xFFFFFFFF else 1
        self._pending[id_] = done
        self._send(FrameType.REQUEST, op, id_, parent, payload, attachment)
        return id_

    def forget(self, id_: int) -> None:
        """Ignore the reply to a request that its caller gave up."""
        if id_ in self._pending:
            self._pending[id_] = _ignore

    def notify(self, op: int, payload: bytes = b"") -> None:
        """Send something that is not answered."""
        if not self._closed:
            self._send(FrameType.NOTICE, op, 0, 0, payload, EMPTY)

    def reply(self, frame: Frame, payload: bytes, attachment: Attachment = EMPTY) -> None:
        """Answer a request of the other side."""
        if not self._closed:
            self._send(FrameType.REPLY, frame.op, frame.id, 0, payload, attachment)

    def fail(self, frame: Frame, payload: bytes) -> None:
        """Answer a request of the other side with an error."""
        if not self._closed:
            self._send(FrameType.FAILURE, frame.op, frame.id, 0, payload, EMPTY)

    def close(self) -> None:
        """End the connection and tell everyone who waits."""
        if self._closed:
            return
        self._closed = True
        if not self._ended:
            self._loop.remove_reader(self._sock.fileno())
        if self._unsent:
            self._loop.remove_writer(self._sock.fileno())
            self._unsent.clear()
        self._sock.close()
        self._parser.close()
        pending, self._pending = self._pending, {}
        for done in pending.values():
            done(None)
        # They lead back here by way of whoever owns this channel, and hold all that is known of its paglet until the
        # garbage collector comes by, the state included.
        self._on_frame, self._on_lost = _ignore, _ignore_end

    def _end(self) -> None:
        if not self._ended and not self._closed:
            self._ended = True
            self._loop.remove_reader(self._sock.fileno())
            self._on_lost()

    def _send(self, type_: int, op: int, id_: int, parent: int, payload: bytes, attachment: Attachment) -> None:
        chunks, fds = encode(type_, op, id_, parent, payload, attachment)
        if not self._unsent:
            try:
                sent = self._sock.sendmsg(chunks, platform.descriptor_ancillary(fds)) if fds else self._write(chunks)
            except BlockingIOError:
                sent = 0
            except OSError:
                # The other end is gone; the reader sees the end of the stream and reports it in order.
                return
            if sent == sum(map(len, chunks)):
                return
            # Descriptors leave with the first byte, so they are owed only when nothing was sent.
            self._loop.add_writer(self._sock.fileno(), self._writable)
            self._queue(chunks, sent, attachment if fds and not sent else None)
            return
        self._queue(chunks, 0, attachment if fds else None)

    def _write(self, chunks: list[bytes]) -> int:
        return self._sock.send(chunks[0]) if len(chunks) == 1 else self._sock.sendmsg(chunks)

    def _queue(self, chunks: list[bytes], sent: int, carrier: Attachment | None) -> None:
        for chunk in chunks:
            if sent >= len(chunk):
                sent -= len(chunk)
                continue
            rest = memoryview(chunk)[sent:]
            sent = 0
            self._unsent.append((rest, carrier))
            self._unsent_bytes += len(rest)
            carrier = None

    def _writable(self) -> None:
        while self._unsent:
            chunk, carrier = self._unsent[0]
            try:
                if carrier is not None:
                    sent = self._sock.sendmsg([chunk], platform.descriptor_ancillary((carrier.fd,)))
                else:
                    sent = self._sock.send(chunk)
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()
                self._unsent_bytes = 0
                break
            self._unsent_bytes -= sent
            if sent == len(chunk):
                self._unsent.popleft()
            else:
                self._unsent[0] = (memoryview(chunk)[sent:], None)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data, fds = platform.receive_with_descriptors(self._sock, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        if not data:
            self._end()
            return
        try:
            for frame in self._parser.feed(data, fds):
                if frame.type in (FrameType.REPLY, FrameType.FAILURE):
                    done = self._pending.pop(frame.id, None)
                    if done is not None:
                        done(frame)
                else:
                    self._on_frame(frame)
                if self._closed:
                    return
        except FrameError:
            self._end()


def _ignore(frame: Frame | None) -> None:
    if frame is not None:
        frame.attachment.close()


def _ignore_end() -> None:
    """Take note of the end of a connection that was closed here."""
