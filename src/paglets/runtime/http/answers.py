"""How results and errors become answers."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from paglets.core.error_wire import HTTP_ERRORS, error_to_wire, http_status
from paglets.core.errors import HostError, NotFoundError, PayloadTooLargeError, SerializationError
from paglets.remote.requests import encode_json
from paglets.runtime.http.guards import SlowClientError


def answer(payload: Any, status: int = 200) -> Response[bytes]:
    """Return a JSON answer; binary values in it are tagged.

    :raises SerializationError: JSON cannot express the payload.
    """
    return Response(encode_json(payload), media_type=MediaType.JSON, status_code=status)


def refusal(exc: Exception) -> Response[bytes]:
    """Return the answer for an error."""
    status = 408 if isinstance(exc, SlowClientError) else http_status(exc)
    headers = {"connection": "close"} if isinstance(exc, PayloadTooLargeError | SlowClientError) else None
    body = encode_json(error_to_wire(exc, table=HTTP_ERRORS))
    return Response(body, media_type=MediaType.JSON, status_code=status, headers=headers)


def on_error(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Answer a request whose route raised."""
    return refusal(as_paglet_error(request, exc))


def as_paglet_error(request: Request[Any, Any, Any], exc: Exception) -> Exception:
    """Return the library's error for whatever a route raised."""
    if isinstance(exc, NotFoundException):
        return NotFoundError(f"No route for {request.method} {request.url.path}")
    if isinstance(exc, MethodNotAllowedException):
        return _MethodNotAllowed(f"{request.method} is not a method of {request.url.path}")
    if isinstance(exc, HTTPException):
        details = "; ".join(_detail(item) for item in exc.extra) if isinstance(exc.extra, list) else ""
        return SerializationError(f"{exc.detail}{': ' + details if details else ''}")
    if isinstance(exc, UnicodeDecodeError):
        return SerializationError(f"malformed text: {exc.reason}")
    return exc


def _detail(item: Any) -> str:
    if isinstance(item, dict):
        return f"{item.get('key', '')}: {item.get('message', '')}".strip(": ")
    return str(item)


class _MethodNotAllowed(HostError):
    """The path exists, the method does not."""


