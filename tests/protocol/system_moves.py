"""The transfers of a simulated host: a shell over the real coordinator and participant, on a disk that can forget.

The scheduling of a machine (one action or one event at a time) is that of `transfer_world`; here every journal action
is a unit of work whose callback reports, so that a crash can fall before, between and after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

from paglets.protocol.transfer import (
    ActivatedRecord,
    CommitRecord,
    CoordinatorState,
    ParticipantPhase,
    ParticipantState,
    PreparedRecord,
    Refusal,
    RefusalReason,
    TransferKind,
    TransferPlan,
    actions,
    coordinator,
    events,
    judge_epoch,
    participant,
)

from .system_disk import Disk, Luggage, Place
from .system_post import Move
from .transfer_world import Prepare, Query, ViolationError

if TYPE_CHECKING:
    from .system_host import Host
    from .system_process import Proc
    from .system_world import World

_SIMPLE = {
    actions.CheckTarget: events.Checked,
    actions.CleanupResources: events.Cleaned,
    actions.StageFiles: events.FilesStaged,
}
_FAILED = {"prepare": events.PrepareFailed, "commit": events.CommitFailed, "query": events.QueryFailed}
_TOMBS = (ParticipantPhase.ABORTED, ParticipantPhase.REFUSED)


@dataclass(slots=True)
class Machine:
    """One machine in the hands of a shell: actions first, then the next event."""

    side: Literal["source", "target"]
    plan: TransferPlan
    state: CoordinatorState | ParticipantState
    todo: deque[object] = field(default_factory=deque)
    inbox: deque[object] = field(default_factory=deque)
    timer: bool = False
    awaiting: Literal["", "prepare", "commit", "query"] = ""
    waits: bool = False
    """For the running handler."""

    @property
    def busy(self) -> bool:
        return bool(self.todo or self.inbox)


class Moves:
    """Drive the machines of one host."""

    def __init__(self, world: World, host: Host) -> None:
        self.world = world
        self.host = host

    # -- what may happen ---------------------------------------------------------------------------------------------

    def start(self, proc: Proc, target: str, kind: TransferKind, attempts: int, activate: bool) -> None:
        host, clone = self.host, kind is TransferKind.CLONE
        plan = TransferPlan(
            transfer_id=self.world.fresh("t"),
            kind=kind,
            agent_id=self.world.fresh(f"{proc.agent}/") if clone else proc.agent,
            epoch=0 if clone else proc.epoch + 1,
            source=host.name,
            target=target,
            origin_id=proc.agent if clone else "",
            attempts=attempts,
            activate=activate,
        )
        proc.phase = "cloning" if clone else "departing"
        proc.moving = plan.transfer_id
        state, todo = coordinator.start(plan)
        host.machines["source", plan.transfer_id] = Machine("source", plan, state, deque(todo))

    def boot(self) -> None:
        host = self.host
        found = host.disk.journal.load()
        host.luggage = {**host.disk.kept, **host.disk.inert}
        for commit in found.commits:
            state, todo = coordinator.restore(commit)
            host.machines["source", commit.plan.transfer_id] = Machine("source", commit.plan, state, deque(todo))
        records: tuple[PreparedRecord | ActivatedRecord, ...] = (*found.prepared, *found.activated)
        for record in records:
            copy, asks = participant.restore(record)
            host.machines["target", record.plan.transfer_id] = Machine("target", record.plan, copy, deque(asks))

    def tick(self, machine: Machine) -> None:
        """Perform one action, or take one event."""
        if machine.todo:
            result = self._perform(machine, machine.todo.popleft())
            if result is not None:
                machine.inbox.append(result)
        elif machine.inbox:
            self._step(machine, machine.inbox.popleft())

    def time_out(self, machine: Machine) -> None:
        waited, machine.awaiting = machine.awaiting, ""
        machine.inbox.append(_FAILED[waited]("timed out"))

    def wake(self, machine: Machine) -> None:
        machine.timer = False
        machine.inbox.append(events.RetryDue())

    def idle(self, machine: Machine) -> bool:
        """Tell whether a machine that waits for the running handler need not wait any longer; let it go on if so."""
        proc = self.host.procs[machine.plan.origin_id or machine.plan.agent_id]
        if not self._quiet(proc):
            return False
        machine.waits = False
        machine.inbox.append(events.HandlerIdle())
        return True

    def _quiet(self, proc: Proc) -> bool:
        if self.world.bug == "no-wait":
            return proc.handling is None and proc.alive and not proc.failing
        return proc.settled if proc.phase == "cloning" else proc.idle

    def evictable(self, machine: Machine) -> bool:
        if machine.busy or not machine.state.terminal:
            return False
        return machine.side == "source" or machine.state.phase not in _TOMBS

    def take(self, move: Move) -> None:
        """Take a message of a transfer."""
        host, plan, body = self.host, move.plan, move.body
        key = (move.side, plan.transfer_id)
        machine = host.machines.get(key)
        if isinstance(body, Query):
            state = machine.state if machine and isinstance(machine.state, CoordinatorState) else None
            reply = events.OutcomeReceived(coordinator.outcome(state, body.vote), body.vote)
            self._send("target", plan, reply)
            return
        if move.side == "target":
            if isinstance(body, Prepare):
                body = events.PrepareReceived(plan, body.attempt, self.world.fresh("v"), body.recovering)
                assert move.luggage is not None
                host.luggage[plan.transfer_id] = move.luggage
            elif machine is None and isinstance(body, events.OutcomeReceived | events.SettledReceived):
                return
            if machine is None:
                machine = host.machines[key] = Machine("target", plan, ParticipantState())
        elif machine is None:
            if isinstance(body, events.Prepared):
                self._send("target", plan, events.AbortReceived())
            return
        if isinstance(body, events.OutcomeReceived):
            machine.awaiting = ""
        elif move.side == "source":
            answers = "prepare" if isinstance(body, events.Prepared | events.Refused) else "commit"
            machine.awaiting = "" if machine.awaiting == answers else machine.awaiting
        machine.inbox.append(body)

    # -- the shell ---------------------------------------------------------------------------------------------------

    def _send(self, side: str, plan: TransferPlan, body: object, luggage: Luggage | None = None) -> None:
        to = plan.target if side == "target" else plan.source
        self.world.send(self.host.name, to, Move("target" if side == "target" else "source", plan, body, luggage))

    def _step(self, machine: Machine, event: object) -> None:
        todo: tuple[object, ...]
        if isinstance(machine.state, CoordinatorState):
            machine.state, todo = coordinator.step(machine.state, cast("events.CoordinatorEvent", event))
        else:
            machine.state, todo = participant.step(machine.state, cast("events.ParticipantEvent", event))
        machine.todo.extend(todo)

    def _perform(self, machine: Machine, action: object) -> object | None:
        fails = self.world.chance
        if isinstance(action, actions.ScheduleRetry):
            machine.timer = True
            return None
        if isinstance(action, actions.ReportFault):
            if "on_cloned" not in action.text:
                raise ViolationError(f"fault: {action.text}")
            return None
        if isinstance(action, actions.RunHook):
            return events.StepFailed("hook raised") if fails(0.04) else events.HookDone()
        if type(action) in _SIMPLE:
            return events.StepFailed("failed") if fails(0.02) else _SIMPLE[type(action)]()
        return self._source(machine, action) if machine.side == "source" else self._target(machine, action)

    def _unit(self, machine: Machine, apply: Callable[[Disk], None], done: Callable[[], None] | None = None) -> None:
        """Put a unit on disk and report to the machine."""

        def settled(ok: bool) -> None:
            if ok and done is not None:
                done()
            machine.inbox.append(events.JournalWritten() if ok else events.JournalFailed("disk"))

        self.host.writer.put(apply, settled)

    def _source(self, machine: Machine, action: object) -> object | None:
        plan, host = machine.plan, self.host
        moved = plan.origin_id or plan.agent_id
        match action:
            case actions.AwaitHandler():
                machine.waits = True
            case actions.Snapshot():
                proc = host.procs[moved]
                if not self._quiet(proc):
                    return events.StepFailed("the process died")
                host.luggage[plan.transfer_id] = self._pack(proc, plan)
                return events.SnapshotTaken()
            case actions.SendPrepare(attempt, recovering):
                self._send("target", plan, Prepare(attempt, recovering), host.luggage[plan.transfer_id])
                machine.awaiting = "prepare"
            case actions.JournalCommit(record):
                self._unit(machine, lambda disk: self._hand_over(disk, record), lambda: self._handed_over(plan))
            case actions.EraseCommit():
                self._unit(machine, lambda disk: self._take_back(disk, plan))
            case actions.ForgetTransfer():
                self._unit(machine, lambda disk: self._forget_commit(disk, plan))
            case actions.SendCommit(vote):
                self._send("target", plan, events.CommitReceived(vote))
                machine.awaiting = "commit"
            case actions.SendAbort():
                self._send("target", plan, events.AbortReceived())
            case actions.SendSettled(vote):
                self._send("target", plan, events.SettledReceived(vote))
            case actions.ResumePaglet():
                if plan.leaves_source and plan.transfer_id in self.world.committed:
                    raise ViolationError(f"{moved} resumed at {host.name} after it was handed over")
                self._resume(plan)
            case actions.Reply(ok):
                if ok is not (plan.transfer_id in self.world.committed):
                    raise ViolationError(f"{plan.transfer_id} answered {ok}")
                if not ok:
                    self._resume(plan)
        return None

    def _resume(self, plan: TransferPlan) -> None:
        proc = self.host.procs.get(plan.origin_id or plan.agent_id)
        if proc is not None and proc.moving == plan.transfer_id:
            proc.moving = ""
            proc.phase = "live"
            self.host.release_held(proc.agent)

    def _pack(self, proc: Proc, plan: TransferPlan) -> Luggage:
        disk, clone = self.host.disk, plan.kind is TransferKind.CLONE
        row = replace(disk.paglets[proc.agent], log=tuple(proc.log), lost_at=proc.lost_at, status="active")
        if clone:
            return Luggage(replace(row, home=plan.target, lost_at=None))
        if self.world.bug == "window-stays":
            return disk.luggage(proc.agent, row, ())
        luggage = disk.luggage(proc.agent, row, tuple(proc.window.export()))
        if not proc.durable:
            luggage = replace(luggage, queued=tuple(proc.accepted()))
        return luggage

    def _hand_over(self, disk: Disk, record: CommitRecord) -> None:
        plan, luggage = record.plan, self.host.luggage[record.plan.transfer_id]
        disk.journal.record_commit(record)
        disk.kept[plan.transfer_id] = luggage
        self.world.committed.add(plan.transfer_id)
        if not plan.leaves_source:
            self.world.born(plan.agent_id, luggage.row)
            return
        disk.remove(plan.agent_id)
        disk.departed_home[plan.agent_id] = luggage.row.home
        if self.world.bug == "forget-forwarder":
            disk.journal.forget_departed(plan.agent_id)

    def _handed_over(self, plan: TransferPlan) -> None:
        if plan.leaves_source:
            self.host.lives.gone(self.host.procs[plan.agent_id])

    def _take_back(self, disk: Disk, plan: TransferPlan) -> None:
        if any(record.plan == plan for record in disk.journal.load().commits):
            luggage = disk.kept.pop(plan.transfer_id)
            self.world.committed.discard(plan.transfer_id)
            if plan.leaves_source:
                if not luggage.row.durable:
                    luggage = replace(luggage, queued=())  # its messages still wait in its memory
                disk.unpack(plan.agent_id, luggage, replace(luggage.row, epoch=plan.departed_epoch))
            else:
                self.world.unborn(plan.agent_id)
        disk.journal.erase_commit(plan.transfer_id)

    def _forget_commit(self, disk: Disk, plan: TransferPlan) -> None:
        disk.journal.forget_commit(plan.transfer_id)
        disk.kept.pop(plan.transfer_id, None)

    def _target(self, machine: Machine, action: object) -> object | None:
        plan, host, fails = machine.plan, self.host, self.world.chance
        match action:
            case actions.CheckAdmission():
                if fails(0.03):
                    return events.NotAdmitted(Refusal(RefusalReason.QUOTA, retryable=fails(0.5)))
                row = host.disk.paglets.get(plan.agent_id)
                departed = host.disk.journal.departed(plan.agent_id)
                refusal = judge_epoch(
                    plan,
                    live=None if row is None else row.epoch,
                    departed=None if departed is None else departed[0],
                    undecided=self._undecided(plan),
                )
                return events.Admitted() if refusal is None else events.NotAdmitted(refusal)
            case actions.MaterialiseFiles():
                return events.StepFailed("no space") if fails(0.02) else events.FilesMaterialised()
            case actions.StartProcess():
                return events.StepFailed("no process") if fails(0.02) else events.ProcessStarted()
            case actions.StoreInert(inert):
                self._unit(machine, lambda disk: self._store_inert(disk, inert))
                if self.world.bug == "commit-before-prepared":
                    self._send("source", plan, events.Prepared(inert.vote))
            case actions.ReplyPrepared(vote):
                self._send("source", plan, events.Prepared(vote))
            case actions.ReplyRefused(refusal):
                self._send("source", plan, events.Refused(refusal))
            case actions.JournalActivate(record):
                self._unit(machine, lambda disk: self._activate(disk, record))
            case actions.Activate() | actions.StoreInactive():
                host.lives.start_arrived(plan.agent_id)
            case actions.AckCommit():
                self._send("source", plan, events.CommitAcked())
            case actions.RefuseCommit():
                self._send("source", plan, events.CommitUnknown())
            case actions.Discard():
                self._discard(machine)
                host.release_held(plan.agent_id)
            case actions.QueryOutcome(vote):
                self._send("source", plan, Query(vote))
                machine.awaiting = "query"
            case actions.ForgetTransfer():
                host.persist(lambda disk: disk.journal.forget_activated(plan.transfer_id))
        return None

    def _store_inert(self, disk: Disk, record: PreparedRecord) -> None:
        disk.journal.record_prepared(record)
        disk.inert[record.plan.transfer_id] = self.host.luggage[record.plan.transfer_id]

    def _discard(self, machine: Machine) -> None:
        """Remove an inert copy; a removal that failed must not come after a later attempt has stored another."""
        transfer_id = machine.plan.transfer_id

        def apply(disk: Disk) -> None:
            disk.journal.discard_prepared(transfer_id)
            disk.inert.pop(transfer_id, None)

        def settled(ok: bool) -> None:
            if not ok and machine.state.phase in _TOMBS:
                self.host.writer.put(apply, settled)

        self.host.writer.put(apply, settled)

    def _activate(self, disk: Disk, record: ActivatedRecord) -> None:
        plan, name = record.plan, self.host.name
        disk.journal.record_activated(record)
        luggage = disk.inert.pop(plan.transfer_id, None) or self.host.luggage[plan.transfer_id]
        status = "active" if plan.activate else "inactive"
        disk.unpack(plan.agent_id, luggage, replace(luggage.row, epoch=plan.epoch, status=status, wakes=True))
        disk.departed_home.pop(plan.agent_id, None)
        home = luggage.row.home
        if home == name:
            disk.homes.pop(plan.agent_id, None)
        else:
            disk.notices[plan.agent_id] = Place(plan.epoch, name, home)
        self.world.been(plan.agent_id, name)

    def _undecided(self, plan: TransferPlan) -> str | None:
        for machine in self.host.machines.values():
            other = machine.plan
            if machine.side == "source" or other.agent_id != plan.agent_id or other.transfer_id == plan.transfer_id:
                continue
            if not machine.state.terminal and machine.state.phase not in (
                ParticipantPhase.CHECKING,
                ParticipantPhase.ACTIVE,
            ):
                return other.transfer_id
        return None
