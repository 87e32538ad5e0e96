"""Empty a host: move what lives here elsewhere or put it to sleep, and take nothing new in, until that is undone.

::

    open --begin--> draining (running) --everyone seen to--> draining --undo--> open
                        |                                                ^
                        +-----------------------undo--------------------+

While a host drains, creations and arrivals are refused, and sleepers stay asleep: messages for them wait on disk, and
their timers ring later. A drain ends with the host; the next start is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Protocol

from paglets.core.errors import ConflictError, HostError, PagletError
from paglets.core.policies import DeactivationRequest
from paglets.remote.transfer import TransferTicket
from paglets.runtime.agents import AgentEntry
from paglets.runtime.kernel import Kernel

#: Paglets that are seen to at the same time.
AT_ONCE = 8
#: So many rounds are made for paglets that began while others were seen to.
MOST_ROUNDS = 10
#: So many targets are tried for one paglet.
MOST_TARGETS = 3


class Mover(Protocol):
    """What a drain needs of the node."""

    async def dispatch(self, agent_id: str, ticket: TransferTicket) -> dict[str, str]:
        """Move a paglet."""

    async def deactivate(self, agent_id: str, request: DeactivationRequest | None) -> dict[str, str]:
        """Put a paglet to sleep."""


@dataclass(slots=True)
class Progress:
    """What became of the paglets of a host that drains."""

    running: bool = True
    total: int = 0
    moved: list[dict[str, str]] = field(default_factory=list)
    """``agent_id`` and ``host_url`` of each."""
    asleep: list[dict[str, str]] = field(default_factory=list)
    """``agent_id`` of each, and under ``reason`` why it was not moved, if it was to be."""
    stayed: list[dict[str, str]] = field(default_factory=list)
    """``agent_id`` of each that neither moved nor sleeps, and the ``reason``."""


class Drain:
    """The state of one host's drain.

    :param targets: returns the base URLs of the other hosts that are online.
    :param resolve: returns the base URL for the name or URL of a host.
    :param wake: sees to the sleepers whose messages and timers have waited.
    :param belongs_here: tells whether a paglet, as a managed service of this host, is put to sleep and not moved.
    """

    def __init__(
        self,
        kernel: Kernel,
        mover: Mover,
        *,
        targets: Callable[[], Sequence[str]],
        resolve: Callable[[str], str],
        wake: Callable[[], Awaitable[None]],
        belongs_here: Callable[[str], bool],
    ) -> None:
        self._kernel = kernel
        self._mover = mover
        self._targets = targets
        self._resolve = resolve
        self._wake = wake
        self._belongs_here = belongs_here
        self._progress: Progress | None = None
        self._task: asyncio.Task[None] | None = None

    def status(self) -> dict[str, Any]:
        """Return whether the host drains, and what became of its paglets so far."""
        progress = self._progress
        if progress is None:
            return {"draining": False, "running": False, "total": 0, "moved": [], "asleep": [], "stayed": []}
        return {
            "draining": True,
            "running": progress.running,
            "total": progress.total,
            "moved": list(progress.moved),
            "asleep": list(progress.asleep),
            "stayed": list(progress.stayed),
        }

    def begin(self, to: Sequence[str] | None, timeout: float) -> dict[str, Any]:
        """Begin to drain, or try again what stayed; return the status.

        :param to: names or URLs of the hosts that take the paglets; None for all others that are online, nobody to put
            everyone to sleep.
        :param timeout: seconds that one paglet may take for each step.
        :raises ConflictError: a drain is under way.
        :raises HostError: a target is not known, or is this host.
        """
        kernel = self._kernel
        if self._progress is not None and self._progress.running:
            raise ConflictError(f"host {kernel.config.name} is draining already")
        targets = list(self._targets()) if to is None else [self._resolve(each) for each in dict.fromkeys(to)]
        if any(kernel.address.is_own(each) for each in targets):
            raise HostError(f"host {kernel.config.name} cannot be drained to itself")
        self._progress = Progress()
        kernel.draining = True
        kernel.emit("drain-start", data={"targets": targets})
        self._task = kernel.loop.create_task(self._run(self._progress, targets, timeout))
        kernel.keep(self._task)
        return self.status()

    async def undo(self) -> dict[str, Any]:
        """Take paglets in again, and see to what has waited; what has moved stays where it is."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,))
        if self._progress is not None:
            self._progress = None
            self._kernel.draining = False
            self._kernel.emit("drain-undone")
            await self._wake()
        return self.status()

    async def _run(self, progress: Progress, targets: Sequence[str], timeout: float) -> None:
        kernel = self._kernel
        turns = cycle(range(max(1, len(targets))))
        seen: set[str] = set()
        limit = asyncio.Semaphore(AT_ONCE)

        async def see_to(entry: AgentEntry) -> None:
            async with limit:
                start = next(turns)
                await self._see_to(progress, entry, [*targets[start:], *targets[:start]][:MOST_TARGETS], timeout)

        try:
            for _ in range(MOST_ROUNDS):
                entries = [entry for entry in kernel.agents if entry.agent_id not in seen]
                if not entries:
                    break
                seen.update(entry.agent_id for entry in entries)
                progress.total += len(entries)
                await asyncio.gather(*map(see_to, entries))
        finally:
            progress.running = False
            counts = {"moved": len(progress.moved), "asleep": len(progress.asleep), "stayed": len(progress.stayed)}
            kernel.emit("drain-end", data=counts)

    async def _see_to(self, progress: Progress, entry: AgentEntry, targets: Sequence[str], timeout: float) -> None:
        agent_id = entry.agent_id
        if entry.crashed:
            progress.stayed.append({"agent_id": agent_id, "reason": f"it has crashed: {entry.error or 'unknown'}"})
            return
        why: list[str] = []
        if entry.balance.no_hop() is not None:
            # It is not the one that asks: it sleeps like any that nobody takes.
            targets, why = (), ["it may not move to another host any more"]
        for target in () if self._belongs_here(agent_id) else targets:
            try:
                location = await self._mover.dispatch(agent_id, TransferTicket(target, timeout=timeout))
            except PagletError as exc:
                why.append(str(exc))
            else:
                progress.moved.append({"agent_id": agent_id, "host_url": location["host_url"]})
                return
        if entry.gone.done():
            progress.moved.append({"agent_id": agent_id, "host_url": (entry.gone.result() or {}).get("host_url", "")})
            return
        try:
            async with asyncio.timeout(timeout):
                await self._mover.deactivate(agent_id, DeactivationRequest("drain", source="host"))
        except (PagletError, TimeoutError) as exc:
            why.append(str(exc) or f"it did not go to sleep within {timeout:g} s")
            progress.stayed.append({"agent_id": agent_id, "reason": "; ".join(why)})
        else:
            progress.asleep.append({"agent_id": agent_id, "reason": "; ".join(why)})
