from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from paglets.core.errors import OverloadedError
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import OutboxRow
from paglets.persistence.tables import dead_letters, handled, outbox, queued
from paglets.serialization.values import pack

from .journal_rows import handled_message, letter, message


def enqueue(
    c: sqlite3.Connection, agent_id: str, item: QueuedMessage, *, max_count: int = 10, max_bytes: int = 100_000
) -> int:
    return queued.enqueue(c, agent_id, item, max_count=max_count, max_bytes=max_bytes)


def waiting_ids(c: sqlite3.Connection, agent_id: str) -> list[str]:
    return [item.message.message_id for _, item in queued.waiting(c, agent_id)]


# queued


def test_messages_wait_in_their_order(c: sqlite3.Connection) -> None:
    positions = [enqueue(c, "a1", message(message_id, 5)) for message_id in ("m2", "m1", "m3")]
    assert positions == sorted(set(positions))
    assert queued.waiting(c, "a1") == list(
        zip(positions, [message(message_id, 5) for message_id in ("m2", "m1", "m3")], strict=True)
    )
    assert queued.dequeue(c, "a1", "m1")
    assert not queued.dequeue(c, "a1", "m1")
    assert enqueue(c, "a1", message("m1")) > positions[-1]
    assert waiting_ids(c, "a1") == ["m2", "m3", "m1"]


def test_a_position_is_never_used_again(c: sqlite3.Connection) -> None:
    first = enqueue(c, "a1", message("m1"))
    queued.dequeue(c, "a1", "m1")
    assert enqueue(c, "a1", message("m2")) > first


def test_a_repeated_message_waits_once_even_in_a_full_queue(c: sqlite3.Connection) -> None:
    first = enqueue(c, "a1", message("m1"), max_count=2)
    enqueue(c, "a1", message("m2"), max_count=2)
    assert enqueue(c, "a1", message("m1"), max_count=2) == first
    assert enqueue(c, "a1", message("m1"), max_count=10) == first
    assert waiting_ids(c, "a1") == ["m1", "m2"]
    assert queued.count(c, "a1") == 2
    assert enqueue(c, "a2", message("m1"), max_count=2) != first


def test_a_queue_is_bounded_by_count(c: sqlite3.Connection) -> None:
    enqueue(c, "a1", message("m1"), max_count=2)
    enqueue(c, "a1", message("m2"), max_count=2)
    with pytest.raises(OverloadedError, match="2 queued messages"):
        enqueue(c, "a1", message("m3"), max_count=2)
    enqueue(c, "a2", message("m3"), max_count=2)
    queued.dequeue(c, "a1", "m1")
    enqueue(c, "a1", message("m3"), max_count=2)
    assert waiting_ids(c, "a1") == ["m2", "m3"]


def test_a_queue_is_bounded_by_bytes(c: sqlite3.Connection) -> None:
    size = len(pack(message("m1", 100).to_wire()))
    enqueue(c, "a1", message("m1", 100), max_bytes=2 * size)
    enqueue(c, "a1", message("m2", 100), max_bytes=2 * size)
    with pytest.raises(OverloadedError, match=f"{2 * size} bytes"):
        enqueue(c, "a1", message("m3"), max_bytes=2 * size)
    queued.dequeue_many(c, "a1", ["m1", "m2", "absent"])
    with pytest.raises(OverloadedError):
        enqueue(c, "a1", message("m4", 101), max_bytes=size)
    enqueue(c, "a1", message("m5", 100), max_bytes=size)


def test_receivers_are_those_with_messages(c: sqlite3.Connection) -> None:
    for agent_id, message_id in (("b", "m1"), ("a", "m1"), ("a", "m2"), ("d", "m1")):
        enqueue(c, agent_id, message(message_id))
    queued.dequeue(c, "b", "m1")
    assert queued.receivers(c) == ["a", "d"]
    assert [queued.count(c, agent_id) for agent_id in "abd"] == [2, 0, 1]
    assert [item.message.message_id for item in queued.clear(c, "a")] == ["m1", "m2"]
    assert queued.receivers(c) == ["d"]
    assert c.execute("SELECT count(*) FROM queue_sizes").fetchone() == (1,)


# handled


def test_the_window_is_in_order_and_bounded(c: sqlite3.Connection) -> None:
    for number in range(7):
        handled.remember(c, "a1", handled_message(f"m{number}"), keep=3)
        handled.remember(c, "a2", handled_message(f"n{number}", None, b"error"), keep=5)
    assert handled.window(c, "a1") == [handled_message(f"m{number}") for number in (4, 5, 6)]
    assert handled.window(c, "a2") == [handled_message(f"n{number}", None, b"error") for number in (2, 3, 4, 5, 6)]
    assert handled.window(c, "absent") == []


def test_the_window_keeps_a_thousand(c: sqlite3.Connection) -> None:
    c.execute("BEGIN")
    for number in range(handled.WINDOW + 1):
        handled.remember(c, "a1", handled_message(f"m{number}"))
    c.execute("COMMIT")
    window = handled.window(c, "a1")
    assert (len(window), window[0].message_id) == (1000, "m1")


def test_a_window_can_be_replaced(c: sqlite3.Connection) -> None:
    handled.remember(c, "a1", handled_message("old"))
    arrived = [handled_message("m1"), handled_message("m2", None, None)]
    handled.replace(c, "a1", arrived)
    assert handled.window(c, "a1") == arrived
    handled.remember(c, "a1", handled_message("m3"), keep=2)
    assert [item.message_id for item in handled.window(c, "a1")] == ["m2", "m3"]
    handled.replace(c, "a1", [])
    assert handled.window(c, "a1") == []
    handled.replace(c, "a1", [handled_message(f"m{number}") for number in range(handled.WINDOW + 1)])
    assert [len(handled.window(c, "a1")), handled.window(c, "a1")[0].message_id] == [1000, "m1"]


# outbox


def test_the_outbox_keeps_its_order(c: sqlite3.Connection) -> None:
    first = outbox.add(c, "s1", "http://h", "a1", b"one")
    second = outbox.add(c, "s2", "http://h", "a2", b"two")
    outbox.attempted(c, second)
    outbox.attempted(c, second)
    rows = [OutboxRow(first, "s1", "http://h", "a1", b"one", 0), OutboxRow(second, "s2", "http://h", "a2", b"two", 2)]
    assert outbox.pending(c) == rows
    assert outbox.pending(c, limit=1) == rows[:1]
    outbox.done(c, first)
    outbox.done(c, first)
    assert outbox.pending(c) == rows[1:]


def test_an_acknowledgement_that_comes_twice_hits_no_other_message(c: sqlite3.Connection) -> None:
    first = outbox.add(c, "s1", "http://h", "a1", b"one")
    outbox.done(c, first)
    second = outbox.add(c, "s1", "http://h", "a1", b"two")
    outbox.done(c, first)
    assert [row.position for row in outbox.pending(c)] == [second]


# dead letters


def test_dead_letters_can_be_read_and_removed(c: sqlite3.Connection) -> None:
    ids = [dead_letters.add(c, letter(f"m{number}", f"a{number % 2}")) for number in range(4)]
    stored = [replace(letter(f"m{n}", f"a{n % 2}"), letter_id=letter_id) for n, letter_id in enumerate(ids)]
    assert dead_letters.listing(c) == stored
    assert dead_letters.listing(c, since=ids[1], limit=1) == [stored[2]]
    assert dead_letters.listing(c, agent_id="a1") == [stored[1], stored[3]]
    assert dead_letters.listing(c, agent_id="a1", since=ids[1]) == [stored[3]]
    assert dead_letters.get(c, ids[2]) == stored[2]
    assert dead_letters.remove(c, ids[2])
    assert not dead_letters.remove(c, ids[2])
    assert dead_letters.get(c, ids[2]) is None
    assert dead_letters.count(c) == 3
    assert dead_letters.clear(c, "a1") == 2
    assert dead_letters.clear(c) == 1
    assert dead_letters.count(c) == 0


def test_a_reason_that_is_no_text_is_kept_as_its_escape(c: sqlite3.Connection) -> None:
    letter_id = dead_letters.add(c, replace(letter("m1"), reason="no caf\udce9, and no \u00e9"))
    kept = dead_letters.get(c, letter_id)
    assert kept is not None
    assert kept.reason == r"no caf\udce9, and no " + "\u00e9"


def test_the_oldest_dead_letters_go(c: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MOST_LETTERS", 3)
    ids = [dead_letters.add(c, letter(f"m{number}")) for number in range(3)]
    dead_letters.remove(c, ids[1])
    ids += [dead_letters.add(c, letter("m3"))]
    assert [found.message_id for found in dead_letters.listing(c)] == ["m0", "m2", "m3"]
    dead_letters.add(c, letter("m4"))
    assert [found.message_id for found in dead_letters.listing(c)] == ["m2", "m3", "m4"]
    assert dead_letters.count(c) == 3
