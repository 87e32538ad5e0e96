"""Ask the target of a move how it does, before a paglet is packed for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paglets.core.errors import TransferError
from paglets.remote.aio import AsyncHostClient
from paglets.remote.transfer import TransferTicket
from paglets.runtime.kernel import Kernel

#: So long what a target has said of itself will do for the next move there; many moves in a row ask once.
HEALTH_SECONDS = 1.0
MAX_HEALTHS = 1024


class Targets:
    """Know what the hosts that paglets move to say of themselves; runs on the loop of the host they leave.

    :param own_health: tells what this host says of itself.
    """

    def __init__(self, kernel: Kernel, words: AsyncHostClient, own_health: Callable[[], dict[str, Any]]) -> None:
        self._kernel = kernel
        self._words = words
        self._own_health = own_health
        self._healths: dict[str, tuple[float, dict[str, Any]]] = {}

    async def check(self, ticket: TransferTicket, recall: bool) -> dict[str, Any]:
        """Ask a target how it does and compare that with the ticket.

        :param recall: what it said a moment ago will do.
        :return: what it said.
        :raises TransferError: it is no host, or not such a one as the ticket asks for.
        :raises HostUnreachableError: it cannot be asked.
        """
        url = ticket.destination
        known = self._healths.get(url)
        if self._kernel.address.is_own(url):
            health = self._own_health()
        elif recall and known is not None and self._kernel.loop.time() - known[0] < HEALTH_SECONDS:
            health = known[1]
        else:
            answer = await self._words.get_json(f"{url}/health", timeout=ticket.timeout)
            if not isinstance(answer, dict):
                raise TransferError(f"{url} does not answer like a host")
            health = answer
            self._remember_health(url, health)
        version = health.get("code_version")
        if ticket.expected_code_version is not None and version != ticket.expected_code_version:
            raise TransferError(f"{url} runs code version {version!r}, not {ticket.expected_code_version!r}")
        missing = sorted(set(ticket.required_capabilities) - set(health.get("capabilities", ())))
        if missing:
            raise TransferError(f"{url} is missing capabilities: {', '.join(missing)}")
        return health

    def _remember_health(self, url: str, health: dict[str, Any]) -> None:
        if len(self._healths) >= MAX_HEALTHS:
            self._healths.clear()
        self._healths[url] = self._kernel.loop.time(), health
