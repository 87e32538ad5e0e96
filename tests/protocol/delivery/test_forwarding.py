"""A message follows its receiver, asks its home, and stops where nobody knows better."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.protocol.delivery import (
    UNKNOWN,
    Arriving,
    AskHome,
    Asleep,
    Departed,
    Departing,
    Elsewhere,
    Ended,
    Fail,
    FailReason,
    Finish,
    Forward,
    ForwardAction,
    Forwarding,
    Knowledge,
    Live,
    Send,
)
from paglets.protocol.delivery.forwarding import MOST_PLACES, MOST_REPEATS


def begin(home: str = "home", attempt: int = 1) -> Forwarding:
    state, action = Forwarding.start(Forward("b", 3, home), attempt)
    assert action == Send("b", attempt)
    return state


def test_an_answer_is_passed_on_with_its_place() -> None:
    assert begin().answered()[1] == Finish("b")
    assert begin().answered("c")[1] == Finish("c")


@pytest.mark.parametrize("event", ["unreachable", "unknown"])
def test_where_a_place_fails_the_home_is_asked(event: str) -> None:
    state = begin()

    state, action = getattr(state, event)()
    assert action == AskHome("home")

    state, action = state.home_says(Elsewhere(4, "c"))
    assert action == Send("c", 1)
    assert state.answered()[1] == Finish("c")


@pytest.mark.parametrize(("epoch", "url"), [(2, "c"), (2, "b"), (3, "b"), (3, "b/")])
def test_a_forwarder_that_is_no_news_is_not_followed(epoch: int, url: str) -> None:
    for knowledge in (Elsewhere(epoch, url), Departed(epoch, url)):
        state, _ = begin().unknown()

        assert state.home_says(knowledge)[1] == Fail(FailReason.UNREACHABLE, uncertain=False)


@pytest.mark.parametrize("event", ["unreachable", "unknown"])
def test_a_host_that_has_another_address_is_followed_there_once(event: str) -> None:
    state, _ = getattr(begin(), event)()

    state, action = state.home_says(Elsewhere(3, "b, moved"))
    assert action == Send("b, moved", 1)

    state, _ = getattr(state, event)()
    assert state.home_says(Elsewhere(3, "b, moved"))[1] == Fail(FailReason.UNREACHABLE, uncertain=False)


@pytest.mark.parametrize("knowledge", [Live(), Asleep(), Arriving(), Departing()])
def test_at_home_it_is_looked_for_once(knowledge: Knowledge) -> None:
    state, _ = begin().unreachable()

    state, action = state.home_says(knowledge)
    assert action == Send("home", 1)

    assert state.unreachable()[1] == Fail(FailReason.UNREACHABLE, uncertain=False)
    assert state.unknown()[1] == Fail(FailReason.UNKNOWN, uncertain=False)


def test_a_paglet_that_ended_is_gone_for_good() -> None:
    state, _ = begin().unreachable()

    assert state.home_says(Ended())[1] == Fail(FailReason.GONE, uncertain=False)
    assert begin().gone()[1] == Fail(FailReason.GONE, uncertain=False)
    assert FailReason.GONE.final


def test_what_nobody_knows_is_given_up_and_what_is_out_of_reach_is_not() -> None:
    unknown, _ = begin().unknown()
    unreachable, _ = begin().unreachable()

    assert unknown.home_says(UNKNOWN)[1] == Fail(FailReason.UNKNOWN, uncertain=False)
    assert unreachable.home_says(UNKNOWN)[1] == Fail(FailReason.UNREACHABLE, uncertain=False)
    assert unknown.home_unreachable()[1] == Fail(FailReason.UNREACHABLE, uncertain=False)
    assert FailReason.UNKNOWN.final
    assert not FailReason.UNREACHABLE.final


@pytest.mark.parametrize("home", ["", "b"])
def test_without_a_home_there_is_nobody_to_ask(home: str) -> None:
    assert begin(home).unreachable()[1] == Fail(FailReason.UNREACHABLE, uncertain=False)
    assert begin(home).unknown()[1] == Fail(FailReason.UNKNOWN, uncertain=False)


def test_a_broken_connection_repeats_the_message_and_says_so_ever_after() -> None:
    state = begin(attempt=2)
    for repeat in range(MOST_REPEATS):
        state, action = state.broken()
        assert action == Send("b", 3 + repeat)

    state, action = state.broken()
    assert action == AskHome("home")

    state, action = state.home_says(Elsewhere(4, "c"))
    assert action == Send("c", 3 + MOST_REPEATS)
    state, _ = state.unreachable()
    assert state.home_says(Elsewhere(4, "c"))[1] == Fail(FailReason.UNCERTAIN, uncertain=True)


def test_who_names_ever_new_places_is_not_followed_for_ever() -> None:
    state = begin()
    action: ForwardAction
    for place in range(MOST_PLACES - 1):
        state, _ = state.unknown()
        state, action = state.home_says(Elsewhere(4 + place, f"c{place}"))
        assert isinstance(action, Send)

    state, _ = state.unknown()
    assert state.home_says(Elsewhere(100, "d"))[1] == Fail(FailReason.LOST_WAY, uncertain=False)


PLACES = st.sampled_from(["a", "b", "c", "home"])
SAID = st.one_of(
    st.builds(Elsewhere, st.integers(0, 9), PLACES),
    st.builds(Departed, st.integers(0, 9), PLACES),
    st.sampled_from([Live(), UNKNOWN, Ended()]),
)


@given(data=st.data(), home=st.sampled_from(["", "home", "b"]))
def test_it_always_ends_and_never_takes_a_doubt_back(data: st.DataObject, home: str) -> None:
    state, action = begin(home), Send("b", 1)
    current: ForwardAction = action
    attempts, epochs, doubt = [1], [state.epoch], False
    for _ in range(MOST_PLACES * (MOST_REPEATS + 3)):
        if isinstance(current, Finish | Fail):
            break
        if isinstance(current, Send):
            event = data.draw(st.sampled_from(["unreachable", "broken", "unknown", "answered", "gone"]))
            doubt = doubt or event == "broken"
            state, current = getattr(state, event)()
        elif data.draw(st.booleans()):
            state, current = state.home_says(data.draw(SAID))
        else:
            state, current = state.home_unreachable()
        epochs.append(state.epoch)
        if isinstance(current, Send):
            attempts.append(current.attempt)
            assert current.attempt > 1 or not doubt
    else:
        pytest.fail("it never ended")
    assert attempts == sorted(attempts)
    assert epochs == sorted(epochs), "a forwarder that is no news was followed"
    if isinstance(current, Fail):
        assert current.uncertain is doubt
