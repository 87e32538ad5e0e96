"""The target side of a move: perform what :mod:`paglets.protocol.transfer.participant` decides."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from paglets.artifacts import PagletFileRef
from paglets.core.errors import OverloadedError, PagletError, SerializationError, TransferError
from paglets.persistence.directory import validate_agent_id
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer import actions, events, participant
from paglets.protocol.transfer.model import (
    ActivatedRecord,
    LifecycleCall,
    Outcome,
    PreparedRecord,
    Refusal,
    RefusalReason,
    TransferPlan,
)
from paglets.remote.json_text import encode_json
from paglets.remote.movement import Sink
from paglets.runtime import faults
from paglets.runtime.activation import Activator
from paglets.runtime.agents import AgentEntry, SelfCall
from paglets.runtime.arrivals.admission import AdmissionDesk
from paglets.runtime.arrivals.preparation import PreparationDesk
from paglets.runtime.arrivals.record import Answer, Arrival, Undecided
from paglets.runtime.arrivals.settlement import SettlementDesk
from paglets.runtime.ended_transfers import EndedTransfers
from paglets.runtime.files import FileDesk
from paglets.runtime.kernel import Kernel
from paglets.runtime.luggage import MAX_LUGGAGE_BYTES
from paglets.runtime.pauses import call_about
from paglets.runtime.receiving import Incoming, Load, StateSink, manifest_of
from paglets.runtime.sleep import Dormitory
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.transfer_log import Cargo, TransferLog
from paglets.runtime.transfer_wire import TransferLink, plan_from_wire, refusal_to_wire
from paglets.runtime.unloading import UnloadingDesk
from paglets.runtime.whereabouts import Whereabouts

#: Transfers that are not settled yet, the ones of paglets that live here already included.
MAX_OPEN_ARRIVALS = 2048
#: How long a transfer waits for the outcome of an earlier one of the same paglet.
DECISION_SECONDS = 5.0


class ArrivalDesk:
    """Receive paglets from other hosts, and from this one."""

    def __init__(
        self,
        kernel: Kernel,
        dormitory: Dormitory,
        activator: Activator,
        files: FileDesk,
        unloader: UnloadingDesk,
        log: TransferLog,
        timers: Timekeeper,
        whereabouts: Whereabouts,
        *,
        link_to: Callable[[str], TransferLink],
    ) -> None:
        self._kernel = kernel
        self._unloader = unloader
        self._log = log
        self._link_to = link_to
        self._arrivals: dict[str, Arrival] = {}
        """Those that have not ended."""
        self._ended = EndedTransfers(kernel.loop)
        self._open: set[str] = set()
        """Ids of the transfers whose machine has not ended."""
        self._undecided = Undecided()
        self._admission = AdmissionDesk(kernel, dormitory, whereabouts, self._undecided)
        self._preparation = PreparationDesk(kernel, files, unloader, log, self._undecided)
        self._settlement = SettlementDesk(
            kernel, dormitory, activator, unloader, log, timers, whereabouts, self._undecided
        )

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
                self._undecided.add(arrival)
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
            return await self._ended.location(transfer_id)
        return await asyncio.shield(arrival.settled)

    def arriving(self, entry: AgentEntry) -> bool:
        """Tell whether a paglet's transfer to this host is not decided yet."""
        return self._undecided.of(entry) is not None

    def undecided(self, agent_id: str) -> asyncio.Event | None:
        """Return what is set when it is decided whether an arriving paglet is here; None where none arrives."""
        arrival = self._undecided.get(agent_id)
        return None if arrival is None else arrival.decided

    def defer(self, entry: AgentEntry, call: SelfCall) -> bool:
        """Keep a call that an arriving paglet made on itself until its transfer is decided; False if none is under
        way."""
        arrival = self._undecided.of(entry)
        if arrival is None:
            return False
        argument = encode_json(call.arguments).decode()
        self._feed(arrival, events.CallRequested(LifecycleCall(call.operation, argument)))
        return True

    def _arrival(self, transfer_id: str) -> Arrival:
        arrival = self._arrivals.get(transfer_id)
        if arrival is None:
            validate_agent_id(transfer_id)
            arrival = self._arrivals[transfer_id] = Arrival(transfer_id)
            arrival.state = self._ended.unbury(transfer_id) or arrival.state
        return arrival

    def _end(self, arrival: Arrival) -> None:
        if arrival.timer is not None:
            arrival.timer.cancel()
        del self._arrivals[arrival.transfer_id]
        self._ended.bury(arrival.transfer_id, arrival.state, arrival.settled)

    # --- driving the machine ------------------------------------------------------------------------------------------

    def _feed(self, arrival: Arrival, event: events.ParticipantEvent) -> None:
        arrival.inbox.append(event)
        if not arrival.running:
            arrival.take_up()
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
            arrival.lay_aside()
            if arrival.state.terminal and not arrival.inbox:
                self._end(arrival)

    async def _perform(self, arrival: Arrival, action: actions.ParticipantAction) -> events.ParticipantEvent | None:
        match action:
            case actions.CheckAdmission(plan):
                refusal = await self._admit(arrival, plan)
                return events.Admitted() if refusal is None else events.NotAdmitted(refusal)
            case actions.MaterialiseFiles() | actions.StartProcess() | actions.RunHook():
                try:
                    return await self._preparation.begin(arrival, action)
                except Exception as exc:  # whatever a hook raised: the source must hear of it
                    return events.StepFailed(f"{type(exc).__name__}: {exc}", exc)
            case actions.StoreInert() | actions.JournalActivate():
                return await self._write(arrival, action)
            case actions.QueryOutcome(vote):
                return await self._ask(arrival, vote)
            case actions.Activate(cold, deferred):
                await self._settlement.activate(arrival, cold, deferred)
            case actions.StoreInactive():
                self._settlement.lay_down(arrival)
            case actions.Discard(delete_files):
                await self._settlement.discard(arrival, delete_files)
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

    async def _admit(self, arrival: Arrival, plan: TransferPlan) -> Refusal | None:
        """Judge a paglet; where an earlier transfer of it is undecided, have that decided first and judge again."""
        refusal = await self._admission.judge(arrival, plan)
        older = self._undecided.get(plan.agent_id)
        if refusal is None or refusal.reason is not RefusalReason.BUSY or older is None:
            return refusal
        # Its source is up again, as a rule, and is asked now rather than when the pause between two questions is over.
        self._feed(older, events.RetryDue())
        with suppress(TimeoutError):
            async with asyncio.timeout(DECISION_SECONDS):
                await older.decided.wait()
                # What it had put in place must be gone.
                await older.rest.wait()
        return await self._admission.judge(arrival, plan)

    async def _write(
        self, arrival: Arrival, action: actions.StoreInert | actions.JournalActivate
    ) -> events.JournalWritten | events.JournalFailed:
        try:
            if isinstance(action, actions.StoreInert):
                await self._preparation.store_inert(arrival, action.record)
            else:
                await self._settlement.own(arrival, action.record)
        except (PagletError, OSError) as exc:
            return events.JournalFailed(str(exc))
        return events.JournalWritten()

    async def _ask(self, arrival: Arrival, vote: str) -> events.ParticipantEvent:
        if arrival.link is None:
            return events.QueryFailed("the source is not known")
        try:
            outcome: Outcome = await arrival.link.outcome(arrival.transfer_id, vote)
        except (PagletError, OSError) as exc:
            return events.QueryFailed(str(exc))
        return events.OutcomeReceived(outcome, vote)


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


def _resolve(waiters: list[Answer], answer: dict[str, Any]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(answer)
    waiters.clear()
