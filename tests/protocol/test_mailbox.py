"""The mailbox keeps order and bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.protocol.mailbox import Mailbox, MailboxClosedError, MailboxFullError, MailboxState, Queued


def take_all(box: Mailbox[str]) -> list[str]:
    taken = []
    while (item := box.next()) is not None:
        taken.append(item)
        box.done()
    return taken


def filled(*items: tuple[str, int]) -> Mailbox[str]:
    box: Mailbox[str] = Mailbox()
    for item, priority in items:
        box.push(item, priority, 10)
    return box


def test_higher_priority_first_then_arrival() -> None:
    box = filled(("a", 5), ("b", 1), ("c", 9), ("d", 5))

    assert take_all(box) == ["c", "a", "d", "b"]


def test_one_in_flight() -> None:
    box = filled(("a", 5), ("b", 5))

    assert box.next() == "a"
    assert box.next() is None
    assert not box.idle
    box.done()
    assert box.next() == "b"


def test_counters() -> None:
    box = filled(("a", 5), ("b", 5), ("c", 5))
    box.next()
    box.done(True)
    box.next()
    box.done(False)
    box.next()

    seen = box.statistics()

    assert (seen.queued, seen.in_flight, seen.delivered, seen.failed, seen.queued_bytes) == (0, 1, 1, 1, 0)


def test_full_by_count_turns_away_and_tells_how_full() -> None:
    box: Mailbox[str] = Mailbox(max_count=2)
    box.push("a", 5)
    box.push("b", 5)

    with pytest.raises(MailboxFullError, match="2 of 2 messages") as caught:
        box.push("c", 9)

    assert caught.value.statistics.queued == 2
    assert box.statistics().rejected == 1
    assert take_all(box) == ["a", "b"]


def test_full_by_bytes_has_room_again_after_a_delivery() -> None:
    box: Mailbox[str] = Mailbox(max_bytes=100)
    box.push("a", 5, 60)
    with pytest.raises(MailboxFullError):
        box.push("b", 5, 60)

    box.next()
    box.push("b", 5, 60)

    assert box.statistics().queued_bytes == 60


def test_a_message_larger_than_the_mailbox_is_turned_away() -> None:
    with pytest.raises(MailboxFullError):
        Mailbox[str](max_bytes=10).push("a", 5, 11)


def test_paused_queues_and_delivers_nothing() -> None:
    box: Mailbox[str] = Mailbox(paused=True)
    box.push("a", 5)

    assert box.next() is None
    box.resume()
    assert box.next() == "a"


def test_pause_lets_the_one_in_flight_end() -> None:
    box = filled(("a", 5), ("b", 5))
    box.next()
    box.pause()

    box.done()

    assert (box.idle, box.next(), len(box)) == (True, None, 1)


def test_close_hands_out_what_waits_and_takes_nothing_more() -> None:
    box = filled(("a", 1), ("b", 9))

    assert box.close() == [Queued("b", 9, 10), Queued("a", 1, 10)]
    assert box.state is MailboxState.CLOSED
    box.resume()
    assert box.state is MailboxState.CLOSED
    for refused in (box.push, box.push_front):
        with pytest.raises(MailboxClosedError):
            refused("c", 5)
    with pytest.raises(MailboxClosedError):
        box.restore([Queued("c", 5, 1)])


def test_a_full_and_closed_mailbox_says_closed() -> None:
    box: Mailbox[str] = Mailbox(max_bytes=1)
    box.close()

    with pytest.raises(MailboxClosedError):
        box.push("a", 5, 2)


def test_push_front_goes_ahead_of_its_priority_alone() -> None:
    box = filled(("a", 5), ("b", 9))

    box.push_front("undelivered", 5, 3)

    assert take_all(box) == ["b", "undelivered", "a"]


def test_put_back_returns_to_the_same_place_uncounted() -> None:
    box = filled(("a", 5), ("b", 5))
    box.next()
    box.push("urgent", 9)

    box.put_back()

    assert box.statistics().delivered == 0
    assert box.statistics().queued_bytes == 20
    assert take_all(box) == ["urgent", "a", "b"]


def test_done_without_a_message_in_flight_is_an_error() -> None:
    box = filled(("a", 5))

    with pytest.raises(RuntimeError):
        box.done()
    with pytest.raises(RuntimeError):
        box.put_back()


def test_drained_messages_come_back_ahead_of_later_ones() -> None:
    box = filled(("a", 5), ("b", 5), ("c", 9))
    box.pause()
    moved = box.drain()
    box.push("later", 5)
    box.push("later urgent", 9)

    box.restore(moved)
    box.resume()

    assert take_all(box) == ["c", "later urgent", "a", "b", "later"]


def test_what_came_along_is_taken_even_where_the_mailbox_is_full() -> None:
    box: Mailbox[str] = Mailbox(max_count=1, paused=True)
    box.push("here", 5)

    box.restore([Queued("along", 5, 1)])

    assert len(box) == 2


@pytest.mark.parametrize(("max_count", "max_bytes"), [(0, 1), (1, 0)])
def test_bounds_must_leave_room(max_count: int, max_bytes: int) -> None:
    with pytest.raises(ValueError, match="room"):
        Mailbox[str](max_count=max_count, max_bytes=max_bytes)


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(st.lists(st.one_of(st.tuples(st.integers(-3, 3), st.integers(0, 9)), st.sampled_from(["next", "back", "move"]))))
def test_behaves_like_a_sorted_list(operations: list[tuple[int, int] | str]) -> None:
    box: Mailbox[int] = Mailbox(max_count=1_000)
    model: list[Queued[int]] = []
    for number, operation in enumerate(operations):
        if operation == "next":
            taken = box.next()
            assert taken == (model.pop(0).item if model else None)
            if taken is not None:
                box.done()
        elif operation == "back":
            if box.next() is not None:
                box.put_back()
        elif operation == "move":
            moved = box.drain()
            assert moved == model
            box = Mailbox(max_count=1_000)
            box.restore(moved)
        elif isinstance(operation, tuple):
            priority, nbytes = operation
            box.push(number, priority, nbytes)
            model.append(Queued(number, priority, nbytes))
            model.sort(key=lambda queued: -queued.priority)
        assert box.statistics().queued_bytes == sum(queued.nbytes for queued in model)
        assert len(box) == len(model)


def test_a_detached_message_holds_nobody_up_and_is_counted_when_it_ends() -> None:
    mailbox: Mailbox[str] = Mailbox()
    mailbox.push("first", 5)
    mailbox.push("second", 5)
    assert mailbox.next() == "first"
    mailbox.detach()
    assert mailbox.idle
    assert mailbox.next() == "second"
    mailbox.count(False)
    mailbox.done()
    statistics = mailbox.statistics()
    assert (statistics.delivered, statistics.failed, statistics.in_flight) == (1, 1, 0)
