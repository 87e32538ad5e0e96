"""Reminders stand on their grid whatever the clock does, and the queue of times gives back what was put in."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.protocol.reminders import (
    LONGEST_NAME,
    Firing,
    Reminder,
    TimerQueue,
    fire,
    first_due,
    occurrence_id,
    reminder,
)

NOW = 1_700_000_000.0
PERIODS = st.one_of(st.sampled_from([0.1, 0.3, 1.0, 60.0, 86_400.0]), st.floats(0.1, 1e6))


@pytest.mark.parametrize(
    ("times", "due"),
    [
        ({"after": 0}, NOW),
        ({"after": 5.5}, NOW + 5.5),
        ({"every": 10}, NOW + 10),
        ({"after": 1, "every": 10}, NOW + 1),
        ({"at": NOW + 3}, NOW + 3),
        ({"at": NOW - 3, "every": 10}, NOW - 3),
    ],
)
def test_the_first_time(times: dict[str, float], due: float) -> None:
    assert first_due(NOW, **times) == due


@pytest.mark.parametrize(
    "times",
    [
        {},
        {"after": 1, "at": NOW},
        {"after": -1},
        {"after": math.nan},
        {"after": math.inf},
        {"every": 0},
        {"every": 0.01},
        {"every": math.inf},
        {"at": -1},
        {"at": math.nan},
        {"at": 1e18},
    ],
)
def test_times_that_make_no_sense(times: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs|not both"):
        first_due(NOW, **times)


@pytest.mark.parametrize("name", ["", "x" * (LONGEST_NAME + 1)])
def test_names_that_make_no_sense(name: str) -> None:
    with pytest.raises(ValueError, match="name of a reminder"):
        reminder("p", name, NOW, series="s", after=1)


def test_a_single_reminder_fires_once() -> None:
    row = reminder("p", "wake", NOW, series="s", after=5)

    fired = fire(row, NOW + 100)

    assert fired == Firing(occurrence_id(row), 0, None)


def test_a_reminder_that_is_not_due_does_not_fire() -> None:
    with pytest.raises(ValueError, match="not due for 5 s"):
        fire(reminder("p", "wake", NOW, series="s", after=5), NOW)


def test_a_missed_series_fires_once_and_goes_on_with_its_grid() -> None:
    row = reminder("p", "tick", NOW, series="s", every=10)

    fired = fire(row, NOW + 47)

    assert fired.missed == 3
    assert fired.next is not None
    assert fired.next.due == NOW + 50
    assert fired.next.count == 1


def test_a_clock_that_was_set_back_repeats_nothing() -> None:
    row = fire(reminder("p", "tick", NOW, series="s", every=10), NOW + 10).next
    assert row is not None

    with pytest.raises(ValueError, match="not due"):
        fire(row, NOW - 1_000)
    assert row.due == NOW + 20


def test_a_repeated_firing_has_the_same_id_and_every_other_another() -> None:
    rows: list[Reminder] = []
    for name, series in (("tick", "s"), ("tick", "t"), ("tock", "s")):
        row: Reminder | None = reminder("p", name, NOW, series=series, every=1)
        for _ in range(3):
            assert row is not None
            rows.append(row)
            row = fire(row, row.due).next

    ids = [fire(row, row.due + 7).occurrence for row in rows]

    assert ids == [fire(row, row.due).occurrence for row in rows]
    assert len(set(ids)) == len(ids)


@given(begin=st.floats(0, 2e10), every=PERIODS, waits=st.lists(st.floats(-1e4, 1e7), min_size=1, max_size=30))
def test_a_series_stays_on_its_grid(begin: float, every: float, waits: list[float]) -> None:
    row = Reminder("p", "tick", begin, every)
    now, slots = begin, 0
    for wait in waits:
        now += wait
        if row.due > now:
            continue
        fired = fire(row, now)
        assert fired.next is not None
        assert fired.next.due == row.due + (fired.missed + 1) * every
        assert fired.next.due > now
        # The last slot that was left out was over.
        assert row.due + fired.missed * every <= now
        assert fired.next.count == row.count + 1
        slots += fired.missed + 1
        row = fired.next
    assert abs(row.due - (begin + slots * every)) <= 1e-5 * len(waits)


def test_the_queue_gives_keys_in_order_of_their_times() -> None:
    queue: TimerQueue[str] = TimerQueue()
    for key, due in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("a2", 1.0)):
        queue.set(key, due)

    assert queue.next_due() == 1.0
    assert queue.due(2.5) == ["a", "a2", "b"]
    assert queue.due(2.5) == []
    assert "c" in queue and "a" not in queue


def test_a_later_wish_replaces_an_earlier_one() -> None:
    queue: TimerQueue[str] = TimerQueue()
    queue.set("a", 1.0)
    queue.set("a", 5.0)

    assert queue.due(4.0) == []
    assert queue.next_due() == 5.0
    assert queue.cancel("a")
    assert not queue.cancel("a")
    assert queue.next_due() is None


def test_no_time_is_no_time() -> None:
    with pytest.raises(ValueError, match="must be a number"):
        TimerQueue[str]().set("a", math.nan)


def test_keys_that_change_their_minds_do_not_fill_the_memory() -> None:
    queue: TimerQueue[int] = TimerQueue()
    for round_number in range(1_000):
        for key in range(10):
            queue.set(key, float(round_number + key))

    assert len(queue) == 10
    assert len(queue._heap) <= 2 * 10 + 64


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 20)),
            st.tuples(st.just("cancel"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("due"), st.integers(0, 20), st.integers(0, 4)),
        ),
        max_size=80,
    )
)
def test_the_queue_equals_a_dictionary_that_is_searched(steps: list[tuple[str, int, int]]) -> None:
    queue: TimerQueue[int] = TimerQueue()
    model: dict[int, int] = {}
    for what, first, second in steps:
        if what == "set":
            queue.set(first, second)
            model[first] = second
        elif what == "cancel":
            assert queue.cancel(first) == (model.pop(first, None) is not None)
        else:
            taken = queue.due(first, limit=second)
            over = [key for key, due in model.items() if due <= first]
            assert len(taken) == min(second, len(over))
            assert [model[key] for key in taken] == sorted(model[key] for key in over)[: len(taken)]
            for key in taken:
                del model[key]
        assert len(queue) == len(model)
        assert queue.next_due() == min(model.values(), default=None)


@given(begin=st.floats(0, 2e10), every=PERIODS)
def test_a_firing_at_the_very_slot_misses_nothing(begin: float, every: float) -> None:
    assert fire(Reminder("p", "tick", begin, every), begin).missed == 0
