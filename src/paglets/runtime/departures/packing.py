"""Make a paglet ready to leave its host: its hook, its snapshot, its luggage, its files, and the envelope around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from paglets.core.errors import HostError
from paglets.core.runtime_values import EnvelopeKind
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer import actions, events
from paglets.protocol.transfer.model import Hook, TransferKind
from paglets.remote.transfer import TransferTicket
from paglets.runtime.attachment import Attachment
from paglets.runtime.carriage import Carriage
from paglets.runtime.departures.record import Departure
from paglets.runtime.kernel import Kernel
from paglets.runtime.luggage import Luggage
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.transfer_log import StoredCommit
from paglets.runtime.transfer_wire import plan_to_wire
from paglets.runtime.units import Aftermath, queued_message


class Packer:
    """Perform the steps of a departure at its own host, and put together what is sent.

    :param check_target: asks the target for its health and compares it with the ticket; with True, what the target
        said a moment ago will do.
    """

    def __init__(
        self,
        kernel: Kernel,
        carriage: Carriage,
        timers: Timekeeper,
        check_target: Callable[[TransferTicket, bool], Awaitable[dict[str, Any]]],
    ) -> None:
        self._kernel = kernel
        self._carriage = carriage
        self._timers = timers
        self._check_target = check_target

    async def perform(self, departure: Departure, action: actions.CoordinatorAction) -> events.CoordinatorEvent | None:
        """Perform one step and report it.

        :raises Exception: whatever a hook or a clean-up raised.
        """
        entry, kernel = departure.entry, self._kernel
        match action:
            case actions.CheckTarget():
                departure.target_health = await self._check_target(
                    departure.ticket,
                    # Only where a target that has gone meanwhile leaves no trace in the paglet.
                    departure.plan.departure_hook.value not in entry.departure_hooks and not entry.resources,
                )
                return events.Checked()
            case actions.AwaitHandler():
                await kernel.messages.idle(entry, departure.ticket.timeout)
                return events.HandlerIdle()
            case actions.RunHook(hook):
                if departure.parent and not departure.in_handler and hook is not Hook.CLONED:
                    # `run` asked: the handler beside it is not the one that waits, so it can be waited for.
                    await kernel.messages.idle(entry, departure.ticket.timeout)
                await self._run_hook(departure, hook)
                return events.HookDone()
            case actions.CleanupResources():
                return events.Cleaned()  # done by the process together with the hook
            case actions.Snapshot():
                await self._pack(departure)  # the state was taken together with the hook
                return events.SnapshotTaken()
            case actions.StageFiles():
                if entry.files:
                    await self.load(departure)
                return events.FilesStaged()
        raise AssertionError(action)

    async def load(self, departure: Departure) -> None:
        """Read the registered files as they are now.

        :raises TransferError: one is missing, cannot be read, or changes all the time.
        """
        contents = departure.plan.kind is not TransferKind.LOCAL  # there they stay where they are
        departure.shipment = await self._carriage.load(departure.entry, contents=contents)

    async def _run_hook(self, departure: Departure, hook: Hook) -> None:
        plan, kernel, entry = departure.plan, self._kernel, departure.entry
        before = hook is not Hook.CLONED
        names = {
            "source_host_name": kernel.config.name,
            "source_host_address": plan.source,
            "target_host_name": str(departure.target_health.get("name", "")),
            "target_host_address": plan.target,
        }
        if plan.kind is TransferKind.CLONE:
            event = kernel.event_fields(
                entry.agent_id, source_agent_id=entry.agent_id, clone_agent_id=plan.agent_id, **names
            )
            cleanup = ""
        else:
            cleanup = "retract" if plan.kind is TransferKind.RETRACT else "dispatch"
            event = kernel.event_fields(entry.agent_id, reason=cleanup, **names)
        answer, blob = await kernel.hook(
            entry.live_place(), hook.value, event, cleanup=cleanup, snapshot=before, parent=departure.parent
        )
        entry.resources = answer["resources"]
        if before:
            excess = entry.balance.too_large(blob.nbytes)
            if excess is not None:
                blob.close()
                self._kernel.exceeded(entry, excess)
                raise excess.error(entry.agent_id)
            departure.blob = blob
            departure.answer = answer
            entry.remember_state(blob)

    async def _pack(self, departure: Departure) -> None:
        """Put the luggage together; what comes from now on is held until the transfer is decided."""
        plan, entry = departure.plan, departure.entry
        timers = self._timers
        reminders = await self._kernel.on_disk(timers.of, entry.agent_id) if timers.has_any(entry.agent_id) else []
        if plan.kind is TransferKind.LOCAL:
            return
        luggage = Luggage("", entry.durability, reminders=reminders)
        if plan.kind is not TransferKind.CLONE:
            entry.held = []
            await self._kernel.messages.recorded(entry)
            departure.travelling = [queued.item for queued in entry.mailbox.waiting() if queued.item.oneway]
            luggage.home = self._kernel.address.of(entry.home)
            luggage.mailbox = [queued_message(delivery) for delivery in departure.travelling]
            luggage.window = entry.window.export()
            lost = entry.window_lost_at
            luggage.window_lost = None if lost is None else self._kernel.loop.time() - lost
            aftermath = self.aftermath(departure)
            if aftermath.message_id:
                luggage.window.append((aftermath.message_id, aftermath.outcome))
        departure.luggage = luggage.pack()

    def aftermath(self, departure: Departure) -> Aftermath:
        """Return what is to be on disk of the message on which the paglet moves itself."""
        plan = departure.plan
        if plan.kind is TransferKind.CLONE:
            return Aftermath()
        location = {"host_url": plan.target, "agent_id": plan.agent_id}
        return Aftermath.of(departure.delivery, departure.answer, location)

    async def unpack_stored(self, departure: Departure, stored: StoredCommit) -> None:
        """Read what a target that has lost its copy needs, of a transfer that an earlier life of this host committed.

        :raises HostError: the state was large, and is on this host's disk no more.
        """
        if stored.state is None:
            raise HostError(f"the state that was handed over to {departure.plan.target} is not kept here any more")
        blob = await self._kernel.on_disk(self._kernel.vault.states.load, stored.state)
        departure.blob = Attachment.of([blob])
        if stored.files:
            await self.load(departure)

    def header(self, departure: Departure, attempt: int, recovering: bool) -> dict[str, Any]:
        """Return what PREPARE says before its parts."""
        if departure.stored is not None:
            envelope = dict(departure.stored.header["envelope"])
            envelope["metadata"] = {**envelope["metadata"], "registered_files": departure.shipment.manifest}
        else:
            envelope = self._envelope(departure).to_wire()
        return {
            "envelope": envelope,
            "transfer": {
                "plan": plan_to_wire(departure.plan),
                "attempt": attempt,
                "recovering": recovering,
                "luggage": bool(departure.luggage),
                "files": departure.shipment.to_wire(),
            },
        }

    def _envelope(self, departure: Departure) -> PagletEnvelope:
        plan, entry = departure.plan, departure.entry
        kind = EnvelopeKind.DISPATCH if plan.kind is TransferKind.LOCAL else EnvelopeKind(plan.kind.value)
        return PagletEnvelope(
            kind=kind,
            agent_id=plan.agent_id,
            agent_class_name=entry.class_name,
            state_class_name=entry.state_class_name,
            state={},
            source_host_name=self._kernel.config.name,
            source_host_address=plan.source,
            target_host_name=str(departure.target_health.get("name", "")),
            target_host_address=plan.target,
            clone_of=plan.origin_id or None,
            metadata={
                "transfer_ticket": departure.ticket.to_wire(),
                "registered_files": departure.shipment.manifest,
            },
        )
