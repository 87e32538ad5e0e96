"""Speak with the arrivals of the same host: no network, and files stay where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from paglets.artifacts import PagletFileRef
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer.model import Outcome
from paglets.runtime.arrival import ArrivalDesk
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.receiving import Incoming, StateSink, manifest_of
from paglets.runtime.transfer_wire import plan_from_wire


class LocalTransferLink:
    """Speak with the arrivals of the same host: no network, and files stay where they are."""

    def __init__(self, arrivals: ArrivalDesk, outcome: Callable[[str, str], Outcome]) -> None:
        self._arrivals = arrivals
        self._outcome = outcome

    async def missing(self, holder: str, contents: list[tuple[str, int]], *, seconds: float) -> list[tuple[str, int]]:
        """Return nothing: what is on this host need not be brought here."""
        del holder, contents, seconds
        return []

    async def put(self, *_: Any, **__: Any) -> None:
        """Do nothing, since nothing is missing."""

    async def prepare(
        self, header: dict[str, Any], parts: list[Any], *, attempt: int, timeout: float
    ) -> dict[str, Any]:
        """Hand PREPARE over."""
        del attempt
        envelope = PagletEnvelope.from_wire(header["envelope"])
        wire = header["transfer"]
        state = StateSink()
        state.attachment = Attachment.of([bytes(parts[0].view)]) if parts else EMPTY
        luggage = StateSink()
        luggage.attachment = Attachment.of([bytes(parts[1].view)]) if wire.get("luggage") else EMPTY
        refs = [PagletFileRef.from_wire(item["file"]) for item in manifest_of(envelope)]
        incoming = Incoming(
            plan_from_wire(wire["plan"]), wire["attempt"], wire["recovering"], envelope, state, luggage, refs
        )
        async with asyncio.timeout(timeout):
            return await self._arrivals.prepare(incoming)

    async def commit(self, transfer_id: str, vote: str) -> dict[str, Any]:
        """Hand COMMIT over."""
        return await self._arrivals.commit(transfer_id, vote)

    async def abort(self, transfer_id: str) -> None:
        """Hand ABORT over."""
        self._arrivals.abort(transfer_id)

    async def settled(self, transfer_id: str, vote: str) -> None:
        """Say that the transfer may be forgotten."""
        self._arrivals.settled(transfer_id, vote)

    async def location(self, transfer_id: str) -> dict[str, str] | None:
        """Wait for the paglet's location after its ``run`` has settled."""
        return await self._arrivals.location(transfer_id)

    async def outcome(self, transfer_id: str, vote: str) -> Outcome:
        """Ask what became of a transfer."""
        return self._outcome(transfer_id, vote)
