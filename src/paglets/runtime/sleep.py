"""The inactive paglets of a host: which there are, what is known of each, and what one remembers while it sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from paglets.core.allowance import AllowanceExcess
from paglets.core.errors import InvalidAgentError, PagletInactiveError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import RecordSummary, Status
from paglets.protocol.delivery.routing import AMBIGUOUS_SECONDS
from paglets.protocol.delivery.shelf import WindowShelf
from paglets.protocol.delivery.window import Outcome
from paglets.runtime.agents import AgentEntry
from paglets.runtime.files import FileDesk
from paglets.runtime.kernel import Kernel
from paglets.runtime.vault import Awakened


class Timers(Protocol):
    """Wake paglets when their time has come."""

    def wake_at(self, agent_id: str, due: float | None) -> None:
        """Wake a paglet at a Unix time, None not to."""

    def forget_all(self, agent_id: str) -> None:
        """Drop every timer of a paglet that has ended."""

    def expire_at(self, agent_id: str, due: float | None) -> None:
        """Tell when the time of a paglet is over, None that it has no end."""


class Dormitory:
    """Keep the inactive paglets of one host.

    What puts them to sleep is :mod:`paglets.runtime.deactivation`, what brings them back
    :mod:`paglets.runtime.activation`, and what has that done unasked :mod:`paglets.runtime.wakeups`.

    :param timers: is told when a paglet wants to be woken.
    """

    def __init__(self, kernel: Kernel, files: FileDesk, timers: Timers) -> None:
        self._kernel = kernel
        self._vault = kernel.vault
        self._files = files
        self._timers = timers
        self._sleepers: dict[str, RecordSummary] = {}
        self._recovering: set[str] = set()
        """Those of them that were active when the host died, and are not back yet."""
        self._windows = WindowShelf()
        """What the newest sleepers remembered, of those that have no such thing on disk."""
        self._staying: dict[str, asyncio.Event] = {}
        """Sleepers that may not be woken for a moment, because something is written of them."""
        self.waking: dict[str, asyncio.Task[dict[str, str]]] = {}
        """Those who are being brought back; crashed ones, which do not sleep, too."""
        kernel.is_stored = self.__contains__

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._sleepers

    def __len__(self) -> int:
        return len(self._sleepers) - len(self._recovering)

    @property
    def agent_ids(self) -> list[str]:
        """Ids of the inactive paglets, in the order in which they were stored."""
        return [agent_id for agent_id in self._sleepers if agent_id not in self._recovering]

    def summary(self, agent_id: str) -> RecordSummary | None:
        """Return what is known of an inactive paglet without reading its state."""
        return self._sleepers.get(agent_id)

    def not_asleep(self, agent_id: str) -> InvalidAgentError:
        """Return the error of an operation on an inactive paglet, where there is none of that id."""
        known = agent_id in self._kernel.agents or agent_id in self.waking
        return InvalidAgentError(f"no {'inactive ' if known else ''}paglet {agent_id} on {self._kernel.config.name}")

    async def record(self, agent_id: str) -> Awakened:
        """Read everything that is stored of a paglet.

        :raises InvalidAgentError: there is nothing.
        """
        found = await self._kernel.on_disk(self._vault.awaken, agent_id)
        if found is None:
            raise self.not_asleep(agent_id)
        return found

    def load(self, summaries: Iterable[RecordSummary], errors: Mapping[str, str]) -> list[RecordSummary]:
        """Know of everything that is stored; return the paglets that a starting host brings back.

        :param errors: why the crashed ones did.
        """
        wanted: list[RecordSummary] = []
        for summary in summaries:
            if summary.status is Status.CRASHED:
                entry = self._kernel.reserve(
                    summary.agent_id,
                    summary.agent_class_name,
                    summary.state_class_name,
                    epoch=summary.epoch,
                    from_store=True,
                )
                entry.window_lost_at = self._kernel.loop.time()
                entry.balance, entry.holder = summary.balance, summary.holder
                error = errors.get(summary.agent_id) or "its process died in an earlier run of this host"
                self._kernel.watch.show_crashed(entry, error)
            elif summary.status is not Status.DEPARTING:
                self.lay_down(summary)
                if summary.status is Status.ACTIVE or summary.policy.activate_on_startup:
                    wanted.append(summary)
        return wanted

    def fell_asleep(self, entry: AgentEntry, policy: DeactivationPolicy) -> None:
        """Know of a paglet that has just been stored and has left the table."""
        self._keep_window(entry)
        self.lay_down(
            RecordSummary(
                agent_id=entry.agent_id,
                agent_class_name=entry.class_name,
                state_class_name=entry.state_class_name,
                deactivated_at=time.time(),
                status=Status.INACTIVE,
                epoch=entry.epoch,
                policy=policy,
                queued_message_count=0,
                balance=entry.balance,
                holder=entry.holder,
            )
        )

    def lay_down(self, summary: RecordSummary) -> None:
        """Know of a paglet that is stored."""
        self._sleepers[summary.agent_id] = summary
        if summary.status is Status.ACTIVE:
            self._recovering.add(summary.agent_id)
        if summary.policy.activate_at is not None and summary.status is Status.INACTIVE:
            self._timers.wake_at(summary.agent_id, summary.policy.activate_at)
        if summary.balance.expires_at is not None:
            self._timers.expire_at(summary.agent_id, summary.balance.expires_at)

    def rise(self, agent_id: str) -> None:
        """Know of a paglet that is not stored any more, or is active."""
        self._recovering.discard(agent_id)
        if self._sleepers.pop(agent_id, None) is not None:
            self._timers.wake_at(agent_id, None)

    async def dispose(self, agent_id: str) -> None:
        """Delete an inactive paglet with its work directory; no hook runs.

        :raises InvalidAgentError: there is none.
        """
        summary = self._sleepers.get(agent_id)
        if summary is None or agent_id in self.waking:
            raise self.not_asleep(agent_id)
        self.rise(agent_id)  # first, so that nobody wakes it meanwhile
        try:
            await self._vault.disposed_asleep(summary)
        except BaseException:
            self.lay_down(summary)
            raise
        self._windows.take(agent_id)
        self._timers.forget_all(agent_id)
        await self._kernel.on_disk(self._files.remove_work_dir, agent_id)
        self._kernel.emit("dispose", agent_id=agent_id, class_name=summary.agent_class_name, data={"active": False})

    # --- who may wake, and when ---------------------------------------------------------------------------------------

    def recovering(self, agent_id: str) -> bool:
        """Tell whether a paglet was active when the host died, and is not back yet."""
        return agent_id in self._recovering

    async def hold(self, agent_id: str, excess: AllowanceExcess, request: DeactivationRequest) -> bool:
        """Let a paglet that does not run sleep until it is granted more; return False where it wakes or has gone."""
        async with self.staying(agent_id):
            summary = self._sleepers.get(agent_id)
            if summary is None or agent_id in self._kernel.agents or summary.balance.held(time.time()) is None:
                return False  # it wakes, has gone, or was granted more meanwhile
            balance = replace(summary.balance, exceeded=excess.which)
            held = await self._vault.hold(agent_id, summary.agent_class_name, summary.epoch, balance, request)
            if held:
                summary.status, summary.balance = Status.INACTIVE, balance
                self._recovering.discard(agent_id)
        return held

    def held(self, agent_id: str) -> AllowanceExcess | None:
        """Return why a sleeper may not wake, None where it may."""
        summary = self._sleepers.get(agent_id)
        return None if summary is None else summary.balance.held(time.time())

    async def awakening(self, agent_id: str, timeout: float | None = None) -> bool:
        """Wait until a paglet that is about to wake has, or has not; return whether one was.

        :param timeout: the most seconds.
        """
        task = self.waking.get(agent_id)
        if task is not None:
            await asyncio.wait((task,), timeout=timeout)
        return task is not None

    @asynccontextmanager
    async def staying(self, agent_id: str) -> AsyncIterator[None]:
        """Keep a sleeper from being woken; who would wake it waits."""
        await self.may_wake(agent_id)
        over = self._staying[agent_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._staying[agent_id]
            over.set()

    async def may_wake(self, agent_id: str) -> None:
        """Wait until a sleeper is not kept from being woken any more."""
        while agent_id in self._staying:
            await self._staying[agent_id].wait()

    # --- what it remembers --------------------------------------------------------------------------------------------

    def _keep_window(self, entry: AgentEntry) -> None:
        if entry.durability is not Durability.MESSAGE:
            self._windows.put(entry.agent_id, entry.window)

    def recall_window(self, entry: AgentEntry, found: Awakened) -> None:
        """Have a paglet that comes back know which messages it has handled, as far as that is known."""
        if entry.durability is Durability.MESSAGE:
            entry.window.restore(found.window)
            entry.window_lost_at = None
            return
        window = self._windows.take(entry.agent_id)
        if window is not None:
            entry.window = window
        elif time.time() - found.record.deactivated_at < AMBIGUOUS_SECONDS:
            entry.window_lost_at = self._kernel.loop.time()

    async def enqueue(self, agent_id: str, message: Message, *, oneway: bool) -> None:
        """Store a message that waits until its paglet wakes.

        :raises OverloadedError: too many wait already.
        """
        await self._vault.enqueue(agent_id, QueuedMessage(message, oneway=oneway))

    async def recall(self, agent_id: str, message_id: str, *, repeated: bool) -> tuple[bool, Outcome | None]:
        """Tell whether a sleeper has handled a message, and what came of it.

        :param repeated: its sender says that it may have. Of a `MESSAGE` paglet that is known anyway.
        """
        window = self._windows.find(agent_id)
        if window is not None:
            return repeated and window.seen(message_id), window.outcome(message_id)
        return await self._kernel.on_disk(self._vault.recall, agent_id, message_id, repeated)


def not_awake(agent_id: str) -> PagletInactiveError:
    """Return the error of a message that may not wake or wait for an inactive paglet."""
    return PagletInactiveError(
        f"paglet {agent_id} is inactive, and this message may neither wake it nor wait for it; activate() wakes it"
    )
