"""Transfers hold in a world of misfortunes, and the world finds a transfer that does not."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paglets.protocol.transfer import TransferKind
from tests.effort import thorough
from tests.protocol.simulate_transfer import KINDS, main, run, search
from tests.protocol.transfer_world import Bug, Machine, World


def test_seeded_worlds_hold() -> None:
    assert search(0, thorough(120, 300)) is None


def test_a_target_that_loses_its_inert_copies_gets_them_again() -> None:
    assert search(10_000, thorough(80, 150), lose_inert=True) is None


def test_losing_tombstones_costs_no_correctness() -> None:
    assert search(20_000, thorough(80, 150), drop_tombstones=True) is None


@pytest.mark.parametrize(
    "bug",
    [
        "ack-before-journal",
        "commit-before-prepared",
        "forget-tombstone",
        "forget-activated",
        "skip-erase",
        "free-clones",
        "charge-with-prepare",
    ],
)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = search(0, 500, bug=bug)

    assert found is not None
    assert run(found.seed) is None, "the same world without the bug must hold"


def test_the_command_prints_the_seed_that_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "800", "--seed", "7"]) == 0
    assert main(["--steps", "40000", "--seed", "0", "--bug", "commit-before-prepared"]) == 1

    assert "seed 0 breaks" in capsys.readouterr().out


class TransferMachine(RuleBasedStateMachine):
    """Let Hypothesis choose what goes wrong, and shrink it."""

    def __init__(self) -> None:
        super().__init__()
        self.troubles = 0
        self.world = World(self._chance)

    def _chance(self, probability: float) -> bool:
        # A cheap fixed pattern; the interesting choices are the rules'.
        self.troubles += 1
        return self.troubles % max(2, round(1 / probability)) == 0

    @invariant()
    def one_owner(self) -> None:
        self.world.check()

    @rule(which=st.integers(0, 7), there=st.integers(0, 2), kind=st.sampled_from(KINDS), attempts=st.integers(1, 3))
    @precondition(lambda self: self.world.movable())
    def move(self, which: int, there: int, kind: TransferKind, attempts: int) -> None:
        movable = self.world.movable()
        host, agent = movable[which % len(movable)]
        if kind is TransferKind.CLONE and len(self.world.living) > 4:
            return
        goal = host.name if kind is TransferKind.LOCAL else "ABC"[there]
        self.world.start(host, agent, goal, kind, attempts, activate=there != which % 3)

    @rule(which=st.integers(0, 7), much=st.sampled_from((1, 2, 5, 40)))
    @precondition(lambda self: self.world.machines(lambda m: m.busy))
    def work(self, which: int, much: int) -> None:
        busy = self.world.machines(lambda m: m.busy)
        host, machine = busy[which % len(busy)]
        for _ in range(much):
            if machine.busy:
                self.world.tick(host, machine)

    @rule(which=st.integers(0, 7), fate=st.sampled_from(("arrive", "arrive", "twice", "lost", "late")))
    @precondition(lambda self: self.world.net)
    def network(self, which: int, fate: str) -> None:
        message = self.world.net.pop(which % len(self.world.net))
        if fate in ("arrive", "twice"):
            self.world.deliver(message)
        if fate in ("twice", "late"):
            self.world.late.append(message)

    @rule(much=st.integers(10, 120))
    @precondition(lambda self: self.world.net or self.world.machines(lambda m: m.busy))
    def good_weather(self, much: int) -> None:
        for _ in range(much):
            if busy := self.world.machines(lambda m: m.busy):
                self.world.tick(*busy[0])
            elif self.world.net:
                self.world.deliver(self.world.net.pop(0))

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: self.world.late)
    def late_mail(self, which: int) -> None:
        self.world.deliver(self.world.late.pop(which % len(self.world.late)))

    def _one(self, which: int, machines: list[Machine]) -> Machine:
        return machines[which % len(machines)]

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: self.world.machines(lambda m: bool(m.awaiting)))
    def time_out(self, which: int) -> None:
        self.world.timeout(self._one(which, [m for _, m in self.world.machines(lambda m: bool(m.awaiting))]))

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: self.world.machines(lambda m: m.timer))
    def timer(self, which: int) -> None:
        self.world.fire(self._one(which, [m for _, m in self.world.machines(lambda m: m.timer)]))

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: self.world.machines(lambda m: m.side == "source"))
    def cancel(self, which: int) -> None:
        self.world.cancel(self._one(which, [m for _, m in self.world.machines(lambda m: m.side == "source")]))

    @rule(which=st.integers(0, 2))
    def crash_or_restart(self, which: int) -> None:
        host = self.world.hosts["ABC"[which]]
        if host.up:
            self.world.crash(host)
        else:
            self.world.restart(host)

    def teardown(self) -> None:
        # A fair scheduler: one that favours a machine may starve another for ever, and prove nothing.
        self.world.heal(random.Random(0).randrange)


TestTransferMachine = TransferMachine.TestCase
TestTransferMachine.settings = settings(
    max_examples=thorough(100, 300),
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
