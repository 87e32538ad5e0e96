"""Keep HTTP/1.1 connections to hosts open and lend each to one request at a time.

The pool knows bytes, sockets and time; it knows nothing of paglets. Responses are parsed by `httptools`, the parser of
the host's own server. It raises builtin errors (`OSError`, `TimeoutError`) and the few named here;
`paglets.remote.exchanges` maps them to the errors that the caller of a host meets.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from paglets.remote.content import FileBody
from paglets.remote.idle import IdleConnections, Origin, PoolOptions
from paglets.remote.responses import BodyTooLargeError, ProtocolError, Response
from paglets.remote.shortcut import Detour
from paglets.remote.sockets import Connection, ConnectTimeoutError, Deadline, NotSentError, open_socket

if TYPE_CHECKING:
    import ssl

__all__ = [
    "BodyTooLargeError",
    "ConnectTimeoutError",
    "ConnectionPool",
    "Deadline",
    "NotSentError",
    "Origin",
    "PoolOptions",
    "PoolStatistics",
    "ProtocolError",
    "Request",
    "Response",
]

# Below this a head and its body leave in one packet; above it copying them together costs more than a system call.
_COALESCE_BYTES: Final = 32 * 1024
# How long to look for the answer of a server that stopped reading the request: it may have said why.
_REFUSAL_SECONDS: Final = 1.0
_REPEATABLE: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Request:
    """Hold one request, ready to be written."""

    method: str
    origin: Origin
    head: bytes
    """The complete request head with its empty line."""
    body: bytes | Iterable[bytes | memoryview] | FileBody = b""
    """All of the body, or pieces that are consumed while they are sent, or part of a file."""
    chunked: bool = False
    """Frame the pieces for chunked transfer; otherwise the head declares their total."""


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Count the connections of a pool."""

    idle: int
    """Open and unused now."""
    opened: int
    """Made since the pool exists."""
    reused: int
    """Requests that found an idle connection."""


class ConnectionPool:
    """Keep idle connections, most recently used first, and exchange requests over them. Thread-safe.

    A connection that the server ended while it was idle is noticed before it is used. A request is repeated once on a
    new connection only if a reused one died before any byte of an answer and repeating is harmless: the method is GET
    or HEAD, or not one byte of the request was taken. After a fork the child starts with an empty pool.
    """

    def __init__(self, options: PoolOptions | None = None, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self.options = options or PoolOptions()
        self._ssl_context = ssl_context
        self.shortcut: Detour | None = None
        """Another way for some of the requests."""
        self._lock = threading.Lock()
        self._idle: IdleConnections[Connection] = IdleConnections(self.options)
        self._closed = False
        self._opened = 0
        self._reused = 0
        _watch_forks()
        _pools.add(self)

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """How https hosts are verified, None for the system's way."""
        return self._ssl_context

    def statistics(self) -> PoolStatistics:
        """Return how many connections are idle and how many were opened and reused."""
        with self._lock:
            return PoolStatistics(self._idle.count, self._opened, self._reused)

    def exchange(self, request: Request, deadline: Deadline) -> Response:
        """Send `request` and return its response as soon as the head is there; the caller closes it.

        Raises `NotSentError` and `ConnectTimeoutError` where nothing of the request was sent, otherwise `OSError`
        (connection lost), `TimeoutError`, `ProtocolError`, and whatever an iterable body raises.
        """
        shortcut = self.shortcut
        if shortcut is not None and shortcut.covers(request.origin, request.head.split(b" ", 2)[1].decode("ascii")):
            request = replace(request, origin=shortcut.way)
        connection = self._take(request.origin) or self._open(request.origin, deadline)
        try:
            return self._exchange_on(connection, request, deadline)
        except _DeadConnectionError as exc:
            if not exc.repeatable:
                raise exc.error() from None
        # Its siblings most likely died with it: a restarted server knows none of them.
        self.drop(request.origin)
        try:
            return self._exchange_on(self._open(request.origin, deadline), request, deadline)
        except _DeadConnectionError as exc:
            raise exc.error() from None

    def drop(self, origin: Origin) -> None:
        """Close the idle connections to `origin`."""
        with self._lock:
            removed = self._idle.remove(origin)
        _close_all(removed)

    def close(self) -> None:
        """Close the idle connections, and those in use when their response is closed.

        A later request opens a connection that is not kept.
        """
        with self._lock:
            self._closed = True
            removed = self._idle.remove_all()
        _close_all(removed)

    def __del__(self) -> None:
        # Without the lock: nobody else holds a reference any more.
        _close_all(self._idle.remove_all())

    def _exchange_on(self, connection: Connection, request: Request, deadline: Deadline) -> Response:
        response = Response(connection, deadline, partial(self._put_back, request.origin))
        connection.written = 0
        try:
            if deadline.stop is not None:
                deadline.stop.attach(connection)
            try:
                unfinished = _write(connection, request, deadline)
            except OSError as exc:
                if connection.written == 0 and not isinstance(exc, TimeoutError):
                    raise _DeadConnectionError(exc, sent=False, repeatable=connection.reused) from exc
                _read_refusal(response, connection, exc)
                unfinished = True
            else:
                _read_answer(response, connection, request)
            if unfinished:
                response.spoil()
            return response
        except BaseException:
            connection.close()
            raise

    def _open(self, origin: Origin, deadline: Deadline) -> Connection:
        opened = open_socket(origin.host, origin.port, tls=self._tls(origin), deadline=deadline)
        with self._lock:
            self._opened += 1
        return Connection(opened)

    def _tls(self, origin: Origin) -> ssl.SSLContext | None:
        if origin.scheme != "https":
            return None
        if self._ssl_context is None:
            # Imported here because most hosts speak plain HTTP behind a proxy, and loading the trust store is slow.
            from paglets.security.tls import default_client_context

            self._ssl_context = default_client_context()
        return self._ssl_context

    def _take(self, origin: Origin) -> Connection | None:
        while True:
            with self._lock:
                connection = self._idle.take(origin)
            if connection is None:
                return None
            too_old = time.monotonic() - connection.idle_since > self.options.idle_seconds
            if not too_old and not connection.readable_now():
                connection.reused = True
                with self._lock:
                    self._reused += 1
                return connection
            connection.close()

    def _put_back(self, origin: Origin, connection: Connection) -> None:
        with self._lock:
            removed = [connection] if self._closed else self._idle.put(origin, connection, time.monotonic())
        _close_all(removed)

    def _forget_after_fork(self) -> None:
        # The connections belong to the parent: two processes on one of them would read each other's answers. The lock
        # may be held by a thread that does not exist in this process.
        self._lock = threading.Lock()
        _close_all(self._idle.remove_all())


class _DeadConnectionError(Exception):
    """Say that a connection died before any byte of an answer, and whether the request may be repeated."""

    def __init__(self, cause: OSError, *, sent: bool, repeatable: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.sent = sent
        self.repeatable = repeatable

    def error(self) -> OSError:
        """Return what the caller of the pool is told where the request is not repeated."""
        return self.cause if self.sent else NotSentError(self.cause)


def _write(connection: Connection, request: Request, deadline: Deadline) -> bool:
    """Write the request; return True if the server answered before its end and the rest was left unsent."""
    body = request.body
    if isinstance(body, bytes):
        if len(body) <= _COALESCE_BYTES:
            connection.send(request.head + body, deadline)
        else:
            connection.send(request.head, deadline)
            connection.send(body, deadline)
        return False
    connection.send(request.head, deadline)
    if isinstance(body, FileBody):
        return body.write_to(connection, deadline)
    for piece in body:
        if connection.readable_now():
            return True
        if not request.chunked:
            connection.send(piece, deadline)
        elif piece:
            connection.send(b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")), deadline)
    if request.chunked:
        connection.send(b"0\r\n\r\n", deadline)
    return False


def _read_answer(response: Response, connection: Connection, request: Request) -> None:
    try:
        response.read_head()
    except TimeoutError:
        raise
    except OSError as exc:
        if not response.begun and connection.reused:
            raise _DeadConnectionError(exc, sent=True, repeatable=request.method in _REPEATABLE) from exc
        raise


def _read_refusal(response: Response, connection: Connection, failure: OSError) -> None:
    """Read the answer of a server that stopped reading the request; without one raise what stopped the writing."""
    if isinstance(failure, TimeoutError) and not connection.readable_now():
        raise failure
    response.deadline = Deadline(_REFUSAL_SECONDS)
    try:
        response.read_head()
    except (OSError, ProtocolError):
        raise failure from None


def _close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()


_pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


def _forget_pools_after_fork() -> None:
    for pool in list(_pools):
        pool._forget_after_fork()


@functools.cache
def _watch_forks() -> None:
    # With the first pool, not on import: every hook costs each forked paglet pages of its own.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_pools_after_fork)
