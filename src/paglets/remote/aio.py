"""Talk to hosts from `async` code; `paglets.remote.aio_proxy` has the proxy for single paglets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import aiohttp
from yarl import URL

from paglets.artifacts import ArtifactRef
from paglets.core.errors import (
    ConnectionLostError,
    PagletError,
    RemoteHostError,
    RemoteTimeoutError,
    TransferError,
)
from paglets.persistence.atomic import make_directories, replacing
from paglets.remote import requests
from paglets.remote.aio_following import AsyncFollowing
from paglets.remote.aio_proxy import AsyncPagletCalls, AsyncPagletProxy
from paglets.remote.client import split_url
from paglets.remote.content import PIECE_BYTES, ContentSink, ContentSource, local_path, open_source
from paglets.remote.idle import PoolOptions
from paglets.remote.pursuit import NotConnectedError
from paglets.remote.whereabouts import learn_creation
from paglets.security.tls import configured_client_context

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["AsyncHostClient", "AsyncPagletCalls", "AsyncPagletProxy"]

_FAILURES: Final = (aiohttp.ClientError, OSError, UnicodeError)
_ANY_TIME: Final = aiohttp.ClientTimeout(total=None)
_JSON: Final = {"Content-Type": "application/json"}


class AsyncHostClient(AsyncFollowing):
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
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def aclose(self) -> None:
        """Close all connections; a later call opens new ones."""
        if self._loop is asyncio.get_running_loop():
            await self._end_withdrawals()
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

    # --- artifacts -------------------------------------------------------------------------------------------------

    async def upload_artifact(
        self,
        host_url: str,
        path: str | Path,
        *,
        owner_agent_id: str = "",
        name: str | None = None,
        compression: str = "",
        expires_at: float = 0.0,
        expected_sha256: str | None = None,
        timeout: float | None = None,
    ) -> ArtifactRef:
        """Stream a file to a host and return the reference to what it stored; see `HostClient.upload_artifact`."""
        source = local_path(path)
        stream = await asyncio.to_thread(open_source, source)
        with stream:
            content = ContentSource(stream, source, hashing=not expected_sha256)
            url = requests.upload_url(
                host_url,
                owner_agent_id=owner_agent_id,
                name=source.name if name is None else name,
                compression=compression,
                expires_at=expires_at,
                size=content.size,
                expected_sha256=expected_sha256,
            )
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(content.size)}
            reply = await self._call("POST", url, content, headers, timeout)
        ref = requests.artifact_from_reply(reply, host_url, url)
        try:
            requests.check_upload(ref, size=content.size, sha256=expected_sha256 or content.sha256)
        except TransferError:
            with suppress(PagletError):
                await self.delete_artifact(ref)
            raise
        return ref

    async def download_artifact(
        self,
        artifact: ArtifactRef | str,
        target: str | Path,
        artifact_id: str | None = None,
        *,
        move: bool = False,
        timeout: float | None = None,
    ) -> ArtifactRef:
        """Stream an artifact into a file and return its reference; see `HostClient.download_artifact`."""
        ref = requests.locate_artifact(artifact, artifact_id, "download_artifact")
        if not ref.sha256:
            ref = await self.artifact_metadata(ref.host_url, ref.artifact_id, timeout=timeout)
        async with _replacing(local_path(target)) as stream:
            await self._download(ref, stream, timeout)
        if move:
            await self.delete_artifact(ref, timeout=timeout)
        return ref

    async def artifact_metadata(self, host_url: str, artifact_id: str, *, timeout: float | None = None) -> ArtifactRef:
        """Return what a host knows about an artifact; see `HostClient.artifact_metadata`."""
        url = requests.artifact_url(host_url, artifact_id, "metadata")
        return requests.artifact_from_reply(await self.get_json(url, timeout=timeout), host_url, url)

    async def list_artifacts(
        self, host_url: str, *, owner_agent_id: str | None = None, timeout: float | None = None
    ) -> list[ArtifactRef]:
        """Return the artifacts of a host, or those of one owner."""
        url = requests.list_url(host_url, owner_agent_id)
        return requests.artifacts_from_reply(await self.get_json(url, timeout=timeout), host_url, url)

    async def delete_artifact(
        self, artifact: ArtifactRef | str, artifact_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Delete an artifact; one that is gone already is no error; see `HostClient.delete_artifact`."""
        ref = requests.locate_artifact(artifact, artifact_id, "delete_artifact")
        await self._call("DELETE", requests.artifact_url(ref.host_url, ref.artifact_id), None, {}, timeout)

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

    async def _download(self, ref: ArtifactRef, stream: BinaryIO, timeout: float | None) -> None:
        url = requests.artifact_url(ref.host_url, ref.artifact_id)
        has_key = bool(self.api_key)
        async with self._exchange("GET", url, None, {}, timeout) as (response, progress):
            if response.status != 200:
                data = await self._read(response, url)
                requests.decode_reply(response.status, data, url, has_key=has_key)
                raise RemoteHostError(f"{url} answered HTTP {response.status} instead of the artifact")
            with ContentSink(ref, stream) as sink:
                async for piece in _received(response, url):
                    progress()
                    await asyncio.to_thread(sink.write, piece)
            sink.check(response.headers.get(requests.SHA256_HEADER))

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
        target = _target(url)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        if self.api_key:
            headers["Authorization"] = f"Bearer {requests.checked_key(self.api_key)}"
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
                    ssl=self.ssl_context or configured_client_context() or True,
                ),
                # The time of a call is watched here, where progress is known.
                timeout=_ANY_TIME,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        elif self._loop is not loop:
            raise RuntimeError("an AsyncHostClient serves the event loop of its first call; make one per loop")
        return self._session


def _target(url: str) -> URL:
    try:
        origin, authority, target = split_url(url)
    except ValueError as exc:
        raise RemoteHostError(f"Could not reach {url}: {exc}") from exc
    return URL(f"{origin.scheme}://{authority}{target}", encoded=True)


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


@asynccontextmanager
async def _replacing(path: Path) -> AsyncIterator[BinaryIO]:
    """Do what `replacing` does with the slow parts on a thread, after creating the directory."""
    await asyncio.to_thread(make_directories, path.parent)
    manager = replacing(path)
    stream = await asyncio.to_thread(manager.__enter__)
    try:
        yield stream
    except BaseException as exc:
        # At once, since a cancelled task may not get to wait any more; it only removes a file.
        manager.__exit__(type(exc), exc, exc.__traceback__)
        raise
    await asyncio.to_thread(manager.__exit__, None, None, None)
