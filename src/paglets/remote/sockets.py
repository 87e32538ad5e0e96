"""Open, write and read client sockets against a deadline.

A timeout of a socket starts anew with every system call, so a peer that sends one byte a second is never late. Here
each call gets what is left of the time of the whole request.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    import ssl

__all__ = [
    "AbortedError",
    "AnsweredError",
    "ConnectTimeoutError",
    "Connection",
    "Deadline",
    "NotSentError",
    "Stop",
    "open_socket",
]

_EARLY_BYTES: Final = 64 * 1024
_CAN_POLL: Final = hasattr(select, "poll")
_CAN_SEND_FILES: Final = hasattr(os, "sendfile")
_READ_BYTES: Final = 256 * 1024


class AbortedError(OSError):
    """Say that the exchange was called off from this side."""


class AnsweredError(OSError):
    """Say that the peer takes no more of what is being written, but has something to read."""


class ConnectTimeoutError(TimeoutError):
    """Say that the time was over before there was a connection."""


class NotSentError(OSError):
    """Say that there was no connection, so that nothing of a request was sent.

    Everything else that ends an exchange leaves open whether the peer has the request.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.cause = cause


class Deadline:
    """Count down `seconds`.

    With `whole=False` the time starts anew with every step, for streams of unknown length: it bounds how long the
    peer may stall, not how long the stream takes.

    :param connecting: seconds until there must be a connection, where that is less: `NotSentError` after it, because
        the time of the whole is not over then.
    :param stop: lets another thread call the exchange off.
    """

    __slots__ = ("_end", "connecting", "seconds", "stop")

    def __init__(
        self, seconds: float, *, whole: bool = True, connecting: float | None = None, stop: Stop | None = None
    ) -> None:
        self.seconds = seconds
        self.stop = stop
        self.connecting = None if connecting is None or connecting >= seconds else connecting
        self._end = time.monotonic() + seconds if whole else None

    def remaining(self) -> float:
        """Return the seconds left; raise `TimeoutError` when there are none."""
        left = self.seconds if self._end is None else self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class Stop:
    """Call an exchange off from another thread: whoever waits for the peer is woken with an error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._wanted = threading.Event()

    def now(self) -> None:
        """Call it off, for good."""
        with self._lock:
            self._wanted.set()
            if self._connection is not None:
                self._connection.shut()

    @property
    def wanted(self) -> bool:
        """Whether it was called off."""
        return self._wanted.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for it; return whether it was called off."""
        return self._wanted.wait(seconds)

    def attach(self, connection: Connection) -> None:
        """Know what the exchange waits on from now on; raises `AbortedError` when it is called off already."""
        with self._lock:
            self._connection = connection
            if self._wanted.is_set():
                raise AbortedError("called off")

    def detach(self) -> None:
        """Let go of the connection: it may serve somebody else next."""
        with self._lock:
            self._connection = None


def open_socket(host: str, port: int, *, tls: ssl.SSLContext | None, deadline: Deadline) -> socket.socket:
    """Connect to the first address of `host` that answers, with TLS when a context is given.

    Raises `ConnectTimeoutError` when the deadline passes, else `NotSentError` with the error of the last address tried.
    """
    seconds = deadline.connecting
    if seconds is None:
        return _open_within(host, port, tls, deadline)
    try:
        return _open_within(host, port, tls, Deadline(seconds))
    except ConnectTimeoutError as exc:
        raise NotSentError(ConnectTimeoutError(f"no connection within {seconds:.3g} s")) from exc


def _open_within(host: str, port: int, tls: ssl.SSLContext | None, deadline: Deadline) -> socket.socket:
    failure: OSError | None = None
    try:
        for family, kind, protocol, _name, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(deadline.remaining())
                connection.connect(address)
                # A request is one small write that waits for its answer: without this a reply may be held back 40 ms.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection if tls is None else tls.wrap_socket(connection, server_hostname=host)
            except TimeoutError:
                connection.close()
                raise
            except OSError as exc:
                connection.close()
                failure = exc
            except BaseException:
                connection.close()
                raise
    except TimeoutError as exc:
        raise ConnectTimeoutError(str(exc)) from exc
    except (OSError, UnicodeError) as exc:  # no such name
        raise NotSentError(exc) from exc
    raise NotSentError(failure or OSError(f"{host} has no address")) from failure


class Connection:
    """Wrap a connected socket: write and read with a deadline, and count what was written."""

    __slots__ = ("_early", "_socket", "idle_since", "reused", "written")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        # What was read before somebody asked for it.
        self._early: bytes | None = None
        self.idle_since = 0.0
        self.reused = False
        self.written = 0

    def send(self, data: bytes | memoryview, deadline: Deadline) -> None:
        """Write all of `data`; after an error `written` says how many bytes the socket took so far.

        :raises AnsweredError: the peer does not read any more, but has written.
        :raises TimeoutError: the deadline passed.
        """
        if type(self._socket) is not socket.socket:
            self._send_encrypted(data, deadline)
            return
        self._socket.settimeout(0)
        rest = data
        while True:
            deadline.remaining()
            try:
                sent = self._socket.send(rest)
            except BlockingIOError:
                self._await_writable(deadline)
                continue
            self.written += sent
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]

    def _send_encrypted(self, data: bytes | memoryview, deadline: Deadline) -> None:
        view = memoryview(data)
        sent, total = 0, len(data)
        while sent < total:
            self._socket.settimeout(deadline.remaining())
            taken = self._socket.send(view[sent:])
            self.written += taken
            sent += taken

    def receive(self, limit: int, deadline: Deadline) -> bytes:
        """Read at most `limit` bytes; empty means that the peer ended the stream."""
        if self._early is not None:
            early, self._early = self._early[:limit], self._early[limit:] or None
            return early
        self._socket.settimeout(deadline.remaining())
        return self._socket.recv(limit)

    def receive_into(self, room: memoryview, deadline: Deadline) -> int:
        """Read at most as many bytes as there is room for; 0 means that the peer ended the stream."""
        if self._early is not None:
            early = self.receive(len(room), deadline)
            room[: len(early)] = early
            return len(early)
        self._socket.settimeout(deadline.remaining())
        return self._socket.recv_into(room)

    def send_file(self, stream: BinaryIO, offset: int, count: int, deadline: Deadline) -> int:
        """Write part of a file; return how many bytes the socket took, 0 when the file has no more.

        Where the system can, they never pass the interpreter.
        """
        if not _CAN_SEND_FILES or type(self._socket) is not socket.socket:  # TLS has to see them
            stream.seek(offset)
            data = stream.read(min(count, _READ_BYTES))
            self.send(data, deadline)
            return len(data)
        self._socket.settimeout(0)
        while True:
            deadline.remaining()
            try:
                sent = os.sendfile(self._socket.fileno(), stream.fileno(), offset, count)
            except BlockingIOError:
                self._await_writable(deadline)
                continue
            self.written += sent
            return sent

    def _await_writable(self, deadline: Deadline) -> None:
        # A peer that refuses a request need not read the rest of it, and then this would wait for nothing.
        seconds = deadline.remaining()
        if _CAN_POLL:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | select.POLLOUT)
            found = dict(poll.poll(seconds * 1000)).get(self._socket.fileno(), 0)
            ready, readable = bool(found & ~select.POLLIN), bool(found & select.POLLIN)
        else:
            readables, writables, _ = select.select([self._socket], [self._socket], [], seconds)
            ready, readable = bool(writables), bool(readables)
        if ready:
            return
        if readable:
            raise AnsweredError("the peer answered before it had everything")
        raise TimeoutError("timed out")

    def shut(self) -> None:
        """End the stream in both directions, which wakes whoever waits on it; never raises."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def readable_now(self) -> bool:
        """Tell, without waiting, whether reading would return at once (bytes, end of stream or an error)."""
        if type(self._socket) is not socket.socket:
            return self._early is not None or self._has_decrypted()
        if _CAN_POLL:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([self._socket], [], [], 0)[0])

    def _has_decrypted(self) -> bool:
        # What the socket has to read may be TLS's own, like the tickets that follow a handshake: only reading tells.
        import ssl

        self._socket.settimeout(0)
        try:
            self._early = self._socket.recv(_EARLY_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close the socket; never raises."""
        with contextlib.suppress(OSError):
            self._socket.close()
