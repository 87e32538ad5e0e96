"""The way into a host: who asks is recognised, must have the role that the request needs, and takes no more than its
share; what was refused or changed something is written down.

The guard goes through here before it looks at a body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from paglets.core.errors import ForbiddenError
from paglets.runtime.http.access import RELAY_PATH, Wanted, judged_path, wanted
from paglets.runtime.http.keyring import Keyring
from paglets.runtime.http.peers import PEER, Peer
from paglets.runtime.http.quotas import Load, Quotas
from paglets.security.caller import Caller
from paglets.security.roles import Role

if TYPE_CHECKING:
    from paglets.runtime.http.audit import AuditLog

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: Where the gate leaves the caller of a request for the application: a `Caller`.
CALLER: Final = "paglets.caller"
#: Where code of this host that was given a request in another way than by a socket says who sent it; no client can.
KNOWN_CALLER: Final = "paglets.known_caller"
#: Whether the connection of a request was handed over to another protocol, which no answer says.
SWITCHED: Final = "paglets.switched"
_REFUSALS: Final = frozenset({401, 403, 413, 415, 429, 431})


class Gate:
    """Let requests in.

    :param audit: where refused and privileged requests are written down; None for nowhere.
    """

    def __init__(self, keyring: Keyring, *, quotas: Quotas | None = None, audit: AuditLog | None = None) -> None:
        self.keyring = keyring
        self.quotas = Quotas() if quotas is None else quotas
        self.audit = audit

    def visit(self, scope: Message) -> Visit:
        """Begin with a request; nothing is decided yet."""
        return Visit(self, scope)


class Visit:
    """One request, from its head to its answer."""

    __slots__ = ("_gate", "_load", "_peer", "_scope", "_wanted", "caller", "status")

    def __init__(self, gate: Gate, scope: Message) -> None:
        self._gate = gate
        self._scope = scope
        self._peer: Peer | None = scope.get("extensions", {}).get(PEER)
        self._wanted: Wanted | None = None
        self._load: Load | None = None
        self.caller: Caller | None = None
        self.status = 0

    def recognise(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Return who asks, if they may ask for this.

        :raises AuthenticationError: nobody known.
        :raises ForbiddenError: somebody known who may not do this.
        """
        scope = self._scope
        path = judged_path(scope["path"], scope["raw_path"])
        self._wanted = request = wanted(scope["method"], path, scope["query_string"])
        known: Caller | None = scope.get(KNOWN_CALLER)
        certificate = None if self._peer is None else self._peer.certificate
        caller = known or self._gate.keyring.caller(headers.get(b"authorization"), certificate)
        self.caller = scope[CALLER] = caller
        # What is not in the table has no role: the application answers it, and refuses it by the same table.
        if request is not None and caller.role < request.role:
            raise ForbiddenError(f"this needs the role {request.role}; {caller.name!r} has the role {caller.role}")
        # What would be passed on is not looked at again here.
        if request is None and caller.role < Role.ADMIN and path.startswith(RELAY_PATH):
            raise ForbiddenError(f"what the hub does not know needs the role {Role.ADMIN}; {caller.name!r} has less")
        return caller

    def enter(self, caller: Caller, load: Load) -> None:
        """Count the request as one of its caller's, until :meth:`leave`.

        :raises OverloadedError: the caller takes more than its limits or its share.
        :raises PayloadTooLargeError: it is more than the caller may send at a time.
        """
        peer, quotas = self._peer, self._gate.quotas
        quotas.enter(caller, load, None if peer is None else peer.seat)
        self._load = load
        if peer is not None and peer.on_lost is None:
            peer.on_lost = partial(quotas.vacate, peer.seat)

    def counting(self, receive: Receive, caller: Caller, load: Load) -> Receive:
        """Return a way to receive a body of unknown size that counts it."""
        quotas = self._gate.quotas

        async def counted() -> Message:
            message = await receive()
            if piece := message.get("body"):
                quotas.grow(caller, load, len(piece))
            return message

        return counted

    def watching(self, send: Send) -> Send:
        """Return a way to send the answer that notes its status."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            await send(message)

        return watched

    def leave(self) -> None:
        """End with the request, answered or not."""
        if self._load is not None and self.caller is not None:
            self._gate.quotas.leave(self.caller, self._load)
            self._load = None
        if self._scope.get(SWITCHED):
            self.status = 101
        audit = self._gate.audit
        request = self._wanted
        refused = self.status in _REFUSALS
        if audit is None or not (refused or (request is not None and request.privileged)):
            return
        client = self._scope.get("client")
        audit.record(
            outcome=self.status,
            refused=refused,
            key="" if self.caller is None else self.caller.name,
            peer=client[0] if client else "",
            method=self._scope["method"],
            # Never the path as it was sent: somebody may have put a secret there.
            route="" if request is None else request.template,
            target="" if request is None else request.target,
        )
