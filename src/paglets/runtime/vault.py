"""What of the paglets of one host is on disk: each method is one unit of work of the journal.

A paglet that says ``NONE`` has no row while it is active; the methods know that, their callers need not.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from paglets.core.allowance import AllowanceBalance
from paglets.core.errors import HostError, InsufficientStorageError
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.persistence.journal import Journal
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import (
    HandledMessage,
    LedgerRow,
    NoticeRow,
    OutboxRow,
    RecordSummary,
    ReminderRow,
    StateRef,
    Status,
    StoredRecord,
)
from paglets.persistence.tables import dead_letters, handled, ledger, paglets, places, queued, reminders
from paglets.protocol.delivery.window import Outcome, Remembered
from paglets.runtime.agents import AgentEntry, Delivery
from paglets.runtime.attachment import Attachment
from paglets.runtime.ledger import Ledger
from paglets.runtime.own_url import OwnUrl
from paglets.runtime.units import (
    Aftermath,
    dead_letter,
    enqueue,
    keep_queued,
    metadata_of,
    queued_message,
    record_of,
    set_timers,
    tell_home,
)

T = TypeVar("T")

#: States up to this size are part of their row; larger ones are files beside the journal.
INLINE_BYTES = 1024 * 1024


class OnDisk(Protocol):
    """Run blocking work beside the event loop."""

    def __call__(self, work: Callable[..., T], /, *args: Any) -> Awaitable[T]: ...


@dataclass(slots=True)
class Awakened:
    """What the disk has of a paglet that is to be started."""

    record: StoredRecord
    state: Attachment
    waiting: list[QueuedMessage]
    window: list[Remembered]


class Vault:
    """Write and read the rows of the paglets of one host; on its loop unless a method says that it blocks.

    :param address: the host's base URL, and which ones are its own.
    """

    def __init__(self, journal: Journal, book: Ledger, on_disk: OnDisk, address: OwnUrl) -> None:
        self.journal = journal
        self.states = journal.states
        self.ledger = book
        self._on_disk = on_disk
        self._address = address

    async def keep(self, state: Attachment) -> StateRef:
        """Return what a row says of a state; a large one is on disk when this returns.

        :raises InsufficientStorageError: the disk is full.
        """
        if state.nbytes <= INLINE_BYTES:
            return self.states.keep(state.bytes())
        return await self._on_disk(self.states.keep, state.view())

    async def drop(self, ref: StateRef | None) -> None:
        """Remove the file of a state that no row came to name; what cannot be removed goes with the next start."""
        if ref is not None and ref.file:
            with suppress(OSError):
                await self._on_disk(self.states.drop, ref.file)

    async def _name(self, ref: StateRef | None, unit: Callable[[sqlite3.Connection], T], *, key: str = "") -> T:
        """Have a unit of work done that names a state; the file of that goes if it fails."""
        try:
            return await self.journal.write(unit, key=key)
        except Exception:
            await self.drop(ref)
            raise

    # --- the life of a paglet -----------------------------------------------------------------------------------------

    async def created(self, entry: AgentEntry, state: Attachment, timers: Mapping[str, ReminderRow | None]) -> None:
        """Note that a paglet exists here, with the timers that it has set meanwhile."""
        row = self.ledger.created(entry.agent_id, entry.class_name, entry.epoch, size_bytes=state.nbytes)
        record = record_of(entry, Status.ACTIVE)
        ref = await self.keep(state) if entry.durable else None

        def unit(connection: sqlite3.Connection) -> None:
            if ref is not None:
                paglets.put(connection, record, ref)
            set_timers(connection, entry.agent_id, timers)
            ledger.add(connection, row)

        await self._name(ref, unit)

    async def checkpoint(self, entry: AgentEntry, ref: StateRef, *, key: str) -> None:
        """Replace the durable state of an active paglet; nothing happens if it has left this host meanwhile."""
        agent_id, epoch = entry.agent_id, entry.epoch
        if not await self._name(ref, lambda c: paglets.update_state(c, agent_id, epoch, ref), key=key):
            await self.drop(ref)

    async def files_changed(self, entry: AgentEntry) -> None:
        """Note which files travel with a paglet."""
        if entry.durable:
            agent_id, epoch, metadata = entry.agent_id, entry.epoch, metadata_of(entry)
            await self.journal.write(lambda c: paglets.update_metadata(c, agent_id, epoch, metadata))

    async def set_balance(self, agent_id: str, epoch: int, balance: AllowanceBalance) -> None:
        """Note what a paglet has left of its allowance; one that keeps no row has it in memory alone."""
        await self.journal.write(lambda connection: paglets.set_balance(connection, agent_id, epoch, balance))

    async def hold(
        self, agent_id: str, class_name: str, epoch: int, balance: AllowanceBalance, request: DeactivationRequest
    ) -> bool:
        """Note that a paglet that does not run sleeps until it is granted more; return whether it is here."""
        row = self.ledger.slept(agent_id, class_name, epoch, reason=request.reason)

        def unit(connection: sqlite3.Connection) -> bool:
            there = paglets.set_status(connection, agent_id, epoch, Status.INACTIVE, at=time.time(), request=request)
            if there:
                paglets.set_balance(connection, agent_id, epoch, balance)
                ledger.add(connection, row)
            return there

        return await self.journal.write(unit)

    async def slept(
        self,
        entry: AgentEntry,
        state: Attachment,
        policy: DeactivationPolicy,
        request: DeactivationRequest,
        waiting: Sequence[Delivery],
        aftermath: Aftermath,
    ) -> list[OutboxRow]:
        """Note that a paglet sleeps, and the accepted messages that wait for it; return what is to be sent."""
        ref = await self.keep(state)
        record = record_of(entry, Status.INACTIVE, policy=policy, request=request)
        row = self.ledger.slept(
            entry.agent_id, entry.class_name, entry.epoch, reason=request.reason, size_bytes=state.nbytes
        )
        messages = [queued_message(delivery) for delivery in waiting if delivery.oneway and not delivery.stored]

        def unit(connection: sqlite3.Connection) -> list[OutboxRow]:
            paglets.put(connection, record, ref)
            keep_queued(connection, entry.agent_id, messages)
            ledger.add(connection, row)
            return aftermath.write(connection, entry)

        return await self._name(ref, unit)

    async def keep_waiting(self, entry: AgentEntry, waiting: Sequence[Delivery]) -> None:
        """Store the accepted messages that wait in a mailbox."""
        kept = [delivery for delivery in waiting if not delivery.stored]
        messages = [queued_message(delivery) for delivery in kept]
        await self.journal.write(lambda connection: keep_queued(connection, entry.agent_id, messages))
        for delivery in kept:
            delivery.stored = True

    async def slept_at_checkpoint(
        self,
        entry: AgentEntry,
        policy: DeactivationPolicy,
        request: DeactivationRequest,
        waiting: Sequence[Delivery],
    ) -> bool:
        """Let a paglet that cannot prepare sleep as its last checkpoint is; return whether there is one."""
        await self.keep_waiting(entry, waiting)
        row = self.ledger.slept(entry.agent_id, entry.class_name, entry.epoch, reason=request.reason)

        def unit(connection: sqlite3.Connection) -> bool:
            there = paglets.set_status(
                connection,
                entry.agent_id,
                entry.epoch,
                Status.INACTIVE,
                at=time.time(),
                policy=policy,
                request=request,
            )
            if there:
                paglets.set_balance(connection, entry.agent_id, entry.epoch, entry.balance)
                ledger.add(connection, row)
            return there

        return await self.journal.write(unit)

    def awaken(self, agent_id: str) -> Awakened | None:
        """Read everything that is needed to start a paglet; blocking.

        :raises HostError: its stored state is damaged.
        """

        def rows(
            connection: sqlite3.Connection,
        ) -> tuple[StoredRecord, StateRef, list[QueuedMessage], list[HandledMessage]] | None:
            found = paglets.get(connection, agent_id)
            if found is None:
                return None
            waiting = [message for _, message in queued.waiting(connection, agent_id)]
            return *found, waiting, handled.window(connection, agent_id)

        found = self.journal.read(rows)
        if found is None:
            return None
        record, ref, waiting, window = found
        state = Attachment.of([self.states.load(ref)])
        remembered: list[Remembered] = [(row.message_id, Outcome(row.reply, row.error)) for row in window]
        return Awakened(record, state, waiting, remembered)

    async def woke(self, entry: AgentEntry, state: Attachment | None, row: LedgerRow) -> None:
        """Note that a stored paglet is active.

        :param state: what its activation hook made of it, None where nothing was touched.
        """
        agent_id, epoch = entry.agent_id, entry.epoch
        ref = None if state is None or not entry.durable else await self.keep(state)

        def unit(connection: sqlite3.Connection) -> None:
            if not entry.durable:
                timers = reminders.of(connection, agent_id)
                paglets.remove(connection, agent_id, epoch=epoch)
                reminders.replace(connection, agent_id, timers)
            elif not paglets.set_status(connection, agent_id, epoch, Status.ACTIVE, at=time.time()):
                raise HostError(f"the stored paglet {agent_id} has gone while it woke")
            elif ref is not None:
                paglets.update_state(connection, agent_id, epoch, ref)
            ledger.add(connection, row)

        await self._name(ref, unit)

    async def crashed(self, agent_id: str, class_name: str, epoch: int, error: str) -> None:
        """Note that a paglet's process died and nobody starts it again."""
        row = self.ledger.crashed(agent_id, class_name, epoch, error=error)

        def unit(connection: sqlite3.Connection) -> None:
            paglets.set_status(connection, agent_id, epoch, Status.CRASHED, at=time.time(), error=error)
            ledger.add(connection, row)

        await self.journal.write(unit)

    async def disposed(self, entry: AgentEntry, waiting: Sequence[Delivery], aftermath: Aftermath) -> list[OutboxRow]:
        """Note that a paglet exists no more, and what its last handler did; return what is to be sent.

        Accepted messages that wait for it become dead letters.
        """
        lost = [queued_message(delivery) for delivery in waiting if delivery.oneway and not delivery.stored]
        unit = self._end(entry.agent_id, entry.class_name, entry.epoch, self._address.of(entry.home), lost)

        def disposed(connection: sqlite3.Connection) -> list[OutboxRow]:
            rows = aftermath.write(connection, entry)
            unit(connection)
            return rows

        return await self.journal.write(disposed)

    async def disposed_asleep(self, summary: RecordSummary) -> None:
        """Note that a sleeping paglet exists no more."""

        def unit(connection: sqlite3.Connection) -> None:
            found = paglets.get(connection, summary.agent_id)
            home = "" if found is None else found[0].home
            self._end(summary.agent_id, summary.agent_class_name, summary.epoch, home, [])(connection)

        await self.journal.write(unit)

    def _end(
        self, agent_id: str, class_name: str, epoch: int, home: str, lost: Sequence[QueuedMessage]
    ) -> Callable[[sqlite3.Connection], None]:
        row = self.ledger.ended(agent_id, class_name, epoch)
        here = self._address()

        def unit(connection: sqlite3.Connection) -> None:
            paglets.remove(connection, agent_id)
            reminders.replace(connection, agent_id, ())
            for message in (*lost, *queued.clear(connection, agent_id)):
                dead_letters.add(connection, dead_letter(agent_id, here, message, "the paglet was disposed"))
            ledger.add(connection, row)
            # One more than where it was: this must not be taken for the news that it had arrived.
            tell_home(connection, agent_id, home, here, epoch + 1, None)

        return unit

    async def stopped(self, entries: Sequence[AgentEntry], waiting: dict[str, list[Delivery]]) -> None:
        """Note that the host was stopped without storing its paglets: those that are still active end with it."""
        here, reason = self._address(), "the host was stopped"
        lost = [
            (agent_id, queued_message(delivery))
            for agent_id, deliveries in waiting.items()
            for delivery in deliveries
            if not delivery.stored
        ]
        rows = {
            entry.agent_id: self.ledger.ended(entry.agent_id, entry.class_name, entry.epoch, cause=reason)
            for entry in entries
        }

        def unit(connection: sqlite3.Connection) -> None:
            for entry in entries:
                ended = paglets.remove(connection, entry.agent_id, epoch=entry.epoch, status=Status.ACTIVE)
                if ended or paglets.get(connection, entry.agent_id) is None:
                    reminders.replace(connection, entry.agent_id, ())
                    for message in queued.clear(connection, entry.agent_id):
                        dead_letters.add(connection, dead_letter(entry.agent_id, here, message, reason))
                    ledger.add(connection, rows[entry.agent_id])
                    tell_home(connection, entry.agent_id, self._address.of(entry.home), here, entry.epoch + 1, None)
            for agent_id, message in lost:
                dead_letters.add(connection, dead_letter(agent_id, here, message, reason))

        await self.journal.write(unit)

    async def uncreated(self, agent_id: str) -> None:
        """Remove what was stored of a paglet whose creation failed."""

        def unit(connection: sqlite3.Connection) -> None:
            paglets.remove(connection, agent_id)
            reminders.replace(connection, agent_id, ())

        await self.journal.write(unit)

    async def drop_timers(self, agent_ids: Iterable[str]) -> None:
        """Remove the timers of paglets that are here no more."""

        def unit(connection: sqlite3.Connection) -> None:
            for agent_id in agent_ids:
                reminders.replace(connection, agent_id, ())

        await self.journal.write(unit)

    # --- messages -----------------------------------------------------------------------------------------------------

    async def enqueue(self, agent_id: str, message: QueuedMessage) -> None:
        """Keep a message for a paglet that sleeps.

        :raises OverloadedError: too many wait already.
        """
        await self.journal.write(lambda connection: enqueue(connection, agent_id, message))

    async def dequeue(self, agent_id: str, message_id: str) -> bool:
        """Remove a message that was handled or withdrawn; return whether it was there."""
        return await self.journal.write(lambda connection: queued.dequeue(connection, agent_id, message_id))

    async def bury(self, agent_id: str, host_url: str, message: QueuedMessage, reason: str) -> None:
        """Make an accepted message a dead letter."""
        letter = dead_letter(agent_id, host_url, message, reason)

        def unit(connection: sqlite3.Connection) -> None:
            queued.dequeue(connection, agent_id, message.message.message_id)
            dead_letters.add(connection, letter)

        await self.journal.write(unit)

    def recall(self, agent_id: str, message_id: str, repeated: bool) -> tuple[bool, Outcome | None]:
        """Read whether a paglet has handled a message, and what came of it; blocking.

        :param repeated: whether to look also for a paglet for which an id may come twice.
        """

        def read(connection: sqlite3.Connection) -> HandledMessage | None:
            if not repeated and paglets.durability(connection, agent_id) is not Durability.MESSAGE:
                return None
            return handled.find(connection, agent_id, message_id)

        row = self.journal.read(read)
        return row is not None, None if row is None else Outcome(row.reply, row.error)

    async def settled(self) -> None:
        """Return when everything that is to be written by now has been, or could not be for want of room.

        :raises HostError: the journal is closed, or the file failed.
        """
        with suppress(InsufficientStorageError):
            await self.journal.write(lambda _: None)

    async def mail(self, agent_id: str) -> list[QueuedMessage]:
        """Read the messages that wait for a paglet, after everything that is to be written by now."""
        return await self.journal.write(lambda c: [message for _, message in queued.waiting(c, agent_id)])

    def waiting(self, agent_id: str) -> list[QueuedMessage]:
        """Read the messages that wait for a paglet; blocking."""
        return [message for _, message in self.journal.read(lambda c: queued.waiting(c, agent_id))]

    def count_waiting(self, agent_id: str) -> int:
        """Count the messages that wait for a paglet; blocking."""
        return self.journal.read(lambda connection: queued.count(connection, agent_id))

    def receivers(self) -> list[str]:
        """Read the ids of the paglets for which messages are stored; blocking."""
        return self.journal.read(queued.receivers)

    def timers(self) -> list[tuple[str, str, float]]:
        """Read paglet, name and time of every reminder; blocking."""
        return self.journal.read(reminders.all_due)

    def summaries(self) -> list[RecordSummary]:
        """Read what there is of every paglet; blocking."""
        return self.journal.read(paglets.summaries)

    async def settle_in(self, entries: Iterable[AgentEntry] = ()) -> None:
        """Note the address of this host; have everyone know it if it was another before.

        :param entries: the paglets with a process here, which need not have rows.
        """
        here = self._address()
        news = [
            NoticeRow(entry.agent_id, entry.home, entry.epoch, here)
            for entry in entries
            if entry.home and not self._address.is_own(entry.home)
        ]

        def unit(connection: sqlite3.Connection) -> None:
            if places.settle_in(connection, here) is not None:
                for notice in news:
                    places.notice_put(connection, notice)

        await self.journal.write(unit)

    def crash_errors(self, agent_ids: Iterable[str]) -> dict[str, str]:
        """Read why paglets crashed; blocking."""

        def read(connection: sqlite3.Connection) -> dict[str, str]:
            found = {agent_id: paglets.get(connection, agent_id) for agent_id in agent_ids}
            return {agent_id: row[0].error for agent_id, row in found.items() if row is not None}

        return self.journal.read(read)
