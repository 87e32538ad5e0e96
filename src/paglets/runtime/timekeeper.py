"""Keep the time of one host: paglets that sleep until a certain moment, and reminders.

The wall clock is looked at every second whatever it said before, so that a clock that jumps is noticed. A reminder that
is due becomes a stored message in the unit of work that moves the reminder on, so it fires at least once; its message
id is that of the firing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from paglets.core.errors import OverloadedError, PagletError
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import ReminderRow
from paglets.persistence.tables import queued, reminders
from paglets.protocol.reminders import Reminder, TimerQueue, fire, firing_message, occurrence_id, reminder
from paglets.runtime import faults
from paglets.runtime.kernel import Kernel
from paglets.runtime.units import enqueue, set_timers
from paglets.serialization.values import pack, unpack

_CLOCK_CHECK_SECONDS = 1.0
#: How long a reminder that could not be stored (a full disk, a full queue) waits for its next try.
_RETRY_SECONDS = 1.0
#: Timers that fire in one go, before the loop turns.
_MOST_AT_ONCE = 100

_WAKE = ""
"""In place of a reminder's name: the paglet itself is to be woken."""
_EXPIRY = None
"""In place of a reminder's name: the time of the paglet is over."""


class Timekeeper:
    """Wake paglets and let their reminders fire; runs on the host's loop."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._queue: TimerQueue[tuple[str, str | None]] = TimerQueue()
        self._names: dict[str, set[str]] = {}
        self._changed = asyncio.Event()
        # Set by the node.
        self.wake: Callable[[str], Awaitable[None]]
        self.collect: Callable[[str], Awaitable[None]]
        self.expired: Callable[[str], Awaitable[None]]

    def load(self, due: Sequence[tuple[str, str, float]]) -> None:
        """Know of the reminders that are on disk."""
        for agent_id, name, due_at in due:
            self._set(agent_id, name, due_at)

    async def run(self) -> None:
        """Keep the time, for ever."""
        while True:
            now = time.time()
            for agent_id, name in self._queue.due(now, _MOST_AT_ONCE):
                if name is _EXPIRY:
                    self._kernel.background(_call(self.expired, agent_id))
                elif name == _WAKE:
                    self._kernel.background(_call(self.wake, agent_id))
                else:
                    self._kernel.background(self._fire(agent_id, name))
            self._changed.clear()
            next_due = self._queue.next_due()
            pause = _CLOCK_CHECK_SECONDS
            if next_due is not None:
                pause = min(pause, max(0.001, next_due - time.time()))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    # --- sleepers -----------------------------------------------------------------------------------------------------

    def wake_at(self, agent_id: str, due: float | None) -> None:
        """Wake a paglet at a Unix time, None not to."""
        if due is None:
            self._queue.cancel((agent_id, _WAKE))
        else:
            self._queue.set((agent_id, _WAKE), due)
            self._changed.set()

    def expire_at(self, agent_id: str, due: float | None) -> None:
        """Tell when the time of a paglet is over, at a Unix time, None that it has no end."""
        if due is None:
            self._queue.cancel((agent_id, _EXPIRY))
        else:
            self._queue.set((agent_id, _EXPIRY), due)
            self._changed.set()

    # --- reminders ----------------------------------------------------------------------------------------------------

    def _set(self, agent_id: str, name: str, due_at: float) -> None:
        self._names.setdefault(agent_id, set()).add(name)
        self._queue.set((agent_id, name), due_at)
        self._changed.set()

    def _drop(self, agent_id: str, name: str) -> None:
        self._queue.cancel((agent_id, name))
        names = self._names.get(agent_id)
        if names is not None:
            names.discard(name)
            if not names:
                del self._names[agent_id]

    def forget_all(self, agent_id: str) -> None:
        """Drop every timer of a paglet that has ended or left; its rows go with it."""
        for name in list(self._names.get(agent_id, ())):
            self._drop(agent_id, name)
        self._queue.cancel((agent_id, _WAKE))
        self._queue.cancel((agent_id, _EXPIRY))

    def adopt(self, agent_id: str, rows: Sequence[ReminderRow]) -> None:
        """Know of the reminders of a paglet that has arrived; its rows are on disk."""
        for row in rows:
            self._set(agent_id, row.name, row.due_at)

    async def remind(
        self,
        agent_id: str,
        name: str,
        *,
        after: float | None,
        every: float | None,
        at: float | None,
        args: dict[str, Any],
    ) -> None:
        """Set a reminder, in place of an earlier one of the same name.

        :raises ValueError: a time or the name makes no sense.
        :raises OverloadedError: the paglet has as many as it may.
        """
        timer = reminder(agent_id, name, time.time(), series=uuid.uuid4().hex, after=after, every=every, at=at)
        row = row_of(timer, args)
        entry = self._kernel.agents.get(agent_id)
        if entry is not None and entry.timers is not None:
            # The paglet is not on disk yet, and may never be.
            if len(entry.timers) >= reminders.MOST_REMINDERS:
                raise OverloadedError(f"paglet {agent_id} sets more than {reminders.MOST_REMINDERS} reminders at once")
            entry.timers[name] = row
            return
        await self._kernel.journal.write(lambda connection: reminders.put(connection, row))
        self._set(agent_id, name, row.due_at)

    async def put_late(self, agent_id: str, timers: Mapping[str, ReminderRow | None]) -> None:
        """Store timers, or forget those that are None."""
        await self._kernel.journal.write(lambda connection: set_timers(connection, agent_id, timers))
        for name, row in timers.items():
            if row is None:
                self._drop(agent_id, name)
            else:
                self._set(agent_id, name, row.due_at)

    async def forget(self, agent_id: str, name: str) -> bool:
        """Remove a reminder; return whether there was one."""
        entry = self._kernel.agents.get(agent_id)
        if entry is not None and entry.timers is not None:
            known = entry.timers.get(name) is not None
            entry.timers[name] = None
            return known
        self._drop(agent_id, name)
        return await self._kernel.journal.write(lambda connection: reminders.forget(connection, agent_id, name))

    def has_any(self, agent_id: str) -> bool:
        """Tell whether a paglet has reminders."""
        return agent_id in self._names

    def of(self, agent_id: str) -> list[ReminderRow]:
        """Read the reminders of a paglet; blocking."""
        return self._kernel.journal.read(lambda connection: reminders.of(connection, agent_id))

    async def _fire(self, agent_id: str, name: str) -> None:
        if faults.ARMED:
            faults.reached("reminder.due")
        entry = self._kernel.agents.get(agent_id)
        in_mailbox = set(entry.pending) if entry is not None else set()
        now = time.time()

        def unit(connection: sqlite3.Connection) -> tuple[ReminderRow | None, bool]:
            """Return the row as it is now, and whether a message waits on disk."""
            row = next((row for row in reminders.of(connection, agent_id) if row.name == name), None)
            if row is None:
                return None, False
            timer, args = timer_of(row)
            if timer.due > now:
                return row, False  # set again, or the clock went back
            firing = fire(timer, now)
            # A firing that is not handled yet stands for this one too: what is slow must not pile up.
            last = occurrence_id(replace(timer, count=timer.count - 1)) if timer.count else ""
            waits = queued.contains(connection, agent_id, last)
            fires = not waits and last not in in_mailbox
            if fires:
                message = firing_message(timer, firing, args)
                enqueue(connection, agent_id, QueuedMessage(message, oneway=True))
            if firing.next is None:
                reminders.forget(connection, agent_id, name)
                return None, True
            following = firing.next if fires else replace(firing.next, count=timer.count)
            row = row_of(following, args)
            reminders.put(connection, row)
            return row, waits or fires

        try:
            row, waits = await self._kernel.journal.write(unit)
        except PagletError as exc:
            self._kernel.emit("reminder-failed", agent_id=agent_id, data={"name": name}, error=str(exc))
            self._queue.set((agent_id, name), now + _RETRY_SECONDS)
            return
        if row is None:
            self._drop(agent_id, name)
        else:
            self._set(agent_id, name, row.due_at)
        if waits:
            if faults.ARMED:
                faults.reached("reminder.queued")
            await self.collect(agent_id)


def row_of(timer: Reminder, args: dict[str, Any]) -> ReminderRow:
    """Return a reminder as it is stored."""
    fixed = {"series": timer.series, "args": args}
    return ReminderRow(timer.agent_id, timer.name, timer.due, timer.every, timer.count, pack(fixed))


def timer_of(row: ReminderRow) -> tuple[Reminder, dict[str, Any]]:
    """Restore a reminder with the arguments of its messages."""
    fixed = unpack(row.args)
    timer = Reminder(row.agent_id, row.name, row.due_at, row.every, row.count, fixed["series"])
    return timer, fixed["args"]


def rows_to_wire(rows: Sequence[ReminderRow]) -> list[dict[str, Any]]:
    """Return reminders as plain values, for the luggage."""
    return [asdict(row) for row in rows]


def rows_from_wire(wire: Any, agent_id: str) -> list[ReminderRow]:
    """Restore the reminders of a paglet that arrives.

    :raises TypeError, ValueError, KeyError: they are malformed.
    """
    rows = []
    for fields in wire:
        row = ReminderRow(**fields)
        timer, args = timer_of(row)
        timer = reminder_checked(replace(timer, agent_id=agent_id))
        rows.append(row_of(timer, dict(args)))
    return rows


def reminder_checked(timer: Reminder) -> Reminder:
    """Check a reminder that a peer sent.

    :raises ValueError: it makes no sense.
    """
    reminder(timer.agent_id, timer.name, 0.0, series=timer.series, every=timer.every, at=timer.due)
    if timer.count < 0 or len(timer.series) > 64:
        raise ValueError("malformed reminder")
    return timer


async def _call(work: Callable[[str], Awaitable[None]], agent_id: str) -> None:
    await work(agent_id)
