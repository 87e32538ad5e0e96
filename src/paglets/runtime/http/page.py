"""The description of the API: for programs as OpenAPI, for people as a page that needs no other server."""

from __future__ import annotations

from html import escape
from typing import Any

from litestar import Litestar, Request
from litestar.config.response_cache import ResponseCacheConfig
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, OpenAPIMediaType, OpenAPIType, RequestBody, Schema, SecurityScheme

from paglets.remote.transport import MOVEMENT_CONTENT_TYPE
from paglets.runtime.http.answers import check_listed, on_error
from paglets.runtime.http.artifacts import FinishedUploads
from paglets.runtime.http.documented import JsonRequest
from paglets.runtime.http.followers import Followers
from paglets.runtime.http.routes import ROUTES
from paglets.runtime.node import Node


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


def documented_routes(node: Node, *, version: str) -> Litestar:
    """Return the routes with their OpenAPI page at ``/schema``."""
    app = Litestar(
        route_handlers=ROUTES,
        request_class=JsonRequest,
        guards=[check_listed],
        exception_handlers={Exception: on_error},
        openapi_config=OpenAPIConfig(
            title="paglets host",
            version=version,
            description="One host of a paglets mesh.",
            path="/schema",
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
    app.state.node = node
    app.state.finished = FinishedUploads()
    app.state.followers = Followers(node.kernel.events)
    _describe_movements(app)
    _describe_content(app)
    return app


def _describe_movements(app: Litestar) -> None:
    """Add the other type of body that ``POST /agents`` takes."""
    operation = (app.openapi_schema.paths or {})["/agents"].post
    if operation is not None and isinstance(operation.request_body, RequestBody):
        operation.request_body.content[MOVEMENT_CONTENT_TYPE] = OpenAPIMediaType(
            Schema(
                type=OpenAPIType.STRING,
                content_media_type="application/octet-stream",
                description="A header of plain values, then a state blob and files; see paglets.remote.movement.",
            )
        )


def _describe_content(app: Litestar) -> None:
    """Add the bodies that no handler declares, because they are read as they come."""
    paths = app.openapi_schema.paths or {}
    for operation in (paths["/artifacts"].post, paths["/blobs/{sha256}"].put):
        if operation is not None:
            anything = Schema(content_media_type="application/octet-stream", type=OpenAPIType.STRING)
            operation.request_body = RequestBody({"application/octet-stream": OpenAPIMediaType(anything)})
