"""Keep the HTTP/1.1 connections of one event loop open and lend each to one exchange at a time.

What `connections` is for threads. A request here is answered as a whole, and small: a message, a step of a move, a
word about membership. For those a general HTTP client takes longer than the host does for the message itself.
Responses are parsed by `httptools`, the parser of the host's own server. It raises builtin errors (`OSError`,
`TimeoutError`) and the few named here; `aio_http` maps them to the errors that the caller of a host meets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from paglets.remote.idle import IdleConnections, Origin, PoolOptions
from paglets.remote.responses import BodyTooLargeError, Incoming, ProtocolError
from paglets.remote.sockets import NotSentError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["AsyncConnectionPool", "AsyncRequest"]

# Below this a head and its body leave in one packet; above it copying them together costs more than a system call.
_COALESCE_BYTES: Final = 32 * 1024
# RFC 8305 recommends this between the attempts to reach a host that has several addresses.
_NEXT_ADDRESS_SECONDS: Final = 0.25
# For the last words of TLS, which nobody waits for.
_TLS_GOODBYE_SECONDS: Final = 1.0
_CLOSE_SECONDS: Final = 2.0
_REPEATABLE: Final = frozenset({"GET", "HEAD"})


class AsyncRequest:
    """Hold one request, ready to be written.

    :param head: the complete request head with its empty line.
    :param body: all of the body, or pieces that are consumed while they are sent, in chunks.
    """

    __slots__ = ("body", "head", "method", "origin")

    def __init__(self, method: str, origin: Origin, head: bytes, body: bytes | AsyncIterator[bytes | memoryview]):
        self.method = method
        self.origin = origin
        self.head = head
        self.body = body


class AsyncConnectionPool:
    """Keep idle connections, most recently used first, and exchange requests over them, on one event loop.

    A connection that the server ended while it was idle is not used again. A request is repeated once on a new
    connection only if a reused one ended before any byte of an answer and the method is GET or HEAD.

    :param max_connections: exchanges at the same time; further ones wait for their turn.
    """

    def __init__(self, *, max_connections: int, options: PoolOptions | None = None) -> None:
        # Of those that were needed at once none is closed before it was idle for a while.
        self._options = options or PoolOptions(max_idle_per_origin=max_connections, max_idle=max_connections)
        self._idle: IdleConnections[_Connection] = IdleConnections(self._options)
        self._turns = asyncio.Semaphore(max_connections)
        self._open: set[_Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    async def exchange(
        self, request: AsyncRequest, most: int, *, tls: ssl.SSLContext | None, connecting: float | None
    ) -> tuple[int, bytes]:
        """Send a request and return the status and the body of its answer.

        :param most: bytes that the body may have.
        :param tls: how to verify the host, None for a connection in the clear.
        :param connecting: seconds until there must be a connection, None for as long as the caller waits.
        :raises NotSentError: there was no connection.
        :raises OSError: the connection was lost; the request may have arrived.
        :raises ProtocolError: the answer is no response.
        :raises BodyTooLargeError: it is too large.
        """
        async with self._turns:
            connection = self._take(request.origin)
            if connection is not None:
                try:
                    return await self._exchange_on(connection, request, most)
                except OSError:
                    if connection.heard or request.method not in _REPEATABLE:
                        raise
                # Its siblings most likely died with it: a restarted server knows none of them.
                for sibling in self._idle.remove(request.origin):
                    sibling.close()
            return await self._exchange_on(await self._connect(request.origin, tls, connecting), request, most)

    async def aclose(self) -> None:
        """Close every connection; an exchange in progress ends with an error."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._idle.remove_all()
        for connection in self._open:
            connection.end()
        if self._open:
            self._emptied = asyncio.Event()
            # The kernel has nothing to say about an aborted connection: this takes a turn of the loop.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._emptied.wait()

    async def _exchange_on(self, connection: _Connection, request: AsyncRequest, most: int) -> tuple[int, bytes]:
        try:
            incoming = await connection.exchange(request, most)
        except BaseException:
            connection.abort()
            raise
        if incoming.reusable:
            self._put_back(request.origin, connection)
        else:
            connection.close()
        body = incoming.body
        return incoming.status, body[0] if len(body) == 1 else b"".join(body)

    async def _connect(self, origin: Origin, tls: ssl.SSLContext | None, connecting: float | None) -> _Connection:
        try:
            async with asyncio.timeout(connecting):
                sock = await _connected(self._loop, origin)
                _, connection = await self._loop.create_connection(
                    partial(_Connection, self._opened, self._lost),
                    sock=sock,
                    ssl=tls,
                    server_hostname=None if tls is None else origin.host,
                    ssl_shutdown_timeout=None if tls is None else _TLS_GOODBYE_SECONDS,
                )
        except TimeoutError as exc:
            # Of this block, or of the kernel: the time of the whole ends with a cancellation.
            raise NotSentError(exc if str(exc) else TimeoutError("no connection in time")) from exc
        except (OSError, UnicodeError) as exc:
            raise NotSentError(exc) from exc
        return connection

    # --- idle ones ---------------------------------------------------------------------------------------------------

    def _take(self, origin: Origin) -> _Connection | None:
        while (connection := self._idle.take(origin)) is not None and not connection.usable:
            connection.close()
        return connection

    def _put_back(self, origin: Origin, connection: _Connection) -> None:
        for removed in self._idle.put(origin, connection, self._loop.time()):
            removed.close()
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._options.idle_seconds, self._close_aged)

    def _close_aged(self) -> None:
        self._sweep = None
        for connection in self._idle.remove_aged(self._loop.time() - self._options.idle_seconds):
            connection.close()
        if self._idle.count:
            self._sweep = self._loop.call_later(self._options.idle_seconds / 2, self._close_aged)

    def _opened(self, connection: _Connection) -> None:
        self._open.add(connection)

    def _lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if not self._open and self._emptied is not None:
            self._emptied.set()


async def _connected(loop: asyncio.AbstractEventLoop, origin: Origin) -> socket.socket:
    """Return a socket that is connected to a server."""
    addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    if len(addresses) > 1:
        # Needed for names alone: one of their addresses may lead nowhere, and say so after minutes.
        import aiohappyeyeballs

        return await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
        )
    family, kind, protocol, _, address = addresses[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class _Connection(asyncio.Protocol):
    """One connection to a server; carries one exchange at a time."""

    def __init__(self, opened: Callable[[_Connection], None], lost: Callable[[_Connection], None]) -> None:
        self._transport: asyncio.Transport
        self._opened = opened
        self._lost = lost
        self._incoming: Incoming | None = None
        self._answered: asyncio.Future[None] | None = None
        self._most = 0
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._ended = False
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether the server has neither ended it nor sent what nobody asked for."""
        return not self._ended and not self._transport.is_closing()

    @property
    def heard(self) -> bool:
        """Whether a byte of the answer to the last request came."""
        return self._incoming is not None and self._incoming.size > 0

    async def exchange(self, request: AsyncRequest, most: int) -> Incoming:
        """Send a request and return its complete answer."""
        incoming = self._incoming = Incoming()
        answered = self._answered = asyncio.get_running_loop().create_future()
        self._most = most
        if self._ended:
            raise ConnectionResetError("the connection ended before the request was sent")
        head, body = request.head, request.body
        if not isinstance(body, bytes):
            self._transport.write(head)
            if not await self._send(body, answered):
                incoming.reusable = False
        elif len(body) <= _COALESCE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        await answered
        self._answered = None
        return incoming

    def close(self) -> None:
        """Close it in order; never raises."""
        self._transport.close()

    def abort(self) -> None:
        """Close it at once, whatever is still to be sent; never raises."""
        answered, self._answered = self._answered, None
        if answered is not None and answered.done() and not answered.cancelled():
            # It may have failed while the body failed as well: one error is enough.
            answered.exception()
        self._transport.abort()

    def end(self) -> None:
        """Close it at once; who waits for an answer is told."""
        self._transport.abort()

    async def _send(self, pieces: AsyncIterator[bytes | memoryview], answered: asyncio.Future[None]) -> bool:
        """Send a body in chunks; return whether all of it went out before the server had answered."""
        async for piece in pieces:
            if answered.done() or self._transport.is_closing():
                return False  # a refusal, most likely: it reads no more
            if piece:
                self._transport.write(b"%x\r\n" % len(piece))
                self._transport.write(piece)
                self._transport.write(b"\r\n")
            if self._paused:
                self._writable = asyncio.get_running_loop().create_future()
                await asyncio.wait((self._writable, answered), return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return False
        self._transport.write(b"0\r\n\r\n")
        return True

    # --- what the loop calls -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # as of every stream of bytes
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        incoming, answered = self._incoming, self._answered
        if incoming is None or answered is None or answered.done():
            # Nobody asked: whatever comes on this connection can't be trusted.
            self._ended = True
            self._transport.abort()
            return
        try:
            incoming.feed(data)
            if incoming.body_size + (incoming.left or 0) > self._most:
                raise BodyTooLargeError(f"the answer has more than {self._most} bytes")
        except (ProtocolError, BodyTooLargeError) as exc:
            answered.set_exception(exc)
            self._transport.abort()
            return
        if incoming.complete:
            answered.set_result(None)

    def eof_received(self) -> bool | None:
        """Have the connection closed; what ends with it is complete."""
        self._ended = True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._ended = True
        self._lost(self)
        self.resume_writing()
        incoming, answered = self._incoming, self._answered
        if incoming is None or answered is None or answered.done():
            return
        try:
            if exc is not None:
                raise exc
            incoming.end()
            incoming.reusable = False
        except Exception as failure:
            answered.set_exception(failure if isinstance(failure, OSError) else ConnectionResetError(str(failure)))
        else:
            answered.set_result(None)

    def pause_writing(self) -> None:
        """Send no more for now."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with sending."""
        self._paused = False
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)
