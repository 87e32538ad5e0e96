"""The target side of a move: perform what :mod:`paglets.protocol.transfer.participant` decides."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any

import msgspec

from paglets.artifacts import PagletFileRef
from paglets.core.allowance import NOTHING_USED, AllowanceBalance
from paglets.core.errors import (
    ForbiddenError,
    HostError,
    InvalidAgentError,
    LifecycleError,
    OverloadedError,
    PagletError,
    SerializationError,
    TransferError,
)
from paglets.core.runtime_values import Durability, EnvelopeKind
from paglets.persistence.directory import validate_agent_id
from paglets.persistence.envelope import PagletEnvelope
from paglets.persistence.rows import RecordSummary, ReminderRow, Status
from paglets.protocol.transfer import actions, events, participant
from paglets.protocol.transfer.model import (
    ActivatedRecord,
    Hook,
    LifecycleCall,
    Outcome,
    PreparedRecord,
    Refusal,
    RefusalReason,
    TransferKind,
    TransferPlan,
)
from paglets.remote.movement import Sink
from paglets.runtime import faults
from paglets.runtime.agents import AgentEntry, Phase, SelfCall
from paglets.runtime.attachment import Attachment
from paglets.runtime.files import FileDesk
from paglets.runtime.frames import IF_TOUCHED
from paglets.runtime.kernel import Kernel, StartOrder
from paglets.runtime.luggage import MAX_LUGGAGE_BYTES, Luggage
from paglets.runtime.pauses import call_about
from paglets.runtime.place import Place
from paglets.runtime.receiving import Incoming, Load, StateSink, manifest_of
from paglets.runtime.sleep import Dormitory
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.transfer_log import Cargo, TransferLog
from paglets.runtime.transfer_wire import TransferLink, plan_from_wire, refusal_to_wire
from paglets.runtime.unloading import UnloadingDesk
from paglets.runtime.whereabouts import Whereabouts

#: Finished and called-off transfers that are remembered, so that late repetitions are answered without work.
REMEMBERED_TRANSFERS = 4096
#: Transfers that are not settled yet, the ones of paglets that live here already included.
MAX_OPEN_ARRIVALS = 2048
MAX_PLAIN_CLASSES = 1024
#: How long a transfer waits for the outcome of an earlier one of the same paglet.
DECISION_SECONDS = 5.0


Answer = asyncio.Future[dict[str, Any]]


#: Of all transfers that have ended.
_DECIDED = asyncio.Event()
_DECIDED.set()


@dataclass(slots=True, eq=False)
class Arrival:
    """One transfer in which this host is the target."""

    transfer_id: str
    link: TransferLink | None = None
    state: participant.ParticipantState = field(default_factory=participant.ParticipantState)
    incoming: Incoming | None = None
    entry: AgentEntry | None = None
    place: Place | None = None
    cargo: Cargo | None = None
    """What is on disk of the inert copy."""
    balance: AllowanceBalance = NOTHING_USED
    """What the paglet has left of its allowance here."""
    touched: Attachment | None = None
    """The state as the arrival hook left it, where the class has one."""
    hook: asyncio.Task[tuple[dict[str, Any], Attachment]] | None = None
    """The arrival hook, which the process begins as soon as the paglet is built."""
    storing: asyncio.Task[None] | None = None
    """The writing of the inert copy as it came in, beside the start of its process."""
    began: float = 0.0
    installed: dict[str, PagletFileRef] = field(default_factory=dict)
    prepare_waiters: list[Answer] = field(default_factory=list)
    commit_waiters: list[Answer] = field(default_factory=list)
    settled: asyncio.Task[dict[str, str] | None] | None = None
    timer: asyncio.TimerHandle | None = None
    inbox: list[events.ParticipantEvent] = field(default_factory=list)
    running: bool = False
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the paglet is here, or is not."""
    rest: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while nothing is being done."""

    def let_go(self) -> None:
        """Keep of a transfer that has ended only what a late question needs: thousands of them are remembered."""
        self.incoming = self.entry = self.place = self.cargo = self.touched = self.hook = self.storing = None
        self.installed, self.timer = {}, None
        self.decided = self.rest = _DECIDED

    @property
    def plan(self) -> TransferPlan:
        """The plan both sides hold."""
        plan = self.incoming.plan if self.incoming is not None else self.state.plan
        if plan is None:
            raise LifecycleError(f"transfer {self.transfer_id} has not begun here")
        return plan


class ArrivalDesk:
    """Receive paglets from other hosts, and from this one."""

    def __init__(
        self,
        kernel: Kernel,
        dormitory: Dormitory,
        files: FileDesk,
        unloader: UnloadingDesk,
        log: TransferLog,
        timers: Timekeeper,
        whereabouts: Whereabouts,
        *,
        link_to: Callable[[str], TransferLink],
    ) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        self._files = files
        self._unloader = unloader
        self._log = log
        self._timers = timers
        self._whereabouts = whereabouts
        self._link_to = link_to
        self._arrivals: OrderedDict[str, Arrival] = OrderedDict()
        self._open: set[str] = set()
        """Ids of the transfers whose machine has not ended."""
        self._starting: dict[str, Arrival] = {}
        self._plain_classes: set[str] = set()
        """Names of the classes that have started here and whose arrival hook does nothing."""
        self.perform_self_call: Callable[[AgentEntry, SelfCall], Awaitable[Any]]

    def restore(self, prepared: Sequence[tuple[PreparedRecord, Cargo]], activated: Sequence[ActivatedRecord]) -> None:
        """Take up the transfers of an earlier life of this host: ask the sources what became of them."""
        records: list[tuple[PreparedRecord | ActivatedRecord, Cargo | None]] = [*prepared]
        records += [(record, None) for record in activated]
        for record, cargo in records:
            plan = record.plan
            arrival = self._arrivals[plan.transfer_id] = Arrival(plan.transfer_id, self._link_to(plan.source))
            arrival.cargo = cargo
            arrival.state, todo = participant.restore(record)
            self._open.add(plan.transfer_id)
            if cargo is not None:
                arrival.installed = cargo.files
                self._starting[plan.agent_id] = arrival
            arrival.running = True
            self._kernel.background(self._drive(arrival, todo))

    # --- receiving ----------------------------------------------------------------------------------------------------

    def open(self, header: dict[str, Any]) -> tuple[Incoming, Sequence[Sink]]:
        """Look at the header of a PREPARE and return where its parts go: the state blob, then the files.

        :raises SerializationError: it is malformed.
        :raises OverloadedError: too many paglets are arriving at the same time.
        """
        if len(self._open) > MAX_OPEN_ARRIVALS:
            raise OverloadedError("too many paglets are arriving at the same time")
        wire = header.get("transfer")
        if not isinstance(wire, dict):
            raise SerializationError("a movement needs a transfer")
        plan = plan_from_wire(wire.get("plan"))
        validate_agent_id(plan.agent_id)
        validate_agent_id(plan.transfer_id)
        try:
            envelope = PagletEnvelope.from_wire(header.get("envelope") or {})
        except (KeyError, TypeError, ValueError) as exc:
            raise SerializationError(f"malformed envelope: {exc}") from None
        if envelope.agent_id != plan.agent_id:
            raise SerializationError("envelope and transfer speak of different paglets")
        refs = [PagletFileRef.from_wire(item["file"]) for item in manifest_of(envelope)]
        load = Load.from_wire(wire.get("files", {}), refs)
        state = StateSink()
        attempt = wire.get("attempt")
        luggage = StateSink(MAX_LUGGAGE_BYTES)
        incoming = Incoming(
            plan,
            attempt if isinstance(attempt, int) else 1,
            bool(wire.get("recovering")),
            envelope,
            state,
            luggage,
            refs,
            load,
        )
        return incoming, [state, *([luggage] if wire.get("luggage") is True else []), *load.small.values()]

    async def prepare(self, incoming: Incoming) -> dict[str, Any]:
        """Take a fully received PREPARE and return the vote, in the form the source expects."""
        plan = incoming.plan
        if incoming.load.small:
            await self._unloader.verify(incoming)
        if incoming.load.large and _is_new(self._arrivals.get(plan.transfer_id)):
            missing = await self._unloader.missing(incoming)
            if missing:
                incoming.discard()
                return {"missing": missing}
        arrival = self._arrival(plan.transfer_id)
        if _is_new(arrival):
            arrival.incoming = incoming
            arrival.began = self._kernel.loop.time()
            if faults.ARMED:
                faults.reached("target.received")
        else:
            incoming.discard()  # a repetition; what came first is what counts
        arrival.link = self._link_to(plan.source)
        answer: Answer = self._kernel.loop.create_future()
        arrival.prepare_waiters.append(answer)
        received = events.PrepareReceived(plan, incoming.attempt, uuid.uuid4().hex, incoming.recovering)
        self._feed(arrival, received)
        return await answer

    async def commit(self, transfer_id: str, vote: str) -> dict[str, Any]:
        """Take a COMMIT and return the acknowledgement."""
        arrival = self._arrival(transfer_id)
        answer: Answer = self._kernel.loop.create_future()
        arrival.commit_waiters.append(answer)
        self._feed(arrival, events.CommitReceived(vote))
        return await answer

    def abort(self, transfer_id: str) -> None:
        """Take an ABORT."""
        self._feed(self._arrival(transfer_id), events.AbortReceived())

    def settled(self, transfer_id: str, vote: str) -> None:
        """Hear that the source will never ask again."""
        arrival = self._arrivals.get(transfer_id)
        if arrival is not None:
            self._feed(arrival, events.SettledReceived(vote))

    async def location(self, transfer_id: str) -> dict[str, str] | None:
        """Wait until the ``run`` of an arrived paglet has settled; return where the paglet is then."""
        arrival = self._arrivals.get(transfer_id)
        if arrival is None or arrival.settled is None:
            return None
        return await asyncio.shield(arrival.settled)

    def arriving(self, entry: AgentEntry) -> bool:
        """Tell whether a paglet's transfer to this host is not decided yet."""
        arrival = self._starting.get(entry.agent_id)
        return arrival is not None and arrival.entry is entry

    def undecided(self, agent_id: str) -> asyncio.Event | None:
        """Return what is set when it is decided whether an arriving paglet is here; None where none arrives."""
        arrival = self._starting.get(agent_id)
        return None if arrival is None else arrival.decided

    def _decide(self, arrival: Arrival) -> None:
        agent_id = arrival.plan.agent_id
        if self._starting.get(agent_id) is arrival:
            del self._starting[agent_id]
        arrival.decided.set()
        if arrival.incoming is not None and arrival.incoming.load.large:
            self._unloader.release(arrival.incoming)

    def defer(self, entry: AgentEntry, call: SelfCall) -> bool:
        """Keep a call that an arriving paglet made on itself until its transfer is decided; False if none is under
        way."""
        arrival = self._starting.get(entry.agent_id)
        if arrival is None or arrival.entry is not entry:
            return False
        argument = msgspec.json.encode(call.arguments).decode()
        self._feed(arrival, events.CallRequested(LifecycleCall(call.operation, argument)))
        return True

    def _arrival(self, transfer_id: str) -> Arrival:
        arrival = self._arrivals.get(transfer_id)
        if arrival is None:
            validate_agent_id(transfer_id)
            arrival = self._arrivals[transfer_id] = Arrival(transfer_id)
            if len(self._arrivals) > REMEMBERED_TRANSFERS:
                self._forget_oldest()
        return arrival

    def _forget_oldest(self) -> None:
        ended = (key for key, arrival in self._arrivals.items() if arrival.state.terminal and not arrival.running)
        for transfer_id in list(islice(ended, len(self._arrivals) - REMEMBERED_TRANSFERS)):
            del self._arrivals[transfer_id]

    # --- driving the machine ------------------------------------------------------------------------------------------

    def _feed(self, arrival: Arrival, event: events.ParticipantEvent) -> None:
        arrival.inbox.append(event)
        if not arrival.running:
            arrival.running = True
            if arrival.rest is not _DECIDED:
                arrival.rest.clear()
            self._kernel.background(self._drive(arrival))

    async def _drive(self, arrival: Arrival, todo: tuple[actions.ParticipantAction, ...] = ()) -> None:
        try:
            while True:
                for action in todo:
                    event = await self._perform(arrival, action)
                    if event is not None:
                        # Its result comes before whatever the network brought meanwhile.
                        arrival.inbox.insert(0, event)
                if not arrival.inbox:
                    return
                arrival.state, todo = participant.step(arrival.state, arrival.inbox.pop(0))
                if arrival.state.terminal:
                    self._open.discard(arrival.transfer_id)
                else:
                    self._open.add(arrival.transfer_id)
        except Exception as exc:
            # Whoever asked must hear of it; a transfer without an answer would be waited for without end.
            for waiter in (*arrival.prepare_waiters, *arrival.commit_waiters):
                if not waiter.done():
                    waiter.set_exception(TransferError(f"the transfer failed here: {type(exc).__name__}: {exc}"))
            raise
        finally:
            arrival.running = False
            arrival.rest.set()
            if arrival.state.terminal and not arrival.inbox:
                arrival.let_go()

    async def _perform(self, arrival: Arrival, action: actions.ParticipantAction) -> events.ParticipantEvent | None:
        match action:
            case actions.CheckAdmission(plan):
                refusal = await self._admit(arrival, plan)
                return events.Admitted() if refusal is None else events.NotAdmitted(refusal)
            case actions.MaterialiseFiles() | actions.StartProcess() | actions.RunHook():
                try:
                    return await self._begin(arrival, action)
                except Exception as exc:  # whatever a hook raised: the source must hear of it
                    return events.StepFailed(f"{type(exc).__name__}: {exc}", exc)
            case actions.StoreInert() | actions.JournalActivate():
                return await self._write(arrival, action)
            case actions.QueryOutcome(vote):
                return await self._ask(arrival, vote)
            case actions.Activate(cold, deferred):
                await self._activate(arrival, cold, deferred)
            case actions.StoreInactive():
                self._lay_down(arrival)
            case actions.Discard(delete_files):
                await self._discard(arrival, delete_files)
            case actions.ScheduleRetry(after):
                self._schedule(arrival, after)
            case actions.ForgetTransfer():
                self._kernel.background(self._log.forget_activated(arrival.transfer_id))
            case _:
                self._answer(arrival, action)
        return None

    def _answer(self, arrival: Arrival, action: actions.ParticipantAction) -> None:
        match action:
            case actions.ReplyPrepared(vote):
                if faults.ARMED:
                    faults.reached("target.prepared")
                _resolve(arrival.prepare_waiters, {"vote": vote})
            case actions.ReplyRefused(refusal):
                _resolve(arrival.prepare_waiters, {"refused": refusal_to_wire(refusal)})
                if arrival.entry is None and arrival.incoming is not None:
                    # Nobody comes for it: otherwise whoever is refused could fill memory and store.
                    arrival.incoming.discard()
                    if arrival.incoming.load.large:
                        self._unloader.release(arrival.incoming)
            case actions.AckCommit():
                if faults.ARMED:
                    faults.reached("target.acknowledged")
                acknowledgement = self._acknowledgement(arrival)
                _resolve(arrival.prepare_waiters, acknowledgement)
                _resolve(arrival.commit_waiters, acknowledgement)
            case actions.RefuseCommit():
                _resolve(arrival.commit_waiters, {"unknown": True})
            case actions.ReportFault(text):
                self._kernel.emit("transfer-fault", arrival.entry, error=text)

    def _acknowledgement(self, arrival: Arrival) -> dict[str, Any]:
        settled = arrival.settled
        if settled is None or not settled.done():
            return {"acked": True, "location": None, "settling": settled is not None}
        return {"acked": True, "location": settled.result(), "settling": False}

    def _schedule(self, arrival: Arrival, after: float) -> None:
        if arrival.timer is not None:
            arrival.timer.cancel()
        arrival.timer = call_about(after, partial(self._feed, arrival, events.RetryDue()))

    # --- steps --------------------------------------------------------------------------------------------------------

    async def _admit(self, arrival: Arrival, plan: TransferPlan) -> Refusal | None:
        """Judge a paglet; where an earlier transfer of it is undecided, have that decided first and judge again."""
        refusal = await self._judge(arrival, plan)
        older = self._starting.get(plan.agent_id)
        if refusal is None or refusal.reason is not RefusalReason.BUSY or older is None:
            return refusal
        # Its source is up again, as a rule, and is asked now rather than when the pause between two questions is over.
        self._feed(older, events.RetryDue())
        with suppress(TimeoutError):
            async with asyncio.timeout(DECISION_SECONDS):
                await older.decided.wait()
                # What it had put in place must be gone.
                await older.rest.wait()
        return await self._judge(arrival, plan)

    async def _judge(self, arrival: Arrival, plan: TransferPlan) -> Refusal | None:
        incoming = arrival.incoming
        envelope = incoming.envelope if incoming is not None else None
        if incoming is None or envelope is None:
            return Refusal(RefusalReason.POLICY, "no envelope came with it")
        if self._kernel.closing:
            return Refusal(RefusalReason.POLICY, f"host {self._kernel.config.name} is shutting down", retryable=True)
        if self._kernel.draining and plan.kind is not TransferKind.LOCAL:
            return Refusal(RefusalReason.POLICY, f"host {self._kernel.config.name} is draining")
        try:
            self._kernel.check_class(envelope.agent_class_name, by=incoming.by)
            if envelope.state_class_name:  # empty where whoever created the paglet left it to its class
                self._kernel.check_class(envelope.state_class_name, by=incoming.by)
            if incoming.by is not None:
                self._kernel.check_arrival(incoming.by, plan, incoming.state.attachment.nbytes, envelope)
        except OverloadedError as exc:
            return Refusal(RefusalReason.POLICY, str(exc), retryable=True)
        except ForbiddenError as exc:
            return Refusal(RefusalReason.CLASS_NOT_ALLOWED, str(exc))
        except (SerializationError, HostError) as exc:
            return Refusal(RefusalReason.POLICY, str(exc))
        refusal = self._judge_allowance(arrival, plan, incoming)
        if refusal is not None:
            return refusal
        entry = self._kernel.agents.get(plan.agent_id)
        older = self._starting.get(plan.agent_id)
        if older is not None and older is not arrival and older.entry is entry:
            entry = None  # an inert copy, which lives nowhere yet
        live = entry.epoch if entry is not None else None
        if entry is None and plan.agent_id in self._dormitory:
            live = -1  # an inactive paglet of that id: a conflict whatever its epoch
        departed = await self._whereabouts.departed(plan.agent_id)
        undecided = self._starting.get(plan.agent_id)  # as of now: the question before took a while
        return participant.judge_epoch(
            plan,
            live=live,
            departed=None if departed is None else departed.epoch,
            undecided=None if undecided is None or undecided is arrival else undecided.transfer_id,
        )

    def _judge_allowance(self, arrival: Arrival, plan: TransferPlan, incoming: Incoming) -> Refusal | None:
        """Work out what an arriving paglet has left here, whatever its source says; refuse one that has nothing."""
        now = time.time()
        balance = replace(plan.carried, exceeded=None)
        if incoming.by is not None:
            balance = balance.capped(self._kernel.config.policy.allowance, now)
        arrival.balance = balance
        if incoming.recovering:
            return None  # it was handed over to this host, and sleeps here if it may not live
        excess = balance.over(now) or balance.too_large(incoming.state.attachment.nbytes)
        return None if excess is None else Refusal(RefusalReason.POLICY, str(excess.error(plan.agent_id)))

    async def _begin(
        self, arrival: Arrival, action: actions.MaterialiseFiles | actions.StartProcess | actions.RunHook
    ) -> events.ParticipantEvent:
        match action:
            case actions.MaterialiseFiles():
                await self._materialise(arrival)
                return events.FilesMaterialised()
            case actions.StartProcess():
                await self._start(arrival)
                return events.ProcessStarted()
            case actions.RunHook(hook):
                if arrival.hook is None:
                    raise HostError(f"{hook.value} of an arriving paglet was not begun")
                answer, state = await arrival.hook
                if arrival.entry is not None:
                    arrival.entry.resources = answer["resources"]
                if arrival.entry is not None:
                    self._kernel.check_size(arrival.entry, state)
                arrival.touched = state if state.nbytes else None
                if arrival.touched is None and arrival.entry is not None:
                    self._remember_plain(arrival.entry.class_name)
                if faults.ARMED:
                    faults.reached("target.arrived")
                return events.HookDone()

    async def _materialise(self, arrival: Arrival) -> None:
        incoming, kernel, plan = arrival.incoming, self._kernel, arrival.plan
        if incoming is None or plan.kind is TransferKind.LOCAL:
            return
        if plan.kind is not TransferKind.CLONE and not self._files.has_room(plan.agent_id, plan.epoch):
            await kernel.on_disk(self._files.make_room, plan.agent_id, plan.epoch)
        if incoming.refs:
            arrival.installed = await self._unloader.unload(incoming)
            if faults.ARMED:
                faults.reached("target.materialised")

    async def _start(self, arrival: Arrival) -> None:
        kernel, plan, incoming = self._kernel, arrival.plan, arrival.incoming
        if incoming is None:
            raise HostError("nothing to start")
        envelope = incoming.envelope
        if plan.kind is TransferKind.LOCAL:
            arrival.entry = kernel.agents.require(plan.agent_id)
        else:
            arrival.entry = kernel.reserve(
                plan.agent_id, envelope.agent_class_name, envelope.state_class_name, epoch=plan.epoch
            )
            arrival.entry.files = arrival.installed
            arrival.entry.timers = {}
            arrival.entry.balance = arrival.balance
            arrival.entry.holder = self._holder(plan, incoming)
        entry = arrival.entry
        self._starting[plan.agent_id] = arrival
        arrival.place = kernel.open_place(entry)
        if plan.kind is not TransferKind.LOCAL:
            entry.place = arrival.place
            entry.held = []  # until it is decided whether the paglet is here
        # Begun when the start below has been sent, through the same channel: the process goes on with it by itself.
        event = self._hook_event(plan, arrival, plan.arrival_hook)
        arrival.hook = kernel.loop.create_task(
            kernel.hook(arrival.place, plan.arrival_hook.value, event, snapshot=IF_TOUCHED)
        )
        arrival.hook.add_done_callback(_heard)
        if plan.kind is not TransferKind.LOCAL and envelope.agent_class_name in self._plain_classes:
            # The disk works while the process starts. The copy counts from now on, which takes nothing from a paglet
            # whose class is known to start here and has no hook that could refuse.
            arrival.storing = kernel.loop.create_task(self._store(arrival, PreparedRecord(plan, arrival.state.vote)))
            arrival.storing.add_done_callback(_heard)
        await kernel.start_place(entry, arrival.place, StartOrder(incoming.state.attachment, ""))
        if faults.ARMED:
            faults.reached("target.started")

    def _holder(self, plan: TransferPlan, incoming: Incoming) -> str:
        """Return for whom a paglet counts here: whoever brought it, or brought what it is a copy of."""
        if incoming.by is not None:
            return incoming.by.name
        original = self._kernel.agents.get(plan.origin_id)
        if original is None or not original.holder:
            return ""
        self._kernel.holdings.count(original.holder, plan.agent_id)
        return original.holder

    def _hook_event(self, plan: TransferPlan, arrival: Arrival, hook: Hook) -> dict[str, Any]:
        envelope = arrival.incoming.envelope if arrival.incoming is not None else None
        names = {
            "source_host_name": envelope.source_host_name if envelope is not None else "",
            "source_host_address": (envelope.source_host_address if envelope is not None else "") or plan.source,
            "target_host_name": self._kernel.config.name,
            "target_host_address": self._kernel.address(),
        }
        if hook is Hook.CLONE:
            return self._kernel.event_fields(
                plan.agent_id, source_agent_id=plan.origin_id, clone_agent_id=plan.agent_id, **names
            )
        reason = "retract" if plan.kind is TransferKind.RETRACT else "dispatch"
        return self._kernel.event_fields(plan.agent_id, reason=reason, **names)

    async def _write(
        self, arrival: Arrival, action: actions.StoreInert | actions.JournalActivate
    ) -> events.JournalWritten | events.JournalFailed:
        try:
            if isinstance(action, actions.StoreInert):
                await self._store_inert(arrival, action.record)
            else:
                await self._own(arrival, action.record)
        except (PagletError, OSError) as exc:
            return events.JournalFailed(str(exc))
        return events.JournalWritten()

    def _remember_plain(self, class_name: str) -> None:
        if len(self._plain_classes) >= MAX_PLAIN_CLASSES:
            self._plain_classes.clear()
        self._plain_classes.add(class_name)

    async def _store_inert(self, arrival: Arrival, record: PreparedRecord) -> None:
        if arrival.storing is not None:
            await arrival.storing
        timers: dict[str, ReminderRow | None] = {}
        if arrival.entry is not None and arrival.plan.kind is not TransferKind.LOCAL:
            timers, arrival.entry.timers = arrival.entry.timers or {}, {}
        if arrival.storing is None or arrival.touched is not None or timers or record.deferred:
            await self._store(arrival, record, timers)
        # Else what came in is what there is, and that is on disk.

    async def _store(
        self, arrival: Arrival, record: PreparedRecord, timers: Mapping[str, ReminderRow | None] = MappingProxyType({})
    ) -> None:
        incoming, plan = arrival.incoming, arrival.plan
        if incoming is None:
            raise HostError("nothing to store")
        state = arrival.touched or incoming.state.attachment
        luggage = Luggage.unpack(incoming.luggage.attachment.view(), plan.agent_id)
        files = arrival.installed
        balance, holder = arrival.balance, "" if incoming.by is None else incoming.by.name
        if arrival.entry is not None:
            balance, holder = arrival.entry.balance, arrival.entry.holder
        if plan.kind is TransferKind.LOCAL and arrival.entry is not None:
            files, luggage.durability = arrival.entry.files, arrival.entry.durability
            luggage.home = arrival.entry.home
        else:
            luggage.set_timers(timers)
        ref = await self._kernel.vault.keep(state)
        if faults.ARMED:
            faults.reached("target.storing")
        arrival.cargo = Cargo(incoming.envelope, luggage, ref, files, balance, holder)
        try:
            await self._log.record_prepared(record, arrival.cargo)
        except PagletError:
            await self._kernel.vault.drop(ref)
            raise

    async def _own(self, arrival: Arrival, record: ActivatedRecord) -> None:
        cargo, entry = arrival.cargo, arrival.entry
        if cargo is None:
            raise HostError("nothing to activate")
        if entry is not None:
            cargo.balance = entry.balance  # less, where it has created others since it was stored
        if faults.ARMED:
            faults.reached("target.activating")
        await self._log.record_activated(
            record,
            cargo,
            durability=None if entry is None else entry.durability,
            cold=arrival.place is None,
            seconds=self._kernel.loop.time() - arrival.began if arrival.began else 0.0,
        )
        if faults.ARMED:
            faults.reached("target.activated")
        if record.plan.kind is not TransferKind.LOCAL:
            self._timers.adopt(record.plan.agent_id, cargo.luggage.reminders)
            self._whereabouts.tell(record.plan.agent_id, home=cargo.luggage.home)

    async def _ask(self, arrival: Arrival, vote: str) -> events.ParticipantEvent:
        if arrival.link is None:
            return events.QueryFailed("the source is not known")
        try:
            outcome: Outcome = await arrival.link.outcome(arrival.transfer_id, vote)
        except (PagletError, OSError) as exc:
            return events.QueryFailed(str(exc))
        return events.OutcomeReceived(outcome, vote)

    async def _activate(self, arrival: Arrival, cold: bool, deferred: tuple[LifecycleCall, ...]) -> None:
        entry, place, plan, kernel = arrival.entry, arrival.place, arrival.plan, self._kernel
        self._decide(arrival)
        calls = [SelfCall(call.operation, msgspec.json.decode(call.argument)) for call in deferred]
        if cold or entry is None or place is None:
            await self._activate_from_row(arrival, calls)
            return
        entry.deferred = calls
        cargo = arrival.cargo
        if plan.kind is TransferKind.CLONE:
            entry.home = kernel.address()
        elif cargo is not None and plan.kind is not TransferKind.LOCAL:
            entry.home = cargo.luggage.home
            entry.window.restore(cargo.luggage.window)
            lost = cargo.luggage.window_lost
            entry.window_lost_at = None if lost is None else kernel.loop.time() - lost
            self._dormitory.take_in(entry, cargo.luggage.mailbox, stored=entry.durability is Durability.MESSAGE)
        if plan.kind is TransferKind.LOCAL:
            if entry.place is not None:
                entry.place.detached = True
            entry.mailbox.detach()
            entry.place = place
            entry.epoch = plan.epoch
            entry.leaving.clear()
        kernel.activate(entry)
        data: dict[str, Any] = {"kind": self._kind(plan)}
        if plan.kind is TransferKind.CLONE:
            data = {"source_agent_id": plan.origin_id}
        kernel.emit("clone" if plan.kind is TransferKind.CLONE else "arrival", entry, data=data)
        entry.release_held()
        arrival.settled = kernel.loop.create_task(self._settle(arrival, entry))
        kernel.keep(arrival.settled)
        if place.run_ended is None and not deferred:
            await arrival.settled

    def _kind(self, plan: TransferPlan) -> str:
        return EnvelopeKind.DISPATCH.value if plan.kind is TransferKind.LOCAL else plan.kind.value

    async def _settle(self, arrival: Arrival, entry: AgentEntry) -> dict[str, str] | None:
        location = await self._kernel.begin(entry)
        if entry.gone.done():
            return location
        return self._kernel.proxy_wire(entry.agent_id)

    async def _activate_from_row(self, arrival: Arrival, calls: list[SelfCall]) -> None:
        """Bring a paglet back whose process died with an earlier life of this host."""
        self._lay_down(arrival)
        location = self._dormitory.activate(arrival.plan.agent_id, reason="recovery", calls=calls)
        arrival.settled = self._kernel.loop.create_task(_wherever(location))
        self._kernel.keep(arrival.settled)

    def _lay_down(self, arrival: Arrival) -> None:
        """Know of a paglet that is stored here, to sleep or to be brought back."""
        plan, cargo, kernel = arrival.plan, arrival.cargo, self._kernel
        self._decide(arrival)
        if cargo is None:
            raise HostError("nothing is stored of an arrived paglet")
        self._dormitory.lay_down(
            RecordSummary(
                agent_id=plan.agent_id,
                agent_class_name=cargo.envelope.agent_class_name,
                state_class_name=cargo.envelope.state_class_name,
                deactivated_at=time.time(),
                status=Status.ACTIVE if plan.activate else Status.INACTIVE,
                epoch=plan.epoch,
                queued_message_count=len(cargo.luggage.mailbox),
                balance=cargo.balance,
                holder=cargo.holder,
            )
        )
        kernel.emit(
            "arrival",
            agent_id=plan.agent_id,
            class_name=cargo.envelope.agent_class_name,
            data={"active": plan.activate, "kind": self._kind(plan)},
        )

    async def _discard(self, arrival: Arrival, delete_files: bool) -> None:
        kernel, plan = self._kernel, arrival.plan
        self._decide(arrival)
        entry, arrival.entry = arrival.entry, None
        place, arrival.place = arrival.place, None
        if place is not None:
            place.kill()
        if entry is not None and plan.kind is not TransferKind.LOCAL and entry.phase is Phase.STARTING:
            kernel.abandon(entry, InvalidAgentError(f"paglet {plan.agent_id} did not come to {kernel.config.name}"))
            entry.release_held()
        if delete_files:
            if arrival.installed:
                await self._unloader.undo(plan.agent_id)
                arrival.installed = {}
            if arrival.incoming is not None:
                arrival.incoming.discard()
        if arrival.storing is not None:
            await asyncio.wait((arrival.storing,))
        if arrival.cargo is not None:
            arrival.cargo = None
            kernel.background(self._log.discard_prepared(arrival.transfer_id))


def _is_new(arrival: Arrival | None) -> bool:
    """Tell whether a PREPARE of this transfer begins it, or begins it again."""
    return (
        arrival is None
        or arrival.incoming is None
        or arrival.state.phase
        in (
            participant.ParticipantPhase.REFUSED,
            participant.ParticipantPhase.ABSENT,
            participant.ParticipantPhase.FORGOTTEN,
            participant.ParticipantPhase.ABORTED,
        )
    )


async def _wherever(activation: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str] | None:
    """Return where a paglet is that is brought back; None where it could not be, and is shown as crashed."""
    try:
        return await activation
    except PagletError:
        return None


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of a failure that nobody may come to ask for, because something else failed first."""
    if not task.cancelled():
        task.exception()


def _resolve(waiters: list[Answer], answer: dict[str, Any]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(answer)
    waiters.clear()
