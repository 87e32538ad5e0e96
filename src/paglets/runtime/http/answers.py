"""How results and errors become the answers of the documented routes."""

from __future__ import annotations

from typing import Any

from paglets.core.errors import ForbiddenError
from paglets.remote.requests import encode_json
from paglets.runtime.http.access import role_of_route
from paglets.runtime.http.errors import MethodNotAllowedError, described
from paglets.runtime.http.gate import CALLER
from paglets.runtime.http.guards import CONTENT_TYPE, MEDIA_TYPE
from paglets.runtime.http.routing import Answer, Request
from paglets.security.caller import Caller


def answer(payload: Any) -> Answer:
    """Return a JSON answer; binary values in it are tagged.

    :raises SerializationError: JSON cannot express the payload.
    """
    return Answer(encode_json(payload))


def encoded(body: bytes) -> Answer:
    """Return an answer of encoded JSON."""
    return Answer(body)


def on_error(request: Request, exc: Exception) -> Answer:
    """Return the answer to a request that ended in an error."""
    status, wire = described(exc)
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(exc, MethodNotAllowedError) and exc.allowed:
        headers.append((b"allow", exc.allowed.encode()))
    if request.scope.get(MEDIA_TYPE) == CONTENT_TYPE:
        headers.append((b"connection", b"close"))  # the body is not read, and would be taken for the next request
    return Answer(encode_json(wire), status, headers, exc)


def check_listed(request: Request, template: str) -> None:
    """Let nobody use a route by more than the table of roles allows, whatever the gate has made of its path.

    :param template: the path of the route, as it is declared.
    :raises ForbiddenError: the route is not in the table, or needs another role.
    """
    caller: Caller | None = request.scope.get(CALLER)
    role = role_of_route(request.method, template)
    if role is None or caller is None or caller.role < role:
        raise ForbiddenError(f"{request.method} {template} may be used by nobody with this role")
