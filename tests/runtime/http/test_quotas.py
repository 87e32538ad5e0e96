"""What one caller may take, and what that leaves for the others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import OverloadedError, PayloadTooLargeError
from paglets.runtime.http.quotas import Load, Quotas, Seat, TooManyError, retry_after
from paglets.security.caller import Caller
from paglets.security.keys import KeyLimits
from paglets.security.roles import Role


def caller(name: str = "laptop", **limits: float) -> Caller:
    return Caller(name, Role.MESSAGE, KeyLimits(**limits))  # type: ignore[arg-type]


def test_a_rate_is_an_average_with_a_burst() -> None:
    now = [0.0]
    quotas = Quotas(clock=lambda: now[0])
    limited = caller(requests_per_second=2)

    def ask() -> None:
        load = Load()
        quotas.enter(limited, load)
        quotas.leave(limited, load)

    for _ in range(4):
        ask()
    with pytest.raises(TooManyError, match="2 requests a second") as caught:
        ask()
    assert caught.value.retry_after == pytest.approx(0.5)
    assert retry_after(caught.value) == b"1"
    now[0] = 0.5
    ask()
    with pytest.raises(TooManyError):
        ask()
    now[0] = 100.0
    for _ in range(4):
        ask()
    with pytest.raises(TooManyError):
        ask()
    quotas.enter(caller("other", requests_per_second=2), Load())


def test_a_caller_leaves_room_for_one_more_like_it() -> None:
    quotas = Quotas(max_requests=12)
    one, two, three = caller("one"), caller("two"), caller("three")

    def fill(who: Caller) -> int:
        entered = 0
        with pytest.raises(OverloadedError, match=who.name):
            while True:
                quotas.enter(who, Load())
                entered += 1
        return entered

    assert [fill(one), fill(two), fill(three)] == [6, 4, 3]
    quotas.leave(one, Load())
    quotas.leave(two, Load())
    with pytest.raises(OverloadedError):
        quotas.enter(one, Load())  # others came meanwhile, so its share is smaller now


def test_memory_for_bodies_is_shared() -> None:
    quotas = Quotas(max_held_bytes=100)
    one, two = caller("one"), caller("two")
    quotas.enter(one, Load(70, held=True))  # a single body may be larger than a share
    with pytest.raises(TooManyError, match="70 bytes"):
        quotas.enter(one, Load(1, held=True))
    quotas.enter(one, Load(10**12))  # what is streamed takes no memory
    quotas.enter(two, Load(30, held=True))


def test_bytes_in_flight_are_bounded() -> None:
    quotas = Quotas()
    limited = caller(bytes_in_flight=100)
    first = Load(80)
    quotas.enter(limited, first)
    with pytest.raises(TooManyError):
        quotas.enter(limited, Load(21))
    with pytest.raises(PayloadTooLargeError):
        quotas.enter(limited, Load(101))  # which would never fit
    growing = Load()
    quotas.enter(limited, growing)
    quotas.grow(limited, growing, 20)
    with pytest.raises(TooManyError):
        quotas.grow(limited, growing, 1)
    quotas.leave(limited, first)
    quotas.grow(limited, growing, 80)
    with pytest.raises(PayloadTooLargeError):
        quotas.grow(limited, growing, 1)
    quotas.leave(limited, growing)
    quotas.enter(limited, Load(100))


def test_connections_are_bounded_and_change_hands() -> None:
    quotas = Quotas()
    one, two = caller("one", connections=2), caller("two", connections=1)
    seats = [Seat() for _ in range(3)]
    for seat in seats[:2]:
        quotas.enter(one, Load(), seat)
    quotas.enter(one, Load(), seats[0])
    with pytest.raises(TooManyError, match="2 connections"):
        quotas.enter(one, Load(), seats[2])
    quotas.enter(two, Load(), seats[0])
    quotas.enter(one, Load(), seats[2])
    quotas.vacate(seats[2])
    quotas.vacate(seats[2])
    quotas.enter(one, Load(), Seat())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.booleans(), st.booleans()), max_size=80))
def test_what_was_taken_is_given_back(steps: list[tuple[int, int, bool, bool]]) -> None:
    quotas = Quotas(max_requests=8, max_held_bytes=60)
    callers = [caller(str(number), bytes_in_flight=50, connections=2) for number in range(4)]
    under_way: list[tuple[Caller, Load]] = []
    seats = [Seat() for _ in range(4)]
    for who, nbytes, held, leaving in steps:
        if leaving and under_way:
            quotas.leave(*under_way.pop(nbytes % len(under_way)))
            quotas.vacate(seats[who])
            continue
        load = Load(nbytes, held)
        try:
            quotas.enter(callers[who], load, seats[nbytes % 4])
        except OverloadedError:
            continue
        under_way.append((callers[who], load))
        assert sum(each.nbytes for owner, each in under_way if owner is callers[who]) <= 50
    for entered in under_way:
        quotas.leave(*entered)
    for seat in seats:
        quotas.vacate(seat)
    assert quotas._active == 0
    assert all(account.idle and not account.held for account in quotas._accounts.values())
    for who in callers:
        quotas.enter(who, Load(50), Seat())
