"""What every request must pass before a route sees it: name, origin, key, size and time.

This is an ASGI application around the routes. It decides from the head of the request alone; nothing of a body is read before the caller
has shown that it may send one.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from paglets.core.error_wire import HTTP_ERRORS, error_to_wire, http_status
from paglets.core.errors import (
    AuthenticationError,
    ForbiddenError,
    HostError,
    PayloadTooLargeError,
    UnsupportedMediaError,
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_JSON_BYTES = 64 * 1024 * 1024
#: Longest pause of a client that is sending a body.
BODY_PAUSE_SECONDS = 30.0
#: Longest time a JSON body may take in total.
JSON_BODY_SECONDS = 120.0
MOVEMENT_TYPES = frozenset({b"application/x-paglets-movement"})


class SlowClientError(HostError):
    """A client took too long to send its request."""


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """What the guard lets through."""

    api_key: str | None
    """The bearer key every request must show; None asks for none."""
    host_names: frozenset[str]
    """Names other than literal addresses under which this host may be addressed, lower-case."""
    path_prefix: str = ""
    """Path of the public URL, stripped where a request has it."""
    max_json_bytes: int = MAX_JSON_BYTES


def own_host_names(*extra: str) -> frozenset[str]:
    """Return the names under which this machine answers: ``localhost``, its own names, and ``extra``."""
    machine = socket.gethostname().lower()
    names = {"localhost", machine, f"{machine.partition('.')[0]}.local"}
    return frozenset(names | {name.lower().strip("[]") for name in extra if name})


class Guard:
    """Check requests before ``application`` gets them."""

    def __init__(self, application: Application, policy: Callable[[], GuardPolicy]) -> None:
        self._application = application
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        policy = self._policy()
        headers = dict(scope["headers"])
        try:
            check_host(headers.get(b"host"), policy.host_names)
            check_origin(headers.get(b"origin"), headers.get(b"host"))
            check_key(headers.get(b"authorization"), policy.api_key)
            limit = self._limit(headers, policy)
        except (HostError, AuthenticationError, ForbiddenError) as exc:
            await refuse(send, exc)
            return
        prefix = policy.path_prefix
        if prefix and (scope["path"] == prefix or scope["path"].startswith(prefix + "/")):
            scope["path"] = scope["path"][len(prefix) :] or "/"
            scope["raw_path"] = scope["path"].encode()
        bounded = _BoundedBody(receive, limit)
        started = _Started(send)
        try:
            await self._application(scope, bounded, started)
        except (PayloadTooLargeError, SlowClientError) as exc:
            if not started.started:
                await refuse(send, exc)

    def _limit(self, headers: dict[bytes, bytes], policy: GuardPolicy) -> int | None:
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type in MOVEMENT_TYPES:
            return None  # bounded part by part while it is read
        if content_type and content_type != b"application/json":
            raise UnsupportedMediaError(
                f"a body of type {content_type[:80].decode('latin-1')!r} is not understood; send application/json"
            )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise HostError("Content-Length is not a number")
        if int(length) > policy.max_json_bytes:
            raise PayloadTooLargeError(
                f"a body of {int(length)} bytes is larger than the {policy.max_json_bytes} allowed"
            )
        return policy.max_json_bytes


class _Started:
    """Remember whether the answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        self.started = True
        await self._send(message)


class _BoundedBody:
    """Give a request's body to the routes, within size and time."""

    def __init__(self, receive: Receive, limit: int | None) -> None:
        self._receive = receive
        self._limit = limit
        self._taken = 0
        self._ended = False
        self._deadline: float | None = None

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._ended:
            return await self._receive()  # waits for the client to leave; that may take as long as it likes
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + JSON_BODY_SECONDS
        pause = BODY_PAUSE_SECONDS if self._limit is None else min(BODY_PAUSE_SECONDS, self._deadline - now)
        try:
            async with asyncio.timeout(max(0.0, pause)):
                message = await self._receive()
        except TimeoutError:
            raise SlowClientError("the body of the request did not come in time") from None
        self._taken += len(message.get("body", b""))
        if self._limit is not None and self._taken > self._limit:
            raise PayloadTooLargeError(f"a body of more than {self._limit} bytes is not allowed")
        self._ended = not message.get("more_body", False)
        return message


def check_host(host: bytes | None, names: frozenset[str]) -> None:
    """Refuse a request addressed to a name that is not this host's: the mark of DNS rebinding.

    A literal address cannot be rebound, so any is fine.

    :raises ForbiddenError: the name is not known.
    """
    if host is None:
        raise HostError("a request needs a Host header")
    name = urlsplit("//" + host.decode("latin-1")).hostname or ""
    if name.lower() in names:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise ForbiddenError(f"this host does not answer to the name {name[:100]!r}") from None


def check_origin(origin: bytes | None, host: bytes | None) -> None:
    """Refuse a request that a page of another site made a browser send.

    :raises ForbiddenError: the page is not of this host.
    """
    if origin is None:
        return
    page = urlsplit(origin.decode("latin-1")).netloc.lower()
    if not page or host is None or page != host.decode("latin-1").lower():
        raise ForbiddenError("requests from pages of other sites are refused")


def check_key(authorization: bytes | None, api_key: str | None) -> None:
    """Check the bearer key in constant time.

    :raises AuthenticationError: it is missing or wrong.
    """
    if api_key is None:
        return
    scheme, _, key = (authorization or b"").partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), api_key.encode()):
        raise AuthenticationError("Authentication required")


async def refuse(send: Send, error: Exception) -> None:
    """Answer with an error and end the connection, so that an unread body is not waited for."""
    status = 408 if isinstance(error, SlowClientError) else http_status(error)
    body = msgspec.json.encode(error_to_wire(error, table=HTTP_ERRORS))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
