"""Whom a request to a paglet asks next: no sockets, no clock, hosts that do what a script says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core import errors
from paglets.remote.pursuit import (
    ASTRAY,
    HASTY_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MOST_STRANGERS,
    Ask,
    Found,
    Locate,
    NotConnectedError,
    Patience,
    Pause,
    Pursuit,
    first_connecting,
    follow,
    follow_async,
)
from paglets.remote.routes import RouteTable

A, B, C, HOME = "http://a:1", "http://b:1", "http://c:1", "http://home:1"
ANSWER = {"result": "done"}


def unreachable() -> Exception:
    return NotConnectedError("refused")


def lost() -> Exception:
    return errors.ConnectionLostError("reset")


def unknown() -> Exception:
    return errors.InvalidAgentError("no such paglet")


def blocked() -> Exception:
    return errors.HostUnreachableError("cannot pass it on")


@dataclass
class World:
    """Hosts by place: what each does with a request, and what it says of where the paglet is."""

    hosts: dict[str, Callable[[], Any]]
    locations: dict[str, Any] = field(default_factory=dict)
    now: float = 0.0
    asked: list[tuple[str, int]] = field(default_factory=list)
    located: list[str] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    limits: list[float | None] = field(default_factory=list)
    seconds_per_call: float = 0.001
    routes: RouteTable = field(init=False)

    def __post_init__(self) -> None:
        self.routes = RouteTable(clock=lambda: self.now)

    def ask(self, step: Ask) -> Any:
        self.now += self.seconds_per_call
        assert step.seconds > 0
        self.asked.append((step.place, step.attempt))
        self.limits.append(step.connecting)
        return self._do(self.hosts.get(step.place, unreachable))

    def locate(self, step: Locate) -> Any:
        self.now += self.seconds_per_call
        assert step.seconds > 0
        self.located.append(step.place)
        return self._do(lambda: self.locations.get(step.place, unknown()))

    def pause(self, step: Pause) -> None:
        assert step.seconds > 0
        self.now += step.seconds
        self.pauses.append(step)

    def _do(self, make: Callable[[], Any]) -> Any:
        result = make()
        if isinstance(result, Exception):
            raise result
        return result

    def pursue(self, host_url: str = A, *, timeout: float = 10.0, **options: Any) -> Found:
        """Do what a client does: ask the best place, and pursue when that fails."""
        options = {"repeatable": True, "passed_on": True, "lasting": True, **options}
        end = self.now + timeout
        place, _ = self.routes.best("p", host_url)
        try:
            return place, self.ask(Ask(place, 1, timeout, None))
        except ASTRAY as exc:
            pursuit = Pursuit(
                self.routes, "p", host_url, end=end, clock=lambda: self.now, jitter=lambda: 1.0, **options
            )
            return follow(pursuit.steps(place, exc), ask=self.ask, locate=self.locate, pause=self.pause)


def after(times: int, failure: Callable[[], Exception], then: Callable[[], Any] = lambda: ANSWER) -> Callable[[], Any]:
    """Return a host that fails some times first."""
    left = [times]

    def act() -> Any:
        left[0] -= 1
        return failure() if left[0] >= 0 else then()

    return act


# --- not sent ---------------------------------------------------------------------------------------------------------


def test_the_home_is_asked_when_the_host_is_gone() -> None:
    world = World({HOME: lambda: ANSWER})
    world.routes.learn("p", A, A, HOME)
    assert world.pursue() == (HOME, ANSWER)
    assert world.asked == [(A, 1), (HOME, 1)]
    assert not world.pauses
    assert world.limits[1] is not None, "with others to ask, no place may take all of the time"


def test_a_host_that_was_not_there_a_moment_ago_is_asked_last() -> None:
    world = World({HOME: lambda: ANSWER})
    world.routes.learn("p", A, B, HOME)
    world.pursue()
    del world.asked[:]
    assert world.pursue(B) == (HOME, ANSWER)
    assert world.asked == [(HOME, 1)]


def test_a_paglet_that_was_never_found_is_not_waited_for_long() -> None:
    world = World({})
    with pytest.raises(NotConnectedError, match="refused"):
        world.pursue(timeout=60)
    assert world.now <= HASTY_SECONDS + 0.1
    assert 2 <= len(world.asked) <= 6
    assert world.limits[-1] is None
    assert all(pause.unsent for pause in world.pauses)


def test_a_paglet_that_was_found_before_is_waited_for_to_the_end() -> None:
    world = World({A: after(8, unreachable)})
    world.routes.learn("p", A, A)
    assert world.pursue(timeout=60) == (A, ANSWER)
    assert {attempt for _, attempt in world.asked} == {1}
    assert max(pause.seconds for pause in world.pauses) == LONGEST_PAUSE_SECONDS
    assert [pause.seconds for pause in world.pauses[:3]] == [0.05, 0.1, 0.2]

    world.hosts = {}
    began = world.now
    with pytest.raises(NotConnectedError):
        world.pursue(timeout=60)
    assert 59 < world.now - began <= 60


def test_a_caller_who_knows_somebody_else_says_how_long_it_is_patient() -> None:
    world = World({})
    world.routes.learn("p", A, A)
    with pytest.raises(errors.HostUnreachableError):
        world.pursue(timeout=10.0, patience=Patience(unsent=1.0))
    assert 0.9 < world.now < 1.2

    world = World({A: after(1, lost, unreachable)})
    with pytest.raises(errors.ConnectionLostError, match="lost the host of paglet p while an answer was due"):
        world.pursue(timeout=10.0, patience=Patience(unsent=0.1, lost=1.0))
    assert 0.9 < world.now < 1.2

    # A machine that is gone is silent: no connection is waited for longer than that.
    assert all(limit is not None and limit <= 1.0 for limit in world.limits[1:])

    world = World({A: after(1, lost, unreachable)})
    with pytest.raises(errors.RemoteTimeoutError, match="may still"):
        world.pursue(timeout=10.0, patience=Patience(unsent=1.0))
    assert 9.9 < world.now < 10.2


def test_a_paglet_that_is_gone_after_a_lost_answer_may_have_given_it() -> None:
    world = World({A: after(1, lost, unknown)}, {A: unknown()})
    with pytest.raises(errors.ConnectionLostError, match="was lost, and it is gone"):
        world.pursue()


def test_how_long_the_first_connection_may_take() -> None:
    assert first_connecting(9.0, others=False, patience=None) is None
    assert first_connecting(3.0, others=True, patience=None) == 1.0
    assert first_connecting(9.0, others=False, patience=Patience(unsent=0.5)) == 0.5
    assert first_connecting(3.0, others=True, patience=Patience(unsent=2.0)) == 1.0
    assert first_connecting(9.0, others=False, patience=Patience(lost=1.0)) is None


def test_a_request_that_need_not_last_asks_each_place_once() -> None:
    world = World({})
    world.routes.learn("p", A, B, HOME)
    with pytest.raises(NotConnectedError):
        world.pursue(lasting=False)
    assert sorted(place for place, _ in world.asked) == sorted((A, B, HOME))
    assert not world.pauses


def test_a_host_that_cannot_pass_it_on_is_no_answer_to_a_message() -> None:
    world = World({B: blocked, HOME: lambda: ANSWER})
    world.routes.learn("p", A, B, HOME)
    assert world.pursue() == (HOME, ANSWER)
    assert world.asked == [(B, 1), (A, 1), (HOME, 1)]
    assert world.routes.statistics().blocked == 1, "A was not reached, B was"


def test_a_host_that_cannot_pass_it_on_is_an_answer_to_an_operation() -> None:
    world = World({A: blocked, HOME: lambda: ANSWER})
    world.routes.learn("p", A, A, HOME)
    with pytest.raises(errors.HostUnreachableError, match="pass it on"):
        world.pursue(passed_on=False)
    assert world.asked == [(A, 1)]


# --- perhaps sent -----------------------------------------------------------------------------------------------------


def test_a_lost_request_is_repeated_as_a_further_attempt_to_the_same_host() -> None:
    world = World({A: after(3, lost), HOME: lambda: pytest.fail("the home has no business here")})
    world.routes.learn("p", A, A, HOME)
    assert world.pursue() == (A, ANSWER)
    assert world.asked == [(A, 1), (A, 2), (A, 3), (A, 4)]
    assert not any(pause.unsent for pause in world.pauses)


def test_a_lost_request_reaches_the_home_when_its_host_does_not_come_back() -> None:
    world = World({A: after(1, lost, unreachable), HOME: lambda: ANSWER})
    world.routes.learn("p", A, A, HOME)
    assert world.pursue() == (HOME, ANSWER)
    assert world.asked == [(A, 1), (A, 2), (HOME, 2)]


def test_a_request_that_is_lost_again_and_again_ends_with_the_time() -> None:
    world = World({A: lost})
    with pytest.raises(errors.RemoteTimeoutError, match=r"p did not answer.*reset"):
        world.pursue(timeout=20)
    assert 19 < world.now <= 20.1
    assert [attempt for _, attempt in world.asked] == list(range(1, len(world.asked) + 1))


def test_what_must_not_be_repeated_is_not() -> None:
    world = World({A: lost, HOME: lambda: ANSWER})
    world.routes.learn("p", A, A, HOME)
    with pytest.raises(errors.ConnectionLostError):
        world.pursue(repeatable=False)
    assert world.asked == [(A, 1)]


@pytest.mark.parametrize(
    "error", [errors.NotHandledError, errors.RemoteTimeoutError, errors.RemoteHostError, errors.ConflictError]
)
def test_a_definite_answer_ends_it(error: type[errors.PagletError]) -> None:
    world = World({A: after(2, lost, lambda: error("so it is")), HOME: lambda: ANSWER})
    world.routes.learn("p", A, A, HOME)
    with pytest.raises(error, match="so it is"):
        world.pursue()
    assert len(world.asked) == 3


# --- not known --------------------------------------------------------------------------------------------------------


OPERATION = {"passed_on": False, "lasting": False, "repeatable": False}


def at(url: str, epoch: int) -> dict[str, Any]:
    return {"host_url": url, "epoch": epoch, "here": False, "ended": False}


def test_a_paglet_on_a_host_that_is_down_has_not_ended() -> None:
    world = World({HOME: unknown}, {HOME: at(B, 3)})
    world.routes.learn("p", A, B, HOME)

    with pytest.raises(NotConnectedError):
        world.pursue(**OPERATION)

    assert sorted(place for place, _ in world.asked) == [A, B, HOME]


def test_it_has_not_ended_either_where_it_went_unseen() -> None:
    world = World({A: unknown}, {A: at(B, 3)})

    with pytest.raises(NotConnectedError):
        world.pursue(**OPERATION)


def test_a_paglet_of_which_the_last_host_knows_nothing_is_unknown() -> None:
    world = World({A: unknown, C: unknown}, {A: at(B, 3), C: at(A, 2)})
    world.routes.learn("p", A, C)
    world.hosts[B] = unknown

    with pytest.raises(errors.InvalidAgentError):
        world.pursue(**OPERATION)


def test_a_paglet_of_which_nobody_knows_is_unknown_though_a_host_is_down() -> None:
    world = World({A: unknown})
    world.routes.learn("p", A, C)

    with pytest.raises(errors.InvalidAgentError):
        world.pursue(**OPERATION)


def test_an_unknown_paglet_is_an_answer_at_once() -> None:
    world = World({A: unknown})
    with pytest.raises(errors.InvalidAgentError):
        world.pursue(timeout=60)
    assert (world.asked, world.located, world.pauses) == ([(A, 1)], [A], [])


def test_the_places_that_remain_are_asked() -> None:
    world = World({A: unknown, B: unknown, HOME: lambda: ANSWER})
    world.routes.learn("p", A, B, HOME)
    assert world.pursue() == (HOME, ANSWER)
    assert {attempt for _, attempt in world.asked} == {1}, "who never heard of it did nothing with the message"


def test_a_host_says_where_the_paglet_went() -> None:
    world = World({A: unknown, B: unknown, C: lambda: ANSWER})
    world.locations = {A: {"host_url": B, "epoch": 2, "home": HOME}, B: {"host_url": C, "epoch": 3, "home": HOME}}
    assert world.pursue() == (C, ANSWER)
    assert [place for place, _ in world.asked] == [A, B, C]
    assert [attempt for _, attempt in world.asked] == [1, 2, 3], "a handler there may have had the message"


@pytest.mark.parametrize("whereabouts", [{"here": True, "host_url": A}, {"ended": True}])
def test_an_error_of_the_handler_itself_is_the_answer(whereabouts: dict[str, Any]) -> None:
    world = World({A: unknown, HOME: lambda: ANSWER}, {A: whereabouts})
    world.routes.learn("p", A, A, HOME)
    with pytest.raises(errors.InvalidAgentError):
        world.pursue()
    assert world.asked == [(A, 1)]


def test_hosts_that_point_at_each_other_are_asked_once_each() -> None:
    world = World({A: unknown, B: unknown})
    world.locations = {A: {"host_url": B, "epoch": 2}, B: {"host_url": A, "epoch": 1}}
    with pytest.raises(errors.InvalidAgentError):
        world.pursue()
    assert [place for place, _ in world.asked] == [A, B]


def test_newer_news_lead_back() -> None:
    world = World({A: after(1, unknown), B: unknown})
    world.locations = {A: {"host_url": B, "epoch": 2}, B: {"host_url": A, "epoch": 3}}
    assert world.pursue() == (A, ANSWER)


def test_a_chase_without_end_ends() -> None:
    count = [0]

    def location() -> dict[str, Any]:
        count[0] += 1
        return {"host_url": f"http://h{count[0]}:1", "epoch": count[0]}

    class Endless(World):
        def locate(self, step: Locate) -> Any:
            self.located.append(step.place)
            return location()

    class Hosts(dict[str, Callable[[], Any]]):
        def get(self, key: str, default: Any = None) -> Any:
            return unknown

    world = Endless(Hosts())
    with pytest.raises(errors.InvalidAgentError):
        world.pursue(timeout=1e6)
    assert len(world.asked) <= MOST_STRANGERS + 1


def test_a_stranger_and_a_dead_host_are_not_waited_for_long() -> None:
    world = World({A: unknown})
    world.routes.learn("p", A, A, HOME)
    with pytest.raises(errors.InvalidAgentError):
        world.pursue(timeout=60)
    assert world.now <= HASTY_SECONDS + 0.1


# --- in general -------------------------------------------------------------------------------------------------------

FAILURES = st.sampled_from([unreachable, lost, unknown, blocked, lambda: errors.NotHandledError("no")])
HOSTS = st.dictionaries(
    st.sampled_from([A, B, C, HOME]), st.lists(st.one_of(FAILURES, st.just(lambda: ANSWER)), max_size=6)
)
LOCATIONS = st.dictionaries(
    st.sampled_from([A, B, C, HOME]),
    st.one_of(
        st.just(unknown()),
        st.just(unreachable()),
        st.fixed_dictionaries(
            {
                "host_url": st.sampled_from([A, B, C, HOME, None]),
                "epoch": st.integers(0, 4),
                "home": st.sampled_from([HOME, None]),
                "here": st.booleans(),
                "ended": st.booleans(),
            }
        ),
    ),
)


@given(HOSTS, LOCATIONS, st.floats(0.01, 30), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_every_pursuit_ends_in_time_and_repeats_only_what_it_may(
    hosts: dict[str, list[Callable[[], Any]]],
    locations: dict[str, Any],
    timeout: float,
    known: bool,
    repeatable: bool,
    passed_on: bool,
    lasting: bool,
) -> None:
    said: list[tuple[str, Any]] = []

    def host(place: str, script: list[Callable[[], Any]]) -> Callable[[], Any]:
        acts = iter(script)

        def act() -> Any:
            made = next(acts, unreachable)()
            said.append((place, made))
            return made

        return act

    world = World({place: host(place, script) for place, script in hosts.items()}, locations)
    if known:
        world.routes.learn("p", A, B, HOME)
    try:
        place, answer = world.pursue(timeout=timeout, repeatable=repeatable, passed_on=passed_on, lasting=lasting)
        assert (place, answer) == said[-1]
    except errors.PagletError as exc:
        if isinstance(exc, errors.NotHandledError):
            assert said[-1][1] is exc
    assert world.now <= timeout + 2 * world.seconds_per_call
    # Nothing is asked after an answer.
    final = (dict, errors.NotHandledError)
    assert not any(isinstance(made, final) for _, made in said[:-1])
    losses = [made for _, made in said if isinstance(made, errors.ConnectionLostError)]
    if losses:
        if not repeatable:
            assert said[-1][1] is losses[0]
        first = next(index for index, (_, made) in enumerate(said) if made is losses[0])
        later = [attempt for _, attempt in world.asked][len(world.asked) - (len(said) - 1 - first) :]
        assert all(attempt > 1 for attempt in later)
    attempts = [attempt for _, attempt in world.asked]
    assert attempts == sorted(attempts)


def test_coroutines_follow_the_same_way() -> None:
    world = World({A: after(1, lost), B: unknown}, {B: {"host_url": A, "epoch": 2}})
    world.routes.learn("p", A, B)

    async def ask(step: Ask) -> Any:
        return world.ask(step)

    async def locate(step: Locate) -> Any:
        return world.locate(step)

    async def pause(step: Pause) -> None:
        world.pause(step)

    pursuit = Pursuit(world.routes, "p", A, end=10.0, repeatable=True, lasting=True, attempt=3, clock=lambda: world.now)
    failure = errors.InvalidAgentError("no")
    found = asyncio.run(follow_async(pursuit.steps(B, failure), ask=ask, locate=locate, pause=pause))
    assert found == (A, ANSWER)
    assert world.asked == [(A, 4), (A, 5)]
