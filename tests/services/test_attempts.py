from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paglets.core.error_wire import HTTP_ERRORS, error_to_wire
from paglets.core.errors import (
    ConnectionLostError,
    ForbiddenError,
    HostError,
    HostUnreachableError,
    InvalidAgentError,
    OutcomeUnknownError,
    OverloadedError,
    PagletCrashedError,
    PagletError,
    PagletInactiveError,
    RemoteTimeoutError,
    ServiceNotFoundError,
)
from paglets.services.attempts import Attempts, Find, Look, RetryPolicy, Send
from paglets.services.contracts import ServiceRecord
from paglets.services.providers import Providers
from tests.services.test_providers import CONTRACT, OWN, Clock, record

A, B, C, D = (record(name, f"http://{name}:1") for name in "abcd")
AWAY = {"active": False}
HERE = {"active": True}


def refused(cls: type[PagletCrashedError | OverloadedError] = PagletCrashedError) -> PagletError:
    error = cls("not accepted")
    error.refused = True
    return error


class World:
    """Answer the steps of one call; what happens where is said before."""

    def __init__(self, *known: ServiceRecord, found: list[ServiceRecord] | PagletError | None = None) -> None:
        self.clock = Clock()
        # The first one stays first, so that it is known who is asked.
        self.providers = Providers(CONTRACT, known, own=OWN, sticky=True, clock=self.clock, pick=lambda _: 0)
        self.found = found if found is not None else []
        self.answers: dict[str, Any] = {}
        self.info: dict[str, Any] = {}
        self.seen: list[str] = []
        self.sent: list[Send] = []

    def call(self, *, idempotent: bool = False, policy: RetryPolicy | None = None, seconds: float = 10.0) -> Any:
        attempts = Attempts(
            self.providers,
            policy or RetryPolicy(),
            end=self.clock.now + seconds,
            idempotent=idempotent,
            clock=self.clock,
        )
        steps = attempts.steps()
        outcome: Any = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value
            outcome = self._do(step)

    def _do(self, step: Any) -> Any:
        match step:
            case Send():
                name = step.record.proxy.agent_id
                self.seen.append(name)
                self.sent.append(step)
                answer = self.answers.get(name, f"reply of {name}")
                return answer() if callable(answer) else answer
            case Look():
                self.seen.append(f"look {step.record.proxy.agent_id}")
                return self.info.get(step.record.proxy.agent_id, AWAY)
            case Find():
                self.seen.append("find")
                return self.found
        raise AssertionError(step)


def test_a_call_that_works_asks_one() -> None:
    world = World(A, B)
    assert world.call() == (A, "reply of a")
    assert world.seen == ["a"]
    assert world.providers.in_flight(A) == 0


def test_without_providers_they_are_looked_up() -> None:
    world = World(found=[B])
    assert world.call() == (B, "reply of b")
    assert world.seen == ["find", "b"]
    for found in ([], HostError("no")):
        with pytest.raises(ServiceNotFoundError, match=r"no provider of contract 'tests\.providers' version 1"):
            World(found=found).call()


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_nobody_has_had_goes_to_another(idempotent: bool) -> None:
    for failure, seen in (
        (HostUnreachableError("x"), ["a", "b"]),
        (InvalidAgentError("x"), ["a", "look a", "b"]),
        (PagletInactiveError("x"), ["a", "look a", "b"]),
        (refused(), ["a", "b"]),
        (refused(OverloadedError), ["a", "b"]),
    ):
        world = World(A, B)
        world.answers["a"] = failure
        assert world.call(idempotent=idempotent) == (B, "reply of b")
        assert world.seen == seen
        assert world.call() == (B, "reply of b")


@pytest.mark.parametrize("error", [InvalidAgentError, PagletInactiveError, RemoteTimeoutError])
def test_what_a_handler_raised_is_the_answer(error: type[PagletError]) -> None:
    world = World(A, B)
    world.answers["a"] = error("of another")
    world.info["a"] = HERE
    with pytest.raises(error, match="of another"):
        world.call()
    assert world.seen == ["a", "look a"]
    assert world.providers.current == A


def test_an_error_that_nobody_can_explain_leaves_it_open() -> None:
    world = World(A, B)
    world.answers["a"] = InvalidAgentError("of whom?")
    world.info["a"] = HostUnreachableError("gone")
    with pytest.raises(OutcomeUnknownError):
        world.call()
    world = World(A, B)
    world.answers["a"] = InvalidAgentError("of whom?")
    world.info["a"] = InvalidAgentError("unknown")
    assert world.call() == (B, "reply of b")


@pytest.mark.parametrize("error", [ForbiddenError, HostError])
def test_other_errors_are_the_answer(error: type[PagletError]) -> None:
    world = World(A, B)
    world.answers["a"] = error("x")
    with pytest.raises(error):
        world.call(idempotent=True)
    assert world.seen == ["a"]


@pytest.mark.parametrize("error", [PagletCrashedError, ConnectionLostError, RemoteTimeoutError])
def test_what_may_have_been_done_is_repeated_only_if_declared(error: type[PagletError]) -> None:
    world = World(A, B)
    world.answers["a"] = error("gone")
    with pytest.raises(OutcomeUnknownError, match="may have been carried out") as caught:
        world.call()
    assert isinstance(caught.value, error)
    assert isinstance(caught.value.__cause__, error)
    assert error_to_wire(caught.value, table=HTTP_ERRORS)["error_type"] == "OutcomeUnknownError"
    assert "b" not in world.seen
    # The next call goes to somebody else.
    assert world.call() == (B, "reply of b")

    world = World(A, B)
    world.answers["a"] = error("gone")
    assert world.call(idempotent=True) == (B, "reply of b")


def test_an_overload_that_a_handler_tells_of_is_an_answer() -> None:
    world = World(A, B)
    world.answers["a"] = OverloadedError("full")
    with pytest.raises(OverloadedError):
        world.call()
    assert world.call() == (B, "reply of b")


def test_time_that_is_over_is_told_as_that() -> None:
    world = World(A, B)

    def slow() -> PagletError:
        world.clock.now += 10.0
        return RemoteTimeoutError("late")

    world.answers["a"] = slow
    with pytest.raises(RemoteTimeoutError, match="late"):
        world.call(idempotent=True)
    assert world.seen == ["a"]
    assert world.call() == (B, "reply of b")


def test_there_is_a_most_of_attempts_and_nobody_is_asked_twice() -> None:
    world = World(A, B, C, D)
    world.answers = {name: HostUnreachableError(name) for name in "abcd"}
    with pytest.raises(HostUnreachableError):
        world.call(policy=RetryPolicy(attempts=3))
    assert sorted(world.seen) == sorted(set(world.seen))
    assert len(world.seen) == 3


def test_the_rest_of_the_time_is_shared_by_the_attempts() -> None:
    world = World(A, B)

    def slow() -> PagletError:
        world.clock.now += 4.0
        return HostUnreachableError("x")

    world.answers["a"] = slow
    world.call(seconds=10.0)
    assert [step.seconds for step in world.sent] == [10.0, 6.0]


def test_the_last_provider_is_waited_for_when_there_is_no_other() -> None:
    outcomes: list[Callable[[], Any]] = [lambda: HostUnreachableError("down"), lambda: "back"]
    world = World(A, found=[A])
    world.answers["a"] = lambda: outcomes.pop(0)()
    assert world.call() == (A, "back")
    assert world.seen == ["a", "find", "a"]
    first, last = world.sent
    assert first.patience is not None
    assert first.patience.unsent == RetryPolicy().patience
    assert first.patience.lost == RetryPolicy().patience
    assert last.patience is None

    world = World(A)
    world.answers["a"] = HostUnreachableError("down")
    with pytest.raises(HostUnreachableError):
        world.call()
    assert world.seen == ["a", "find", "a", "find"]


@pytest.mark.parametrize("idempotent", [False, True])
def test_no_call_waits_long_for_a_lost_answer(idempotent: bool) -> None:
    world = World(A)
    world.call(idempotent=idempotent)
    assert world.sent[0].patience is not None
    assert world.sent[0].patience.lost == RetryPolicy().patience


def test_providers_are_found_again_when_all_known_ones_failed() -> None:
    world = World(A, found=[A, C])
    world.answers["a"] = HostUnreachableError("x")
    assert world.call() == (C, "reply of c")
    assert world.seen == ["a", "find", "c"]
