"""How results and errors become the answers of the documented routes."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers.base import BaseRouteHandler

from paglets.core.errors import ForbiddenError, NotFoundError, SerializationError
from paglets.remote.requests import encode_json
from paglets.runtime.http.access import role_of_route
from paglets.runtime.http.errors import MethodNotAllowedError, described
from paglets.runtime.http.gate import CALLER
from paglets.runtime.http.guards import CONTENT_TYPE, MEDIA_TYPE
from paglets.security.caller import Caller

Answer = Response[bytes]


def answer(payload: Any) -> Answer:
    """Return a JSON answer; binary values in it are tagged.

    :raises SerializationError: JSON cannot express the payload.
    """
    return encoded(encode_json(payload))


def listing(summaries: list[dict[str, Any]]) -> bytes:
    """Return the encoded list of paglets; one whose state JSON cannot express has `state_error` in place of it.

    :raises SerializationError: something else cannot be expressed.
    """
    try:
        return encode_json({"agents": summaries})
    except SerializationError:
        return b'{"agents":[' + b",".join(map(_summary, summaries)) + b"]}"


def _summary(summary: dict[str, Any]) -> bytes:
    try:
        return encode_json(summary)
    except SerializationError as exc:
        rest = {name: value for name, value in summary.items() if name != "state"}
        return encode_json(rest | {"state_error": str(exc)})


def encoded(body: bytes) -> Answer:
    """Return an answer of encoded JSON."""
    return Response(body, media_type=MediaType.JSON, status_code=200)


def on_error(request: Request[Any, Any, Any], exc: Exception) -> Answer:
    """Answer a request whose route raised."""
    error = as_paglet_error(request, exc)
    status, wire = described(error)
    headers = {"allow": error.allowed} if isinstance(error, MethodNotAllowedError) and error.allowed else {}
    if request.scope.get(MEDIA_TYPE) == CONTENT_TYPE:
        headers["connection"] = "close"  # the body is not read, and would be taken for the next request
    return Response(encode_json(wire), media_type=MediaType.JSON, status_code=status, headers=headers)


def as_paglet_error(request: Request[Any, Any, Any], exc: Exception) -> Exception:
    """Return the library's error for whatever a route raised."""
    if isinstance(exc, NotFoundException):
        return NotFoundError(f"No route for {request.scope['method']} {request.scope['path'][:200]}")
    if isinstance(exc, MethodNotAllowedException):
        text = f"{request.scope['method']} is not a method of {request.scope['path'][:200]}"
        return MethodNotAllowedError(text, (exc.headers or {}).get("allow", ""))
    if isinstance(exc, HTTPException) and exc.status_code < 500:
        details = "; ".join(_detail(item) for item in exc.extra) if isinstance(exc.extra, list) else ""
        return SerializationError(details or exc.detail)
    return exc


def _detail(item: Any) -> str:
    if isinstance(item, dict):
        if item.get("key") == "data":
            # Whatever is wrong in a body is found when it is decoded, before the framework looks for it.
            return "a JSON body is missing"
        return f"{item.get('key', '')}: {item.get('message', '')}".strip(": ")
    return str(item)


async def check_listed(request: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let nobody use a route by more than the table of roles allows, whatever the gate has made of its path.

    :raises ForbiddenError: the route is not in the table, or needs another role.
    """
    scope: Any = request.scope
    if scope["method"] == "OPTIONS":
        return
    caller: Caller | None = scope.get(CALLER)
    role = role_of_route(scope["method"], scope["path_template"])
    if role is None or caller is None or caller.role < role:
        raise ForbiddenError(f"{scope['method']} {scope['path_template']} may be used by nobody with this role")
