"""What every request must pass before a route sees it: name, origin, key, type and announced size.

This is an ASGI application around the routes. It decides from the head of the request alone; nothing of a body is read
before the caller has shown that it may send one.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from paglets.artifacts.compression import encodings
from paglets.core.errors import (
    ForbiddenError,
    HostError,
    PagletError,
    PayloadTooLargeError,
    UnsupportedMediaError,
)
from paglets.remote.packed import MESSAGE_CONTENT_TYPE
from paglets.runtime.http.access import RELAY_PATH
from paglets.runtime.http.errors import described
from paglets.runtime.http.extensions import ANSWER, DIRECT_BODY, INLET
from paglets.runtime.http.gate import Gate
from paglets.runtime.http.keyring import Keyring
from paglets.runtime.http.quotas import MAX_BUFFERED_BYTES, Load, retry_after

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_MOVEMENTS = 256
JSON_TYPE = b"application/json"
MOVEMENT_TYPE = b"application/x-paglets-movement"
MESSAGE_TYPE = MESSAGE_CONTENT_TYPE.encode()
#: What stands for the type of a body of any type that is stored as it is.
CONTENT_TYPE = b"application/octet-stream"

#: Where the guard leaves the type of the body for the application: one of these, or nothing.
MEDIA_TYPE = "paglets.media_type"
#: Where the guard says whether there can be a body.
HAS_BODY = "paglets.has_body"

_HELD_TYPES = frozenset({b"", JSON_TYPE, MESSAGE_TYPE})
_HOST = re.compile(rb"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\])(?::[0-9]{0,5})?")
# Two of one of these would let a proxy in front and this host see different requests.
_SINGLE = frozenset({b"host", b"authorization", b"content-type", b"content-length", b"origin"})


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """What the guard lets through."""

    api_key: str | None = field(repr=False)
    """The bearer key every request must show where there is no gate of its own; None asks for none."""
    host_names: frozenset[str]
    """Names other than literal addresses under which this host may be addressed, lower-case."""
    path_prefix: str = ""
    """Path of the public URL, stripped where a request has it."""
    max_json_bytes: int = MAX_JSON_BYTES
    """Largest JSON body."""
    max_buffered_bytes: int = MAX_BUFFERED_BYTES
    """What the bodies of all requests together may take while they are read."""
    max_movements: int = MAX_MOVEMENTS
    """Movements that may come in at the same time."""


def own_host_names(*extra: str) -> frozenset[str]:
    """Return the names under which this machine answers: ``localhost``, its own names, and ``extra``."""
    machine = socket.gethostname().lower()
    names = {"localhost", machine, f"{machine.partition('.')[0]}.local"}
    return frozenset(names | {name.lower().strip("[]") for name in extra if name})


class Guard:
    """Check requests before ``application`` gets them.

    :param gate: who may ask; whoever shows the key of the policy by default.
    """

    def __init__(self, application: Application, policy: Callable[[], GuardPolicy], gate: Gate | None = None) -> None:
        self._application = application
        self._policy = policy
        self._gate = Gate(Keyring(policy().api_key)) if gate is None else gate
        self.relay: Application | None = None
        """Gets what is under ``/relay/`` of callers who were let in, with bodies of any type and size."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        policy = self._policy()
        visit = self._gate.visit(scope)
        send = visit.watching(in_one_piece(scope, send))
        try:
            headers = single_headers(scope["headers"])
            host = headers.get(b"host")
            check_host(host, policy.host_names, required=scope["http_version"] != "1.0")
            check_origin(headers.get(b"origin"), host)
            prefix = policy.path_prefix
            if prefix and (scope["path"] == prefix or scope["path"].startswith(prefix + "/")):
                strip_prefix(scope, prefix)
            caller = visit.recognise(headers)
            passing = scope["path"].startswith(RELAY_PATH) and self.relay is not None
            if passing:
                # Its body is judged where it goes, and held there.
                held, has_body = False, check_length(headers, 0, bounded=False)
            else:
                held, has_body = judge_body(scope, headers, policy)
            announced = headers.get(b"content-length")
            load = Load(0 if announced is None else int(announced), held)
            visit.enter(caller, load)
            if has_body and announced is None and (held or caller.limits.bytes_in_flight is not None):
                receive = visit.counting(receive, caller, load)
                for shortcut in (DIRECT_BODY, INLET):
                    # The body would go past the count by these.
                    scope.get("extensions", {}).pop(shortcut, None)
        except PagletError as exc:
            await refuse(send, exc)
            visit.leave()
            return
        try:
            if passing and self.relay is not None:
                await self.relay(scope, receive, send)
            else:
                await self._application(scope, receive, send)
        finally:
            visit.leave()

    async def let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that was let in under another path; only its body is still to be judged."""
        try:
            judge_body(scope, single_headers(scope["headers"]), self._policy())
        except PagletError as exc:
            await refuse(send, exc)
            return
        await self._application(scope, receive, send)


def judge_body(scope: Scope, headers: dict[bytes, bytes], policy: GuardPolicy) -> tuple[bool, bool]:
    """Leave in the scope what there is of a body, and return whether it is held in memory and whether there is one.

    :raises PagletError: it is of a type or a size that is not taken.
    """
    if takes_content(scope["method"], scope["path"]):
        check_coding(headers, encodings())
        scope[MEDIA_TYPE] = CONTENT_TYPE
    else:
        scope[MEDIA_TYPE] = media_type(headers)
    held = scope[MEDIA_TYPE] not in (MOVEMENT_TYPE, CONTENT_TYPE)
    has_body = scope[HAS_BODY] = check_length(headers, policy.max_json_bytes, bounded=held)
    return held, has_body


def strip_prefix(scope: Scope, prefix: str) -> None:
    """Take a prefix off the path of a request; the rest stays quoted as it was."""
    raw: bytes = scope["raw_path"]
    scope["path"] = scope["path"][len(prefix) :] or "/"
    start = prefix.encode()
    scope["raw_path"] = (raw[len(start) :] or b"/") if raw.startswith(start) else quote(scope["path"]).encode()


def single_headers(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the header fields by name.

    :raises HostError: one that decides who may do what is there twice.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in headers and name in _SINGLE:
            raise HostError(f"the header {name.decode('latin-1')} is there more than once")
        headers[name] = value
    return headers


@lru_cache(maxsize=256)
def name_of(host: bytes) -> str:
    """Return the name or address in a Host header, lower-case, without port and brackets; empty if it is none."""
    match = _HOST.fullmatch(host)
    return match["name"].decode("ascii").strip("[]").lower() if match else ""


@lru_cache(maxsize=256)
def is_address(name: str) -> bool:
    """Tell whether a name is a literal address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_host(host: bytes | None, names: frozenset[str], *, required: bool = True) -> None:
    """Refuse a request addressed to a name that is not this host's: the mark of DNS rebinding.

    A literal address cannot be rebound, so any is fine. A request of HTTP/1.0 needs no name, and no browser sends one.

    :raises ForbiddenError: the name is not known.
    :raises HostError: there is none.
    """
    if host is None:
        if required:
            raise HostError("a request needs a Host header")
        return
    name = name_of(host)
    if name not in names and not is_address(name):
        raise ForbiddenError(f"this host does not answer to the name {host[:100].decode('latin-1')!r}")


def check_origin(origin: bytes | None, host: bytes | None) -> None:
    """Refuse a request that a page of another site made a browser send.

    :raises ForbiddenError: the page is not of this host.
    """
    if origin is None:
        return
    try:
        page = urlsplit(origin.decode("latin-1")).netloc.lower()
    except ValueError:
        page = ""
    if not page or host is None or page != host.decode("latin-1").lower():
        raise ForbiddenError("requests from pages of other sites are refused")


def takes_content(method: str, path: str) -> bool:
    """Tell whether the body of a request is content that is stored: an artifact or a blob."""
    if method == "POST":
        return path.rstrip("/") == "/artifacts"
    return method == "PUT" and path.startswith("/blobs/")


def check_coding(headers: dict[bytes, bytes], understood: Sequence[str] = ()) -> bytes:
    """Return how the body is coded.

    :param understood: codings that are accepted.
    :raises UnsupportedMediaError: it is coded in another way.
    """
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding != b"identity" and coding.decode("latin-1") not in understood:
        what = f"as they are or in {', '.join(understood)}" if understood else "as they are"
        raise UnsupportedMediaError(f"bodies are sent {what}, not in {coding[:80].decode('latin-1')!r}")
    return coding


def media_type(headers: dict[bytes, bytes]) -> bytes:
    """Return the type of the body, nothing where the request names none.

    :raises UnsupportedMediaError: it is neither JSON nor what only hosts send, or coded.
    """
    check_coding(headers)
    value = headers.get(b"content-type", b"")
    if value in _HELD_TYPES:
        return value
    value = value.partition(b";")[0].strip().lower()
    if value not in _HELD_TYPES and value != MOVEMENT_TYPE:
        raise UnsupportedMediaError(
            f"a body of type {value[:80].decode('latin-1')!r} is not understood; send {JSON_TYPE.decode()}"
        )
    return value


def check_length(headers: dict[bytes, bytes], limit: int, *, bounded: bool) -> bool:
    """Return whether the request can have a body.

    :param bounded: whether ``limit`` holds for the announced length.
    :raises PayloadTooLargeError: it is longer.
    """
    length = headers.get(b"content-length")
    if length is None:
        return b"transfer-encoding" in headers
    if not length.isdigit() or len(length) > 19:
        raise HostError("Content-Length is not a number")
    if bounded and int(length) > limit:
        raise PayloadTooLargeError(f"a body of {int(length)} bytes is larger than the {limit} allowed")
    return length != b"0"


def in_one_piece(scope: Scope, send: Send) -> Send:
    """Return a way to send an answer that is written at once, where the server can do that and the body is whole."""
    answer = scope.get("extensions", {}).get(ANSWER)
    if answer is None:
        return send
    head: MutableMapping[str, Any] = {}

    async def whole(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            head.update(message)
        elif head and not message.get("more_body", False):
            await answer(head["status"], head["headers"], message.get("body", b""))
        else:
            if head:
                await send({**head})
                head.clear()
            await send(message)

    return whole


async def refuse(send: Send, error: Exception) -> None:
    """Answer with an error and end the connection, so that an unread body is not waited for."""
    if isinstance(error, UnsupportedMediaError):
        error.refused = True
    status, wire = described(error)
    await send_json(send, status, msgspec.json.encode(wire), closing=True, error=error)


async def send_json(
    send: Send,
    status: int,
    body: bytes,
    *,
    closing: bool = False,
    error: Exception | None = None,
    extra: Sequence[tuple[bytes, bytes]] = (),
    media_type: bytes = JSON_TYPE,
) -> None:
    """Answer with encoded JSON, or something of another type that is as short.

    :param closing: end the connection afterwards.
    :param error: what the answer says, where it is an error.
    :param extra: further headers.
    """
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body)), *extra]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", b"1" if error is None else retry_after(error)))
    if closing:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
