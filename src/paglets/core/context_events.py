"""What happened on a host: a bounded log, and listeners that hear of it without holding it up."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from paglets.core.wire import WirePayload
from paglets.core.wire_fields import WireFields

logger = logging.getLogger(__name__)

LISTENER_FAILED = "event-listener-failed"
DEFAULT_CAPACITY = 1000
DEFAULT_CLOSE_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ContextEvent:
    """One thing that happened on a host; `timestamp` is Unix seconds."""

    event_id: int
    kind: str
    host_name: str
    host_address: str
    timestamp: float = field(default_factory=time.time)
    agent_id: str | None = None
    class_name: str | None = None
    message_id: str | None = None
    service_name: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def to_wire(self) -> WirePayload:
        """Return the event as plain values."""
        return {
            "event_id": self.event_id,
            "kind": self.kind,
            "host_name": self.host_name,
            "host_address": self.host_address,
            "timestamp": self.timestamp,
            "agent_id": self.agent_id,
            "class_name": self.class_name,
            "message_id": self.message_id,
            "service_name": self.service_name,
            "data": dict(self.data),
            "error": self.error,
        }

    @classmethod
    def from_wire(cls, payload: WirePayload) -> ContextEvent:
        """Restore an event; id, kind, host name and host address are required.

        :raises SerializationError: one of those is missing or a field has the wrong type.
        """
        fields = WireFields(payload, "context event")
        timestamp = fields.number_or_none("timestamp")
        return cls(
            event_id=fields.integer("event_id"),
            kind=fields.text("kind"),
            host_name=fields.text("host_name"),
            host_address=fields.text("host_address"),
            timestamp=time.time() if timestamp is None else timestamp,
            agent_id=fields.text_or_none("agent_id"),
            class_name=fields.text_or_none("class_name"),
            message_id=fields.text_or_none("message_id"),
            service_name=fields.text_or_none("service_name"),
            data=fields.mapping_or_empty("data"),
            error=fields.text_or_none("error"),
        )


class ContextListener(Protocol):
    """Whatever can be called with one event."""

    def __call__(self, event: ContextEvent, /) -> object:
        """Take note of an event; called on the log's dispatcher thread."""


@dataclass(frozen=True, slots=True)
class DispatchStatistics:
    """How far the listeners of an event log are behind."""

    listeners: int
    queued: int
    """Events that wait for the dispatcher."""
    queue_capacity: int
    dropped: int
    """Events no listener was told about, because the queue was full or the log closed; the log itself has them."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    event: ContextEvent
    listeners: tuple[ContextListener, ...]


class ContextEventLog:
    """Number the events of one host, keep the newest, and tell listeners.

    An event is in the log when `emit` returns. Listeners hear of it later, in order, on one daemon thread that runs
    while there are listeners. They are fed from a bounded queue: when they fall behind, the oldest queued events are
    dropped and counted. All methods may be called from any thread, also from inside a listener.

    :param capacity: events kept, at least 1.
    :param queue_capacity: events that may wait for the listeners, at least 1.
    """

    def __init__(self, *, capacity: int = DEFAULT_CAPACITY, queue_capacity: int = DEFAULT_CAPACITY) -> None:
        self.capacity = max(1, capacity)
        self.queue_capacity = max(1, queue_capacity)
        self._changed = threading.Condition()
        self._events: deque[ContextEvent] = deque(maxlen=self.capacity)
        self._last_id = 0
        self._listeners: tuple[ContextListener, ...] = ()
        self._signals: tuple[Callable[[], object], ...] = ()
        self._queue: deque[_Delivery] = deque()
        self._delivering: _Delivery | None = None
        self._dispatcher: threading.Thread | None = None
        self._dropped = 0
        self._closed = False

    def add_listener(self, listener: ContextListener) -> None:
        """Tell a listener about every event from now on; adding it again changes nothing."""
        with self._changed:
            if listener in self._listeners:
                return
            self._listeners = (*self._listeners, listener)
            if self._dispatcher is None and not self._closed:
                self._dispatcher = threading.Thread(target=self._dispatch, name="paglets-events", daemon=True)
                self._dispatcher.start()

    def remove_listener(self, listener: ContextListener) -> None:
        """Stop telling a listener, also about events that are already queued; an unknown one is ignored."""
        with self._changed:
            self._listeners = tuple(known for known in self._listeners if known != listener)
            self._changed.notify_all()

    def add_signal(self, signal: Callable[[], object]) -> None:
        """Call `signal` after every event from now on, on the thread that emitted it.

        For whoever waits for events and reads them from the log: it must return at once, and raise nothing.
        """
        with self._changed:
            self._signals = (*self._signals, signal)

    def remove_signal(self, signal: Callable[[], object]) -> None:
        """Call `signal` no more; an unknown one is ignored."""
        with self._changed:
            self._signals = tuple(known for known in self._signals if known != signal)

    def emit(
        self,
        *,
        kind: str,
        host_name: str,
        host_address: str,
        agent_id: str | None = None,
        class_name: str | None = None,
        message_id: str | None = None,
        service_name: str | None = None,
        data: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> ContextEvent:
        """Add an event to the log and queue it for the listeners; never waits for them."""
        with self._changed:
            event = ContextEvent(
                event_id=self._last_id + 1,
                kind=kind,
                host_name=host_name,
                host_address=host_address,
                agent_id=agent_id,
                class_name=class_name,
                message_id=message_id,
                service_name=service_name,
                data=dict(data or {}),
                error=error,
            )
            self._append(event)
            if self._listeners:
                self._enqueue(_Delivery(event, self._listeners))
            signals = self._signals
        for signal in signals:
            signal()
        return event

    def events_since(self, since: int = 0, *, limit: int = 100) -> list[ContextEvent]:
        """Return the kept events with a higher id than `since`, oldest first.

        :param limit: how many at most; zero and less give none.
        """
        with self._changed:
            if limit <= 0 or not self._events:
                return []
            # Ids are consecutive, so the position of an event follows from its id.
            start = max(0, since + 1 - self._events[0].event_id)
            return list(islice(self._events, start, start + limit))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the listeners were told about everything emitted before this call.

        :param timeout: seconds, None waits for ever.
        :return: False when the time passed first, or at once when a listener asks.
        """
        with self._changed:
            if threading.current_thread() is self._dispatcher:
                return False
            last = self._last_id
            return self._changed.wait_for(lambda: self._told_through(last), timeout)

    def close(self, timeout: float = DEFAULT_CLOSE_TIMEOUT_SECONDS) -> None:
        """Stop telling listeners once they heard what is queued; the log stays readable and can be added to.

        :param timeout: seconds the listeners get; what they have not heard by then is dropped.
        """
        self.flush(timeout)
        with self._changed:
            self._closed = True
            self._dropped += len(self._queue)
            self._queue.clear()
            self._changed.notify_all()

    @property
    def dropped(self) -> int:
        """How many events no listener was told about although there were listeners."""
        return self.statistics().dropped

    def statistics(self) -> DispatchStatistics:
        """Return how far the listeners are behind."""
        with self._changed:
            return DispatchStatistics(
                listeners=len(self._listeners),
                queued=len(self._queue),
                queue_capacity=self.queue_capacity,
                dropped=self._dropped,
            )

    def _append(self, event: ContextEvent) -> None:
        self._last_id = event.event_id
        self._events.append(event)

    def _enqueue(self, delivery: _Delivery) -> None:
        if self._closed:
            self._dropped += 1
            return
        if len(self._queue) >= self.queue_capacity:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append(delivery)
        self._changed.notify_all()

    def _told_through(self, event_id: int) -> bool:
        if self._delivering is not None and self._delivering.event.event_id <= event_id:
            return False
        return not self._queue or self._queue[0].event.event_id > event_id

    def _dispatch(self) -> None:
        # A call per event, so that nothing of the last one stays alive while the thread waits for the next.
        while self._dispatch_one():
            pass

    def _dispatch_one(self) -> bool:
        delivery = self._next_delivery()
        if delivery is None:
            return False
        failures = [self._tell(listener, delivery.event) for listener in delivery.listeners]
        for listener, failure in zip(delivery.listeners, failures, strict=True):
            if failure is not None:
                self._report(listener, failure, delivery)
        return True

    def _next_delivery(self) -> _Delivery | None:
        with self._changed:
            self._delivering = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self._closed or not self._listeners)
            if not self._queue:
                self._dispatcher = None
                return None
            self._delivering = self._queue.popleft()
            return self._delivering

    def _tell(self, listener: ContextListener, event: ContextEvent) -> Exception | None:
        with self._changed:
            if listener not in self._listeners:
                return None
        try:
            listener(event)
        except Exception as error:
            logger.debug("listener %r failed on event %d", listener, event.event_id, exc_info=True)
            return error
        return None

    def _report(self, listener: ContextListener, failure: Exception, delivery: _Delivery) -> None:
        with self._changed:
            report = ContextEvent(
                event_id=self._last_id + 1,
                kind=LISTENER_FAILED,
                host_name=delivery.event.host_name,
                host_address=delivery.event.host_address,
                data={"event_id": delivery.event.event_id, "listener": repr(listener)},
                error=str(failure) or type(failure).__name__,
            )
            self._append(report)
            signals = self._signals
        for signal in signals:
            signal()
        # Told directly and not queued: a listener that always fails must not feed the queue with its own failures.
        for other in delivery.listeners:
            if other != listener:
                self._tell(other, report)
