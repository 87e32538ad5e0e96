"""Enforce what paglets are allowed at one host: who goes beyond it is put to sleep, and wakes when it is granted more.

What moves and clones cost is decided by :mod:`paglets.protocol.transfer.charging` and written with the transfer; here
is what happens when something is used up.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from paglets.core.allowance import (
    NO_LIMITS,
    Allowance,
    AllowanceBalance,
    AllowanceExcess,
    AllowanceGrant,
    AllowanceKind,
)
from paglets.core.errors import (
    ConflictError,
    ConnectionLostError,
    InvalidAgentError,
    PagletError,
    RemoteTimeoutError,
)
from paglets.core.policies import DeactivationRequest
from paglets.protocol.transfer import Charge, TransferKind, charge
from paglets.runtime.agents import AgentEntry, Phase
from paglets.runtime.deactivation import Deactivator
from paglets.runtime.kernel import Kernel
from paglets.runtime.sleep import Dormitory
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.wakeups import Wakeups

#: The reason with which a paglet is put to sleep, and the kind of the event.
REASON = "allowance-exceeded"
EVENT = "paglet-allowance-exceeded"
#: How long a paglet whose time is over goes on where it cannot be put to sleep, for want of disk space mostly.
AGAIN_SECONDS = 2.0
#: How often a grant looks again for a paglet that wakes or falls asleep meanwhile.
MOST_LOOKS = 100


def _later(entry: AgentEntry) -> float:
    """Return when to look again at the time of a paglet that could not be put to sleep."""
    return max(entry.balance.expires_at or 0.0, time.time() + AGAIN_SECONDS)


class AllowanceDesk:
    """See to the allowances of the paglets of one host."""

    def __init__(
        self, kernel: Kernel, dormitory: Dormitory, deactivator: Deactivator, wakeups: Wakeups, timers: Timekeeper
    ) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        self._deactivator = deactivator
        self._wakeups = wakeups
        self._timers = timers
        kernel.exceeded = self.exceeded
        timers.expired = self._expired

    # --- looking and granting -----------------------------------------------------------------------------------------

    def balance(self, agent_id: str) -> AllowanceBalance:
        """Return what a paglet here has left.

        :raises InvalidAgentError: it is unknown here.
        """
        entry = self._here(agent_id)
        if entry is not None:
            return entry.balance
        summary = self._dormitory.summary(agent_id)
        if summary is None:
            raise self._unknown(agent_id)
        return summary.balance

    async def grant(self, agent_id: str, grant: AllowanceGrant) -> AllowanceBalance:
        """Change what a paglet here has left, on disk when this returns, and return that.

        A sleeper that was held wakes for messages, timers and its policy again; what waits for it is seen to.

        :raises InvalidAgentError: it is unknown here.
        :raises ConflictError: it is being created, or arrives.
        """
        for _ in range(MOST_LOOKS):
            entry = self._kernel.agents.get(agent_id)
            if entry is not None and entry.phase is Phase.STARTING:
                if not await self._dormitory.awakening(agent_id):
                    raise ConflictError(f"paglet {agent_id} is on its way to {self._kernel.config.name}; try again")
            elif entry is not None:
                async with entry.lock:
                    if entry.phase is Phase.GONE:
                        continue  # it has left or sleeps by now
                    before = entry.balance
                    new = grant.applied(before, time.time())
                    await self._kernel.vault.set_balance(agent_id, entry.epoch, new)
                    entry.balance = new
                self._granted(agent_id, entry.class_name, before, new)
                return new
            else:
                found = await self._grant_sleeper(agent_id, grant)
                if found is not None:
                    return found
        raise InvalidAgentError(f"paglet {agent_id} does not stay on {self._kernel.config.name}; look for it again")

    async def _grant_sleeper(self, agent_id: str, grant: AllowanceGrant) -> AllowanceBalance | None:
        """Change what a sleeper has left; None where it has begun to wake."""
        async with self._dormitory.staying(agent_id):
            if agent_id in self._kernel.agents:
                return None
            summary = self._dormitory.summary(agent_id)
            if summary is None:
                raise self._unknown(agent_id)
            before = summary.balance
            new = grant.applied(before, time.time())
            await self._kernel.vault.set_balance(agent_id, summary.epoch, new)
            summary.balance = new
        self._granted(agent_id, summary.agent_class_name, before, new)
        self._wakeups.look_again(agent_id)
        return new

    def _granted(self, agent_id: str, class_name: str, before: AllowanceBalance, new: AllowanceBalance) -> None:
        self._timers.expire_at(agent_id, new.expires_at)
        data = {"before": before.to_wire(), "now": new.to_wire()}
        self._kernel.emit("paglet-allowance-granted", agent_id=agent_id, class_name=class_name, data=data)

    def _here(self, agent_id: str) -> AgentEntry | None:
        entry = self._kernel.agents.get(agent_id)
        if entry is not None and entry.phase is Phase.STARTING and agent_id in self._dormitory:
            return None  # it sleeps until it has woken
        return entry

    def _unknown(self, agent_id: str) -> InvalidAgentError:
        return InvalidAgentError(f"no paglet {agent_id} on {self._kernel.config.name}")

    # --- paglets that create others -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def funding(self, entry: AgentEntry, target: str) -> AsyncIterator[Allowance]:
        """Charge a paglet for another one that it creates, like for a clone, and give the most that the new one gets.

        It is on disk before the other one can exist, and given back when that surely does not.

        :param target: the URL of the host on which it creates it.
        :raises AllowanceExceededError: it may not.
        :raises ConflictError: it is being moved or cloned, which decides what is left.
        """
        before, now = entry.balance, time.time()
        if not before.limits:
            yield NO_LIMITS
            return
        cost = charge(before, TransferKind.CLONE, source=self._kernel.address(), target=target, now=now)
        if not isinstance(cost, Charge):
            self.exceeded(entry, cost)
            raise cost.error(entry.agent_id)
        if before.clones_left is not None and cost.kept is not None:
            if entry.charging:
                raise ConflictError(
                    f"paglet {entry.agent_id} creates nothing while it is moved or cloned: its clones are limited"
                )
            await self._spend(entry, cost.kept.clones_left or 0, before.clones_left)
        try:
            yield cost.carried.as_cap(now)
        except (ConnectionLostError, RemoteTimeoutError):
            raise  # it may exist
        except PagletError:
            if before.clones_left is not None and cost.kept is not None:
                await self._spend(entry, before.clones_left, cost.kept.clones_left or 0)
            raise

    async def _spend(self, entry: AgentEntry, new: int, old: int) -> None:
        """Change the clones that a paglet has left by what two numbers differ."""
        left = entry.balance.clones_left
        if left is None:
            return
        step = 1 if new < old else -1
        entry.balance = replace(
            entry.balance,
            clones_left=max(0, left + new - old),
            clones_used=max(0, entry.balance.clones_used + step),
        )
        # Of one that still starts it is stored when its first hook has ended.
        if entry.phase is not Phase.STARTING:
            await self._kernel.vault.set_balance(entry.agent_id, entry.epoch, entry.balance)

    # --- going beyond -------------------------------------------------------------------------------------------------

    def exceeded(self, entry: AgentEntry, excess: AllowanceExcess) -> None:
        """Note that a paglet would go, or has gone, beyond its allowance, and put it to sleep soon."""
        if entry.balance.exceeded is not None or entry.phase is not Phase.ACTIVE:
            return
        entry.balance = replace(entry.balance, exceeded=excess.which)
        self._tell(entry.agent_id, entry.class_name, excess)
        self._kernel.background(self._put_to_sleep(entry, excess))

    def _tell(self, agent_id: str, class_name: str, excess: AllowanceExcess) -> None:
        self._kernel.emit(
            EVENT,
            agent_id=agent_id,
            class_name=class_name,
            data=excess.to_wire(),
            error=str(excess.error(agent_id)),
        )

    async def _put_to_sleep(self, entry: AgentEntry, excess: AllowanceExcess) -> None:
        request = DeactivationRequest(reason=REASON, source="host", metadata=excess.to_wire())
        try:
            if excess.which is not AllowanceKind.STATE:
                try:
                    await self._deactivator.deactivate(entry, request, unless=lambda: entry.balance.exceeded is None)
                    return
                except PagletError as exc:
                    # A handler that does not end, a hook that fails, a state that has become too large.
                    if not entry.active:
                        raise
                    self._kernel.emit("allowance-sleep-forced", entry, error=str(exc))
            await self._deactivator.lay_down_as_stored(
                entry, request, excess.error(entry.agent_id), unless=lambda: entry.balance.exceeded is None
            )
        except PagletError as exc:
            if not entry.active:
                return  # it has left, sleeps, or crashed: whoever has it now enforces the same
            self._kernel.emit("allowance-sleep-failed", entry, error=str(exc))
            if excess.which is AllowanceKind.STATE:
                # Its process is ahead of what may be stored, so it must not go on; it is shown as crashed.
                self._kernel.watch.reload(entry, str(exc))
            else:
                # It goes on for now, and is put to sleep for the next thing that it tries.
                entry.balance = replace(entry.balance, exceeded=None)
                self._timers.expire_at(entry.agent_id, None if entry.balance.expires_at is None else _later(entry))

    async def _expired(self, agent_id: str) -> None:
        """See to a paglet whose time may be over."""
        entry = self._here(agent_id)
        balance = entry.balance if entry is not None else None
        summary = None if entry is not None else self._dormitory.summary(agent_id)
        if summary is not None:
            balance = summary.balance
        excess = None if balance is None else balance.over(time.time())
        if excess is None:
            if balance is not None:
                self._timers.expire_at(agent_id, balance.expires_at)  # the clock went back
            return
        if entry is not None:
            self.exceeded(entry, excess)
        elif summary is not None and (summary.balance.exceeded is None or self._dormitory.recovering(agent_id)):
            request = DeactivationRequest(reason=REASON, source="host", metadata=excess.to_wire())
            if await self._dormitory.hold(agent_id, excess, request):
                self._tell(agent_id, summary.agent_class_name, excess)
