from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paglets.core.errors import ConflictError, OverloadedError
from paglets.protocol import residency
from paglets.protocol.residency import PAUSES, Expired, Join, Look, Loss, Residency, Rest, Standing, Start

LAZY, EAGER = "lazy-one", "eager-one"


def declared() -> Residency:
    core = Residency()
    core.declare(LAZY, eager=False, idle_timeout=10.0)
    core.declare(EAGER, eager=True, idle_timeout=0.0)
    return core


def active(agent_id: str = LAZY, now: float = 0.0) -> Residency:
    core = declared()
    core.want(agent_id, now)
    core.present(agent_id, now)
    return core


def test_what_is_declared_is_down_until_somebody_wants_it() -> None:
    core = declared()
    assert core.ids() == [LAZY, EAGER]
    assert LAZY in core
    assert "other" not in core
    assert core.standing(LAZY) is Standing.DOWN
    assert core.next_due() is None
    assert core.want(LAZY, 0.0) == Start(LAZY)
    assert core.want(LAZY, 0.0) == Join()
    assert core.present(LAZY, 1.0)
    assert not core.present(LAZY, 2.0)
    assert core.want(LAZY, 3.0) == Join()
    with pytest.raises(ConflictError, match="declared already"):
        core.declare(LAZY, eager=True, idle_timeout=1.0)


def test_eager_services_are_wanted_once() -> None:
    core = declared()
    assert core.wanted(0.0) == [Start(EAGER)]
    assert core.wanted(0.0) == []


def test_an_unused_service_is_put_to_sleep() -> None:
    core = active()
    assert core.next_due() == 10.0
    assert core.due(9.9) == []
    assert core.due(10.0) == [Look(LAZY)]
    # It was used meanwhile: its time begins then.
    assert not core.looked(LAZY, 4.0, 10.0)
    assert core.next_due() == 14.0
    assert core.due(14.0) == [Look(LAZY)]
    assert not core.looked(LAZY, None, 14.0)
    assert core.next_due() == 24.0
    core.due(24.0)
    assert core.looked(LAZY, 14.0, 24.0)
    assert core.standing(LAZY) is Standing.STOPPING
    assert core.lost(LAZY, Loss.ASLEEP, 24.1) == []
    assert core.standing(LAZY) is Standing.DOWN
    assert core.next_due() is None


def test_a_busy_service_without_idle_timeout_is_not_looked_at_all_the_time() -> None:
    core = Residency()
    core.declare(LAZY, eager=False, idle_timeout=0.0)
    core.want(LAZY, 0.0)
    core.present(LAZY, 0.0)
    assert core.due(0.0) == [Look(LAZY)]
    assert not core.looked(LAZY, None, 0.0)
    assert core.next_due() == residency.SHORTEST_LOOK_SECONDS


def test_one_that_cannot_sleep_is_asked_again() -> None:
    core = active()
    core.due(10.0)
    assert core.looked(LAZY, 0.0, 10.0)
    core.stayed(LAZY, 10.5)
    assert core.standing(LAZY) is Standing.ACTIVE
    assert core.next_due() == 20.5
    assert core.idle_for(LAZY, 0.0, 12.5) == 2.0
    assert core.idle_for(LAZY, None, 12.5) == 0.0


def test_leases_keep_it_awake() -> None:
    core = active()
    core.lease(LAZY, "a", 100.0, 1.0)
    core.lease(LAZY, "b", 5.0, 2.0)
    assert core.leases(LAZY) == 2
    assert core.next_due() == 7.0
    assert core.due(7.0) == [Expired("b", LAZY)]
    assert core.release("b", 7.0) is None
    assert core.next_due() == 101.0
    assert not core.looked(LAZY, 0.0, 50.0)
    core.lease(LAZY, "a", 100.0, 60.0)
    assert core.release("a", 70.0) == LAZY
    # It was in use until then.
    assert core.next_due() == 80.0


def test_a_lease_while_it_goes_to_sleep_starts_it_again() -> None:
    core = active()
    core.due(10.0)
    core.looked(LAZY, 0.0, 10.0)
    core.lease(LAZY, "a", 100.0, 10.0)
    assert core.want(LAZY, 10.0) == Join()
    assert core.lost(LAZY, Loss.ASLEEP, 10.1) == [Start(LAZY)]


def test_leases_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "MOST_LEASES", 2)
    core = active()
    for lease_id in ("a", "b", "b"):
        core.lease(LAZY, lease_id, 5.0, 0.0)
    with pytest.raises(OverloadedError, match="2 leases"):
        core.lease(LAZY, "c", 5.0, 0.0)


def test_failures_are_followed_by_growing_pauses() -> None:
    core = declared()
    core.wanted(0.0)
    now, pauses = 0.0, []
    for _ in range(12):
        pauses.append(core.failed(EAGER, now))
        assert core.rests_for(EAGER, now) == pytest.approx(pauses[-1])
        assert core.want(EAGER, now) == Rest(pytest.approx(pauses[-1]))
        due = core.next_due()
        assert due is not None
        now = due
        assert core.due(now) == [Start(EAGER)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == PAUSES.max_backoff
    core.present(EAGER, now)
    # What failed long ago does not count.
    assert core.lost(EAGER, Loss.CRASHED, now + PAUSES.window + 1) == []
    assert core.rests_for(EAGER, now + PAUSES.window + 1) == pytest.approx(0.1)


def test_a_lazy_service_that_failed_waits_for_the_next_call() -> None:
    core = active()
    core.lost(LAZY, Loss.CRASHED, 5.0)
    assert core.standing(LAZY) is Standing.FAILED
    assert core.next_due() is None
    assert core.want(LAZY, 5.05) == Rest(pytest.approx(0.05))
    assert core.want(LAZY, 5.2) == Start(LAZY)


@pytest.mark.parametrize("loss", [Loss.ASLEEP, Loss.ENDED])
def test_who_ends_a_service_on_purpose_has_their_way(loss: Loss) -> None:
    core = active(EAGER)
    core.lease(EAGER, "a", 50.0, 0.0)
    assert core.lost(EAGER, loss, 1.0) == []
    assert core.standing(EAGER) is Standing.DOWN
    assert core.due(20.0) == []
    assert core.want(EAGER, 21.0) == Start(EAGER)


def test_a_service_that_moved_is_looked_for_when_it_is_wanted() -> None:
    core = active()
    core.lost(LAZY, Loss.MOVED, 1.0)
    assert core.standing(LAZY) is Standing.AWAY
    assert core.wanted(1.0) == [Start(EAGER)]
    assert core.want(LAZY, 2.0) == Start(LAZY)
    core.away(LAZY)
    assert core.standing(LAZY) is Standing.AWAY
    core.put_off(LAZY)
    assert core.standing(LAZY) is Standing.DOWN


class Host(RuleBasedStateMachine):
    """A host that does what it is told: one process per service, and nobody who uses a service is left without."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Residency()
        self.now = 0.0
        self.up: set[str] = set()
        self.starting: set[str] = set()
        self.busy: set[str] = set()
        self.held: dict[str, tuple[str, float]] = {}
        self.number = 0

    @initialize(timeouts=st.lists(st.sampled_from([0.0, 1.0, 5.0]), min_size=2, max_size=3))
    def declare(self, timeouts: list[float]) -> None:
        for place, timeout in enumerate(timeouts):
            self.core.declare(f"s{place}", eager=place == 0, idle_timeout=timeout)
        self.perform(self.core.wanted(self.now))

    def perform(self, actions: Any) -> None:
        for action in actions:
            match action:
                case Start(agent_id):
                    assert agent_id not in self.up
                    assert agent_id not in self.starting
                    self.starting.add(agent_id)
                case Look(agent_id):
                    used_at = None if agent_id in self.busy else 0.0
                    if self.core.looked(agent_id, used_at, self.now):
                        assert agent_id in self.up
                        assert agent_id not in self.busy
                        assert agent_id != "s0"
                        assert agent_id not in [holder for holder, _ in self.held.values()]
                        self.up.discard(agent_id)
                        self.perform(self.core.lost(agent_id, Loss.ASLEEP, self.now))
                case Expired(lease_id, agent_id):
                    assert self.held.pop(lease_id)[0] == agent_id

    @rule(place=st.integers(0, 2), busy=st.booleans())
    def call(self, place: int, busy: bool) -> None:
        agent_id = f"s{place}"
        if agent_id in self.core:
            admission = self.core.want(agent_id, self.now)
            if isinstance(admission, Start):
                self.perform([admission])
            elif isinstance(admission, Join):
                assert agent_id in self.up | self.starting
            if busy and agent_id in self.up:
                self.busy.add(agent_id)
            else:
                self.busy.discard(agent_id)

    @rule(data=st.data(), works=st.booleans())
    @precondition(lambda self: self.starting)
    def started(self, data: st.DataObject, works: bool) -> None:
        agent_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(agent_id)
        if works:
            self.up.add(agent_id)
            assert self.core.present(agent_id, self.now)
        else:
            assert self.core.failed(agent_id, self.now) > 0

    @rule(data=st.data(), loss=st.sampled_from(list(Loss)))
    @precondition(lambda self: self.up)
    def ends(self, data: st.DataObject, loss: Loss) -> None:
        agent_id = data.draw(st.sampled_from(sorted(self.up)))
        self.up.discard(agent_id)
        self.busy.discard(agent_id)
        self.perform(self.core.lost(agent_id, loss, self.now))

    @rule(data=st.data(), ttl=st.sampled_from([0.5, 3.0, 50.0]))
    @precondition(lambda self: self.up)
    def lease(self, data: st.DataObject, ttl: float) -> None:
        agent_id = data.draw(st.sampled_from(sorted(self.up)))
        self.number += 1
        self.core.lease(agent_id, f"l{self.number}", ttl, self.now)
        self.held[f"l{self.number}"] = agent_id, self.now + ttl

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def release(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.held)))
        assert self.core.release(lease_id, self.now) == self.held.pop(lease_id)[0]

    @rule(seconds=st.sampled_from([0.05, 0.5, 2.0, 40.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(2000):
            due = self.core.next_due()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.perform(self.core.due(self.now))
        else:
            pytest.fail("time does not pass")
        self.now = until

    @invariant()
    def leases_end_in_time(self) -> None:
        for agent_id in self.core.ids():
            mine = [ends for holder, ends in self.held.values() if holder == agent_id]
            assert self.core.leases(agent_id) == len(mine)
            assert all(ends > self.now for ends in mine)

    @invariant()
    def what_is_up_is_known_to_be(self) -> None:
        standings = {agent_id: self.core.standing(agent_id) for agent_id in self.core.ids()}
        assert {each for each, standing in standings.items() if standing is Standing.ACTIVE} == self.up
        assert {each for each, standing in standings.items() if standing is Standing.STARTING} == self.starting


TestHost = Host.TestCase
TestHost.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
