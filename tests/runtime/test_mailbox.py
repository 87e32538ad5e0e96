"""The threaded mailbox: order, bounds, outcomes and notifications."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from paglets.core.errors import OverloadedError
from paglets.core.messages import Message
from paglets.runtime.mailbox import MailboxStatus, MessageMailbox

LONG = 10.0


class Gate:
    """A handler that holds ``hold`` messages until opened and answers every other kind at once."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.holding = threading.Semaphore(0)
        self.handled: list[tuple[str, bool]] = []
        self._lock = threading.Lock()

    def __call__(self, message: Message, oneway: bool) -> Any:
        if message.kind == "hold":
            self.holding.release()
            self.open.wait(LONG)
        if message.kind == "fail":
            raise LookupError("no such thing")
        if message.kind == "exit":
            raise SystemExit(3)
        with self._lock:
            self.handled.append((message.kind, oneway))
        return f"did {message.kind}"

    def wait_held(self) -> None:
        assert self.holding.acquire(timeout=LONG)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.handled]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture
def mailbox(gate: Gate) -> Iterator[MessageMailbox]:
    mailbox = MessageMailbox("agent", gate, max_workers=1)
    yield mailbox
    mailbox.close()


def test_results_and_exceptions_come_by_the_future(mailbox: MessageMailbox) -> None:
    assert mailbox.submit(Message("greet")).result(LONG) == "did greet"
    with pytest.raises(LookupError, match="no such thing"):
        mailbox.submit(Message("fail")).result(LONG)
    assert mailbox.submit(Message("again")).result(LONG) == "did again"
    assert mailbox.status() == MailboxStatus(0, 0, delivered_count=2, failed_count=1)


def test_a_handler_that_exits_does_not_end_the_worker(mailbox: MessageMailbox) -> None:
    with pytest.raises(SystemExit):
        mailbox.submit(Message("exit")).result(LONG)
    assert mailbox.submit(Message("after")).result(LONG) == "did after"


def test_the_handler_learns_whether_anybody_waits(mailbox: MessageMailbox, gate: Gate) -> None:
    mailbox.submit(Message("one"), oneway=True).result(LONG)
    mailbox.submit(Message("two")).result(LONG)
    assert gate.handled == [("one", True), ("two", False)]


def test_higher_priority_first_then_order_of_submission(mailbox: MessageMailbox, gate: Gate) -> None:
    held = mailbox.submit(Message("hold"))
    gate.wait_held()
    queued = [
        mailbox.submit(Message(kind, priority=priority))
        for kind, priority in [("low", 1), ("normal-1", 5), ("high", 9), ("normal-2", 5)]
    ]
    assert mailbox.status() == MailboxStatus(4, 1, 0, 0)
    gate.open.set()
    for future in [held, *queued]:
        future.result(LONG)
    assert gate.kinds() == ["hold", "high", "normal-1", "normal-2", "low"]


def test_one_worker_never_runs_two_handlers() -> None:
    running = 0
    most = 0
    lock = threading.Lock()

    def handler(message: Message, oneway: bool) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1

    mailbox = MessageMailbox("agent", handler, max_workers=1)
    futures: list[Future[Any]] = []
    senders = [
        threading.Thread(target=lambda: futures.extend(mailbox.submit(Message("work")) for _ in range(50)))
        for _ in range(4)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(LONG)
    for future in futures:
        future.result(LONG)
    assert most == 1
    assert mailbox.status().delivered_count == 200
    mailbox.close()


def test_as_many_handlers_run_at_once_as_there_are_workers(gate: Gate) -> None:
    mailbox = MessageMailbox("agent", gate, max_workers=2)
    futures = [mailbox.submit(Message("hold")) for _ in range(3)]
    gate.wait_held()
    gate.wait_held()
    assert mailbox.status() == MailboxStatus(queued_count=1, in_flight_count=2, delivered_count=0, failed_count=0)
    gate.open.set()
    for future in futures:
        future.result(LONG)
    mailbox.close()


def test_an_unqueued_message_passes_a_busy_worker(mailbox: MessageMailbox, gate: Gate) -> None:
    mailbox.submit(Message("hold"))
    gate.wait_held()
    mailbox.submit(Message("queued"))
    assert mailbox.submit_unqueued(Message("urgent"), oneway=True).result(LONG) == "did urgent"
    assert gate.handled == [("urgent", True)]
    assert mailbox.status() == MailboxStatus(1, 1, 1, 0)


@pytest.mark.parametrize("workers", [0, -1])
def test_a_mailbox_needs_a_worker(gate: Gate, workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers"):
        MessageMailbox("agent", gate, max_workers=workers)


def test_a_full_mailbox_refuses_at_once(gate: Gate) -> None:
    mailbox = MessageMailbox("agent", gate, max_workers=1, max_queued=2)
    held = mailbox.submit(Message("hold"))
    gate.wait_held()
    queued = [mailbox.submit(Message("queued")) for _ in range(2)]
    with pytest.raises(OverloadedError, match="agent is full"):
        mailbox.submit(Message("too much")).result(0)
    assert mailbox.status().queued_count == 2
    gate.open.set()
    for future in [held, *queued]:
        future.result(LONG)
    assert mailbox.submit(Message("again")).result(LONG) == "did again"
    mailbox.close()


def test_unqueued_messages_are_bounded_too(gate: Gate) -> None:
    mailbox = MessageMailbox("agent", gate, max_workers=1, max_queued=1)
    held = mailbox.submit_unqueued(Message("hold"))
    gate.wait_held()
    with pytest.raises(OverloadedError):
        mailbox.submit_unqueued(Message("urgent")).result(0)
    gate.open.set()
    held.result(LONG)
    assert mailbox.submit_unqueued(Message("urgent")).result(LONG) == "did urgent"
    mailbox.close()


def test_close_fails_what_waits_and_what_comes_later(mailbox: MessageMailbox, gate: Gate) -> None:
    held = mailbox.submit(Message("hold"))
    gate.wait_held()
    queued = mailbox.submit(Message("queued"))
    unwanted = mailbox.submit(Message("unwanted"))
    unwanted.cancel()
    mailbox.close()
    later = [mailbox.submit(Message("later")), mailbox.submit_unqueued(Message("urgent"))]
    for future in [queued, *later]:
        with pytest.raises(RuntimeError, match="agent is closed"):
            future.result(0)
    assert unwanted.cancelled()
    gate.open.set()
    assert held.result(LONG) == "did hold"
    assert gate.kinds() == ["hold"]
    assert mailbox.status() == MailboxStatus(0, 0, 1, 0)


def test_close_ends_the_threads() -> None:
    threads: set[threading.Thread] = set()
    together = threading.Barrier(3)

    def handler(message: Message, oneway: bool) -> None:
        threads.add(threading.current_thread())
        together.wait(LONG)

    mailbox = MessageMailbox("agent", handler, max_workers=3)
    for future in [mailbox.submit(Message("work")) for _ in range(3)]:
        future.result(LONG)
    mailbox.close()
    assert len(threads) == 3
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_idle_workers_end_and_new_work_starts_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paglets.runtime.mailbox._IDLE_SECONDS", 0.0)
    mailbox = MessageMailbox("agent", lambda message, oneway: threading.current_thread(), max_workers=1)
    for _ in range(5):
        worker = mailbox.submit(Message("work")).result(LONG)
        worker.join(LONG)
        assert not worker.is_alive()
    mailbox.close()


def test_a_cancelled_message_is_not_handled(mailbox: MessageMailbox, gate: Gate) -> None:
    held = mailbox.submit(Message("hold"))
    gate.wait_held()
    unwanted = mailbox.submit(Message("unwanted"))
    last = mailbox.submit(Message("last"))
    assert unwanted.cancel()
    gate.open.set()
    held.result(LONG)
    last.result(LONG)
    assert gate.kinds() == ["hold", "last"]
    assert mailbox.status() == MailboxStatus(0, 0, 2, 0)


class Waiters:
    """Threads that wait for a notification."""

    def __init__(self, mailbox: MessageMailbox, count: int) -> None:
        self.answers: list[bool] = []
        self._mailbox = mailbox
        self._answered = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self._wait) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _wait(self) -> None:
        self.answers.append(self._mailbox.wait_message(LONG))
        self._answered.release()

    def notify_until_all_answered(self) -> None:
        # A notification that finds nobody waiting is lost, so it is repeated until every waiter has one.
        sent = 0
        for _ in self.threads:
            while not self._answered.acquire(timeout=0.01):
                self._mailbox.notify_message()
                sent += 1
            assert len(self.answers) <= sent, "a notification woke more than one waiter"

    def join(self) -> None:
        for thread in self.threads:
            thread.join(LONG)
            assert not thread.is_alive()


@pytest.mark.parametrize("count", [1, 4])
def test_a_notification_wakes_one_waiter(mailbox: MessageMailbox, count: int) -> None:
    waiters = Waiters(mailbox, count)
    waiters.notify_until_all_answered()
    waiters.join()
    assert waiters.answers == [True] * count


def test_notify_all_wakes_every_waiter(mailbox: MessageMailbox) -> None:
    waiters = Waiters(mailbox, 3)
    while any(thread.is_alive() for thread in waiters.threads):
        mailbox.notify_all_messages()
        waiters.threads[0].join(0.01)
    waiters.join()
    assert waiters.answers == [True] * 3


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_an_earlier_notification_is_not_kept(mailbox: MessageMailbox, timeout: float) -> None:
    mailbox.notify_message()
    mailbox.notify_all_messages()
    assert mailbox.wait_message(timeout) is False


def test_deliveries_wake_no_waiter(mailbox: MessageMailbox) -> None:
    answer: Future[bool] = Future()

    def wait() -> None:
        answer.set_result(mailbox.wait_message(0.05))

    waiter = threading.Thread(target=wait)
    waiter.start()
    while waiter.is_alive():
        mailbox.submit(Message("work")).result(LONG)
        waiter.join(0.001)
    assert answer.result(0) is False


def test_waiting_handlers_of_one_worker_cannot_be_notified_by_a_third_message() -> None:
    def handler(message: Message, oneway: bool) -> Any:
        if message.kind == "notify":
            own.notify_all_messages()
            return "notified"
        return own.wait_message(0.02)

    own = MessageMailbox("agent", handler, max_workers=1)
    futures = [own.submit(Message(kind)) for kind in ("wait", "wait", "notify", "wait")]
    assert [future.result(LONG) for future in futures] == [False, False, "notified", False]
    own.close()


def test_close_releases_who_waits(mailbox: MessageMailbox) -> None:
    waiters = Waiters(mailbox, 2)
    mailbox.close()
    waiters.join()
    assert waiters.answers == [False, False]
    assert mailbox.wait_message() is False


def test_status_wire_form() -> None:
    assert MailboxStatus(1, 2, 3, 4).to_wire() == {
        "queued_count": 1,
        "in_flight_count": 2,
        "delivered_count": 3,
        "failed_count": 4,
    }
