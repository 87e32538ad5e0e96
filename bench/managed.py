"""The managed service that is measured; apart from the others, so that creating those does not import it."""

from __future__ import annotations

from typing import Any

from bench.agents import EchoState
from paglets.core.agent import Paglet
from paglets.core.messages import Message
from paglets.services.contracts import ServiceContract, ServiceOperation
from paglets.services.resident import ResidentServiceSpec

PING = ServiceOperation("ping")
PINGER = ServiceContract("bench.pinger", (PING,))


class Pinger(Paglet[EchoState]):
    """A managed service that answers."""

    State = EchoState
    RESIDENT_SERVICES = (ResidentServiceSpec(PINGER),)

    def handle_message(self, message: Message) -> Any:
        """Answer."""
        return PINGER.route(message, {PING: lambda request: request})
