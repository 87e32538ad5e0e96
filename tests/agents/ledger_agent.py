"""Paglets that write down every message that they handle, so that what was lost or doubled can be told afterwards."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, RestartPolicy
from paglets.core.runtime_values import Durability

RECEIPT = "receipt.txt"


@dataclass
class LedgerState(PagletState):
    """Everything a ledger has lived through."""

    entries: list[str] = field(default_factory=list)
    """The messages it handled, as ``sender:number``, in order."""
    arrivals: list[str] = field(default_factory=list)
    """Names of the hosts it came to, in order."""
    awakenings: list[str] = field(default_factory=list)
    """The reasons for which it was activated."""
    ticks: list[str] = field(default_factory=list)
    """The ids of the messages that a repeating timer sent."""
    ballast: bytes = b""


class Ledger(Paglet[LedgerState]):
    """Keep entries; a paglet whose every handled message is durable."""

    State = LedgerState
    DURABILITY: ClassVar[Durability] = Durability.MESSAGE
    RESTART: ClassVar[RestartPolicy] = RestartPolicy(restarts=100, window=10.0, backoff=0.01)

    def on_creation(self, event: Any) -> None:
        receipt = self.work_dir() / RECEIPT
        receipt.write_text(self.agent_id)
        self.register_file(receipt, mode="move")

    def on_arrival(self, event: Any) -> None:
        with self.locked_state() as state:
            state.arrivals.append(self.context.name)

    def on_activation(self, event: Any) -> None:
        with self.locked_state() as state:
            state.awakenings.append(event.reason)

    def _enter(self, sender: str, number: int) -> int:
        with self.locked_state() as state:
            state.entries.append(f"{sender}:{number}")
            return len(state.entries)

    @handler
    def add(self, sender: str, number: int, padding: str = "") -> int:
        """Enter a message; return how many there are now, which no two messages are ever told."""
        return self._enter(sender, number)

    @handler
    def receipt(self) -> str:
        """Return what the file holds that goes with the paglet: its id."""
        return self.file_path(RECEIPT).read_text()

    @handler
    def load(self, nbytes: int) -> int:
        """Take so many bytes along from now on."""
        with self.locked_state() as state:
            state.ballast = os.urandom(nbytes)
            return len(state.ballast)

    @handler
    def alarm(self, sender: str, number: int, after: float) -> int:
        """Enter a message, and another one under the name ``sender!`` after so many seconds."""
        count = self._enter(sender, number)
        self.remind("ring", after=after, args={"sender": f"{sender}!", "number": number})
        return count

    @handler
    def ring(self, sender: str, number: int) -> None:
        """Enter what an alarm was set for."""
        self._enter(sender, number)

    @handler
    def clock(self, every: float) -> None:
        """Have a clock tick every so many seconds."""
        self.remind("tick", every=every)

    @handler
    def tick(self, message: Message) -> None:
        """Write down a tick."""
        with self.locked_state() as state:
            state.ticks.append(message.message_id)

    @handler
    def relay(self, sender: str, number: int, to: str, at: str) -> int:
        """Enter a message and pass it on to another ledger, one-way, under the name ``sender>``."""
        count = self._enter(sender, number)
        # Where it was last known to be: it may have moved on, from this host too.
        proxy = self.context.host.proxy_for(at, to)
        proxy.send_oneway(Message("add", {"sender": f"{sender}>", "number": number}))
        return count

    @handler
    def hop(self, sender: str, number: int, to: str) -> int:
        """Enter a message and move to another host, if that can be reached."""
        count = self._enter(sender, number)
        with suppress(PagletError):
            self.dispatch(to)
        return count

    @handler
    def rest(self, sender: str, number: int) -> int:
        """Enter a message and go to sleep until the next one, if nothing is in the way."""
        count = self._enter(sender, number)
        with suppress(PagletError):
            self.deactivate(policy=DeactivationPolicy(activate_on_message=True))
        return count


class CheckpointLedger(Ledger):
    """A ledger that is durable as of its last checkpoint."""

    DURABILITY = Durability.CHECKPOINT

    @handler
    def keep(self) -> int:
        """Take a checkpoint; return how many entries it holds."""
        with self.locked_state() as state:
            count = len(state.entries)
        self.checkpoint()
        return count


class FleetingLedger(Ledger):
    """A ledger of which nothing is kept while it runs."""

    DURABILITY = Durability.NONE
