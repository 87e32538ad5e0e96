"""Processes that die are started again as their policy says, and their messages are neither lost nor doubled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.policies import RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.protocol.supervision import (
    MOST_RERUNS,
    DeadLetter,
    FailCaller,
    GiveUp,
    InHand,
    Keep,
    MessageVerdict,
    ProcessVerdict,
    Rerun,
    Restart,
    Supervisor,
)

POLICY = RestartPolicy(restarts=3, window=60.0, backoff=0.1, max_backoff=0.3)
OFTEN = RestartPolicy(restarts=100, window=60.0)


def deaths(policy: RestartPolicy, *times: float) -> list[ProcessVerdict]:
    supervisor, verdicts = Supervisor(), []
    for now in times:
        supervisor, verdict = supervisor.died(now, policy, Durability.CHECKPOINT)
        verdicts.append(verdict.process)
    return verdicts


def test_the_default_restarts_nothing() -> None:
    assert deaths(RestartPolicy(), 0.0, 1_000.0) == [GiveUp(1), GiveUp(1)]


def test_pauses_double_up_to_the_longest_and_then_it_is_given_up() -> None:
    assert deaths(POLICY, 0.0, 1.0, 2.0, 3.0) == [Restart(0.1), Restart(0.2), Restart(0.3), GiveUp(4)]


def test_deaths_outside_the_window_do_not_count() -> None:
    assert deaths(POLICY, 0.0, 1.0, 2.0, 60.0, 61.0) == [
        Restart(0.1),
        Restart(0.2),
        Restart(0.3),
        Restart(0.3),
        Restart(0.3),
    ]
    assert deaths(POLICY, 0.0, 100.0) == [Restart(0.1), Restart(0.1)]


def test_many_restarts_do_not_overflow() -> None:
    policy = RestartPolicy(restarts=5_000, window=1e6, backoff=0.1, max_backoff=30.0)

    assert deaths(policy, *map(float, range(2_000)))[-1] == Restart(30.0)


def test_without_a_row_there_is_nothing_to_start_from() -> None:
    _, verdict = Supervisor().died(0.0, OFTEN, Durability.NONE, InHand("m", oneway=True))

    assert verdict.process == GiveUp(1)
    assert isinstance(verdict.message, DeadLetter)


def test_a_revived_paglet_starts_counting_anew() -> None:
    supervisor = Supervisor()
    for now in range(4):
        supervisor, verdict = supervisor.died(float(now), POLICY, Durability.MESSAGE, InHand("m"))
    assert verdict.process == GiveUp(4)

    supervisor, verdict = supervisor.revived().died(5.0, POLICY, Durability.MESSAGE, InHand("m", oneway=True))

    assert verdict.process == Restart(0.1)
    assert isinstance(verdict.message, DeadLetter), "what its messages did is not forgotten"


def message_verdicts(durability: Durability, oneway: bool, times: int = 1) -> list[MessageVerdict | None]:
    supervisor, verdicts = Supervisor(), []
    for now in range(times):
        supervisor, verdict = supervisor.died(float(now), OFTEN, durability, InHand("m", oneway))
        verdicts.append(verdict.message)
    return verdicts


@pytest.mark.parametrize("oneway", [False, True])
def test_a_message_runs_again_three_times_at_most(oneway: bool) -> None:
    verdicts = message_verdicts(Durability.MESSAGE, oneway, MOST_RERUNS + 1)

    assert verdicts[:-1] == [Rerun("m", 1), Rerun("m", 2), Rerun("m", 3)]
    assert isinstance(verdicts[-1], DeadLetter if oneway else FailCaller)


def test_what_may_have_been_handled_in_part_does_not_run_again() -> None:
    (dead,) = message_verdicts(Durability.CHECKPOINT, oneway=True)

    assert isinstance(dead, DeadLetter)
    assert message_verdicts(Durability.CHECKPOINT, oneway=False) == [FailCaller("m")]


def test_given_up_an_accepted_message_waits_and_a_caller_does_not() -> None:
    never = RestartPolicy()

    _, kept = Supervisor().died(0.0, never, Durability.MESSAGE, InHand("m", oneway=True))
    _, failed = Supervisor().died(0.0, never, Durability.MESSAGE, InHand("m"))

    assert kept.message == Keep("m")
    assert failed.message == FailCaller("m")


def test_an_idle_process_takes_no_message_along() -> None:
    _, verdict = Supervisor().died(0.0, POLICY, Durability.MESSAGE)

    assert verdict.message is None


def test_a_message_among_others_is_still_recognised() -> None:
    supervisor = Supervisor()
    for now, name in enumerate("abababab"):
        supervisor, verdict = supervisor.died(float(now), OFTEN, Durability.MESSAGE, InHand(name, oneway=True))

    assert isinstance(verdict.message, DeadLetter)


@given(
    waits=st.lists(st.floats(0, 100), max_size=60),
    restarts=st.integers(0, 6),
    window=st.floats(0, 200),
    backoff=st.floats(0, 10),
)
def test_never_more_restarts_in_a_window_than_allowed(
    waits: list[float], restarts: int, window: float, backoff: float
) -> None:
    policy = RestartPolicy(restarts=restarts, window=window, backoff=backoff, max_backoff=20.0)
    supervisor, now = Supervisor(), 0.0
    died: list[float] = []
    restarted: list[float] = []
    for wait in waits:
        now += wait
        supervisor, verdict = supervisor.died(now, policy, Durability.CHECKPOINT)
        recent = [t for t in died if now - t < window]
        died.append(now)
        assert isinstance(verdict.process, Restart) == (len(recent) < restarts)
        if isinstance(verdict.process, Restart):
            restarted.append(now)
            assert verdict.process.after <= 20.0
        assert len(supervisor.deaths) <= restarts
    for begin in restarted:
        assert sum(t <= begin and begin - t < window for t in restarted) <= max(restarts, 1)
