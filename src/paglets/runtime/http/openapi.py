"""The description of the API, made of what the routes declare."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from paglets.runtime.http import replies
from paglets.runtime.http.routing import Route

_BYTES: Final = "application/octet-stream"
_JSON: Final = "application/json"
_REFERENCE: Final = "#/components/schemas/{name}"
_ERRORS: Final = {
    400: "malformed, or refused by the paglet or the host",
    401: "the bearer key is missing or wrong",
    403: "not allowed: a class, a page of another site, an unknown host name",
    404: "no such route or paglet",
    405: "another method is asked for",
    408: "the request did not come in time",
    409: "the id is taken, or another operation is in progress",
    413: "the body is too large",
    415: "the body is neither JSON nor a movement",
    422: "the paglet does not handle this message",
    429: "the mailbox or the host is full",
    431: "the headers are too large",
    500: "the host failed",
    503: "too many connections",
    507: "the disk does not take what must be durable",
}
_BAD_RANGE: Final = {416: "the range begins behind the end"}


def description_of(routes: Iterable[Route], *, version: str) -> dict[str, Any]:
    """Return the description of an API as OpenAPI 3.1 has it, in plain values.

    :param version: of the program that serves it.
    """
    described = tuple(routes)
    types = list(dict.fromkeys((replies.ErrorReply, *(type_ for each in described for type_ in _types(each)))))
    found, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schemas = dict(zip(types, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in described:
        for method in each.methods:
            paths.setdefault(each.public_path, {})[method.lower()] = _operation(each, method, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "paglets host", "version": version, "description": "One host of a paglets mesh."},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "The API key."}},
        },
    }


def _types(route: Route) -> Iterator[Any]:
    yield route.reply
    yield from (type_ for _, type_, _ in route.call.fields)
    if route.call.takes_data:
        yield route.call.data


def _operation(route: Route, method: str, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": route.description,
        "operationId": _operation_id(route, method),
        "responses": _responses(route, schemas),
    }
    if route.call.fields:
        operation["parameters"] = [_parameter(route, field, schemas) for field in route.call.fields]
    content = {
        type_: {"schema": {"type": "string", "contentMediaType": _BYTES} | ({"description": text} if text else {})}
        for type_, text in route.body
    }
    if route.call.takes_data:
        body = {_JSON: {"schema": schemas[route.call.data]}, **content}
        operation["requestBody"] = {"content": body, "required": not route.call.optional}
    elif content:
        operation["requestBody"] = {"content": content, "required": False}
    return operation


def _operation_id(route: Route, method: str) -> str:
    words = [part.strip("{}").removesuffix(":int") for part in route.parts]
    if len(route.methods) > 1:
        words.append(method.lower())
    words.append(getattr(route.handler, "__name__", ""))
    return "".join(word.title() for text in words for word in text.replace("-", "_").split("_"))


def _parameter(route: Route, field: tuple[str, Any, Any], schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    name, type_, default = field
    schema = dict(schemas[type_])
    required = default is msgspec.NODEFAULT
    if not required and default is not None:
        schema["default"] = default
    return {
        "name": name,
        "in": "path" if name in route.call.in_path else "query",
        "required": required,
        "description": _description(schema),
        "schema": schema,
    }


def _description(schema: dict[str, Any]) -> str:
    # Of a type or nothing, the description is the type's.
    nested = (each.get("description") for each in schema.get("anyOf", ()))
    return str(schema.get("description") or next(filter(None, nested), ""))


def _responses(route: Route, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    error = {_JSON: {"schema": schemas[replies.ErrorReply]}}
    errors = _ERRORS | (_BAD_RANGE if route.content else {})
    found = {str(status): {"description": text, "content": error} for status, text in errors.items()}
    if not route.content:
        text = inspect.getdoc(route.reply) or ""
        found["200"] = {"description": text, "content": {_JSON: {"schema": schemas[route.reply]}}}
    for status, text in route.content:
        found[str(status)] = {"description": text, "content": {_BYTES: {"schema": {"type": "string"}}}}
    return dict(sorted(found.items()))
