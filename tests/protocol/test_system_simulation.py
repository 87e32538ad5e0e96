"""Whole systems hold in a world of misfortunes, and the world finds one that does not."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.effort import thorough
from tests.protocol.simulate_system import KINDS, LIFECYCLE, MOST_PAGLETS, main, run, search, speak
from tests.protocol.system_world import BUGS, Bug, World


def test_seeded_worlds_hold() -> None:
    assert search(0, thorough(120, 250)) is None


def test_long_worlds_hold() -> None:
    assert search(50_000, thorough(5, 10), steps=5_000) is None


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = search(0, 150, bug=bug)

    assert found is not None
    assert run(found.seed) is None, "the same world without the bug must hold"


def test_a_seed_says_everything() -> None:
    one, other = run(3, bug="commit-before-prepared"), run(3, bug="commit-before-prepared")

    assert one is not None
    assert one == other


def test_the_command_prints_the_seed_that_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "1200", "--seed", "7"]) == 0
    assert main(["--steps", "60000", "--seed", "0", "--bug", "forget-forwarder"]) == 1

    assert "seed 0 breaks" in capsys.readouterr().out


class SystemMachine(RuleBasedStateMachine):
    """Let Hypothesis choose what is done and what goes wrong, and shrink it."""

    def __init__(self) -> None:
        super().__init__()
        self.troubles = 0
        self.world = World(self._chance)
        for number, host in enumerate(self.world.hosts.values()):
            self.world.create(host, durable=number != 1)
            self.world.sync(host)
        while ready := self.world.ready():
            ready[0].ready.popleft()()

    def _chance(self, probability: float) -> bool:
        # A cheap fixed pattern; the interesting choices are the rules'.
        self.troubles += 1
        return self.troubles % max(2, round(1 / probability)) == 0

    @invariant()
    def one_owner(self) -> None:
        self.world.check()

    # -- what people do ----------------------------------------------------------------------------------------------

    @rule(who=st.integers(0, 1), which=st.integers(0, 7), kind=st.sampled_from(KINDS), oneway=st.booleans())
    def say(self, who: int, which: int, kind: str, oneway: bool) -> None:
        client = self.world.clients[f"K{who}"]
        if free := client.free():
            speak(self.world, client, free[which % len(free)], kind, oneway=oneway, pick=lambda n: which % n)

    @rule(which=st.integers(0, 7), there=st.integers(0, 1), what=st.sampled_from(LIFECYCLE), attempts=st.integers(1, 3))
    @precondition(lambda self: self.world.movable())
    def move(self, which: int, there: int, what: str, attempts: int) -> None:
        movable = self.world.movable()
        host, proc = movable[which % len(movable)]
        others = [name for name in self.world.hosts if name != host.name]
        if what != "clone" or len(self.world.living) < MOST_PAGLETS:
            self.world.lifecycle(host, proc, what, others[there], attempts)

    @rule(which=st.integers(0, 7), what=st.sampled_from(("sleep", "nap", "dispose")))
    @precondition(lambda self: self.world.idle())
    def rest(self, which: int, what: str) -> None:
        idle = self.world.idle()
        host, proc = idle[which % len(idle)]
        self.world.lifecycle(host, proc, what)

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: self.world.sleepers())
    def wake(self, which: int) -> None:
        sleepers = self.world.sleepers()
        host, agent = sleepers[which % len(sleepers)]
        host.lives.wake(agent)

    # -- what hosts do -----------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 7), much=st.sampled_from((1, 2, 5, 40)))
    @precondition(lambda self: self.world.machines(lambda m: m.busy or m.waits))
    def think(self, which: int, much: int) -> None:
        machines = self.world.machines(lambda m: m.busy or m.waits)
        moves, machine = machines[which % len(machines)]
        for _ in range(much):
            if machine.busy:
                moves.tick(machine)
            elif machine.waits:
                moves.idle(machine)

    @rule(which=st.integers(0, 7), dies=st.booleans())
    @precondition(lambda self: self.world.procs(lambda p: p.busy))
    def handle(self, which: int, dies: bool) -> None:
        busy = self.world.procs(lambda p: p.busy)
        host, proc = busy[which % len(busy)]
        if dies and proc.handling is not None and proc.phase == "live":
            host.lives.die(proc)
        else:
            host.work(proc)

    @rule(which=st.integers(0, 2))
    @precondition(lambda self: any(host.writer.waiting for host in self.world.up()))
    def write(self, which: int) -> None:
        waiting = [host for host in self.world.up() if host.writer.waiting]
        self.world.sync(waiting[which % len(waiting)])

    @rule(which=st.integers(0, 4), much=st.sampled_from((1, 3)))
    @precondition(lambda self: self.world.ready())
    def hear(self, which: int, much: int) -> None:
        ready = self.world.ready()
        queue = ready[which % len(ready)].ready
        for _ in range(min(much, len(queue))):
            queue.popleft()()

    @rule(what=st.sampled_from(("outbox", "notices", "reminders", "restarts", "retries")), later=st.floats(0, 10))
    def errands(self, what: str, later: float) -> None:
        self.world.now += later
        for client in self.world.clients.values():
            if what == "retries":
                client.again()
        for host in self.world.up():
            match what:
                case "outbox":
                    host.errands.post_outbox()
                case "notices":
                    host.errands.post_notice()
                case "reminders":
                    host.errands.fire_due()
                case "restarts":
                    host.lives.restart_dead()

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 7), fate=st.sampled_from(("arrive", "arrive", "twice", "lost", "late")))
    @precondition(lambda self: self.world.net)
    def network(self, which: int, fate: str) -> None:
        packet = self.world.net.pop(which % len(self.world.net))
        if fate in ("arrive", "twice"):
            self.world.deliver(packet)
        if fate in ("twice", "late"):
            self.world.late.append(packet)

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: self.world.late)
    def late_mail(self, which: int) -> None:
        self.world.deliver(self.world.late.pop(which % len(self.world.late)))

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: any(courier.calls for courier in self.world.couriers.values()))
    def lose_patience(self, which: int) -> None:
        calls = [(c, call_id) for c in self.world.couriers.values() for call_id in c.calls]
        courier, call_id = calls[which % len(calls)]
        courier.time_out(call_id)

    @rule(which=st.integers(0, 7))
    @precondition(lambda self: self.world.machines(lambda m: bool(m.awaiting) or m.timer))
    def time_out(self, which: int) -> None:
        machines = self.world.machines(lambda m: bool(m.awaiting) or m.timer)
        moves, machine = machines[which % len(machines)]
        if machine.awaiting:
            moves.time_out(machine)
        else:
            moves.wake(machine)

    @rule(which=st.integers(0, 2))
    def crash_or_restart(self, which: int) -> None:
        host = self.world.hosts["ABC"[which]]
        if host.up:
            self.world.crash(host)
        else:
            self.world.restart(host)

    @rule(one=st.integers(0, 4), other=st.integers(0, 4))
    def cut_or_mend(self, one: int, other: int) -> None:
        names = list(self.world.couriers)
        pair = frozenset((names[one], names[other]))
        if pair in self.world.cut:
            del self.world.cut[pair]
        elif one != other:
            self.world.cut[pair] = None

    def teardown(self) -> None:
        # A fair scheduler: one that favours a machine may starve another for ever, and prove nothing.
        self.world.heal(random.Random(0).randrange)


TestSystemMachine = SystemMachine.TestCase
TestSystemMachine.settings = settings(
    max_examples=thorough(66, 200),
    stateful_step_count=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
