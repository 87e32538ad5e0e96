"""What the source of a move says to its target, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from paglets.artifacts.errors import FileChangedError
from paglets.core.errors import PagletError, TransferError
from paglets.protocol.transfer import events
from paglets.remote.movement import BufferPart, Part
from paglets.runtime import faults
from paglets.runtime.attachment import EMPTY
from paglets.runtime.carriage import Carriage, Voyage
from paglets.runtime.departures.packing import Packer
from paglets.runtime.departures.record import Departure
from paglets.runtime.receiving import holder_of
from paglets.runtime.shipment import MOST_CHANGES
from paglets.runtime.transfer_wire import refusal_from_wire

#: How long a settled location is waited for beyond what the target allows itself.
LOCATION_SECONDS = 5.0


class Dialogue:
    """Speak with the targets of the departures of one host."""

    def __init__(self, carriage: Carriage, packer: Packer) -> None:
        self._carriage = carriage
        self._packer = packer

    async def send_prepare(
        self, departure: Departure, attempt: int, recovering: bool
    ) -> events.CoordinatorEvent | None:
        """Bring what is large, send PREPARE, and return what the machine is to hear of the answer."""
        try:
            if departure.stored is not None and departure.blob is EMPTY:
                await self._packer.unpack_stored(departure, departure.stored)
            reply = await self._prepare(departure, attempt, recovering)
            vote = reply.get("vote")
            if isinstance(vote, str) and vote:
                return events.Prepared(vote)
            if reply.get("acked") is True:
                return events.CommitAcked()
            return events.Refused(refusal_from_wire(reply.get("refused")))
        except (PagletError, OSError) as exc:
            return events.PrepareFailed(str(exc) or type(exc).__name__)

    async def _prepare(self, departure: Departure, attempt: int, recovering: bool) -> dict[str, Any]:
        """Bring the files that are too large for PREPARE, then send that, and return the answer.

        What changes or gets lost on the way is read and sent again, a few times.
        """
        for again in range(MOST_CHANGES):
            try:
                await self._carriage.bring(self._voyage(departure), departure.shipment)
                header = self._packer.header(departure, attempt, recovering)
                luggage = [BufferPart(memoryview(departure.luggage))] if departure.luggage else []
                parts: list[Part] = [BufferPart(departure.blob.view()), *luggage, *departure.shipment.parts]
                if faults.ARMED:
                    faults.reached("source.prepare-sent")
                timeout = departure.ticket.timeout + departure.shipment.allowance
                reply = await departure.link.prepare(header, parts, attempt=attempt, timeout=timeout)
                if "missing" not in reply:
                    return reply
            except FileChangedError as exc:
                if again + 1 == MOST_CHANGES:
                    raise TransferError(str(exc)) from exc
                await self._packer.load(departure)
        raise TransferError(f"{departure.plan.target} does not keep the files that it is sent")

    def _voyage(self, departure: Departure) -> Voyage:
        plan = departure.plan
        departure.voyage = Voyage(
            plan.transfer_id,
            holder_of(plan),
            departure.link,
            departure.entry,
            plan.target,
            departure.ticket.timeout,
        )
        return departure.voyage

    async def send_commit(self, departure: Departure, vote: str) -> events.CoordinatorEvent:
        """Send COMMIT, and return what the machine is to hear of the answer."""
        try:
            reply = await departure.link.commit(departure.plan.transfer_id, vote)
            if faults.ARMED:
                faults.reached("source.commit-sent")
        except (PagletError, OSError) as exc:
            return events.CommitFailed(str(exc))
        if reply.get("unknown") is True:
            return events.CommitUnknown()
        if reply.get("acked") is not True:
            # Only the word itself lets the source forget the paglet, not whatever else answers at that address.
            return events.CommitFailed("malformed acknowledgement")
        location = reply.get("location")
        departure.location = location if isinstance(location, dict) else None
        departure.settling = bool(reply.get("settling"))
        if faults.ARMED:
            faults.reached("source.acknowledged")
        return events.CommitAcked()

    async def settled_location(self, departure: Departure) -> dict[str, str]:
        """Wait for ``run`` to settle at the target, and return where the paglet is then."""
        provisional = {"host_url": departure.plan.target, "agent_id": departure.plan.agent_id}
        if not departure.settling:
            return departure.location or provisional
        with suppress(PagletError, OSError, TimeoutError):
            async with asyncio.timeout(LOCATION_SECONDS):
                return await departure.link.location(departure.plan.transfer_id) or provisional
        return provisional
