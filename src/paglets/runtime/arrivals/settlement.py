"""What becomes of a paglet when its transfer to this host is decided: it is activated, laid down or discarded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from paglets.core.errors import HostError, InvalidAgentError, PagletError
from paglets.core.runtime_values import Durability, EnvelopeKind
from paglets.persistence.rows import RecordSummary, Status
from paglets.protocol.transfer.model import ActivatedRecord, LifecycleCall, TransferKind, TransferPlan
from paglets.remote.json_text import decode_json
from paglets.runtime import faults
from paglets.runtime.activation import Activator
from paglets.runtime.agents import AgentEntry, Phase, SelfCall
from paglets.runtime.arrivals.record import Arrival, Undecided
from paglets.runtime.kernel import Kernel
from paglets.runtime.sleep import Dormitory
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.transfer_log import TransferLog
from paglets.runtime.unloading import UnloadingDesk
from paglets.runtime.whereabouts import Whereabouts


class SettlementDesk:
    """Carry out what was decided about arriving paglets."""

    def __init__(
        self,
        kernel: Kernel,
        dormitory: Dormitory,
        activator: Activator,
        unloader: UnloadingDesk,
        log: TransferLog,
        timers: Timekeeper,
        whereabouts: Whereabouts,
        undecided: Undecided,
    ) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        self._activator = activator
        self._unloader = unloader
        self._log = log
        self._timers = timers
        self._whereabouts = whereabouts
        self._undecided = undecided

    async def own(self, arrival: Arrival, record: ActivatedRecord) -> None:
        """Have it on disk that the paglet is here.

        :raises PagletError: the disk does not take it.
        """
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

    async def activate(self, arrival: Arrival, cold: bool, deferred: tuple[LifecycleCall, ...]) -> None:
        """Let an arrived paglet live.

        :param cold: the process that was started for it is not there any more.
        :param deferred: what it asked for itself while its transfer was not decided.
        """
        entry, place, plan, kernel = arrival.entry, arrival.place, arrival.plan, self._kernel
        calls = [SelfCall(call.operation, decode_json(call.argument.encode())) for call in deferred]
        if cold or entry is None or place is None:
            self._activate_from_row(arrival, calls)
            return
        self._decide(arrival)
        entry.deferred = calls
        cargo = arrival.cargo
        if plan.kind is TransferKind.CLONE:
            entry.home = kernel.address()
        elif cargo is not None and plan.kind is not TransferKind.LOCAL:
            entry.home = kernel.address.of(cargo.luggage.home)
            entry.window.restore(cargo.luggage.window)
            lost = cargo.luggage.window_lost
            entry.window_lost_at = None if lost is None else kernel.loop.time() - lost
            self._activator.take_in(entry, cargo.luggage.mailbox, stored=entry.durability is Durability.MESSAGE)
        if plan.kind is TransferKind.LOCAL:
            if entry.place is not None:
                entry.place.detached = True
            entry.mailbox.detach()
            entry.place = place
            entry.epoch = plan.epoch
            entry.leaving.clear()
        kernel.starter.activate(entry)
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
        location = await self._kernel.starter.begin(entry)
        if entry.gone.done():
            return location
        return self._kernel.proxy_wire(entry.agent_id)

    def _activate_from_row(self, arrival: Arrival, calls: list[SelfCall]) -> None:
        """Bring a paglet back whose process died with an earlier life of this host."""
        location = self._activator.activate(arrival.plan.agent_id, reason="recovery", calls=calls)
        arrival.settled = self._kernel.loop.create_task(_wherever(location))
        self._kernel.keep(arrival.settled)
        # After that, so that who hears of the decision finds it waking and wakes it not without these calls.
        self.lay_down(arrival)

    def lay_down(self, arrival: Arrival) -> None:
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

    async def discard(self, arrival: Arrival, delete_files: bool) -> None:
        """Remove every trace of a paglet that does not come."""
        kernel, plan = self._kernel, arrival.plan
        self._decide(arrival)
        entry, arrival.entry = arrival.entry, None
        place, arrival.place = arrival.place, None
        if place is not None:
            place.kill()
        if entry is not None and plan.kind is not TransferKind.LOCAL and entry.phase is Phase.STARTING:
            kernel.ending.abandon(
                entry, InvalidAgentError(f"paglet {plan.agent_id} did not come to {kernel.config.name}")
            )
            entry.release_held()
        if delete_files:
            if arrival.installed or place is not None or arrival.cargo is not None:
                # Room was made for it, and its process may have begun a work directory of its own.
                await self._unloader.undo(plan.agent_id)
                arrival.installed = {}
            if arrival.incoming is not None:
                arrival.incoming.discard()
        if arrival.storing is not None:
            await asyncio.wait((arrival.storing,))
        if arrival.cargo is not None:
            arrival.cargo = None
            kernel.background(self._log.discard_prepared(arrival.transfer_id))

    def _decide(self, arrival: Arrival) -> None:
        self._undecided.decide(arrival)
        if arrival.incoming is not None and arrival.incoming.load.large:
            self._unloader.release(arrival.incoming)


async def _wherever(activation: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str] | None:
    """Return where a paglet is that is brought back; None where it could not be, and is shown as crashed."""
    try:
        return await activation
    except PagletError:
        return None
