"""What a host knows of one paglet, or copy of one, that is on its way to another host."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from paglets.core.allowance import NOTHING_USED, AllowanceBalance
from paglets.protocol.transfer import coordinator, events
from paglets.protocol.transfer.model import TransferPlan
from paglets.remote.transfer import TransferTicket
from paglets.runtime.agents import AgentEntry, Delivery
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.carriage import Voyage
from paglets.runtime.place import Place
from paglets.runtime.shipment import Shipment
from paglets.runtime.transfer_log import StoredCommit
from paglets.runtime.transfer_wire import TransferLink


@dataclass(slots=True)
class Departure:
    """One transfer that this host coordinates."""

    plan: TransferPlan
    ticket: TransferTicket
    entry: AgentEntry
    link: TransferLink
    parent: int
    in_handler: bool
    state: coordinator.CoordinatorState
    decided: asyncio.Future[None]
    before: AllowanceBalance = NOTHING_USED
    """What the paglet had left of its allowance."""
    delivery: Delivery | None = None
    """The message whose handler moves its own paglet."""
    target_health: dict[str, Any] = field(default_factory=dict)
    blob: Attachment = EMPTY
    luggage: bytes = b""
    travelling: list[Delivery] = field(default_factory=list)
    """Accepted messages that go along."""
    answer: dict[str, Any] = field(default_factory=dict)
    """What the paglet's process said when it was asked for its snapshot."""
    shipment: Shipment = field(default_factory=Shipment)
    """The registered files as they are sent."""
    voyage: Voyage | None = None
    """The bringing of large files, when there are any."""
    waiting: list[Delivery] = field(default_factory=list)
    old_place: Place | None = None
    stored: StoredCommit | None = None
    """The record on disk, of a transfer that an earlier life of this host committed."""
    released: asyncio.Future[None] | None = None
    """Done when what the paglet had here was removed, where it has registered files."""
    location: dict[str, str] | None = None
    settling: bool = False
    timer: asyncio.TimerHandle | None = None
    inbox: deque[events.CoordinatorEvent] = field(default_factory=deque)
    running: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    """From the request to the moment the paglet, or its clone, lives at the target."""
