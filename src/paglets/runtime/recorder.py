"""Messages of paglets with ``MESSAGE`` durability: what is on disk before anybody hears of it.

A one-way message is stored, then acknowledged. What a handler did (state, reply, messages of its own) is stored in one
unit of work, then the reply and the messages leave; the next handler runs meanwhile. The units of one paglet share a
key: when one cannot be written, those behind it, which build on it, are not written either, the process is ended,
because it is ahead of the disk, and started again from the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from paglets.core.allowance import AllowanceExcess
from paglets.core.errors import PagletError
from paglets.persistence.rows import OutboxRow, StateRef
from paglets.persistence.tables import handled, paglets, queued
from paglets.protocol.delivery.window import HANDLED, Outcome
from paglets.runtime import faults
from paglets.runtime.agents import AgentEntry, Delivery, Phase
from paglets.runtime.attachment import Attachment
from paglets.runtime.kernel import Kernel
from paglets.runtime.units import enqueue, handled_row, post_outbox, queued_message
from paglets.runtime.vault import INLINE_BYTES


class JournalRecorder:
    """Implement :class:`paglets.runtime.pump.Recorder` on the journal.

    :param post: sends what a handler left in its outbox, once that is on disk.
    :param orphaned: takes care of a message that was stored for a paglet that has left or sleeps by now.
    """

    def __init__(
        self, kernel: Kernel, *, post: Callable[[Sequence[OutboxRow]], None], orphaned: Callable[[str], None]
    ) -> None:
        self._kernel = kernel
        self._vault = kernel.vault
        self._journal = kernel.vault.journal
        self._pump = kernel.messages
        self._post = post
        self._orphaned = orphaned
        self._pump.recorder = self

    # --- accepting ----------------------------------------------------------------------------------------------------

    def accept(self, entry: AgentEntry, delivery: Delivery) -> None:
        """Store a one-way message, then acknowledge it and let it wait for its turn."""
        message = queued_message(delivery)
        entry.pending[delivery.message_id] = delivery
        entry.accepting += 1
        accepted = partial(self._accepted, entry, delivery)
        try:
            self._journal.submit(lambda connection: enqueue(connection, entry.agent_id, message), accepted)
        except PagletError as exc:
            accepted(None, exc)

    def _accepted(self, entry: AgentEntry, delivery: Delivery, position: int | None, error: Exception | None) -> None:
        del position
        entry.accepting -= 1
        entry.wake_idle_waiters()
        if error is not None:
            entry.pending.pop(delivery.message_id, None)
            delivery.packed.close()
            delivery.tell_accepted(error)
            return
        if faults.ARMED:
            faults.reached("message.accepted")
        delivery.stored = True
        if entry.phase is Phase.GONE or (entry.phase is Phase.CRASHED and not entry.restarting):
            entry.pending.pop(delivery.message_id, None)
            delivery.packed.close()
            self._orphaned(entry.agent_id)
        else:
            # It was within bounds when it was stored, and what was stored is never turned away.
            self._pump.enqueue(entry, delivery, bounded=False)
        delivery.tell_accepted(None)
        self._pump.pump(entry)

    # --- recording ----------------------------------------------------------------------------------------------------

    def record(self, entry: AgentEntry, delivery: Delivery, answer: dict[str, Any], state: Attachment) -> None:
        """Store what a handler did, then let its reply and its own messages go."""
        excess = entry.balance.too_large(state.nbytes)
        if excess is not None:
            state.close()
            self._overrun(entry, delivery, excess)
            return
        entry.uncommitted += 1
        if state.nbytes > INLINE_BYTES:
            # The next message waits: its unit must not be written before this one.
            self._kernel.background(self._record_large(entry, delivery, answer, state))
            return
        ref = self._vault.states.keep(state.bytes()) if state.nbytes else None
        self._submit(entry, delivery, answer, state, ref)

    async def _record_large(
        self, entry: AgentEntry, delivery: Delivery, answer: dict[str, Any], state: Attachment
    ) -> None:
        try:
            ref = await self._vault.keep(state)
        except Exception as exc:
            state.close()
            entry.uncommitted -= 1
            entry.mailbox.done(False)
            self._not_recorded(entry, delivery, exc)
            entry.wake_idle_waiters()
            return
        self._submit(entry, delivery, answer, state, ref)

    def _submit(
        self, entry: AgentEntry, delivery: Delivery, answer: dict[str, Any], state: Attachment, ref: StateRef | None
    ) -> None:
        outcome = Outcome(answer.get("reply"), answer.get("error"))
        entry.mailbox.done(outcome.error is None)
        if state.nbytes:
            entry.remember_state(state)
            if entry.place is not None:
                entry.place.newest_state = max(entry.place.newest_state, answer["state"])
        kept = HANDLED if delivery.oneway else outcome
        recorded = partial(self._recorded, entry, delivery, outcome, ref)
        try:
            unit = partial(_unit, entry, delivery, kept, ref, answer["outbox"])
            self._journal.submit(unit, recorded, key=entry.agent_id)
        except PagletError as exc:
            recorded(None, exc)
            return
        if faults.ARMED:
            faults.reached("message.handled")
        self._pump.pump(entry)

    def _recorded(
        self,
        entry: AgentEntry,
        delivery: Delivery,
        outcome: Outcome,
        ref: StateRef | None,
        rows: list[OutboxRow] | None,
        error: Exception | None,
    ) -> None:
        entry.uncommitted -= 1
        if error is not None:
            self._kernel.background(self._vault.drop(ref))
            self._not_recorded(entry, delivery, error)
        else:
            entry.reloads = 0
            if faults.ARMED:
                faults.reached("message.recorded")
            if rows:
                self._post(rows)
            self._pump.settle_recorded(entry, delivery, outcome)
            self._pump.touched(entry)
        entry.wake_idle_waiters()
        self._pump.pump(entry)

    def _not_recorded(self, entry: AgentEntry, delivery: Delivery, error: Exception) -> None:
        self._kernel.emit("message-failed", entry, message_id=delivery.message_id, error=str(error))
        entry.pending.pop(delivery.message_id, None)
        delivery.packed.close()
        delivery.answer(None, error)
        if entry.active:
            self._kernel.watch.reload(entry, f"a handled message could not be recorded: {error}")

    def _overrun(self, entry: AgentEntry, delivery: Delivery, excess: AllowanceExcess) -> None:
        """Undo a message that made the state larger than allowed: nothing of what its handler did is ever on disk.

        Who waits for the reply has the error. A message that was accepted stays on disk and is handled again when the
        paglet wakes.
        """
        kernel, place = self._kernel, entry.place
        error = excess.error(entry.agent_id)
        entry.mailbox.pause()
        if place is not None:
            place.failure = error
            place.kill()  # it is ahead of the disk
        kernel.exceeded(entry, excess)
        kernel.emit("message-failed", entry, message_id=delivery.message_id, error=str(error))
        entry.pending.pop(delivery.message_id, None)
        delivery.packed.close()
        if delivery.oneway and not delivery.stored:
            self._pump.buried(entry, delivery, str(error))
        entry.mailbox.done(False)
        delivery.answer(None, error)
        entry.wake_idle_waiters()

    def remove(self, entry: AgentEntry, delivery: Delivery) -> None:
        """Remove a stored message that was handled."""
        entry.removing.add(delivery.message_id)
        self._kernel.background(self._remove(entry, delivery.message_id))

    async def _remove(self, entry: AgentEntry, message_id: str) -> None:
        await self._vault.dequeue(entry.agent_id, message_id)
        # One that could not be removed is never taken in again as long as the paglet is here.
        entry.removing.discard(message_id)


def _unit(
    entry: AgentEntry,
    delivery: Delivery,
    outcome: Outcome,
    ref: StateRef | None,
    outbox: list[dict[str, Any]],
    connection: sqlite3.Connection,
) -> list[OutboxRow]:
    agent_id = entry.agent_id
    if ref is not None:
        paglets.update_state(connection, agent_id, entry.epoch, ref)
    handled.remember(connection, agent_id, handled_row(delivery.message_id, outcome))
    if delivery.stored:
        queued.dequeue(connection, agent_id, delivery.message_id)
    return post_outbox(connection, agent_id, outbox)
