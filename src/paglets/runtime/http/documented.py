"""What the modules of routes share: what a request is served with, and what several routes take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, cast

import msgspec

from paglets.remote.transport import MOVEMENT_CONTENT_TYPE
from paglets.runtime.http.gate import CALLER
from paglets.runtime.http.routing import Body, Request
from paglets.runtime.node import Node
from paglets.security.caller import Caller

if TYPE_CHECKING:
    from paglets.runtime.http.artifacts import FinishedUploads
    from paglets.runtime.http.followers import Followers

SERVED: Final = "paglets.served"
"""The key of a request's scope under which is what serves it."""

CONTENT: Final[Body] = (("application/octet-stream", ""),)
"""The body of a route that reads it as it comes."""
MOVEMENT: Final[Body] = (
    (MOVEMENT_CONTENT_TYPE, "A header of plain values, then a state blob and files; see paglets.remote.movement."),
)
"""What a route takes beside JSON that takes movements."""


@dataclass(frozen=True, slots=True)
class Served:
    """What the routes of one host work with. They are one application for all hosts of a process."""

    node: Node
    finished: FinishedUploads
    followers: Followers


AgentId = Annotated[str, msgspec.Meta(description="Id of a paglet.", max_length=1024)]


def served_by(request: Request) -> Served:
    """Return what the host that was asked works with."""
    return cast(Served, request.scope[SERVED])


def node_of(request: Request) -> Node:
    """Return the node that serves a request."""
    return served_by(request).node


def caller_of(request: Request) -> Caller | None:
    """Return who sent a request."""
    found: Caller | None = request.scope.get(CALLER)
    return found
