"""The documented routes as an application, and their description: as OpenAPI for programs, as a page for people."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from html import escape
from typing import Any, Final

import msgspec

from paglets.runtime.http.answers import check_listed, on_error
from paglets.runtime.http.artifacts import FinishedUploads
from paglets.runtime.http.documented import SERVED, Served, node_of
from paglets.runtime.http.errors import ClientGoneError, MethodNotAllowedError
from paglets.runtime.http.followers import Followers
from paglets.runtime.http.guards import Application, Receive, Scope, Send
from paglets.runtime.http.intake import DECODE_ON_LOOP_BYTES, decode_body
from paglets.runtime.http.routes import ROUTES
from paglets.runtime.http.routing import BODY, Request, Route, Routing, json_body
from paglets.runtime.node import Node

_SCHEMA_PATH: Final = "/schema"
_OPENAPI_PATH: Final = "/schema/openapi.json"
_OPENAPI_TYPE: Final = b"application/vnd.oai.openapi+json"


class Api:
    """Serve routes. Every request must bring a `Served` in its scope.

    :param version: returns the program's version, for the description.
    """

    def __init__(self, routes: list[Route], *, version: Callable[[], str]) -> None:
        self._routing = Routing(routes)
        self._version = version

    @cached_property
    def description(self) -> dict[str, Any]:
        """The description of the routes as OpenAPI has it."""
        # Only who asks for it waits until it can be made.
        from paglets.runtime.http.openapi import description_of

        return description_of(self._routing.routes, version=self._version())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            application = await self._application(request)
            await application(scope, receive, sending)
        except ClientGoneError:
            return
        except Exception as exc:
            if begun:
                raise
            await on_error(request, exc)(scope, receive, send)

    async def _application(self, request: Request) -> Application:
        scope = request.scope
        method, path = request.method, "/" + "/".join(part for part in scope["path"].split("/") if part)
        if path in (_SCHEMA_PATH, _OPENAPI_PATH):
            return await self._described(request, path)
        try:
            route, chosen = self._routing.find(method, path)
        except MethodNotAllowedError as exc:
            if method == "OPTIONS":
                return _Plain(204, [(b"allow", exc.allowed.encode())])
            raise
        check_listed(request, route.path)
        call = route.call
        arguments = call.arguments(chosen, scope["query_string"])
        if call.takes_data:
            body = await json_body(request)
            if body or not call.optional:
                arguments[BODY] = await _decoded(request, body, call.data)
        return await route.handler(request, **arguments)

    async def _described(self, request: Request, path: str) -> Application:
        if request.method == "OPTIONS":
            return _Plain(204, [(b"allow", b"GET, OPTIONS")])
        if request.method != "GET":
            raise MethodNotAllowedError(f"{request.method} is not a method of {path}", "GET, OPTIONS")
        check_listed(request, path)
        # It takes a while, once, and nobody else is to wait for it.
        description = await node_of(request).kernel.on_disk(lambda: self.description)
        if path == _OPENAPI_PATH:
            return _Plain(200, [(b"content-type", _OPENAPI_TYPE)], msgspec.json.encode(description))
        return _Plain(200, [(b"content-type", b"text/html; charset=utf-8")], plain_page(description))


async def _decoded(request: Request, body: bytes, type_: Any) -> Any:
    if len(body) <= DECODE_ON_LOOP_BYTES:
        return decode_body(body, type_)
    return await node_of(request).kernel.on_disk(decode_body, body, type_)


class _Plain:
    """An answer that is not JSON, all there."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        self._status = status
        self._headers = headers
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self._headers]
        if self._status != 204:
            headers.append((b"content-length", b"%d" % len(self._body)))
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def plain_page(description: dict[str, Any]) -> bytes:
    """Return the API as a page that needs nothing from any other server, because a lab may have no way out."""
    rows = [
        f"<tr><td><code>{escape(method.upper())}</code></td><td><code>{escape(path)}</code></td>"
        f"<td>{escape(operation['summary'])}</td><td>{escape(operation['description'])}</td></tr>"
        for path, operations in sorted(description["paths"].items())
        for method, operation in operations.items()
    ]
    title = escape(description["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.4rem;"
        "text-align:left;vertical-align:top}</style>"
        f"<h1>{title}</h1><p>The machine-readable form: <a href='schema/openapi.json'>openapi.json</a>.</p>"
        f"<table><tr><th>Method<th>Path<th>Does<th>Details</tr>{''.join(rows)}</table></html>"
    ).encode()


@lru_cache(maxsize=4)
def documented_routes(version: Callable[[], str]) -> Api:
    """Return the routes of a host, with their description at ``/schema``; all hosts of a process share them."""
    return Api(ROUTES, version=version)


class DocumentedRoutes:
    """Serve the documented routes for one host."""

    def __init__(self, node: Node, *, version: Callable[[], str]) -> None:
        self._api = documented_routes(version)
        self._served = Served(node, FinishedUploads(), Followers(node.kernel.events))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope[SERVED] = self._served
        await self._api(scope, receive, send)
