"""Open, write and read client sockets against a deadline.

A timeout of a socket starts anew with every system call, so a peer that sends one byte a second is never late. Here
each call gets what is left of the time of the whole request.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

__all__ = ["ConnectTimeoutError", "Connection", "Deadline", "NotSentError", "open_socket"]

_CAN_POLL: Final = hasattr(select, "poll")


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
    """

    __slots__ = ("_end", "connecting", "seconds")

    def __init__(self, seconds: float, *, whole: bool = True, connecting: float | None = None) -> None:
        self.seconds = seconds
        self.connecting = None if connecting is None or connecting >= seconds else connecting
        self._end = time.monotonic() + seconds if whole else None

    def remaining(self) -> float:
        """Return the seconds left; raise `TimeoutError` when there are none."""
        left = self.seconds if self._end is None else self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


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

    __slots__ = ("_socket", "idle_since", "reused", "written")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.idle_since = 0.0
        self.reused = False
        self.written = 0

    def send(self, data: bytes | memoryview, deadline: Deadline) -> None:
        """Write all of `data`; after an error `written` says how many bytes the socket took so far."""
        self._socket.settimeout(deadline.remaining())
        sent = self._socket.send(data)
        self.written += sent
        total = len(data)
        if sent == total:
            return
        view = memoryview(data)
        while sent < total:
            self._socket.settimeout(deadline.remaining())
            taken = self._socket.send(view[sent:])
            self.written += taken
            sent += taken

    def receive(self, limit: int, deadline: Deadline) -> bytes:
        """Read at most `limit` bytes; empty means that the peer ended the stream."""
        self._socket.settimeout(deadline.remaining())
        return self._socket.recv(limit)

    def readable_now(self) -> bool:
        """Tell, without waiting, whether reading would return at once (bytes, end of stream or an error)."""
        if _CAN_POLL:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Close the socket; never raises."""
        with contextlib.suppress(OSError):
            self._socket.close()
