"""Hand the messages of a paglet to its process, one at a time, and their replies to whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from paglets.core.error_wire import error_to_wire
from paglets.core.errors import (
    InvalidAgentError,
    LifecycleError,
    MessageCancelledError,
    OverloadedError,
    PagletCrashedError,
    RemoteTimeoutError,
    StreamInterruptedError,
)
from paglets.core.runtime_values import Durability
from paglets.protocol.delivery.window import HANDLED, Outcome
from paglets.protocol.mailbox import MailboxClosedError, MailboxFullError
from paglets.protocol.supervision import DeadLetter, Rerun
from paglets.runtime.agents import MAILBOX_MESSAGES, AgentEntry, Delivery, DeliveryDone, Phase
from paglets.runtime.attachment import Attachment
from paglets.runtime.frames import DURABLE, ONEWAY, OUTBOX_FULL, Frame, FrameType, Op
from paglets.runtime.place import Place, failure_from, packed, restore_failure
from paglets.serialization.values import pack, unpack

#: Where a message that bypasses the queue stands among the priorities.
UNQUEUED_RANK = 1 << 40
#: Messages of one paglet that may be handled before the effects of the first are on disk.
MOST_UNCOMMITTED = 64
#: Pulls at the streams of one paglet that may wait for items at the same time.
MOST_PULLS = 256
#: Replies up to this size are remembered for senders that ask again.
REMEMBERED_REPLY_BYTES = 64 * 1024


class Emit(Protocol):
    """Record what happened to a paglet."""

    def __call__(self, kind: str, entry: AgentEntry | None = None, **fields: object) -> None: ...


class Recorder(Protocol):
    """Put the messages of paglets with ``MESSAGE`` durability, and what they did, on disk."""

    def accept(self, entry: AgentEntry, delivery: Delivery) -> None:
        """Store a one-way message, then acknowledge it and let it wait for its turn."""

    def record(self, entry: AgentEntry, delivery: Delivery, answer: dict[str, Any], state: Attachment) -> None:
        """Store what a handler did, then let its reply and its own messages go."""

    def remove(self, entry: AgentEntry, delivery: Delivery) -> None:
        """Remove a stored message that was handled."""


class MessagePump:
    """Move messages from mailboxes to processes; runs on the host's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host_name: str, emit: Emit) -> None:
        self._loop = loop
        self._host_name = host_name
        self._emit = emit
        # Set by the parts that take these over, before the first paglet starts.
        self.recorder: Recorder
        self.touched: Callable[[AgentEntry], None] = lambda _: None
        self.buried: Callable[[AgentEntry, Delivery, str], None] = lambda *_: None
        self.outbox_full = False
        """Whether durable paglets may send nothing one-way for now; told by the outbox."""

    def deliver(self, entry: AgentEntry, delivery: Delivery) -> None:
        """Put a message into an active paglet's mailbox; ``delivery.done`` hears of the outcome.

        :raises OverloadedError: the mailbox is full.
        :raises PagletCrashedError: the paglet's process ended.
        """
        if entry.phase is Phase.CRASHED and not entry.restarting:
            raise PagletCrashedError(f"paglet {entry.agent_id} crashed: {entry.error}")
        if delivery.oneway and not delivery.stored and entry.durability is Durability.MESSAGE:
            self.recorder.accept(entry, delivery)
            return
        self.enqueue(entry, delivery)
        if delivery.oneway:
            delivery.done(None, None)
        self.pump(entry)

    def pull(self, entry: AgentEntry, message: bytes, done: DeliveryDone, *, oneway: bool) -> None:
        """Pass a pull at a stream to the paglet's process, beside the mailbox. Never raises."""
        place = entry.place
        if place is None or not place.alive or place.detached or entry.phase is not Phase.ACTIVE:
            done(None, StreamInterruptedError(f"paglet {entry.agent_id} has ended its streams"))
            return
        if entry.pulls >= MOST_PULLS:
            done(None, OverloadedError(f"too many callers wait for streams of paglet {entry.agent_id}"))
            return
        entry.pulls += 1

        def answered(frame: Frame | None) -> None:
            entry.pulls -= 1
            if frame is None:
                done(None, StreamInterruptedError(f"paglet {entry.agent_id} has left its process, and its streams"))
            elif frame.type == FrameType.FAILURE:
                done(None, restore_failure(frame))
            elif oneway:
                frame.attachment.close()
                done(None, None)
            else:
                done(frame.attachment, None)

        place.channel.request(Op.STREAM, b"", answered, attachment=Attachment.of([message]))

    def enqueue(self, entry: AgentEntry, delivery: Delivery, *, bounded: bool = True) -> None:
        """Let a message wait for its turn.

        :param bounded: False for what was accepted before.
        :raises OverloadedError: the mailbox is full.
        :raises InvalidAgentError: the paglet has left.
        """
        try:
            if delivery.priority:
                entry.mailbox.push(delivery, delivery.priority, delivery.packed.nbytes, bounded=bounded)
            else:
                self._push_ahead(entry, delivery, bounded=bounded)
        except MailboxFullError as exc:
            raise OverloadedError(f"mailbox of paglet {entry.agent_id} is full: {exc}") from exc
        except MailboxClosedError as exc:
            raise InvalidAgentError(f"paglet {entry.agent_id} has left {self._host_name}") from exc
        entry.pending[delivery.message_id] = delivery
        if delivery.priority:
            self._emit("message-queued", entry, message_id=delivery.message_id)

    def _push_ahead(self, entry: AgentEntry, delivery: Delivery, *, bounded: bool) -> None:
        if bounded and len(entry.mailbox) >= MAILBOX_MESSAGES:
            raise MailboxFullError(entry.mailbox.statistics())
        entry.mailbox.push_front(delivery, UNQUEUED_RANK, delivery.packed.nbytes)

    def pump(self, entry: AgentEntry) -> None:
        """Send the next message to the paglet's process if that is idle."""
        place = entry.place
        if place is None or entry.uncommitted >= MOST_UNCOMMITTED or entry.phase is Phase.CRASHED:
            return
        while (delivery := entry.mailbox.next()) is not None:
            if entry.durability is Durability.MESSAGE and delivery.message_id in entry.window:
                self._answer_again(entry, delivery)
                continue
            if delivery.deadline is None or delivery.oneway or self._loop.time() < delivery.deadline:
                break
            entry.mailbox.done(False)
            late = RemoteTimeoutError("nobody waits for the reply to this message any more")
            self._settle(entry, delivery, None, late, handled=False)
        if delivery is None:
            return
        entry.current = delivery
        place.answered = self._loop.create_future()
        place.post(
            Op.MESSAGE,
            message_header(entry, delivery, outbox_full=self.outbox_full),
            delivery.packed,
            partial(self._answered, entry, place, delivery),
        )

    def _answer_again(self, entry: AgentEntry, delivery: Delivery) -> None:
        """Answer a message that was handled while it waited: its paglet's snapshot had it, and its process died."""
        outcome = entry.window.outcome(delivery.message_id)
        entry.mailbox.done(outcome is None or outcome.error is None)
        reply, error = outcome_as_answer(outcome or HANDLED)
        self._settle(entry, delivery, reply, error, outcome)
        if delivery.stored:
            self.recorder.remove(entry, delivery)

    def _answered(self, entry: AgentEntry, place: Place, delivery: Delivery, frame: Frame | None) -> None:
        if entry.current is delivery:
            entry.current = None
        entry.used_at = self._loop.time()
        if place.answered is not None:
            place.answered.set_result(None)
            place.answered = None
        if frame is None and place.left_for is None:
            self._died(entry, place, delivery)
            return
        if frame is not None and frame.type != FrameType.FAILURE and entry.durability is Durability.MESSAGE:
            answer = unpack(frame.payload)
            entry.resources = answer["resources"]
            if place.left_for is None and not place.detached:
                if entry.phase is Phase.ACTIVE:
                    self.recorder.record(entry, delivery, answer, frame.attachment)
                else:
                    # Its process is being ended, and what this handler did with it.
                    self._died(entry, place, delivery)
                return
            # The handler moved or stored its own paglet; what is to be known of it went along.
            reply, error = outcome_as_answer(Outcome(answer.get("reply"), answer.get("error")))
        else:
            reply, error = self._outcome(entry, place, frame)
        if place.detached:
            entry.mailbox.count(error is None)
        else:
            entry.mailbox.done(error is None)
        self._settle(entry, delivery, reply, error)
        if delivery.stored and place.left_for is None:
            self.recorder.remove(entry, delivery)
        self.touched(entry)
        entry.wake_idle_waiters()
        self.pump(entry)

    def _outcome(
        self, entry: AgentEntry, place: Place, frame: Frame | None
    ) -> tuple[Attachment | None, Exception | None]:
        if frame is None and place.failure is not None:
            return None, place.failure
        if frame is None:
            # The handler moved or stored its own paglet and its process ended before it could answer.
            return packed(place.left_for), None
        if frame.type == FrameType.FAILURE:
            return None, restore_failure(frame)
        if frame.payload:
            entry.resources = unpack(frame.payload)
        return frame.attachment, None

    def _died(self, entry: AgentEntry, place: Place, delivery: Delivery) -> None:
        """Decide about the message that a process was handling when it ended; its paglet has been declared crashed."""
        error = place.crash_error()
        verdict, entry.verdict = entry.verdict, None
        if isinstance(verdict, Rerun) and not place.detached and (entry.restarting or entry.active):
            entry.mailbox.put_back()
        else:
            if not place.detached:
                entry.mailbox.done(False)
            if isinstance(verdict, DeadLetter) or (delivery.oneway and not delivery.stored):
                self.buried(entry, delivery, str(error))
            # Of a `MESSAGE` paglet nothing that the handler did is left, so a repeated message may be handled. Of any
            # other it may be, in a checkpoint or in the world.
            self._settle(entry, delivery, None, error, handled=entry.durability is not Durability.MESSAGE)
        entry.wake_idle_waiters()
        self.pump(entry)

    def settle_recorded(self, entry: AgentEntry, delivery: Delivery, outcome: Outcome) -> None:
        """Answer a message whose effects are on disk."""
        reply, error = outcome_as_answer(outcome)
        self._settle(entry, delivery, reply, error, outcome)

    def _settle(
        self,
        entry: AgentEntry,
        delivery: Delivery,
        reply: Attachment | None,
        error: Exception | None,
        outcome: Outcome | None = None,
        *,
        handled: bool = True,
    ) -> None:
        delivery.packed.close()
        if entry.pending.get(delivery.message_id) is delivery:
            del entry.pending[delivery.message_id]
        if error is None:
            self._emit("message-delivered", entry, message_id=delivery.message_id)
        else:
            self._emit("message-failed", entry, message_id=delivery.message_id, error=str(error))
        if handled:
            entry.window.remember(delivery.message_id, outcome or answer_as_outcome(reply, error))
        delivery.answer(reply, error)

    def cancel(self, entry: AgentEntry, message_id: str) -> bool:
        """Withdraw a message whose handler has not begun; return whether it could be."""
        delivery = entry.pending.get(message_id)
        if delivery is None or delivery is entry.current or not entry.mailbox.withdraw(delivery):
            return False
        self._settle(entry, delivery, None, withdrawn(message_id), handled=False)
        if delivery.stored:
            self.recorder.remove(entry, delivery)
        return True

    async def idle(self, entry: AgentEntry, timeout: float) -> None:
        """Wait until no handler of the paglet runs; the caller has paused the mailbox.

        :raises LifecycleError: the handler takes longer than ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not entry.mailbox.idle or entry.uncommitted:
                    waiter: asyncio.Future[None] = self._loop.create_future()
                    entry.idle_waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise LifecycleError(
                f"paglet {entry.agent_id} has been handling a message for more than {timeout:g} s; nothing was changed"
            ) from None

    async def recorded(self, entry: AgentEntry) -> None:
        """Wait until what the handled messages of a paglet did, and those that are being accepted, are on disk, or have
        failed to get there."""
        while entry.uncommitted or entry.accepting:
            waiter: asyncio.Future[None] = self._loop.create_future()
            entry.idle_waiters.append(waiter)
            await waiter

    def release(self, entry: AgentEntry, error: Exception) -> None:
        """Answer everyone whose message still waits with an error."""
        for queued in entry.mailbox.drain():
            self.refuse(entry, queued.item, error)

    def refuse(self, entry: AgentEntry, delivery: Delivery, error: Exception) -> None:
        """Answer a message that will not be handled here; one that was accepted goes to the dead letters."""
        if delivery.oneway and not delivery.stored:
            self.buried(entry, delivery, str(error))
        entry.pending.pop(delivery.message_id, None)
        delivery.packed.close()
        delivery.answer(None, error)


def withdrawn(message_id: str) -> MessageCancelledError:
    """Return the error that whoever waits for the reply to a withdrawn message gets."""
    return MessageCancelledError(f"message {message_id} was withdrawn by its sender")


def message_header(entry: AgentEntry, delivery: Delivery, *, outbox_full: bool = False) -> bytes:
    """Return what the process must know of a message beside it, nothing in the most frequent case."""
    durable = entry.durability is Durability.MESSAGE
    chain = delivery.terms.chain
    if durable and outbox_full:
        flags = DURABLE | OUTBOX_FULL | (ONEWAY if delivery.oneway else 0)
        return bytes((flags,)) + (b"" if delivery.oneway or not chain else pack(list(chain)))
    if delivery.oneway:
        return _ONEWAY_DURABLE if durable else _ONEWAY
    if not chain:
        return _DURABLE if durable else b""
    return bytes((DURABLE if durable else 0,)) + pack(list(chain))


_ONEWAY = bytes((ONEWAY,))
_DURABLE = bytes((DURABLE,))
_ONEWAY_DURABLE = bytes((ONEWAY | DURABLE,))


def outcome_as_answer(outcome: Outcome) -> tuple[Attachment | None, Exception | None]:
    """Return a recorded outcome as its sender gets it."""
    if outcome.error is not None:
        return None, failure_from(outcome.error)
    return None if outcome.reply is None else Attachment.of([outcome.reply]), None


def answer_as_outcome(reply: Attachment | None, error: Exception | None) -> Outcome | None:
    """Return what to remember of an answer, None where it is too large."""
    if error is not None:
        return Outcome(None, pack(error_to_wire(error)))
    if reply is None:
        return HANDLED
    return Outcome(reply.bytes()) if reply.nbytes <= REMEMBERED_REPLY_BYTES else None


def delivery_future(loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Future[Attachment | None], DeliveryDone]:
    """Return a future and the callback that resolves it."""
    future: asyncio.Future[Attachment | None] = loop.create_future()

    def done(reply: Attachment | None, error: Exception | None) -> None:
        if future.done():
            if reply is not None:
                reply.close()  # who waited has given up
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(reply)

    return future, done
