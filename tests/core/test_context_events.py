"""The event log of a host and its listeners."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.context_events import ContextEvent, ContextEventLog
from paglets.core.errors import SerializationError

LONG = 10.0


def emit(log: ContextEventLog, kind: str = "create", **fields: Any) -> ContextEvent:
    return log.emit(kind=kind, host_name="alpha", host_address="http://alpha", **fields)


@pytest.fixture
def log() -> Iterator[ContextEventLog]:
    log = ContextEventLog()
    yield log
    log.close(0)


class Blocker:
    """A listener that holds the dispatcher until it is released, and keeps what it heard."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.heard: list[int] = []

    def __call__(self, event: ContextEvent) -> None:
        self.heard.append(event.event_id)
        self.entered.set()
        self.release.wait(LONG)


def test_ids_count_from_one_and_events_are_listed_at_once(log: ContextEventLog) -> None:
    first = emit(log, agent_id="a", class_name="m:A", message_id="m", service_name="s", data={"x": 1}, error="e")
    second = emit(log, "dispose")
    assert (first.event_id, second.event_id) == (1, 2)
    assert log.events_since() == [first, second]
    assert (first.agent_id, first.class_name, first.message_id) == ("a", "m:A", "m")
    assert (first.service_name, first.data, first.error) == ("s", {"x": 1}, "e")


def test_a_signal_is_given_after_every_event_on_the_thread_that_emits(log: ContextEventLog) -> None:
    seen: list[tuple[int, threading.Thread]] = []

    def signal() -> None:
        # The event is there already.
        seen.append((log.events_since()[-1].event_id, threading.current_thread()))

    log.add_signal(signal)
    emit(log)
    other = threading.Thread(target=emit, args=(log,))
    other.start()
    other.join(LONG)
    log.remove_signal(signal)
    log.remove_signal(signal)
    emit(log)
    assert seen == [(1, threading.current_thread()), (2, other)]


def test_a_failing_listener_is_signalled_as_well(log: ContextEventLog) -> None:
    reported = threading.Event()

    def fail(event: ContextEvent) -> None:
        log.add_signal(reported.set)
        raise RuntimeError("no")

    log.add_listener(fail)
    emit(log)
    assert reported.wait(LONG)
    assert [event.kind for event in log.events_since()] == ["create", "event-listener-failed"]


def test_the_log_keeps_a_copy_of_the_data(log: ContextEventLog) -> None:
    data = {"x": 1}
    emit(log, data=data)
    data["x"] = 2
    assert log.events_since()[0].data == {"x": 1}


@given(
    capacity=st.integers(-1, 6),
    count=st.integers(0, 12),
    since=st.integers(-3, 15),
    limit=st.integers(-1, 15),
)
def test_events_since_is_a_window_over_the_newest(capacity: int, count: int, since: int, limit: int) -> None:
    log = ContextEventLog(capacity=capacity)
    for _ in range(count):
        emit(log)
    kept = list(range(1, count + 1))[-max(1, capacity) :]
    expected = [event_id for event_id in kept if event_id > since][: max(0, limit)]
    assert [event.event_id for event in log.events_since(since, limit=limit)] == expected
    assert log.capacity == max(1, capacity)


def test_listeners_hear_events_in_order_of_registration(log: ContextEventLog) -> None:
    heard: list[tuple[str, int]] = []
    log.add_listener(lambda event: heard.append(("first", event.event_id)))
    log.add_listener(lambda event: heard.append(("second", event.event_id)))
    emit(log)
    emit(log)
    assert log.flush(LONG)
    assert heard == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_a_listener_hears_only_events_after_it_was_added(log: ContextEventLog) -> None:
    heard: list[int] = []
    emit(log)
    log.add_listener(lambda event: heard.append(event.event_id))
    emit(log)
    assert log.flush(LONG)
    assert heard == [2]


def test_adding_twice_registers_once_and_removing_an_unknown_listener_is_no_error(log: ContextEventLog) -> None:
    heard: list[ContextEvent] = []
    # A bound method is a new object at each access; equality must decide.
    log.add_listener(heard.append)
    log.add_listener(heard.append)
    log.remove_listener(print)
    emit(log)
    assert log.flush(LONG)
    assert len(heard) == 1


def test_a_listener_that_blocks_does_not_hold_up_the_emitter(log: ContextEventLog) -> None:
    blocker = Blocker()
    log.add_listener(blocker)
    emit(log)
    assert blocker.entered.wait(LONG)
    assert log.flush(0) is False
    emit(log)
    assert [event.event_id for event in log.events_since()] == [1, 2]
    assert log.flush(0) is False
    blocker.release.set()
    assert log.flush(LONG) is True
    assert blocker.heard == [1, 2]


def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    log = ContextEventLog(queue_capacity=2)
    blocker = Blocker()
    log.add_listener(blocker)
    emit(log)
    assert blocker.entered.wait(LONG)
    for _ in range(5):
        emit(log)
    assert log.dropped == 3
    statistics = log.statistics()
    assert (statistics.queued, statistics.queue_capacity, statistics.listeners) == (2, 2, 1)
    blocker.release.set()
    assert log.flush(LONG)
    assert blocker.heard == [1, 5, 6]
    assert len(log.events_since()) == 6
    log.close()


def test_a_failing_listener_is_reported_to_the_log_and_the_others(log: ContextEventLog) -> None:
    heard: list[tuple[int, str]] = []
    broken_by: list[int] = []

    def broken(event: ContextEvent) -> None:
        broken_by.append(event.event_id)
        raise RuntimeError("listener boom")

    def healthy(event: ContextEvent) -> None:
        heard.append((event.event_id, event.kind))

    log.add_listener(broken)
    log.add_listener(healthy)
    emit(log)
    assert log.flush(LONG)
    report = log.events_since()[1]
    assert report.kind == "event-listener-failed"
    assert report.data == {"event_id": 1, "listener": repr(broken)}
    assert report.error == "listener boom"
    assert (report.host_name, report.host_address) == ("alpha", "http://alpha")
    assert heard == [(1, "create"), (2, "event-listener-failed")]
    assert broken_by == [1]


def test_failures_on_a_failure_report_are_ignored(log: ContextEventLog) -> None:
    def broken(event: ContextEvent) -> None:
        raise RuntimeError("one")

    def also_broken(event: ContextEvent) -> None:
        raise LookupError

    log.add_listener(broken)
    log.add_listener(also_broken)
    emit(log)
    assert log.flush(LONG)
    assert [event.error for event in log.events_since()] == [None, "one", "LookupError"]


def test_a_removed_listener_hears_nothing_that_is_still_queued(log: ContextEventLog) -> None:
    blocker = Blocker()
    heard: list[int] = []

    def late(event: ContextEvent) -> None:
        heard.append(event.event_id)

    log.add_listener(blocker)
    log.add_listener(late)
    emit(log)
    assert blocker.entered.wait(LONG)
    log.remove_listener(late)
    blocker.release.set()
    assert log.flush(LONG)
    assert (blocker.heard, heard) == ([1], [])


def test_listeners_can_come_back_after_the_last_one_left(log: ContextEventLog) -> None:
    heard: list[int] = []
    threads: list[threading.Thread] = []

    def listener(event: ContextEvent) -> None:
        heard.append(event.event_id)
        threads.append(threading.current_thread())

    for _ in range(3):
        log.add_listener(listener)
        emit(log)
        assert log.flush(LONG)
        log.remove_listener(listener)
        threads[-1].join(LONG)
        assert not threads[-1].is_alive()
    assert heard == [1, 2, 3]


def test_a_listener_may_use_the_log(log: ContextEventLog) -> None:
    flushed: list[bool] = []

    def chatty(event: ContextEvent) -> None:
        if event.kind == "create":
            flushed.append(log.flush())
            emit(log, "dispose", data={"seen": len(log.events_since())})

    log.add_listener(chatty)
    emit(log)
    assert log.flush(LONG)
    assert flushed == [False]
    assert [event.kind for event in log.events_since()] == ["create", "dispose"]


def test_close_delivers_what_is_queued_and_ends_the_dispatcher() -> None:
    log = ContextEventLog()
    heard: list[int] = []
    threads: list[threading.Thread] = []

    def listener(event: ContextEvent) -> None:
        threads.append(threading.current_thread())
        heard.append(event.event_id)

    log.add_listener(listener)
    emit(log)
    log.close(LONG)
    assert heard == [1]
    threads[0].join(LONG)
    assert not threads[0].is_alive()
    emit(log)
    assert log.flush(LONG)
    assert heard == [1]
    assert log.dropped == 1
    assert len(log.events_since()) == 2


def test_close_does_not_wait_for_a_listener_that_blocks() -> None:
    log = ContextEventLog()
    blocker = Blocker()
    log.add_listener(blocker)
    emit(log)
    assert blocker.entered.wait(LONG)
    emit(log)
    log.close(0)
    blocker.release.set()
    assert log.flush(LONG)
    assert (blocker.heard, log.dropped) == ([1], 1)


EVENTS = st.builds(
    ContextEvent,
    event_id=st.integers(),
    kind=st.text(),
    host_name=st.text(),
    host_address=st.text(),
    timestamp=st.floats(allow_nan=False),
    agent_id=st.none() | st.text(),
    class_name=st.none() | st.text(),
    message_id=st.none() | st.text(),
    service_name=st.none() | st.text(),
    data=st.dictionaries(st.text(), st.none() | st.text() | st.integers(), max_size=3),
    error=st.none() | st.text(),
)


@given(EVENTS)
def test_wire_form_round_trips(event: ContextEvent) -> None:
    wire = event.to_wire()
    assert len(wire) == 11
    assert ContextEvent.from_wire(wire) == event


@pytest.mark.parametrize("missing", ["event_id", "kind", "host_name", "host_address"])
def test_from_wire_requires_four_fields(missing: str) -> None:
    required: dict[str, Any] = {"event_id": 1, "kind": "create", "host_name": "a", "host_address": "u"}
    assert ContextEvent.from_wire(required).data == {}
    del required[missing]
    with pytest.raises(SerializationError, match=missing):
        ContextEvent.from_wire(required)
