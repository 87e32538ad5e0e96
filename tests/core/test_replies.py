"""Replies that are collected later, one by one or as a set."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import MessageCancelledError
from paglets.core.messages import FutureReply, ReplySet, ReplyTimeoutError

LONG = 10.0


def pending() -> tuple[Future[Any], FutureReply]:
    future: Future[Any] = Future()
    return future, FutureReply(future)


def complete(value: Any = None) -> FutureReply:
    future, reply = pending()
    future.set_result(value)
    return reply


def failed(error: BaseException) -> FutureReply:
    future, reply = pending()
    future.set_exception(error)
    return reply


class Waiter:
    """Runs a blocking call on a thread and keeps what it returned."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._result: Future[Any] = Future()
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(LONG)
        return self._result.result(0)

    def _run(self) -> None:
        self._result.set_result(self._call())


def test_a_value_is_available() -> None:
    future, reply = pending()
    assert not reply.is_available()
    future.set_result("yes")
    assert reply.is_available()
    assert reply.wait_for_reply(0) is True
    assert reply.get_reply(0) == "yes"


def test_waiting_ends_when_the_value_comes() -> None:
    future, reply = pending()
    waiter = Waiter(lambda: (reply.wait_for_reply(LONG), reply.get_reply(LONG)))
    future.set_result(5)
    assert waiter.result() == (True, 5)


def test_a_failed_call_raises_its_own_exception() -> None:
    error = LookupError("gone")
    reply = failed(error)
    assert reply.is_available()
    for call in (reply.wait_for_reply, reply.get_reply):
        with pytest.raises(LookupError) as caught:
            call(0)
        assert caught.value is error


def test_the_end_of_the_wait_is_not_the_end_of_the_call() -> None:
    _future, reply = pending()
    assert reply.wait_for_reply(0) is False
    with pytest.raises(ReplyTimeoutError, match="no reply within 0 s"):
        reply.get_reply(0)
    assert not reply.is_available()


def test_a_timeout_of_the_call_is_not_the_end_of_the_wait() -> None:
    error = TimeoutError("the remote call took too long")
    reply = failed(error)
    for call in (reply.wait_for_reply, reply.get_reply):
        with pytest.raises(TimeoutError) as caught:
            call(0)
        assert caught.value is error


def test_a_cancelled_call_raises() -> None:
    future, reply = pending()
    future.cancel()
    assert reply.is_available()
    with pytest.raises(MessageCancelledError):
        reply.wait_for_reply(0)


def test_typed_replies() -> None:
    reply = complete("12")
    typed = (
        reply.get_boolean_reply(0),
        reply.get_int_reply(0),
        reply.get_float_reply(0),
        reply.get_string_reply(0),
        complete(12).get_string_reply(0),
        complete("").get_boolean_reply(0),
    )
    assert typed == (True, 12, 12.0, "12", "12", False)


def test_an_empty_set_has_nothing_to_wait_for() -> None:
    replies = ReplySet()
    assert replies.are_all_available()
    assert not replies.is_any_available()
    assert not replies.has_more_future_replies()
    assert replies.wait_for_all_replies(0) is True
    assert replies.wait_for_next_future_reply() is False
    assert replies.get_next_future_reply() is None
    assert list(replies) == []


def test_replies_come_in_the_order_of_completion() -> None:
    futures, replies = zip(*(pending() for _ in range(3)), strict=True)
    reply_set = ReplySet(replies)
    for index in (2, 0, 1):
        futures[index].set_result(index)
    assert [reply.get_reply(0) for reply in reply_set] == [2, 0, 1]
    assert list(reply_set) == []


def test_counts_follow_completion_and_taking() -> None:
    future, reply = pending()
    replies = ReplySet([reply, complete()])
    assert (replies.count_unavailable(), replies.count_available()) == (1, 1)
    assert replies.is_any_available()
    assert not replies.are_all_available()
    assert replies.wait_for_all_replies(0) is False
    future.set_result(None)
    assert replies.wait_for_all_replies(0) is True
    assert (replies.count_unavailable(), replies.count_available()) == (0, 2)
    assert replies.get_next_future_reply() is not None
    assert replies.count_available() == 1
    assert replies.has_more_future_replies()


def test_a_reply_counts_once_however_often_it_is_reported() -> None:
    future, reply = pending()
    replies = ReplySet([reply, reply])
    replies.add_future_reply(reply)
    assert replies.count_unavailable() == 1
    future.set_result(None)
    replies.done(reply)
    assert (replies.count_unavailable(), replies.count_available()) == (0, 1)
    assert list(replies) == [reply]
    replies.done(reply)
    replies.add_future_reply(reply)
    assert not replies.has_more_future_replies()


def test_a_failed_reply_is_available_too() -> None:
    replies = ReplySet([failed(OSError("x"))])
    assert replies.wait_for_all_replies(0) is True
    assert [reply.is_available() for reply in replies] == [True]


def test_added_to_links_a_reply_that_completes_later_or_already_has() -> None:
    replies = ReplySet()
    future, reply = pending()
    reply.added_to(replies)
    assert replies.count_available() == 0
    future.set_result(1)
    complete(2).added_to(replies)
    assert [item.get_reply(0) for item in replies] == [1, 2]


def test_waiting_for_the_next_reply_blocks_until_there_is_one() -> None:
    future, reply = pending()
    replies = ReplySet([reply])
    assert replies.wait_for_next_future_reply(0) is False
    assert replies.get_next_future_reply(0) is None
    waiter = Waiter(lambda: (replies.wait_for_next_future_reply(LONG), replies.get_next_future_reply(LONG)))
    future.set_result(None)
    assert waiter.result() == (True, reply)


def test_a_drained_set_does_not_keep_its_replies() -> None:
    reply = complete()
    gone = weakref.ref(reply)
    replies = ReplySet([reply])
    assert list(replies) == [reply]
    del reply
    gc.collect()
    assert gone() is None


def test_threads_that_take_from_one_set_take_every_reply_once() -> None:
    futures, replies = zip(*(pending() for _ in range(200)), strict=True)
    reply_set = ReplySet(replies)
    takers = [Waiter(lambda: [reply.get_reply(0) for reply in reply_set]) for _ in range(4)]
    for number, future in enumerate(futures):
        future.set_result(number)
    taken = [number for taker in takers for number in taker.result()]
    assert sorted(taken) == list(range(200))


@given(st.lists(st.sampled_from(["add", "finish", "take"]), max_size=40))
def test_counts_always_match_a_simple_model(steps: list[str]) -> None:
    replies = ReplySet()
    open_futures: list[Future[Any]] = []
    finished: list[int] = []
    added = 0
    for step in steps:
        if step == "add":
            future, reply = pending()
            replies.add_future_reply(reply)
            open_futures.append(future)
            added += 1
        elif step == "finish" and open_futures:
            future = open_futures.pop()
            future.set_result(added)
            finished.append(added)
        elif step == "take":
            taken = replies.get_next_future_reply(0)
            assert (None if taken is None else taken.get_reply(0)) == (finished.pop(0) if finished else None)
        assert replies.count_unavailable() == len(open_futures)
        assert replies.count_available() == len(finished)
        assert replies.has_more_future_replies() == bool(open_futures or finished)


# --- withdrawing ------------------------------------------------------------------------------------------------------


def test_a_message_that_nobody_has_taken_up_is_withdrawn_here() -> None:
    future: Future[Any] = Future()
    reply = FutureReply(future, lambda: pytest.fail("nobody else need be asked"))
    assert reply.cancel()
    assert reply.cancel()
    assert reply.is_available()
    for take in (reply.get_reply, reply.wait_for_reply):
        with pytest.raises(MessageCancelledError):
            take(0)
    assert ReplySet([reply]).get_next_future_reply(0) is reply


@pytest.mark.parametrize("withdrawn", [True, False])
def test_a_message_that_is_on_its_way_is_withdrawn_where_it_is(withdrawn: bool) -> None:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    assert FutureReply(future, lambda: withdrawn).cancel() is withdrawn
    assert not FutureReply(future).cancel()
    assert not FutureReply(future).is_available(), "the host says what became of it"


def test_a_reply_that_has_come_is_not_withdrawn() -> None:
    for reply in (complete(1), failed(ValueError("no"))):
        assert not reply.cancel()
    assert complete(1).get_reply(0) == 1
