"""HTTP as the fabric of an event loop: connections are opened on demand, and kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from paglets.core.errors import RemoteHostError, RemoteTimeoutError
from paglets.remote.aio_connections import AsyncConnectionPool, AsyncRequest
from paglets.remote.exchanges import FAILURES, failure, split_url
from paglets.remote.fabric import Ask
from paglets.remote.idle import Origin
from paglets.remote.shortcut import Detour
from paglets.security.tls import default_client_context

if TYPE_CHECKING:
    import ssl

__all__ = ["AsyncHttp"]


class AsyncHttp:
    """Carry requests of the event loop of the first one.

    :param ssl_context: how to verify https hosts; the system's trust store by default.
    :param max_connections: requests under way at the same time; further ones wait for their turn.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, max_connections: int = 100) -> None:
        self.ssl_context = ssl_context
        self.max_connections = max_connections
        self.shortcut: Detour | None = None
        """Another way for some of the requests."""
        self._pool: AsyncConnectionPool | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that it serves, once there was a request."""

    @property
    def is_open(self) -> bool:
        """Whether it was used since it was closed."""
        return self._pool is not None

    async def ask(self, ask: Ask) -> tuple[int, bytes]:
        """Send a request and return the status and the body of its answer; see `AsyncFabric.ask`."""
        url, seconds = ask.url, ask.seconds
        pool = self._open_pool()
        try:
            origin, authority, target = split_url(url)
        except ValueError as exc:
            raise RemoteHostError(f"Could not reach {url}: {exc}") from exc
        if self.shortcut is not None and self.shortcut.covers(origin, target):
            origin = self.shortcut.way
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds) as clock:
                body: bytes | AsyncIterator[bytes | memoryview]
                if ask.body is None or isinstance(ask.body, bytes):
                    body = ask.body or b""
                else:
                    body = _pieces(ask.body, lambda: clock.reschedule(loop.time() + seconds))
                request = AsyncRequest(ask.method, origin, _head(ask, authority, target), body)
                tls = await self._verification(origin)
                try:
                    return await pool.exchange(request, ask.most_bytes, tls=tls, connecting=ask.connecting)
                except FAILURES as exc:
                    raise failure(exc, url, seconds) from exc
        except RemoteTimeoutError:
            raise
        except TimeoutError as exc:
            raise failure(exc, url, seconds) from exc

    async def aclose(self) -> None:
        """Close all connections; a later request opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def _verification(self, origin: Origin) -> ssl.SSLContext | None:
        """Return how to verify a host, None where there is nothing to verify."""
        if origin.scheme != "https":
            return None
        if self.ssl_context is None:
            # Not earlier: a store may have been named since. Reading it takes a while.
            self.ssl_context = await asyncio.to_thread(default_client_context)
        return self.ssl_context

    def _open_pool(self) -> AsyncConnectionPool:
        loop = asyncio.get_running_loop()
        if self._pool is None or self.loop is None or self.loop.is_closed():
            self.loop = loop
            self._pool = AsyncConnectionPool(max_connections=self.max_connections)
        elif self.loop is not loop:
            raise RuntimeError("an AsyncHostClient serves the event loop of its first call; make one per loop")
        return self._pool


def _head(ask: Ask, authority: str, target: str) -> bytes:
    """Return the head of a request.

    :raises RemoteHostError: a header field has characters that it cannot have.
    """
    fields = "".join([f"{name}: {value}\r\n" for name, value in ask.headers.items()])
    if fields.count("\n") != len(ask.headers) or fields.count("\r") != len(ask.headers):
        raise RemoteHostError(f"Could not reach {ask.url}: a header field has a line break in it")
    if isinstance(ask.body, bytes):
        length = f"Content-Length: {len(ask.body)}\r\n"
    elif ask.body is not None:
        length = "Transfer-Encoding: chunked\r\n"
    else:
        length = "Content-Length: 0\r\n" if ask.method == "POST" else ""
    try:
        return f"{ask.method} {target} HTTP/1.1\r\nHost: {authority}\r\n{fields}{length}\r\n".encode("ascii")
    except UnicodeError as exc:
        raise RemoteHostError(f"Could not reach {ask.url}: {exc}") from exc


async def _pieces(
    body: Iterable[bytes | memoryview], progress: Callable[[], None]
) -> AsyncIterator[bytes | memoryview]:
    """Yield pieces that take a thread to make: they are read from a disk and hashed."""
    pieces = iter(body)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        progress()
        yield piece
