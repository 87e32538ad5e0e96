"""Talk to hosts from `async` code; `paglets.remote.aio_proxy` has the proxy for single paglets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from paglets.core.errors import (
    ConnectionLostError,
    RemoteHostError,
    RemoteTimeoutError,
)
from paglets.remote import requests
from paglets.remote.aio_artifacts import AsyncArtifacts
from paglets.remote.aio_following import AsyncFollowing
from paglets.remote.aio_proxy import AsyncPagletCalls, AsyncPagletProxy
from paglets.remote.content import PIECE_BYTES
from paglets.remote.exchanges import split_url
from paglets.remote.idle import PoolOptions
from paglets.remote.pursuit import NotConnectedError
from paglets.remote.shortcut import Shortcut
from paglets.remote.whereabouts import learn_creation
from paglets.security.addresses import key_for
from paglets.security.tls import default_client_context

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["AsyncHostClient", "AsyncPagletCalls", "AsyncPagletProxy"]

_FAILURES: Final = (aiohttp.ClientError, OSError, UnicodeError)
_ANY_TIME: Final = aiohttp.ClientTimeout(total=None)
_NO_HEADERS: Final[dict[str, str]] = {}
_JSON: Final = {"Content-Type": "application/json"}


class AsyncHostClient(AsyncArtifacts, AsyncFollowing):
    """Call hosts from coroutines of one event loop: `HostClient` with every method a coroutine.

    Connections are opened at the first call, in the loop that runs then. Use it as `async with`, or `await aclose()`.

    :param timeout: seconds for a whole call. For streams of unknown length, that is artifacts and moves, it bounds
        how long the host may stall.
    :param api_key: sent as bearer token with every request; may be assigned later, like `timeout`.
    :param ssl_context: how to verify https hosts; the system's trust store by default.
    :param max_response_bytes: largest JSON answer to accept.
    :param max_connections: calls under way at the same time; further ones wait for their turn.
    """

    def __init__(
        self,
        timeout: float = requests.DEFAULT_TIMEOUT_SECONDS,
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_response_bytes: int = requests.DEFAULT_MAX_RESPONSE_BYTES,
        max_connections: int = 100,
    ) -> None:
        super().__init__()
        self.timeout = timeout
        self.api_key = api_key
        self.max_response_bytes = max_response_bytes
        self.max_connections = max_connections
        self.ssl_context = ssl_context
        self.shortcut: Shortcut | None = None
        """Another way for some of the requests."""
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def aclose(self) -> None:
        """Close all connections; a later call opens new ones."""
        if self._loop is asyncio.get_running_loop():
            await self._end_withdrawals()
        self._end_transfers()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- JSON ------------------------------------------------------------------------------------------------------

    async def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Get a URL and return the decoded JSON; see `HostClient.get_json`."""
        return await self._call("GET", url, None, {}, timeout)

    async def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict as JSON and return the decoded answer; see `HostClient.post_json`."""
        body = requests.encode_json(payload)
        reply = await self._call("POST", url, body, _JSON, timeout)
        learn_creation(self.routes, url, reply)
        return reply

    async def post_pickle(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict in the movement encoding and return the decoded answer; see `HostClient.post_pickle`."""
        content_type, pieces = await asyncio.to_thread(requests.movement_body, payload)
        reply = await self._call("POST", url, pieces, {"Content-Type": content_type}, timeout)
        learn_creation(self.routes, url, reply)
        return reply

    async def post_movement(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a small dict, and parts that are in memory, in the movement encoding as one piece; see `post_pickle`."""
        content_type, pieces = requests.movement_body(payload)
        return await self._call("POST", url, b"".join(pieces), {"Content-Type": content_type}, timeout)

    # --- transport -------------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes | memoryview] | None,
        headers: dict[str, str],
        timeout: float | None,
        *,
        connecting: float | None = None,
    ) -> Any:
        has_key = bool(self.api_key)
        async with self._exchange(method, url, body, headers, timeout, connecting=connecting) as (response, _):
            data = await self._read(response, url)
        return requests.decode_reply(response.status, data, url, has_key=has_key)

    async def _delete(self, url: str, timeout: float | None) -> None:
        await self._call("DELETE", url, None, {}, timeout)

    async def _read(self, response: aiohttp.ClientResponse, url: str) -> bytes:
        pieces: list[bytes] = []
        size = response.content_length or 0
        if size <= self.max_response_bytes:
            size = 0
            async for piece in _received(response, url):
                pieces.append(piece)
                size += len(piece)
                if size > self.max_response_bytes:
                    break
        if size > self.max_response_bytes:
            raise RemoteHostError(
                f"Could not read the answer of {url}: it has more than {self.max_response_bytes} bytes"
            )
        return b"".join(pieces)

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes | memoryview] | None,
        headers: dict[str, str],
        timeout: float | None,
        *,
        connecting: float | None = None,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Callable[[], None]]]:
        """Send a request and give the response, and what starts the time anew when some of a stream has come."""
        seconds = self.timeout if timeout is None else timeout
        session = self._open_session()
        target, host = _target(url, self.shortcut)
        fields: dict[str, str] = {}
        if body is None or isinstance(body, bytes):
            fields, seconds = requests.relay_terms(url, seconds)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **host, **fields, **headers}
        if api_key := key_for(self.api_key, url):
            headers["Authorization"] = f"Bearer {requests.checked_key(api_key)}"
        try:
            async with asyncio.timeout(seconds) as clock:

                def progress() -> None:
                    clock.reschedule(asyncio.get_running_loop().time() + seconds)

                data = body if body is None or isinstance(body, bytes) else _pieces(body, progress)
                try:
                    response = await session.request(
                        method,
                        target,
                        data=data,
                        headers=headers,
                        allow_redirects=False,
                        ssl=await self._verification(target),
                        timeout=_ANY_TIME if connecting is None else _connecting_within(connecting),
                    )
                except _FAILURES as exc:
                    raise _failure(exc, url, seconds) from exc
                async with response:
                    yield response, progress
        except RemoteTimeoutError:
            raise
        except TimeoutError as exc:
            raise _failure(exc, url, seconds) from exc

    async def _verification(self, target: URL) -> ssl.SSLContext | bool:
        """Return how to verify a host."""
        if target.scheme != "https":
            return True
        if self.ssl_context is None:
            # As of now: what the HTTP library made when it was imported does not know a store that was named since.
            self.ssl_context = await asyncio.to_thread(default_client_context)
        return self.ssl_context

    @property
    def _open(self) -> bool:
        return self._session is not None

    def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is None or self._loop.is_closed():
            self._loop = loop
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
        elif self._loop is not loop:
            raise RuntimeError("an AsyncHostClient serves the event loop of its first call; make one per loop")
        return self._session


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
    return URL(f"{origin.scheme}://{authority}{target}", encoded=True), _NO_HEADERS


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
