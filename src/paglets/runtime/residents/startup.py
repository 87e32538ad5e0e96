"""One start of a managed service: waking it, reviving it or creating it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from paglets.core.runtime_values import Durability
from paglets.runtime.activation import Activator
from paglets.runtime.agents import AgentEntry
from paglets.runtime.attachment import Attachment
from paglets.runtime.kernel import Kernel
from paglets.runtime.residents.declared import Declared
from paglets.runtime.sleep import Dormitory


class Keeper(Protocol):
    """What keeping services needs of the node."""

    async def create(
        self,
        class_name: str,
        state_class_name: str,
        state: Attachment,
        *,
        init: Any,
        agent_id: str,
        trusted: bool,
        reserved: Callable[[AgentEntry], None],
    ) -> dict[str, str]:
        """Create a paglet."""

    async def dispose(self, agent_id: str) -> None:
        """End a paglet, be it active, crashed or asleep."""

    async def lives_elsewhere(self, agent_id: str) -> bool:
        """Tell whether a paglet that is not here lives on another host."""


@dataclass(slots=True, eq=False)
class Startup:
    """A start in progress, and who waits for it."""

    placed: asyncio.Future[bool]
    """Resolved when its messages can be posted: True where it is here, False where it lives on another host."""
    up: asyncio.Future[None]
    """Resolved when it is active."""
    entry: AgentEntry | None = None
    """The paglet that is being created, whose messages are held until it is active."""
    creating: bool = False
    adopted: bool = False
    """Whether somebody else brings it up, as its arrival does."""

    @classmethod
    def new(cls, loop: asyncio.AbstractEventLoop) -> Startup:
        """Return one for which nobody waits yet."""
        return cls(loop.create_future(), loop.create_future())

    async def bring_up(
        self, service: Declared, kernel: Kernel, dormitory: Dormitory, activator: Activator, keeper: Keeper
    ) -> bool:
        """Wake a service, revive it or create it; return whether it is here.

        :raises Exception: whatever keeps it from starting.
        """
        agent_id = service.agent_id
        entry = kernel.agents.get(agent_id)
        if entry is not None and not entry.crashed:
            return True
        if entry is not None and entry.durability is Durability.NONE:
            await keeper.dispose(agent_id)  # there is nothing to revive it from
        elif entry is not None or agent_id in dormitory:
            reason = "recovery" if entry is None and dormitory.recovering(agent_id) else "activate"
            await activator.activate(agent_id, reason=reason, settle=False)
            return True
        elif await keeper.lives_elsewhere(agent_id):
            return False
        self.creating = True
        await keeper.create(
            service.class_name,
            service.state_class_name,
            Attachment.of([service.state]),
            init=service.init,
            agent_id=agent_id,
            trusted=True,
            reserved=self._reserved,
        )
        return True

    def _reserved(self, entry: AgentEntry) -> None:
        """Let messages wait for a paglet that is being created, until it is known how durable its mailbox is."""
        entry.held = []
        self.entry = entry
        self.placed.set_result(True)

    def adopt(self) -> None:
        """Leave the rest to whoever brings it up; its messages can be posted."""
        self.adopted = True
        if not self.placed.done():
            self.placed.set_result(True)

    def ended(self, *, here: bool = True) -> None:
        """Tell who waits that it is up, or lives on another host."""
        if not self.placed.done():
            self.placed.set_result(here)
        if not self.up.done():
            self.up.set_result(None)
        if self.entry is not None:
            self.entry.release_held()

    def failed(self, error: Exception) -> None:
        """Tell who waits why it did not start."""
        for future in (self.placed, self.up):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whether anybody waits or not, it has been reported
        if self.entry is not None:
            self.entry.fail_held(error)
