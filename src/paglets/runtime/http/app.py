"""The application of a host: the guard, then movements, the hot routes, and all documented routes."""

from __future__ import annotations

from collections.abc import Callable

from paglets.core.errors import PagletError, UnsupportedMediaError
from paglets.runtime.http.errors import ClientGoneError
from paglets.runtime.http.gate import Gate
from paglets.runtime.http.guards import (
    CONTENT_TYPE,
    HAS_BODY,
    MEDIA_TYPE,
    MESSAGE_TYPE,
    MOVEMENT_TYPE,
    Application,
    Guard,
    GuardPolicy,
    Receive,
    Scope,
    Send,
    refuse,
)
from paglets.runtime.http.hot import HotRoutes
from paglets.runtime.http.intake import Intake, replay
from paglets.runtime.http.late import LateRoutes
from paglets.runtime.http.movements import MovementEndpoint
from paglets.runtime.node import Node


class Dispatcher:
    """Read bodies, and send each request to where it is served."""

    def __init__(
        self,
        intake: Intake,
        movements: Application,
        hot: HotRoutes,
        routes: Application,
        policy: Callable[[], GuardPolicy],
    ) -> None:
        self._intake = intake
        self._movements = movements
        self._hot = hot
        self._routes = routes
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope[MEDIA_TYPE] == MOVEMENT_TYPE:
            await self._movements(scope, receive, send)
            return
        if scope[MEDIA_TYPE] == CONTENT_TYPE:
            # Whoever stores it reads it.
            await self._routes(scope, receive, send)
            return
        body = b""
        if scope[HAS_BODY]:
            policy = self._policy()
            try:
                body = await self._intake.read(receive, limit=policy.max_json_bytes, total=policy.max_buffered_bytes)
            except ClientGoneError:
                return
            except PagletError as exc:
                await refuse(send, exc)
                return
        try:
            if await self._hot.serve(scope, body, send):
                return
            if scope[MEDIA_TYPE] == MESSAGE_TYPE:
                await refuse(send, UnsupportedMediaError("only messages to paglets are taken in this encoding"))
            else:
                await self._routes(scope, replay(body, receive), send)
        finally:
            self._intake.release(len(body))


def application(
    node: Node,
    policy: Callable[[], GuardPolicy],
    *,
    version: Callable[[], str],
    relay: Callable[[Application], Application] | None = None,
    gate: Gate | None = None,
) -> Application:
    """Return the whole application of a host.

    :param version: returns the program's version, for the description of the API.
    :param relay: makes what serves ``/relay/`` from what serves everything else, to callers who were let in; None for
        nothing under it.
    :param gate: who may ask; whoever shows the key of the policy by default.
    """

    def documented() -> Application:
        from paglets.runtime.http.page import DocumentedRoutes

        return DocumentedRoutes(node, version=version())

    intake = Intake()
    routes = LateRoutes(documented)
    movements = MovementEndpoint(node, intake, policy)
    guard = Guard(Dispatcher(intake, movements, HotRoutes(node), routes, policy), policy, gate)
    guard.relay = None if relay is None else relay(guard.let_in)
    return guard
