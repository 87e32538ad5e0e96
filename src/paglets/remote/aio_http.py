"""HTTP as the fabric of an event loop: connections are opened on demand, and kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from paglets.core.errors import ConnectionLostError, RemoteHostError, RemoteTimeoutError
from paglets.remote.content import PIECE_BYTES
from paglets.remote.exchanges import split_url
from paglets.remote.fabric import Ask
from paglets.remote.idle import PoolOptions
from paglets.remote.pursuit import NotConnectedError
from paglets.remote.shortcut import Shortcut
from paglets.security.tls import default_client_context

if TYPE_CHECKING:
    import ssl

__all__ = ["AsyncHttp"]

_FAILURES: Final = (aiohttp.ClientError, OSError, UnicodeError)
_ANY_TIME: Final = aiohttp.ClientTimeout(total=None)
_NO_HEADERS: Final[dict[str, str]] = {}


class AsyncHttp:
    """Carry requests of the event loop of the first one.

    :param ssl_context: how to verify https hosts; the system's trust store by default.
    :param max_connections: requests under way at the same time; further ones wait for their turn.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None, max_connections: int = 100) -> None:
        self.ssl_context = ssl_context
        self.max_connections = max_connections
        self.shortcut: Shortcut | None = None
        """Another way for some of the requests."""
        self._session: aiohttp.ClientSession | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that it serves, once there was a request."""

    @property
    def is_open(self) -> bool:
        """Whether it was used since it was closed."""
        return self._session is not None

    async def ask(self, ask: Ask) -> tuple[int, bytes]:
        """Send a request and return the status and the body of its answer; see `AsyncFabric.ask`."""
        url, seconds = ask.url, ask.seconds
        session = self._open_session()
        target, host = _target(url, self.shortcut)
        try:
            async with asyncio.timeout(seconds) as clock:

                def progress() -> None:
                    clock.reschedule(asyncio.get_running_loop().time() + seconds)

                body = ask.body
                data = body if body is None or isinstance(body, bytes) else _pieces(body, progress)
                try:
                    response = await session.request(
                        ask.method,
                        target,
                        data=data,
                        headers={**host, **ask.headers},
                        allow_redirects=False,
                        ssl=await self._verification(target),
                        timeout=_ANY_TIME if ask.connecting is None else _connecting_within(ask.connecting),
                    )
                except _FAILURES as exc:
                    raise _failure(exc, url, seconds) from exc
                async with response:
                    return response.status, await _read(response, url, ask.most_bytes)
        except RemoteTimeoutError:
            raise
        except TimeoutError as exc:
            raise _failure(exc, url, seconds) from exc

    async def aclose(self) -> None:
        """Close all connections; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _verification(self, target: URL) -> ssl.SSLContext | bool:
        """Return how to verify a host."""
        if target.scheme != "https":
            return True
        if self.ssl_context is None:
            # As of now: what the HTTP library made when it was imported does not know a store that was named since.
            self.ssl_context = await asyncio.to_thread(default_client_context)
        return self.ssl_context

    def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self.loop is None or self.loop.is_closed():
            self.loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self.max_connections,
                    keepalive_timeout=PoolOptions().idle_seconds,
                ),
                # The time of a call is watched here, where progress is known.
                timeout=_ANY_TIME,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        elif self.loop is not loop:
            raise RuntimeError("an AsyncHostClient serves the event loop of its first call; make one per loop")
        return self._session


async def _read(response: aiohttp.ClientResponse, url: str, most: int) -> bytes:
    pieces: list[bytes] = []
    size = response.content_length or 0
    if 0 < size <= min(most, PIECE_BYTES):
        # As most are: it fits into the buffer of its connection.
        try:
            return await response.read()
        except _FAILURES as exc:
            raise ConnectionLostError(f"Lost the connection to {url}: {_text(exc)}") from exc
    if size <= most:
        size = 0
        async for piece in _received(response, url):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
    if size > most:
        raise RemoteHostError(f"Could not read the answer of {url}: it has more than {most} bytes")
    return b"".join(pieces)


def _target(url: str, shortcut: Shortcut | None) -> tuple[URL, dict[str, str]]:
    """Return where a request goes, and the Host header where that is not what the URL says."""
    try:
        origin, authority, target = split_url(url)
    except ValueError as exc:
        raise RemoteHostError(f"Could not reach {url}: {exc}") from exc
    if shortcut is not None and shortcut.covers(origin, target):
        way = shortcut.way
        name = f"[{way.host}]" if ":" in way.host else way.host
        return URL(f"{way.scheme}://{name}:{way.port}{target}", encoded=True), {"Host": authority}
    return _url(f"{origin.scheme}://{authority}{target}"), _NO_HEADERS


@lru_cache(maxsize=256)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


def _failure(exc: Exception, url: str, seconds: float) -> RemoteHostError:
    match exc:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError() | UnicodeError():
            return NotConnectedError(f"Could not reach {url}: {_text(exc)}")
        case aiohttp.InvalidURL():
            return RemoteHostError(f"Could not reach {url}: {_text(exc)}")
        case TimeoutError():
            return RemoteTimeoutError(f"No answer from {url} within {seconds:g} s")
        case aiohttp.ClientConnectionError() | OSError():
            return ConnectionLostError(f"Lost the connection to {url}: {_text(exc)}")
        case _:
            return RemoteHostError(f"Could not read the answer of {url}: {_text(exc)}")


@lru_cache(maxsize=64)
def _connecting_within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds)


def _text(exc: Exception) -> str:
    # On one line: the parser quotes what it did not understand on several.
    return " ".join(str(exc).split()) or type(exc).__name__


async def _received(response: aiohttp.ClientResponse, url: str) -> AsyncIterator[bytes]:
    """Yield the body of a response with its failures translated, those of the consumer left alone."""
    pieces = response.content.iter_chunked(PIECE_BYTES)
    while True:
        try:
            piece = await anext(pieces, b"")
        except _FAILURES as exc:
            raise ConnectionLostError(f"Lost the connection to {url}: {_text(exc)}") from exc
        if not piece:
            return
        yield piece


async def _pieces(
    body: Iterable[bytes | memoryview], progress: Callable[[], None]
) -> AsyncIterator[bytes | memoryview]:
    """Yield pieces that take a thread to make: they are read from a disk and hashed."""
    pieces = iter(body)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        progress()
        yield piece
