"""What a host knows of one paglet that is on its way to it, and of all whose arrival is not decided."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from paglets.artifacts import PagletFileRef
from paglets.core.allowance import NOTHING_USED, AllowanceBalance
from paglets.core.errors import LifecycleError
from paglets.protocol.transfer import events, participant
from paglets.protocol.transfer.model import TransferPlan
from paglets.runtime.agents import AgentEntry
from paglets.runtime.attachment import Attachment
from paglets.runtime.ended_transfers import Settling
from paglets.runtime.place import Place
from paglets.runtime.receiving import Incoming
from paglets.runtime.transfer_log import Cargo
from paglets.runtime.transfer_wire import TransferLink

Answer = asyncio.Future[dict[str, Any]]


@dataclass(slots=True, eq=False)
class Arrival:
    """One transfer in which this host is the target."""

    transfer_id: str
    link: TransferLink | None = None
    state: participant.ParticipantState = field(default_factory=participant.ParticipantState)
    incoming: Incoming | None = None
    entry: AgentEntry | None = None
    place: Place | None = None
    cargo: Cargo | None = None
    """What is on disk of the inert copy."""
    balance: AllowanceBalance = NOTHING_USED
    """What the paglet has left of its allowance here."""
    touched: Attachment | None = None
    """The state as the arrival hook left it, where the class has one."""
    hook: asyncio.Task[tuple[dict[str, Any], Attachment]] | None = None
    """The arrival hook, which the process begins as soon as the paglet is built."""
    storing: asyncio.Task[None] | None = None
    """The writing of the inert copy as it came in, beside the start of its process."""
    began: float = 0.0
    installed: dict[str, PagletFileRef] = field(default_factory=dict)
    prepare_waiters: list[Answer] = field(default_factory=list)
    commit_waiters: list[Answer] = field(default_factory=list)
    settled: Settling | None = None
    timer: asyncio.TimerHandle | None = None
    inbox: list[events.ParticipantEvent] = field(default_factory=list)
    running: bool = False
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the paglet is here, or is not."""
    rest: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nothing is being done."""

    def take_up(self) -> None:
        """Note that something is being done from now on."""
        self.running = True
        self.rest.clear()

    def lay_aside(self) -> None:
        """Note that nothing is being done any more."""
        self.running = False
        self.rest.set()

    @property
    def plan(self) -> TransferPlan:
        """The plan both sides hold."""
        plan = self.incoming.plan if self.incoming is not None else self.state.plan
        if plan is None:
            raise LifecycleError(f"transfer {self.transfer_id} has not begun here")
        return plan


class Undecided:
    """The arrivals of which it is not decided yet whether the paglet is here."""

    def __init__(self) -> None:
        self._arrivals: dict[str, Arrival] = {}

    def add(self, arrival: Arrival) -> None:
        """Know of an arrival whose copy is on disk, or whose process starts."""
        self._arrivals[arrival.plan.agent_id] = arrival

    def get(self, agent_id: str) -> Arrival | None:
        """Return the arrival of a paglet; None where none is undecided."""
        return self._arrivals.get(agent_id)

    def of(self, entry: AgentEntry) -> Arrival | None:
        """Return the arrival that has this entry; None where that is decided or none arrives."""
        arrival = self._arrivals.get(entry.agent_id)
        return arrival if arrival is not None and arrival.entry is entry else None

    def decide(self, arrival: Arrival) -> None:
        """Tell everyone who waits that the paglet is here, or is not."""
        agent_id = arrival.plan.agent_id
        if self._arrivals.get(agent_id) is arrival:
            del self._arrivals[agent_id]
        arrival.decided.set()
