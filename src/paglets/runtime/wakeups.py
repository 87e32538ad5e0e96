"""What wakes sleepers though nobody waits for them: timers, stored messages, the start of the host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from paglets.core.errors import InsufficientStorageError, OverloadedError, PagletError
from paglets.persistence.rows import RecordSummary, Status
from paglets.protocol.reminders import is_firing
from paglets.runtime.activation import Activator
from paglets.runtime.kernel import Kernel
from paglets.runtime.sleep import Dormitory, Timers

STARTUP_CONCURRENCY = 16
#: How often messages wake a paglet that goes back to sleep before it has handled one of them.
MOST_AWAKENINGS = 8
#: How many paglets that did so are remembered.
MOST_IDLED = 4_096
#: How long a paglet that was to be woken sleeps on where the host has no room for it.
WAKE_AGAIN_SECONDS = 2.0


class Wakeups:
    """Wake the sleepers of one host when there is a reason."""

    def __init__(self, kernel: Kernel, dormitory: Dormitory, activator: Activator, timers: Timers) -> None:
        self._kernel = kernel
        self._vault = kernel.vault
        self._dormitory = dormitory
        self._activator = activator
        self._timers = timers
        self._idled: dict[str, int] = {}
        """How often sleepers woke for messages and handled none of them."""
        self._put_off: dict[str, str] = {}
        """Those who would have been woken while the host was draining, and why."""

    # --- messages -----------------------------------------------------------------------------------------------------

    def look_at_mail(self, agent_id: str) -> None:
        """Wake a paglet for which messages are stored, if its policy lets messages wake it."""
        summary = self._dormitory.summary(agent_id)
        if summary is None or self._kernel.closing:
            return
        if summary.policy.activate_on_message:
            self._kernel.background(self._wake_unasked(agent_id, "message"))
        else:
            self._kernel.background(self.wake_if_timer_rang(agent_id))

    async def wake_if_timer_rang(self, agent_id: str) -> None:
        """Wake a paglet if one of the messages that are stored for it is from a timer, whatever its policy says."""
        waiting = await self._kernel.on_disk(self._vault.waiting, agent_id)
        if any(is_firing(item.message, agent_id) for item in waiting):
            await self._wake_unasked(agent_id, "message")

    def look_at_mail_left(self, agent_id: str, *, idled: bool) -> None:
        """Wake a paglet that has just gone to sleep with messages stored for it, unless that leads nowhere.

        :param idled: it did so by itself and handled none of them since it woke.
        """
        if self._is_worth_waking(agent_id, idled=idled):
            self.look_at_mail(agent_id)

    def _is_worth_waking(self, agent_id: str, *, idled: bool) -> bool:
        """Tell whether messages should wake a paglet that has just gone to sleep.

        :param idled: it did so by itself and handled none of them since it woke. One that does that again and again is
            left alone.
        """
        times = self._idled.pop(agent_id, 0) + 1 if idled else 0
        if times:
            self._idled[agent_id] = times
            if len(self._idled) > MOST_IDLED:
                del self._idled[next(iter(self._idled))]
        return times < MOST_AWAKENINGS

    def look_again(self, agent_id: str) -> None:
        """See to everything that may have waited for a sleeper that may wake again."""
        summary = self._dormitory.summary(agent_id)
        if summary is None or summary.balance.held(time.time()) is not None:
            return
        if summary.policy.activate_at is not None:
            self._timers.wake_at(agent_id, summary.policy.activate_at)
        self._kernel.background(self._look_again(agent_id))

    async def _look_again(self, agent_id: str) -> None:
        if await self._kernel.on_disk(self._vault.count_waiting, agent_id):
            self.look_at_mail(agent_id)

    # --- time, and the start of the host ------------------------------------------------------------------------------

    async def wake_for_startup(self, wanted: Sequence[RecordSummary]) -> None:
        """Start what was active when the host died, and what is to be woken by its start.

        One that fails stays as it was: asleep, or crashed.
        """
        limit = asyncio.Semaphore(STARTUP_CONCURRENCY)

        async def wake(summary: RecordSummary) -> None:
            async with limit:
                recover = summary.status is Status.ACTIVE
                # Somebody may have woken it before its turn, and put it to sleep again.
                if self._dormitory.summary(summary.agent_id) is summary:
                    await self._wake_unasked(summary.agent_id, "recovery" if recover else "activate")

        await asyncio.gather(*map(wake, wanted))

    async def wake_on_time(self, agent_id: str) -> None:
        """Wake a paglet whose time has come."""
        await self._wake_unasked(agent_id, "activate")

    async def _wake_unasked(self, agent_id: str, reason: str) -> None:
        if agent_id not in self._dormitory or self._dormitory.held(agent_id) is not None:
            return
        if self._kernel.draining:
            self._put_off[agent_id] = reason
            return
        try:
            await self._activator.activate(agent_id, reason="activate" if reason == "message" else reason, settle=False)
        except PagletError as exc:
            self._kernel.emit("activation-failed", agent_id=agent_id, error=str(exc))
            if isinstance(exc, InsufficientStorageError | OverloadedError) and agent_id in self._dormitory:
                self._timers.wake_at(agent_id, time.time() + WAKE_AGAIN_SECONDS)

    async def wake_put_off(self) -> None:
        """Wake those whose time came while the host was draining."""
        put_off, self._put_off = self._put_off, {}
        for agent_id, reason in put_off.items():
            # Somebody may have brought it back meanwhile, and put it to sleep again.
            if reason != "recovery" or self._dormitory.recovering(agent_id):
                await self._wake_unasked(agent_id, reason)
