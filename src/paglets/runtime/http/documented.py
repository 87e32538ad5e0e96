"""What the modules of documented routes share: their request, their parameters, and the refusals of any route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import msgspec
from litestar import Request
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import PathParameter

from paglets.remote.transport import MOVEMENT_CONTENT_TYPE
from paglets.runtime.http import replies
from paglets.runtime.http.gate import CALLER
from paglets.runtime.http.intake import DECODE_ON_LOOP_BYTES, decode_body
from paglets.runtime.node import Node
from paglets.security.caller import Caller

if TYPE_CHECKING:
    from paglets.runtime.http.artifacts import FinishedUploads
    from paglets.runtime.http.followers import Followers

SERVED: Final = "paglets.served"
"""The key of a request's scope under which is what serves it."""

_BYTES: Final = "application/octet-stream"
_ERRORS = {
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


@dataclass(frozen=True, slots=True)
class Served:
    """What the routes of one host work with. They are one application for all hosts of a process."""

    node: Node
    finished: FinishedUploads
    followers: Followers


class JsonRequest(Request[Any, Any, Any]):
    """A request whose body is decoded as strictly as everywhere else in the host."""

    async def json(self) -> Any:
        """Return the body as the type that the route declares."""
        body = await self.body()
        field = self.route_handler.parsed_data_field
        type_ = Any if field is None else field.raw
        if len(body) <= DECODE_ON_LOOP_BYTES:
            return decode_body(body, type_)
        return await node_of(self).kernel.on_disk(decode_body, body, type_)


AgentId = Annotated[str, PathParameter(description="Id of a paglet.", max_length=1024)]


def served_by(request: Request[Any, Any, Any]) -> Served:
    """Return what the host that was asked works with."""
    scope: Any = request.scope
    return cast(Served, scope[SERVED])


def node_of(request: Request[Any, Any, Any]) -> Node:
    """Return the node that serves a request."""
    return served_by(request).node


def caller_of(request: Request[Any, Any, Any]) -> Caller | None:
    """Return who sent a request."""
    scope: Any = request.scope
    found: Caller | None = scope.get(CALLER)
    return found


@dataclass
class ContentOperation(Operation):
    """Describe an operation whose body no handler declares, because it is read as it comes."""

    def __post_init__(self) -> None:
        """Add the body."""
        anything = Schema(content_media_type=_BYTES, type=OpenAPIType.STRING)
        self.request_body = RequestBody({_BYTES: OpenAPIMediaType(anything)})


@dataclass
class MovementOperation(Operation):
    """Describe an operation that takes a movement as well."""

    def __post_init__(self) -> None:
        """Add the other type of body."""
        if isinstance(self.request_body, RequestBody):
            text = "A header of plain values, then a state blob and files; see paglets.remote.movement."
            movement = Schema(content_media_type=_BYTES, type=OpenAPIType.STRING, description=text)
            self.request_body.content[MOVEMENT_CONTENT_TYPE] = OpenAPIMediaType(movement)


def documented(reply: type[msgspec.Struct]) -> dict[int, ResponseSpec]:
    """Return the description of a route's answers: its own, and the refusals that any route may give."""
    specs = {
        status: ResponseSpec(replies.ErrorReply, description=text, generate_examples=False)
        for status, text in _ERRORS.items()
    }
    return {200: ResponseSpec(reply, description=reply.__doc__ or "", generate_examples=False), **specs}
