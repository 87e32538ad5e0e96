"""Get an arriving paglet ready: its files, its process, its arrival hook, and the inert copy on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from paglets.core.errors import HostError, PagletError
from paglets.persistence.envelope import DECLARED_STATE
from paglets.persistence.rows import ReminderRow
from paglets.protocol.transfer import actions, events
from paglets.protocol.transfer.model import Hook, PreparedRecord, TransferKind, TransferPlan
from paglets.runtime import faults
from paglets.runtime.arrivals.record import Arrival, Undecided
from paglets.runtime.files import FileDesk
from paglets.runtime.frames import IF_TOUCHED
from paglets.runtime.kernel import Kernel
from paglets.runtime.luggage import Luggage
from paglets.runtime.receiving import Incoming
from paglets.runtime.starting import StartOrder
from paglets.runtime.transfer_log import Cargo, TransferLog
from paglets.runtime.unloading import UnloadingDesk

MAX_PLAIN_CLASSES = 1024


class PreparationDesk:
    """Do what has to be done before this host may vote for a transfer."""

    def __init__(
        self, kernel: Kernel, files: FileDesk, unloader: UnloadingDesk, log: TransferLog, undecided: Undecided
    ) -> None:
        self._kernel = kernel
        self._files = files
        self._unloader = unloader
        self._log = log
        self._undecided = undecided
        self._plain_classes: set[str] = set()
        """Names of the classes that have started here and whose arrival hook does nothing."""

    async def begin(
        self, arrival: Arrival, action: actions.MaterialiseFiles | actions.StartProcess | actions.RunHook
    ) -> events.ParticipantEvent:
        """Perform one step and return what the machine is to hear of it.

        :raises Exception: whatever a hook raised, or the process or the disk did not do.
        """
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
                    self._kernel.starter.check_size(arrival.entry, state)
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
        self._undecided.add(arrival)
        arrival.place = kernel.starter.open_place(entry)
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
        order = StartOrder(incoming.state.attachment, "", declared_state=bool(envelope.metadata.get(DECLARED_STATE)))
        await kernel.starter.start_place(entry, arrival.place, order)
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

    def _remember_plain(self, class_name: str) -> None:
        if len(self._plain_classes) >= MAX_PLAIN_CLASSES:
            self._plain_classes.clear()
        self._plain_classes.add(class_name)

    async def store_inert(self, arrival: Arrival, record: PreparedRecord) -> None:
        """Have the inert copy on disk.

        :raises PagletError: the disk does not take it.
        """
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


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of a failure that nobody may come to ask for, because something else failed first."""
    if not task.cancelled():
        task.exception()
