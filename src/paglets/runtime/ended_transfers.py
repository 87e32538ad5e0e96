"""What is kept of transfers that have ended at their target: little, since thousands of them are remembered."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from paglets.protocol.transfer import participant

#: Refused and called-off transfers that are remembered, so that late repetitions are answered without work.
REMEMBERED_TRANSFERS = 4096
#: Arrived paglets whose location is known to a source that asks for it.
REMEMBERED_LOCATIONS = 4096
#: How long a source may take to ask for it: its requests have 10 s each.
LOCATION_SECONDS = 60.0

_logger = logging.getLogger(__name__)

Location: TypeAlias = dict[str, str] | None
Settling: TypeAlias = asyncio.Task[Location]


@dataclass(slots=True)
class _Place:
    until: float
    settling: Settling | None
    location: Location = None


class EndedTransfers:
    """Answer late questions about transfers that have ended.

    A task that has ended is not kept: it holds its context, and its coroutine for as long as it lives.

    :param loop: the event loop of the host, whose clock counts.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tombstones: OrderedDict[str, participant.ParticipantState] = OrderedDict()
        self._places: OrderedDict[str, _Place] = OrderedDict()

    def __len__(self) -> int:
        """Count the transfers of which something is kept."""
        return len(self._tombstones.keys() | self._places.keys())

    def bury(self, transfer_id: str, state: participant.ParticipantState, settling: Settling | None) -> None:
        """Keep what late questions about a transfer need.

        :param settling: ends with where the paglet is, None where none came to live here.
        """
        tombstone = participant.tombstone(state)
        if tombstone is not None:
            self._tombstones[transfer_id] = tombstone
            self._tombstones.move_to_end(transfer_id)
            if len(self._tombstones) > REMEMBERED_TRANSFERS:
                self._tombstones.popitem(last=False)
        if settling is not None:
            self._places[transfer_id] = _Place(self._loop.time() + LOCATION_SECONDS, settling)
            self._places.move_to_end(transfer_id)
            settling.add_done_callback(partial(self._settled, transfer_id))
        self._forget_places()

    def unbury(self, transfer_id: str) -> participant.ParticipantState | None:
        """Return, once, the state in which a transfer ended; None where it is not remembered."""
        return self._tombstones.pop(transfer_id, None)

    async def location(self, transfer_id: str) -> Location:
        """Wait until the ``run`` of an arrived paglet has settled; return where it is then, None if that is not known
        any more."""
        place = self._places.get(transfer_id)
        if place is None:
            return None
        if place.settling is not None:
            return await asyncio.shield(place.settling)
        return place.location

    def _forget_places(self) -> None:
        now = self._loop.time()
        places = self._places
        while places and (len(places) > REMEMBERED_LOCATIONS or next(iter(places.values())).until <= now):
            places.popitem(last=False)

    def _settled(self, transfer_id: str, settling: Settling) -> None:
        place = self._places.get(transfer_id)
        if place is not None and place.settling is settling:
            place.settling, place.location = None, _result(settling)


def _result(settling: Settling) -> Location:
    if settling.cancelled():
        return None
    error = settling.exception()
    if error is not None:
        _logger.error("it is not known where an arrived paglet is", exc_info=error)
        return None
    return settling.result()
