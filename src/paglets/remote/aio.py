"""Talk to hosts from `async` code; `paglets.remote.aio_proxy` has the proxy for single paglets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from paglets.remote import requests
from paglets.remote.aio_artifacts import AsyncArtifacts
from paglets.remote.aio_following import AsyncFollowing
from paglets.remote.aio_http import AsyncHttp
from paglets.remote.aio_proxy import AsyncPagletCalls, AsyncPagletProxy
from paglets.remote.fabric import Ask, AsyncFabric, Fabric
from paglets.remote.whereabouts import learn_creation
from paglets.security.addresses import key_for

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["AsyncHostClient", "AsyncPagletCalls", "AsyncPagletProxy"]

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
    :param fabric: carries the requests; HTTP by default.
    :param content: carries content, on threads; HTTP by default.
    """

    def __init__(
        self,
        timeout: float = requests.DEFAULT_TIMEOUT_SECONDS,
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_response_bytes: int = requests.DEFAULT_MAX_RESPONSE_BYTES,
        max_connections: int = 100,
        fabric: AsyncFabric | None = None,
        content: Fabric | None = None,
    ) -> None:
        super().__init__()
        self.timeout = timeout
        self.api_key = api_key
        self.max_response_bytes = max_response_bytes
        self.ssl_context = ssl_context
        self.http = AsyncHttp(ssl_context=ssl_context, max_connections=max_connections)
        self.fabric: AsyncFabric = self.http if fabric is None else fabric
        self._content_fabric = content
        self._loop: asyncio.AbstractEventLoop | None = None

    async def aclose(self) -> None:
        """Close all connections; a later call opens new ones."""
        if self._loop is asyncio.get_running_loop():
            await self._end_withdrawals()
        self._end_transfers()
        await self.fabric.aclose()

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
        decode: Callable[[bytes, str], Any] | None = None,
    ) -> Any:
        api_key = self.api_key
        seconds = self.timeout if timeout is None else timeout
        fields: dict[str, str] = {}
        if body is None or isinstance(body, bytes):
            fields, seconds = requests.relay_terms(url, seconds)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **fields, **headers}
        if shown := key_for(api_key, url):
            headers["Authorization"] = f"Bearer {requests.checked_key(shown)}"
        self._loop = asyncio.get_running_loop()
        ask = Ask(method, url, headers, body, seconds, connecting, self.max_response_bytes)
        status, data = await self.fabric.ask(ask)
        return requests.decode_reply(status, data, url, has_key=bool(api_key), decode=decode)

    async def _delete(self, url: str, timeout: float | None) -> None:
        await self._call("DELETE", url, None, {}, timeout)

    @property
    def _open(self) -> bool:
        return self.fabric.is_open
