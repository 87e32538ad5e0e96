"""The routes of the API: how one is declared, which one a request is for, and what it is called with.

A route is a coroutine function of the request, of the parts of its path and of its query by name, and of `data` where
it takes a JSON body. Its annotations say of which type these are, by which they are checked, and what the API's
description says of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias, get_type_hints
from urllib.parse import parse_qsl

import msgspec

from paglets.core.errors import NotFoundError, SerializationError
from paglets.runtime.http.errors import ClientGoneError, MethodNotAllowedError
from paglets.runtime.http.guards import CONTENT_TYPE, MEDIA_TYPE, Application, Receive, Scope, Send, send_json

__all__ = ["Answer", "Body", "Handler", "Request", "Route", "Routing", "delete", "get", "post", "put", "route"]

BODY: Final = "data"
"""The parameter of a route that is its JSON body."""
_REQUEST: Final = "request"
_NUMBER: Final = ":int"


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as its connection has it."""

    scope: Scope
    receive: Receive

    @property
    def method(self) -> str:
        """Its method, in capitals."""
        method: str = self.scope["method"]
        return method

    def header(self, name: bytes) -> str | None:
        """Return a header field, None where there is none.

        :param name: in small letters.
        """
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == name), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """Encoded JSON that answers a request."""

    body: bytes
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = ()
    error: Exception | None = None
    """What it says, where it is an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send_json(send, self.status, self.body, error=self.error, extra=self.headers)


Handler: TypeAlias = Callable[..., Awaitable[Application]]
Body: TypeAlias = tuple[tuple[str, str], ...]
"""Types of content that a route reads by itself, each with what it is."""


class Route:
    """One operation of the API.

    :param path: with `{name}` for a part that a request chooses, `{name:int}` for one that is a number.
    :param reply: the shape of its answer.
    :param body: what it takes that is no JSON.
    :param content: statuses whose answer is the content of a file, each with what that is.
    """

    def __init__(
        self,
        handler: Handler,
        path: str,
        methods: Sequence[str],
        *,
        summary: str,
        reply: type[msgspec.Struct],
        body: Body = (),
        content: Sequence[tuple[int, str]] = (),
    ) -> None:
        self.handler = handler
        self.path = path
        self.methods = tuple(methods)
        self.summary = summary
        self.reply = reply
        self.body = body
        self.content = tuple(content)
        self.parts = tuple(path.strip("/").split("/"))

    @property
    def description(self) -> str:
        """What it does, at length."""
        return inspect.getdoc(self.handler) or ""

    @property
    def public_path(self) -> str:
        """Its path as the API's description writes it."""
        return self.path.replace(_NUMBER, "")

    # Made when the route is first asked for: together they would take longer than the rest of a host's start.
    @cached_property
    def call(self) -> Call:
        """What a request has to say for it."""
        return Call.of(self)


@dataclass(frozen=True, slots=True)
class Call:
    """What a route is called with."""

    fields: tuple[tuple[str, Any, Any], ...]
    """Name, type and default, `msgspec.NODEFAULT` for none, of each part of path and query."""
    in_path: frozenset[str]
    data: Any
    """The type of the JSON body, `inspect.Parameter.empty` for none."""
    optional: bool
    """Whether the body may be left out."""
    values: type[msgspec.Struct]

    @classmethod
    def of(cls, route: Route) -> Call:
        """Read the annotations of a route."""
        hints = get_type_hints(route.handler, include_extras=True)
        parameters = inspect.signature(route.handler).parameters
        empty = inspect.Parameter.empty
        fields = tuple(
            (name, hints[name], msgspec.NODEFAULT if parameter.default is empty else parameter.default)
            for name, parameter in parameters.items()
            if name not in (_REQUEST, BODY)
        )
        body = parameters.get(BODY)
        return cls(
            fields,
            frozenset(part.strip("{}").removesuffix(_NUMBER) for part in route.parts if part.startswith("{")),
            empty if body is None else hints[BODY],
            body is not None and body.default is not empty,
            msgspec.defstruct("Values", fields, kw_only=True),
        )

    @property
    def takes_data(self) -> bool:
        """Whether there is a JSON body."""
        return self.data is not inspect.Parameter.empty

    def arguments(self, chosen: dict[str, str], query: bytes) -> dict[str, Any]:
        """Return path and query as the handler takes them.

        :param chosen: the parts of the path.
        :raises SerializationError: something is missing or wrong; the text says what.
        """
        asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else ()
        # What stands in the path is not to be changed by a query that happens to name it.
        words = {**{name: text for name, text in asked if name not in self.in_path}, **chosen}
        try:
            return msgspec.structs.asdict(msgspec.convert(words, self.values, strict=False))
        except msgspec.ValidationError as exc:
            text, _, place = str(exc).partition(" - at `$")
            name = place.strip(".`")
            if not name:
                text = text.replace("Object missing required field", "the query lacks")
            raise SerializationError(f"{name}: {text}" if name else text) from None


Decorator: TypeAlias = Callable[[Handler], Route]


def route(
    path: str,
    methods: Sequence[str],
    *,
    summary: str,
    reply: type[msgspec.Struct],
    body: Body = (),
    content: Sequence[tuple[int, str]] = (),
) -> Decorator:
    """Return a decorator that makes a route of a handler; see `Route`."""
    return lambda handler: Route(handler, path, methods, summary=summary, reply=reply, body=body, content=content)


def get(path: str, *, summary: str, reply: type[msgspec.Struct]) -> Decorator:
    """Return a decorator that makes a route for GET of a handler."""
    return route(path, ("GET",), summary=summary, reply=reply)


def post(path: str, *, summary: str, reply: type[msgspec.Struct], body: Body = ()) -> Decorator:
    """Return a decorator that makes a route for POST of a handler."""
    return route(path, ("POST",), summary=summary, reply=reply, body=body)


def put(path: str, *, summary: str, reply: type[msgspec.Struct], body: Body = ()) -> Decorator:
    """Return a decorator that makes a route for PUT of a handler."""
    return route(path, ("PUT",), summary=summary, reply=reply, body=body)


def delete(path: str, *, summary: str, reply: type[msgspec.Struct]) -> Decorator:
    """Return a decorator that makes a route for DELETE of a handler."""
    return route(path, ("DELETE",), summary=summary, reply=reply)


class _Place:
    """Where a path may have got to."""

    __slots__ = ("any", "named", "number", "routes")

    def __init__(self) -> None:
        self.named: dict[str, _Place] = {}
        self.any: _Place | None = None
        self.number: _Place | None = None
        self.routes: dict[str, Route] = {}

    def below(self, part: str) -> _Place:
        """Return the place that a part of a template leads to."""
        if not part.startswith("{"):
            return self.named.setdefault(part, _Place())
        if part.endswith(_NUMBER + "}"):
            self.number = self.number or _Place()
            return self.number
        self.any = self.any or _Place()
        return self.any

    def reached(self, parts: Sequence[str]) -> Iterator[_Place]:
        """Give the places that a path leads to, those with a name in a part before those with any."""
        if not parts:
            if self.routes:
                yield self
            return
        first, rest = parts[0], parts[1:]
        if first in self.named:
            yield from self.named[first].reached(rest)
        if self.number is not None and first.isascii() and first.isdigit():
            yield from self.number.reached(rest)
        if self.any is not None:
            yield from self.any.reached(rest)


class Routing:
    """Know which route a request is for."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Place()
        for each in self.routes:
            place = self._root
            for part in each.parts:
                place = place.below(part)
            place.routes.update(dict.fromkeys(each.methods, each))
        self._most_parts = max((len(each.parts) for each in self.routes), default=0)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route of a path, and what stands in it for the parts that a request chooses.

        :param path: decoded; slashes more than needed mean nothing.
        :raises NotFoundError: there is none.
        :raises MethodNotAllowedError: there is one, but for other methods.
        """
        parts = [part for part in path.split("/") if part]
        places = list(self._root.reached(parts)) if len(parts) <= self._most_parts else []
        if not places:
            raise NotFoundError(f"No route for {method} {path[:200]}")
        for place in places:
            found = place.routes.get(method)
            if found is not None:
                return found, {
                    name.strip("{}").removesuffix(_NUMBER): part
                    for name, part in zip(found.parts, parts, strict=True)
                    if name.startswith("{")
                }
        allowed = ", ".join(sorted({"OPTIONS", *(each for place in places for each in place.routes)}))
        raise MethodNotAllowedError(f"{method} is not a method of {path[:200]}", allowed)


async def json_body(request: Request) -> bytes:
    """Return the JSON body of a request, which was read before.

    :raises ClientGoneError: the client left.
    """
    if request.scope.get(MEDIA_TYPE) == CONTENT_TYPE:
        raise SerializationError("a JSON body is missing")
    pieces: list[bytes] = []
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
