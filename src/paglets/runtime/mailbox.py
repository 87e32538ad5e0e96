"""A mailbox on threads: messages in order of priority, a bounded number of handlers at once."""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from paglets.core.errors import OverloadedError
from paglets.core.messages import Message

logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Message, bool], Any]

# An idle worker ends after this time, so that a mailbox nobody closed does not keep threads for ever.
_IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """How full a mailbox is and what became of its messages."""

    queued_count: int
    in_flight_count: int
    delivered_count: int
    """Messages handled without an exception."""
    failed_count: int
    """Messages whose handler raised."""

    def to_wire(self) -> dict[str, int]:
        """Return the counters as plain values."""
        return {
            "queued_count": self.queued_count,
            "in_flight_count": self.in_flight_count,
            "delivered_count": self.delivered_count,
            "failed_count": self.failed_count,
        }


@dataclass(frozen=True, slots=True)
class _Delivery:
    message: Message
    oneway: bool
    queued: bool
    future: Future[Any]
    order: tuple[int, int]

    def __lt__(self, other: _Delivery) -> bool:
        return self.order < other.order


class MessageMailbox:
    """Hand messages to a handler, highest priority first and in order of submission within one priority.

    Every outcome, also a refusal, is reported by the returned future. All methods may be called from any thread.

    :param agent_id: whose mailbox it is, for thread names and error texts.
    :param handler: called with a message and whether nobody waits for the reply.
    :param max_workers: how many handlers run at once.
    :param max_queued: how many messages may wait, and how many may run unqueued; None sets no bound.
    :raises ValueError: `max_workers` is less than one.
    """

    def __init__(self, agent_id: str, handler: Handler, *, max_workers: int = 4, max_queued: int | None = None) -> None:
        if max_workers < 1:
            raise ValueError("max_workers must be at least 1")
        self.agent_id = agent_id
        self.max_workers = max_workers
        self.max_queued = max_queued
        self._handler = handler
        self._changed = threading.Condition()
        # Deliveries must not wake those who wait for a notification, so these have a condition of their own.
        self._notified = threading.Condition()
        self._queue: list[_Delivery] = []
        self._submitted = 0
        self._workers = 0
        self._idle = 0
        self._unqueued = 0
        self._in_flight = 0
        self._delivered = 0
        self._failed = 0
        self._closed = False

    def submit(self, message: Message, *, oneway: bool = False) -> Future[Any]:
        """Queue a message.

        :return: ends in the handler's result or exception, in `OverloadedError` when too many messages wait, or in
            `RuntimeError` when the mailbox is or gets closed.
        """
        with self._changed:
            delivery = self._delivery(message, oneway, queued=True)
            refusal = self._refusal(len(self._queue))
            if refusal is None:
                heapq.heappush(self._queue, delivery)
                self._changed.notify()
                if self._workers < self.max_workers and self._idle < len(self._queue):
                    self._start(self._work)
                    self._workers += 1
        if refusal is not None:
            delivery.future.set_exception(refusal)
        return delivery.future

    def submit_unqueued(self, message: Message, *, oneway: bool = False) -> Future[Any]:
        """Handle a message at once on a thread of its own, whatever is queued or running.

        :return: as for `submit`.
        """
        with self._changed:
            delivery = self._delivery(message, oneway, queued=False)
            refusal = self._refusal(self._unqueued)
            if refusal is None:
                self._start(self._run, delivery)
                self._unqueued += 1
                self._in_flight += 1
        if refusal is not None:
            delivery.future.set_exception(refusal)
        return delivery.future

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait for a notification and tell whether one came.

        A notification that finds nobody waiting is not kept.

        :param timeout: seconds, None waits until notified or closed.
        """
        with self._notified:
            # close() sets the flag before it takes this condition, so a waiter sees it here or is woken by it.
            return not self._closed and self._notified.wait(timeout) and not self._closed

    def notify_message(self) -> None:
        """Wake one of those who wait for a notification."""
        with self._notified:
            self._notified.notify()

    def notify_all_messages(self) -> None:
        """Wake all who wait for a notification."""
        with self._notified:
            self._notified.notify_all()

    def status(self) -> MailboxStatus:
        """Return the current counters."""
        with self._changed:
            return MailboxStatus(
                queued_count=len(self._queue),
                in_flight_count=self._in_flight,
                delivered_count=self._delivered,
                failed_count=self._failed,
            )

    def close(self) -> None:
        """Refuse further messages, fail those that wait and release who waits for a notification.

        Handlers that run already finish; they are not waited for.
        """
        with self._changed:
            self._closed = True
            waiting, self._queue = sorted(self._queue), []
            self._changed.notify_all()
        with self._notified:
            self._notified.notify_all()
        for delivery in waiting:
            if delivery.future.set_running_or_notify_cancel():
                delivery.future.set_exception(self._closed_error())

    def _delivery(self, message: Message, oneway: bool, *, queued: bool) -> _Delivery:
        self._submitted += 1
        return _Delivery(message, oneway, queued, Future(), order=(-message.priority, self._submitted))

    def _refusal(self, occupied: int) -> Exception | None:
        if self._closed:
            return self._closed_error()
        if self.max_queued is not None and occupied >= self.max_queued:
            return OverloadedError(f"the mailbox of {self.agent_id} is full ({occupied} messages)")
        return None

    def _closed_error(self) -> RuntimeError:
        return RuntimeError(f"the mailbox of {self.agent_id} is closed")

    def _start(self, target: Callable[..., None], *args: _Delivery) -> None:
        name = f"paglets-mailbox-{self.agent_id}"
        threading.Thread(target=target, args=args, name=name, daemon=True).start()

    def _work(self) -> None:
        # A call per message, so that nothing of the last one stays alive while the thread waits for the next.
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        delivery = self._next_delivery()
        if delivery is not None:
            self._run(delivery)
        return delivery is not None

    def _next_delivery(self) -> _Delivery | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._queue or self._closed, _IDLE_SECONDS)
            self._idle -= 1
            if not self._queue:
                self._workers -= 1
                return None
            self._in_flight += 1
            return heapq.heappop(self._queue)

    def _run(self, delivery: _Delivery) -> None:
        if not delivery.future.set_running_or_notify_cancel():
            self._finished(delivery)
            return
        try:
            result = self._handler(delivery.message, delivery.oneway)
        except BaseException as error:
            # Also SystemExit: it is the sender's answer and must not end the worker.
            logger.debug("message %s to %s failed", delivery.message.message_id, self.agent_id, exc_info=True)
            self._finished(delivery, failed=1)
            delivery.future.set_exception(error)
        else:
            self._finished(delivery, delivered=1)
            delivery.future.set_result(result)

    def _finished(self, delivery: _Delivery, *, delivered: int = 0, failed: int = 0) -> None:
        # Before the future is told, so that who waits for it finds the counters up to date.
        with self._changed:
            self._in_flight -= 1
            self._unqueued -= not delivery.queued
            self._delivered += delivered
            self._failed += failed
