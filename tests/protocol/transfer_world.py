"""A world of a few hosts in which every transfer runs over a bad network, with bad disks, between crashes.

The world is passive: `simulate_transfer` drives it from a seeded generator, `test_transfer_simulation` from Hypothesis
too. Each method is one indivisible thing that can happen; a crash can fall between any two. What `journal` and `owned`
hold survives a crash, everything else of a host does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from paglets.core.allowance import AllowanceBalance
from paglets.protocol.transfer import (
    ActivatedRecord,
    Charge,
    CommitRecord,
    CoordinatorPhase,
    CoordinatorState,
    Outcome,
    ParticipantPhase,
    ParticipantState,
    PreparedRecord,
    Refusal,
    RefusalReason,
    TransferKind,
    TransferPlan,
    actions,
    charge,
    coordinator,
    events,
    judge_epoch,
    participant,
)
from tests.protocol.memory_journal import MemoryJournal
from tests.protocol.spending import BALANCE, Spending, ViolationError

P = ParticipantPhase
Bug: TypeAlias = Literal[
    "",
    "ack-before-journal",
    "commit-before-prepared",
    "forget-tombstone",
    "ignore-vote",
    "forget-activated",
    "skip-erase",
    "free-clones",
    "charge-with-prepare",
]
Side: TypeAlias = Literal["source", "target"]
Chance: TypeAlias = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Prepare:
    attempt: int
    recovering: bool


@dataclass(frozen=True, slots=True)
class Query:
    vote: str


@dataclass(frozen=True, slots=True)
class Message:
    to: str
    side: Side
    plan: TransferPlan
    body: object


@dataclass(slots=True)
class Machine:
    """One machine in the hands of a shell: actions first, then the next event."""

    side: Side
    plan: TransferPlan
    state: CoordinatorState | ParticipantState
    todo: deque[object] = field(default_factory=deque)
    inbox: deque[object] = field(default_factory=deque)
    timer: bool = False
    awaiting: Literal["", "prepare", "commit", "query"] = ""
    before: AllowanceBalance | None = None
    """What the paglet had left before the commit was written."""

    @property
    def busy(self) -> bool:
        return bool(self.todo or self.inbox)


@dataclass(slots=True)
class SimHost:
    name: str
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    owned: dict[str, int] = field(default_factory=dict)
    """On disk: paglet -> epoch."""
    balances: dict[str, AllowanceBalance] = field(default_factory=dict)
    """On disk, for each paglet that it owns."""
    up: bool = True
    machines: dict[tuple[Side, str], Machine] = field(default_factory=dict)
    running: dict[str, set[int]] = field(default_factory=dict)
    moving: dict[str, str] = field(default_factory=dict)
    """Paglet -> the transfer it is stopped for."""
    told_aborted: set[str] = field(default_factory=set)


class World:
    """Hold hosts, network and what everybody was promised.

    :param chance: answers whether something of the given probability happens (a disk fails, a hook raises)
    :param bug: a planted bug of the *harness*, to see that the checks find it
    :param lose_inert: whether a crash may destroy inert copies, against the contract of the journal
    :param drop_tombstones: whether a target may forget at any time what was refused or called off
    """

    def __init__(
        self,
        chance: Chance,
        *,
        hosts: int = 3,
        paglets: int = 2,
        bug: Bug = "",
        lose_inert: bool = False,
        drop_tombstones: bool = False,
    ) -> None:
        self.drop_tombstones = drop_tombstones
        self.chance = chance
        self.bug = bug
        self.lose_inert = lose_inert
        self.healed = False
        self.hosts = {name: SimHost(name) for name in "ABC"[:hosts]}
        self.net: list[Message] = []
        self.late: list[Message] = []
        """Copies, and messages thought lost, that may still come, however late."""
        self.living: set[str] = set()
        self.disposed: set[str] = set()
        self.committed: set[str] = set()
        self.replied: dict[str, bool] = {}
        self.faults: list[str] = []
        self.spending = Spending()
        self.count = 0
        for number in range(paglets):
            self.create(self.hosts["ABC"[number % hosts]])

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # -- what may happen ---------------------------------------------------------------------------------------------

    def movable(self) -> list[tuple[SimHost, str]]:
        return [
            (host, agent)
            for host in self.hosts.values()
            if host.up
            for agent, epoch in host.owned.items()
            if agent not in host.moving and epoch in host.running.get(agent, ())
        ]

    def machines(self, wanted: Callable[[Machine], bool]) -> list[tuple[SimHost, Machine]]:
        return [(h, m) for h in self.hosts.values() if h.up for m in h.machines.values() if wanted(m)]

    def create(self, host: SimHost) -> None:
        agent = self.fresh("p")
        self.living.add(agent)
        host.owned[agent] = 0
        host.running[agent] = {0}
        host.balances[agent] = BALANCE

    def start(self, host: SimHost, agent: str, target: str, kind: TransferKind, attempts: int, activate: bool) -> None:
        if target == host.name and kind is not TransferKind.CLONE:
            kind = TransferKind.LOCAL
        elif kind is TransferKind.LOCAL:
            kind = TransferKind.RETRACT
        clone = kind is TransferKind.CLONE
        cost = charge(host.balances[agent], kind, source=host.name, target=target, now=0.0)
        if not isinstance(cost, Charge):
            return  # whatever it costs, it has not got it
        plan = TransferPlan(
            transfer_id=self.fresh("t"),
            kind=kind,
            agent_id=self.fresh(f"{agent}/") if clone else agent,
            epoch=0 if clone else host.owned[agent] + 1,
            source=host.name,
            target=target,
            origin_id=agent if clone else "",
            attempts=attempts,
            activate=activate,
            carried=cost.carried,
            kept=cost.kept,
        )
        host.moving[agent] = plan.transfer_id
        state, todo = coordinator.start(plan)
        host.machines["source", plan.transfer_id] = Machine("source", plan, state, deque(todo))

    def tick(self, host: SimHost, machine: Machine) -> None:
        """Let a shell do its next small thing: perform one action, or take one event."""
        if machine.todo:
            result = self._perform(host, machine, machine.todo.popleft())
            if result is not None:
                machine.inbox.append(result)
        elif machine.inbox:
            self._step(host, machine, machine.inbox.popleft())
        self.check()

    def timeout(self, machine: Machine) -> None:
        waited, machine.awaiting = machine.awaiting, ""
        failed = {"prepare": events.PrepareFailed, "commit": events.CommitFailed, "query": events.QueryFailed}[waited]
        machine.inbox.append(failed("timed out"))

    def fire(self, machine: Machine) -> None:
        machine.timer = False
        machine.inbox.append(events.RetryDue())

    def cancel(self, machine: Machine) -> None:
        machine.inbox.append(events.Cancel("shutdown"))

    def evict(self, host: SimHost, machine: Machine) -> None:
        """Drop a machine that has nothing left to do, as shells must."""
        del host.machines[machine.side, machine.plan.transfer_id]

    def evictable(self, machine: Machine) -> bool:
        if machine.busy or not machine.state.terminal:
            return False
        if self.drop_tombstones:
            return True
        tombs = (P.ABORTED, P.REFUSED)
        return machine.side == "source" or machine.state.phase not in tombs

    def dispose(self, host: SimHost, agent: str) -> None:
        del host.owned[agent]
        self.spending.ended(agent, host.balances.pop(agent))
        host.running.pop(agent, None)
        self.living.discard(agent)
        self.disposed.add(agent)

    def crash(self, host: SimHost) -> None:
        host.up = False
        host.machines.clear()
        host.running.clear()
        host.moving.clear()
        host.told_aborted.clear()
        if self.lose_inert and self.chance(0.5):
            for record in host.journal.load().prepared:
                host.journal.discard_prepared(record.plan.transfer_id)

    def restart(self, host: SimHost) -> None:
        host.up = True
        host.running = {agent: {epoch} for agent, epoch in host.owned.items()}
        found = host.journal.load()
        for commit in found.commits:
            state, todo = coordinator.restore(commit)
            host.machines["source", commit.plan.transfer_id] = Machine("source", commit.plan, state, deque(todo))
        inert: tuple[PreparedRecord | ActivatedRecord, ...] = (*found.prepared, *found.activated)
        for record in inert:
            copy, asks = participant.restore(record)
            host.machines["target", record.plan.transfer_id] = Machine("target", record.plan, copy, deque(asks))

    def deliver(self, message: Message) -> None:
        host = self.hosts[message.to]
        if not host.up:
            return
        key = (message.side, message.plan.transfer_id)
        body = message.body
        machine = host.machines.get(key)
        if isinstance(body, Query):
            state = machine.state if machine and isinstance(machine.state, CoordinatorState) else None
            vote = body.vote
            if self.bug == "ignore-vote" and state is not None:
                vote = state.vote
            outcome = coordinator.outcome(state, vote)
            self._send(message.plan.target, "target", message.plan, events.OutcomeReceived(outcome, body.vote))
            return
        if message.side == "target":
            if isinstance(body, Prepare):
                body = events.PrepareReceived(message.plan, body.attempt, self.fresh("v"), body.recovering)
            elif machine is None and isinstance(body, events.OutcomeReceived | events.SettledReceived):
                return
            if machine is None:
                machine = host.machines[key] = Machine("target", message.plan, ParticipantState())
        elif machine is None:
            if isinstance(body, events.Prepared):
                self._send(message.plan.target, "target", message.plan, events.AbortReceived())
            return
        if isinstance(body, events.OutcomeReceived):
            machine.awaiting = ""
        elif machine.side == "source" and not isinstance(body, events.Prepared | events.Refused):
            machine.awaiting = "" if machine.awaiting == "commit" else machine.awaiting
        elif machine.side == "source" and machine.awaiting == "prepare":
            machine.awaiting = ""
        machine.inbox.append(body)

    # -- the shell ---------------------------------------------------------------------------------------------------

    def _send(self, to: str, side: Side, plan: TransferPlan, body: object) -> None:
        self.net.append(Message(to, side, plan, body))

    def _fails(self, probability: float) -> bool:
        return not self.healed and self.chance(probability)

    def _step(self, host: SimHost, machine: Machine, event: object) -> None:
        todo: tuple[object, ...]
        if isinstance(machine.state, CoordinatorState):
            machine.state, todo = coordinator.step(machine.state, cast("events.CoordinatorEvent", event))
        else:
            if self.bug == "ignore-vote" and isinstance(event, events.CommitReceived):
                event = events.CommitReceived(machine.state.vote)
            machine.state, todo = participant.step(machine.state, cast("events.ParticipantEvent", event))
            if machine.state.phase is P.ABORTED:
                host.told_aborted.add(machine.plan.transfer_id)
            if isinstance(event, events.PrepareReceived) and event.recovering:
                host.told_aborted.discard(machine.plan.transfer_id)
        if self.bug == "ack-before-journal" and todo and isinstance(todo[0], actions.JournalActivate):
            todo = (actions.AckCommit(), *todo)
        machine.todo.extend(todo)

    def _perform(self, host: SimHost, machine: Machine, action: object) -> object | None:
        if isinstance(action, actions.ScheduleRetry):
            machine.timer = True
            return None
        if isinstance(action, actions.ReportFault):
            self.faults.append(action.text)
            if not self.lose_inert and "on_cloned" not in action.text:
                raise ViolationError(f"fault: {action.text}")
            return None
        if isinstance(action, actions.RunHook):
            return events.StepFailed("hook raised") if self._fails(0.04) else events.HookDone()
        return self._source(host, machine, action) if machine.side == "source" else self._target(host, machine, action)

    def _source(self, host: SimHost, machine: Machine, action: object) -> object | None:
        plan, journal = machine.plan, host.journal
        moved = plan.origin_id or plan.agent_id
        simple = {
            actions.CheckTarget: events.Checked,
            actions.AwaitHandler: events.HandlerIdle,
            actions.CleanupResources: events.Cleaned,
            actions.Snapshot: events.SnapshotTaken,
            actions.StageFiles: events.FilesStaged,
        }
        if type(action) in simple:
            return events.StepFailed("failed") if self._fails(0.02) else simple[type(action)]()
        match action:
            case actions.SendPrepare(attempt, recovering):
                if self.bug == "charge-with-prepare" and plan.kept is not None:
                    host.balances[plan.origin_id] = plan.kept
                self._send(plan.target, "target", plan, Prepare(attempt, recovering))
                machine.awaiting = "prepare"
                if self.bug == "commit-before-prepared":
                    return events.Prepared("guessed")
            case actions.JournalCommit(record):
                failed = self._fails(0.05)
                if not failed or self.chance(0.5):
                    machine.before = self._hand_over(host, record)
                if failed:
                    return events.JournalFailed("disk")
                self.committed.add(plan.transfer_id)
                return events.JournalWritten()
            case actions.EraseCommit():
                if self._fails(0.3):
                    return events.JournalFailed("disk")
                if self.bug != "skip-erase":
                    if any(r.plan == plan for r in journal.load().commits):
                        self.spending.undone(plan)
                        if machine.before is not None:
                            host.balances[moved] = machine.before
                        if plan.leaves_source:
                            host.owned[plan.agent_id] = plan.departed_epoch
                        else:
                            self.living.discard(plan.agent_id)
                    journal.erase_commit(plan.transfer_id)
                return events.JournalWritten()
            case actions.ForgetTransfer():
                if self._fails(0.05):
                    return events.JournalFailed("disk")
                journal.forget_commit(plan.transfer_id)
                return events.JournalWritten()
            case actions.Fence():
                host.running.get(plan.agent_id, set()).discard(plan.epoch - 1)
            case actions.SendCommit(vote):
                self._send(plan.target, "target", plan, events.CommitReceived(vote))
                machine.awaiting = "commit"
            case actions.SendAbort():
                self._send(plan.target, "target", plan, events.AbortReceived())
            case actions.SendSettled(vote):
                self._send(plan.target, "target", plan, events.SettledReceived(vote))
            case actions.ResumePaglet():
                if plan.leaves_source and plan.transfer_id in self.committed:
                    raise ViolationError(f"{moved} resumed at {host.name} after it was handed over")
                if plan.leaves_source and plan.transfer_id == host.moving.get(moved):
                    host.running.setdefault(moved, set()).add(plan.departed_epoch)
                self._move_ended(host, plan)
            case actions.Reply(ok):
                if plan.transfer_id in self.replied:
                    raise ViolationError(f"{plan.transfer_id} answered twice")
                if ok is not (plan.transfer_id in self.committed):
                    raise ViolationError(f"{plan.transfer_id} answered {ok}")
                self.replied[plan.transfer_id] = ok
                if isinstance(machine.state, CoordinatorState) and machine.state.phase is CoordinatorPhase.ABORTED:
                    self._move_ended(host, plan)
            case actions.Release():
                self._move_ended(host, plan)
        return None

    def _move_ended(self, host: SimHost, plan: TransferPlan) -> None:
        moved = plan.origin_id or plan.agent_id
        if host.moving.get(moved) == plan.transfer_id:
            del host.moving[moved]  # else the paglet is back already, and perhaps leaving once more

    def _hand_over(self, host: SimHost, record: CommitRecord) -> AllowanceBalance:
        """Write the record, and return what the paglet had left before."""
        plan = record.plan
        host.journal.record_commit(record)
        before = host.balances[plan.origin_id or plan.agent_id]
        self.spending.committed(plan)
        if plan.leaves_source:
            del host.owned[plan.agent_id], host.balances[plan.agent_id]
        else:
            self.living.add(plan.agent_id)
            if plan.kept is not None and self.bug != "free-clones":
                host.balances[plan.origin_id] = plan.kept
        return before

    def _target(self, host: SimHost, machine: Machine, action: object) -> object | None:
        plan, journal = machine.plan, host.journal
        match action:
            case actions.CheckAdmission():
                if self._fails(0.03):
                    return events.NotAdmitted(Refusal(RefusalReason.QUOTA, retryable=self.chance(0.5)))
                departed = journal.load().departed.get(plan.agent_id)
                refusal = judge_epoch(
                    plan,
                    live=host.owned.get(plan.agent_id),
                    departed=departed[0] if departed else None,
                    undecided=self._undecided(host, plan),
                )
                return events.Admitted() if refusal is None else events.NotAdmitted(refusal)
            case actions.MaterialiseFiles():
                return events.StepFailed("no space") if self._fails(0.02) else events.FilesMaterialised()
            case actions.StartProcess():
                if plan.transfer_id in host.told_aborted and not self.drop_tombstones:
                    raise ViolationError(f"{plan.transfer_id} started at {host.name} after it was called off")
                return events.StepFailed("no process") if self._fails(0.02) else events.ProcessStarted()
            case actions.StoreInert(record):
                failed = self._fails(0.04)
                if not failed or self.chance(0.5):
                    journal.record_prepared(record)
                return events.JournalFailed("disk") if failed else events.JournalWritten()
            case actions.ReplyPrepared(vote):
                self._send(plan.source, "source", plan, events.Prepared(vote))
            case actions.ReplyRefused(refusal):
                self._send(plan.source, "source", plan, events.Refused(refusal))
            case actions.JournalActivate(record):
                failed = self._fails(0.05)
                if not failed or self.chance(0.5):
                    journal.record_activated(record)
                    host.owned[plan.agent_id] = plan.epoch
                    host.balances[plan.agent_id] = plan.carried
                return events.JournalFailed("disk") if failed else events.JournalWritten()
            case actions.Activate() | actions.StoreInactive():
                host.running.setdefault(plan.agent_id, set()).add(plan.epoch)
            case actions.AckCommit():
                self._send(plan.source, "source", plan, events.CommitAcked())
                if self.bug == "forget-activated":
                    journal.forget_activated(plan.transfer_id)
                    host.machines.pop(("target", plan.transfer_id), None)
            case actions.RefuseCommit():
                self._send(plan.source, "source", plan, events.CommitUnknown())
            case actions.Discard():
                journal.discard_prepared(plan.transfer_id)
            case actions.DropStaged() if self.bug == "forget-tombstone":
                host.machines.pop(("target", plan.transfer_id), None)
            case actions.QueryOutcome(vote):
                self._send(plan.source, "source", plan, Query(vote))
                machine.awaiting = "query"
            case actions.ForgetTransfer():
                journal.forget_activated(plan.transfer_id)
        return None

    def _undecided(self, host: SimHost, plan: TransferPlan) -> str | None:
        for machine in host.machines.values():
            other = machine.plan
            if machine.side == "source" or other.agent_id != plan.agent_id or other.transfer_id == plan.transfer_id:
                continue
            if not machine.state.terminal and machine.state.phase not in (P.CHECKING, P.ACTIVE):
                return other.transfer_id
        return None

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what must hold at any moment."""
        owners: dict[str, list[str]] = {}
        running: dict[str, list[tuple[str, int]]] = {}
        for host in self.hosts.values():
            for agent in host.owned:
                owners.setdefault(agent, []).append(host.name)
                if agent in self.disposed:
                    raise ViolationError(f"{agent} came back from the dead at {host.name}")
                if agent not in self.living:
                    raise ViolationError(f"nobody committed {agent} at {host.name}")
            for agent, epochs in host.running.items():
                running.setdefault(agent, []).extend((host.name, epoch) for epoch in epochs)
        for agent, names in owners.items():
            if len(names) > 1:
                raise ViolationError(f"{agent} is owned by {names}")
        for agent, places in running.items():
            if len(places) > 1:
                raise ViolationError(f"{agent} runs at {places}")
        for agent in self.living:
            if agent not in owners and not self._on_its_way(agent):
                raise ViolationError(f"{agent} is lost")
        self.spending.check({agent: self._balance(agent) for agent in self.living})

    def _balance(self, agent: str) -> AllowanceBalance:
        """Return what a paglet has left, wherever it is."""
        for host in self.hosts.values():
            if agent in host.owned:
                return host.balances[agent]
        (carried,) = {
            commit.plan.carried
            for host in self.hosts.values()
            for commit in host.journal.load().commits
            if commit.plan.agent_id == agent and commit.plan.epoch == self._newest(agent)
        }
        return carried

    def _newest(self, agent: str) -> int:
        commits = (commit.plan for host in self.hosts.values() for commit in host.journal.load().commits)
        return max(plan.epoch for plan in commits if plan.agent_id == agent)

    def _on_its_way(self, agent: str) -> bool:
        for host in self.hosts.values():
            for commit in host.journal.load().commits:
                if commit.plan.agent_id != agent:
                    continue
                inert = self.hosts[commit.plan.target].journal.load().prepared
                if self.lose_inert or any(r.plan == commit.plan and r.vote == commit.vote for r in inert):
                    return True
        return False

    def heal(self, pick: Callable[[int], int], *, limit: int = 6_000) -> None:
        """End all trouble, let everything run out, and check what must hold then."""
        self.healed = True
        for host in self.hosts.values():
            if not host.up:
                self.restart(host)
        for _ in range(limit):
            if not self._heal_step(pick):
                break
        else:
            alive = self.machines(lambda m: not m.state.terminal)
            stuck = [f"{h.name}: {m.plan.transfer_id} {m.side} {m.state.phase}" for h, m in alive]
            raise ViolationError(f"never came to rest: {stuck}")
        self._check_rest()

    def _heal_step(self, pick: Callable[[int], int]) -> bool:
        busy = self.machines(lambda m: m.busy)
        if busy:
            self.tick(*busy[pick(len(busy))])
            return True
        if self.net:
            self.deliver(self.net.pop(pick(len(self.net))))
            return True
        if self.late:
            self.net.append(self.late.pop())
            return True
        if done := self.machines(self.evictable):
            self.evict(*done[0])
            return True
        if waiting := self.machines(lambda m: bool(m.awaiting) and not m.state.terminal):
            self.timeout(waiting[pick(len(waiting))][1])
            return True
        if asleep := self.machines(lambda m: m.timer and not m.state.terminal):
            self.fire(asleep[pick(len(asleep))][1])
            return True
        return False

    def _check_rest(self) -> None:
        self.check()
        for host in self.hosts.values():
            found = host.journal.load()
            left = (*found.commits, *found.prepared, *found.activated)
            if left and not self.lose_inert:
                raise ViolationError(f"{host.name} never forgets {left}")
            if host.moving:
                raise ViolationError(f"{host.moving} never resumed at {host.name}")
            for machine in host.machines.values():
                if not machine.state.terminal:
                    raise ViolationError(f"{machine.plan.transfer_id} stuck as {machine.side} {machine.state.phase}")
        for agent in self.living:
            homes = [(h.name, e) for h in self.hosts.values() if (e := h.owned.get(agent)) is not None]
            if len(homes) != 1:
                raise ViolationError(f"{agent} is owned by {homes}")
            name, epoch = homes[0]
            if self.hosts[name].running.get(agent) != {epoch}:
                raise ViolationError(f"{agent} does not run at {name}")
        for transfer_id, outcome in self.replied.items():
            if outcome is not (transfer_id in self.committed):
                raise ViolationError(f"{transfer_id} was answered {outcome}")


__all__ = ["Bug", "Machine", "Message", "Outcome", "SimHost", "ViolationError", "World"]
