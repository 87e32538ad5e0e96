"""The end of a paglet on a host: it leaves, is disposed of, or did not come to live at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from paglets.core.errors import ConflictError, HostError, InvalidAgentError
from paglets.runtime.agents import AgentEntry, Delivery, Phase
from paglets.runtime.place import Place
from paglets.runtime.units import Aftermath

if TYPE_CHECKING:
    from paglets.runtime.kernel import Kernel

#: How long a paglet that left may still run the statements after the call.
FAREWELL_SECONDS = 2.0


class Ending:
    """Take paglets out of the table of one host; runs on its loop."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def leave(self, entry: AgentEntry, location: dict[str, str] | None, *, farewell: bool) -> list[Delivery]:
        """Take a paglet out of the table because it lives elsewhere now, or nowhere.

        :param farewell: let the process finish what it is doing before it is told to end.
        :return: the messages that still waited; whoever calls this answers them.
        """
        entry.phase = Phase.GONE
        self._kernel.agents.remove(entry)
        waiting = [queued.item for queued in entry.mailbox.close()]
        self.departed(entry, location)
        if entry.place is not None:
            entry.place.left_for = location
            self._kernel.background(self.farewell(entry.place, wait=farewell))
        return waiting

    async def farewell(self, place: Place, *, wait: bool) -> None:
        """Let a process that is no longer its paglet's home end."""
        if wait and place.alive:
            waiting_for: list[asyncio.Future[Any]] = [place.ended]
            if place.answered is not None:
                waiting_for.append(place.answered)
            elif place.run_ended is not None:
                waiting_for.append(place.run_ended)
            await asyncio.wait(waiting_for, timeout=FAREWELL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        place.leave()

    def departed(self, entry: AgentEntry, location: dict[str, str] | None) -> None:
        """Tell everyone who waits that a paglet has left this host."""
        if not entry.gone.done():
            entry.gone.set_result(location)
        for waiter in entry.notified:
            if not waiter.done():
                waiter.set_result(None)
        entry.notified.clear()
        for tell in self._kernel.on_departed:
            tell(entry)
        if entry.last_state is not None:
            entry.last_state.close()

    def abandon(self, entry: AgentEntry, error: Exception | None = None) -> None:
        """Remove a paglet that did not start, or whose creation is called off; ``error`` is what its callers get."""
        entry.phase = Phase.GONE
        self._kernel.agents.remove(entry)
        if entry.place is not None:
            entry.place.kill()
        self._kernel.messages.release(entry, error or HostError(f"paglet {entry.agent_id} did not start"))
        self.departed(entry, None)

    async def dispose(self, entry: AgentEntry, *, parent: int = 0, in_handler: bool = False) -> None:
        """End a paglet for good; a crashed one is just forgotten.

        :raises PagletError: its ``on_disposing`` or a cleanup failed, its handler does not end, or the disk does not
            take it; it goes on then.
        """
        kernel = self._kernel
        if entry.crashed:
            async with entry.lock:
                await kernel.messages.recorded(entry)
                if not entry.crashed:
                    raise ConflictError(f"paglet {entry.agent_id} has been started again meanwhile")
                await kernel.vault.disposed(entry, (), Aftermath())
                entry.restarting = False
                entry.phase = Phase.GONE
                kernel.agents.remove(entry)
                kernel.messages.release(entry, InvalidAgentError(f"paglet {entry.agent_id} was disposed"))
                self.departed(entry, None)
            kernel.emit("dispose", entry, data={"active": False})
            return
        async with kernel.operation(entry, parent=parent, in_handler=in_handler) as place:
            delivery = entry.current if in_handler else None
            event = kernel.event_fields(entry.agent_id, reason="dispose")
            answer, _ = await kernel.hook(place, "on_disposing", event, cleanup="dispose", parent=parent)
            waiting = [queued.item for queued in entry.mailbox.waiting()]
            aftermath = Aftermath.of(delivery, answer, None)
            rows = await kernel.vault.disposed(entry, waiting, aftermath)
            for delivery in waiting:
                delivery.stored = True  # as a dead letter
            waiting = self.leave(entry, None, farewell=bool(parent))
        kernel.post(rows)
        kernel.emit("dispose", entry, data={"active": True})
        gone = InvalidAgentError(f"paglet {entry.agent_id} was disposed")
        for delivery in waiting:
            kernel.messages.refuse(entry, delivery, gone)
