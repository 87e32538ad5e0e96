"""One exchange with a host over a fabric: the request as bytes, the answer decoded, failures named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urlparse

from paglets.core.errors import ConnectionLostError, RemoteHostError, RemoteTimeoutError
from paglets.remote import requests
from paglets.remote.connections import (
    BodyTooLargeError,
    ConnectTimeoutError,
    Deadline,
    NotSentError,
    Origin,
    ProtocolError,
    Request,
)
from paglets.remote.content import FileBody
from paglets.remote.fabric import Answer, Fabric
from paglets.remote.pursuit import NotConnectedError
from paglets.security.addresses import key_for

__all__ = ["FAILURES", "call", "exchange", "failure", "request_of", "split_url"]

FAILURES: Final = (OSError, UnicodeError, ProtocolError, BodyTooLargeError)
"""What reading and writing a connection can raise."""

_PORTS: Final = {"http": 80, "https": 443}
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~?"

Body = bytes | Iterable[bytes | memoryview] | FileBody


def call(
    fabric: Fabric,
    request: Request,
    url: str,
    deadline: Deadline,
    *,
    max_response_bytes: int,
    has_key: bool,
) -> Any:
    """Send a request and return its decoded JSON answer.

    :raises PagletError: what the host answered, or `RemoteHostError`.
    """
    response = exchange(fabric, request, url, deadline)
    try:
        status, data = response.status, response.read(max_response_bytes)
    except FAILURES as exc:
        raise failure(exc, url, deadline.seconds) from exc
    finally:
        response.close()
    return requests.decode_reply(status, data, url, has_key=has_key)


def exchange(fabric: Fabric, request: Request, url: str, deadline: Deadline) -> Answer:
    """Send a request and return its response with the head read; the caller closes it.

    :raises RemoteHostError: the host was not reached, or ended the exchange.
    """
    try:
        return fabric.exchange(request, deadline)
    except FAILURES as exc:
        raise failure(exc, url, deadline.seconds) from exc


def failure(exc: Exception, url: str, seconds: float) -> RemoteHostError:
    """Return the error of this package for what an exchange ended in."""
    match exc:
        case ConnectTimeoutError():
            return RemoteTimeoutError(f"Could not reach {url}: no connection within {round(seconds, 3):g} s")
        case TimeoutError():
            return RemoteTimeoutError(f"No answer from {url} within {round(seconds, 3):g} s")
        case BodyTooLargeError() | ProtocolError():
            return RemoteHostError(f"Could not read the answer of {url}: {exc}")
        case NotSentError():
            return NotConnectedError(f"Could not reach {url}: {exc}")
        case _:
            return ConnectionLostError(f"Lost the connection to {url}: {str(exc) or type(exc).__name__}")


@lru_cache(maxsize=1024)
def split_url(url: str) -> tuple[Origin, str, str]:
    """Return server, Host header and request target of a URL; raise `ValueError` if it names no HTTP resource."""
    parts = urlparse(url)
    port = _PORTS.get(parts.scheme)
    if port is None:
        raise ValueError("only http and https URLs can be called")
    if not parts.hostname or parts.username is not None:
        raise ValueError("the URL must name a host, and no user")
    authority = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    target = quote(f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/", safe=_PATH_CHARACTERS)
    if not authority.isprintable() or " " in authority:
        raise ValueError("the URL holds characters that a host name cannot have")
    return Origin(parts.scheme, parts.hostname, parts.port or port), authority, target


def request_of(
    method: str,
    url: str,
    body: Body,
    content_type: str,
    api_key: str | None,
    length: int | None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """Return a request, ready to be written.

    :param length: of the body; None has an iterable one sent in chunks.
    :param headers: further fields.
    :raises RemoteHostError: the URL names no HTTP resource.
    """
    try:
        origin, authority, target = split_url(url)
    except ValueError as exc:
        raise RemoteHostError(f"Could not reach {url}: {exc}") from exc
    lines = [
        f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
    ]
    if (api_key := key_for(api_key, url)) is not None and api_key:
        lines.append(f"Authorization: Bearer {requests.checked_key(api_key)}\r\n")
    if content_type:
        lines.append(f"Content-Type: {content_type}\r\n")
    for name, value in (headers or {}).items():
        lines.append(f"{name}: {value}\r\n")
    chunked = length is None and not isinstance(body, bytes)
    if chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    elif length is not None:
        lines.append(f"Content-Length: {length}\r\n")
    lines.append("\r\n")
    return Request(method, origin, "".join(lines).encode("ascii"), body, chunked)
