"""The description of the API: for programs as OpenAPI, for people as a page that needs no other server."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from typing import Any, Final

from litestar import Litestar, Request
from litestar.config.response_cache import ResponseCacheConfig
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from paglets.runtime.http.answers import check_listed, on_error
from paglets.runtime.http.artifacts import FinishedUploads
from paglets.runtime.http.documented import SERVED, JsonRequest, Served
from paglets.runtime.http.followers import Followers
from paglets.runtime.http.guards import Receive, Scope, Send
from paglets.runtime.http.routes import ROUTES
from paglets.runtime.node import Node

_SCHEMA_PATH: Final = "/schema"


class PlainPage(OpenAPIRenderPlugin):
    """Show the API as a page that needs nothing from any other server, because a lab may have no way out."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page."""
        rows = []
        for path, operations in sorted(openapi_schema.get("paths", {}).items()):
            for method, operation in operations.items():
                if isinstance(operation, dict) and "operationId" in operation:
                    rows.append(
                        f"<tr><td><code>{escape(method.upper())}</code></td><td><code>{escape(path)}</code></td>"
                        f"<td>{escape(operation.get('summary', ''))}</td>"
                        f"<td>{escape(operation.get('description', '') or '')}</td></tr>"
                    )
        title = escape(openapi_schema["info"]["title"])
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>"
            "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
            "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ddd;padding:.4rem;"
            "text-align:left;vertical-align:top}</style>"
            f"<h1>{title}</h1><p>The machine-readable form: <a href='schema/openapi.json'>openapi.json</a>.</p>"
            f"<table><tr><th>Method<th>Path<th>Does<th>Details</tr>{''.join(rows)}</table></html>"
        ).encode()


@lru_cache(maxsize=4)
def documented_routes(version: str) -> Litestar:
    """Return the routes with their OpenAPI page at ``/schema``.

    Every request to them must bring a `Served` in its scope.
    """
    return Litestar(
        route_handlers=ROUTES,
        request_class=JsonRequest,
        guards=[check_listed],
        exception_handlers={Exception: on_error},
        openapi_config=OpenAPIConfig(
            title="paglets host",
            version=version,
            description="One host of a paglets mesh.",
            path=_SCHEMA_PATH,
            use_handler_docstrings=True,
            components=Components(
                security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", description="The API key.")}
            ),
            security=[{"bearer": []}],
            render_plugins=[PlainPage(path="/"), JsonRenderPlugin(path="/openapi.json")],
        ),
        response_cache_config=ResponseCacheConfig(default_expiration=None),
        logging_config=None,
        pdb_on_exception=False,
        debug=False,
    )


class DocumentedRoutes:
    """Serve the documented routes for one host."""

    def __init__(self, node: Node, *, version: str) -> None:
        self._app = documented_routes(version)
        self._served = Served(node, FinishedUploads(), Followers(node.kernel.events))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope[SERVED] = self._served
        if scope["path"].startswith(_SCHEMA_PATH):
            # It takes a while, once, and nobody else is to wait for it.
            await self._served.node.kernel.on_disk(lambda: self._app.openapi_schema)
        app: Any = self._app
        await app(scope, receive, send)
