"""Hand the messages of a paglet to its process, one at a time, and their replies to whoever waits."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Protocol

from paglets.core.errors import InvalidAgentError, LifecycleError, OverloadedError, PagletCrashedError
from paglets.protocol.mailbox import MailboxClosedError, MailboxFullError
from paglets.runtime.agents import MAILBOX_MESSAGES, AgentEntry, Delivery, DeliveryDone, Phase
from paglets.runtime.attachment import Attachment
from paglets.runtime.frames import Frame, FrameType, Op
from paglets.runtime.place import Place, packed, restore_failure
from paglets.serialization.values import unpack

#: Where a message that bypasses the queue stands among the priorities.
UNQUEUED_RANK = 1 << 40


class Emit(Protocol):
    """Record what happened to a paglet."""

    def __call__(self, kind: str, entry: AgentEntry | None = None, **fields: object) -> None: ...


class MessagePump:
    """Move messages from mailboxes to processes; runs on the host's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host_name: str, emit: Emit) -> None:
        self._loop = loop
        self._host_name = host_name
        self._emit = emit

    def deliver(self, entry: AgentEntry, delivery: Delivery) -> None:
        """Put a message into an active paglet's mailbox; ``delivery.done`` hears of the outcome.

        :raises OverloadedError: the mailbox is full.
        :raises PagletCrashedError: the paglet's process ended.
        """
        if entry.phase is Phase.CRASHED:
            raise PagletCrashedError(f"paglet {entry.agent_id} crashed: {entry.error}")
        try:
            if delivery.priority:
                entry.mailbox.push(delivery, delivery.priority, delivery.packed.nbytes)
            else:
                self._push_ahead(entry, delivery)
        except MailboxFullError as exc:
            raise OverloadedError(f"mailbox of paglet {entry.agent_id} is full: {exc}") from exc
        except MailboxClosedError as exc:
            raise InvalidAgentError(f"paglet {entry.agent_id} has left {self._host_name}") from exc
        if delivery.priority:
            self._emit("message-queued", entry, message_id=delivery.message_id)
        if delivery.oneway:
            delivery.done(None, None)
        self.pump(entry)

    def _push_ahead(self, entry: AgentEntry, delivery: Delivery) -> None:
        if len(entry.mailbox) >= MAILBOX_MESSAGES:
            raise MailboxFullError(entry.mailbox.statistics())
        entry.mailbox.push_front(delivery, UNQUEUED_RANK, delivery.packed.nbytes)

    def pump(self, entry: AgentEntry) -> None:
        """Send the next message to the paglet's process if that is idle."""
        place = entry.place
        if place is None:
            return
        delivery = entry.mailbox.next()
        if delivery is None:
            return
        place.answered = self._loop.create_future()
        place.post(
            Op.MESSAGE,
            b"\x01" if delivery.oneway else b"",
            delivery.packed,
            partial(self._answered, entry, place, delivery),
        )

    def _answered(self, entry: AgentEntry, place: Place, delivery: Delivery, frame: Frame | None) -> None:
        error: Exception | None = None
        reply: Attachment | None = None
        if frame is None:
            if place.left_for is not None:
                # The handler moved or stored its own paglet and its process ended before it could answer.
                reply = packed(place.left_for)
            else:
                error = place.crash_error()
        elif frame.type == FrameType.FAILURE:
            error = restore_failure(frame)
        else:
            reply = frame.attachment
            if frame.payload:
                entry.resources = unpack(frame.payload)
        delivery.packed.close()
        if place.answered is not None:
            place.answered.set_result(None)
            place.answered = None
        if place.detached:
            entry.mailbox.count(error is None)
        else:
            entry.mailbox.done(error is None)
        if error is None:
            self._emit("message-delivered", entry, message_id=delivery.message_id)
        else:
            self._emit("message-failed", entry, message_id=delivery.message_id, error=str(error))
        if not delivery.oneway:
            delivery.done(reply, error)
        entry.wake_idle_waiters()
        self.pump(entry)

    async def idle(self, entry: AgentEntry, timeout: float) -> None:
        """Wait until no handler of the paglet runs; the caller has paused the mailbox.

        :raises LifecycleError: the handler takes longer than ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while entry.mailbox.statistics().in_flight:
                    waiter: asyncio.Future[None] = self._loop.create_future()
                    entry.idle_waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise LifecycleError(
                f"paglet {entry.agent_id} has been handling a message for more than {timeout:g} s; nothing was changed"
            ) from None

    def release(self, entry: AgentEntry, error: Exception) -> None:
        """Answer everyone whose message still waits with an error."""
        for queued in entry.mailbox.drain():
            delivery = queued.item
            delivery.packed.close()
            if not delivery.oneway:
                delivery.done(None, error)


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


class ReplyWaiter:
    """Let one thread wait for one reply; a future of the standard library takes several times as long."""

    __slots__ = ("_error", "_lock", "_reply")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._reply: Attachment | None = None
        self._error: Exception | None = None

    def done(self, reply: Attachment | None, error: Exception | None) -> None:
        """Give the reply or the error; called once, on the loop."""
        self._reply = reply
        self._error = error
        self._lock.release()

    def wait(self, timeout: float | None) -> Attachment | None:
        """Return the reply, or raise the error.

        :raises TimeoutError: neither came within ``timeout`` seconds.
        """
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise TimeoutError(f"no reply within {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._reply
