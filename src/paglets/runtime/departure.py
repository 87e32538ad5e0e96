"""The source side of a move: perform what :mod:`paglets.protocol.transfer.coordinator` decides."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import HostError, PagletError, TransferError
from paglets.core.runtime_values import ArrivalMode, EnvelopeKind
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer import actions, coordinator, events
from paglets.protocol.transfer.journal import TransferJournal
from paglets.protocol.transfer.model import Hook, Outcome, Stage, TransferKind, TransferPlan
from paglets.remote.movement import BufferPart, FilePart, Part
from paglets.remote.transfer import TransferTicket
from paglets.runtime.agents import AgentEntry, Delivery, Phase
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.files import FileDesk
from paglets.runtime.kernel import Kernel
from paglets.runtime.place import Place
from paglets.runtime.transfer_wire import TransferLink, plan_to_wire, refusal_from_wire

#: How long a settled location is waited for beyond what the target allows itself.
LOCATION_SECONDS = 5.0


@dataclass(slots=True)
class Departure:
    """One transfer that this host coordinates."""

    plan: TransferPlan
    ticket: TransferTicket
    entry: AgentEntry
    link: TransferLink
    parent: int
    in_handler: bool
    state: coordinator.CoordinatorState
    decided: asyncio.Future[None]
    target_health: dict[str, Any] = field(default_factory=dict)
    blob: Attachment = EMPTY
    manifest: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    waiting: list[Delivery] = field(default_factory=list)
    old_place: Place | None = None
    location: dict[str, str] | None = None
    settling: bool = False
    timer: asyncio.TimerHandle | None = None
    inbox: deque[events.CoordinatorEvent] = field(default_factory=deque)
    running: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    """From the request to the moment the paglet, or its clone, lives at the target."""


Forward = Callable[[str, str, Sequence[Delivery]], Coroutine[Any, Any, None]]


class DepartureDesk:
    """Send paglets of this host to others, or copies of them.

    :param link_to: returns the way to speak with a host.
    :param forward: delivers the messages that waited here to where their paglet is now.
    """

    def __init__(
        self,
        kernel: Kernel,
        files: FileDesk,
        journal: TransferJournal,
        *,
        link_to: Callable[[str], TransferLink],
        check_target: Callable[[TransferTicket], Awaitable[dict[str, Any]]],
        forward: Forward,
    ) -> None:
        self._kernel = kernel
        self._files = files
        self._journal = journal
        self._link_to = link_to
        self._check_target = check_target
        self._forward = forward
        self._departures: dict[str, Departure] = {}

    def outcome(self, transfer_id: str, vote: str) -> Outcome:
        """Answer a target that asks what became of a transfer."""
        departure = self._departures.get(transfer_id)
        return coordinator.outcome(None if departure is None else departure.state, vote)

    async def depart(
        self,
        entry: AgentEntry,
        kind: TransferKind,
        ticket: TransferTicket,
        *,
        clone_id: str = "",
        parent: int = 0,
        in_handler: bool = False,
    ) -> dict[str, str]:
        """Carry out one move or clone and return where the paglet, or its clone, is in the end.

        :param ticket: its destination is the other host's base URL.
        :raises TransferError: it did not happen; the paglet goes on here.
        :raises PagletError: a hook or a cleanup of the paglet said no.
        """
        kernel = self._kernel
        async with kernel.hold(entry, parent=parent):
            here = kernel.address()
            plan = TransferPlan(
                transfer_id=uuid.uuid4().hex,
                kind=kind,
                agent_id=clone_id or entry.agent_id,
                epoch=0 if kind is TransferKind.CLONE else entry.epoch + 1,
                source=here,
                target=ticket.destination,
                origin_id=entry.agent_id if kind is TransferKind.CLONE else "",
                attempts=ticket.retries + 1,
                retry_interval=ticket.retry_interval,
                activate=ticket.arrival_mode is ArrivalMode.ACTIVATE,
                by_itself=bool(parent),
            )
            state, todo = coordinator.start(plan)
            departure = Departure(
                plan,
                ticket,
                entry,
                self._link_to(ticket.destination),
                parent,
                in_handler,
                state,
                kernel.loop.create_future(),
            )
            self._departures[plan.transfer_id] = departure
            kernel.background(self._drive(departure, todo))
            await asyncio.shield(departure.decided)
            departure.seconds = time.perf_counter() - departure.started
        if kind is TransferKind.LOCAL:
            kernel.open_mailbox(entry)
        # Outside the lock: where the paglet goes from there is its own affair again.
        location = await self._settled_location(departure)
        if plan.leaves_source and kind is not TransferKind.LOCAL:
            if entry.last_state is departure.blob:
                # A target that loses what it voted for gets it again, so the transfer keeps it to its end.
                entry.last_state = None
                if departure.ended.is_set():
                    departure.blob.close()
            kernel.departed(entry, location)
        self._report(departure)
        return location

    def cancel_all(self, reason: str) -> None:
        """Call off every transfer that is not committed yet."""
        for departure in list(self._departures.values()):
            self._feed(departure, events.Cancel(reason))

    async def finish(self, reason: str, timeout: float) -> None:
        """Call off every transfer that is not committed yet, and give the others ``timeout`` seconds to be
        acknowledged.

        None of those called off can be committed any more when this returns. A target that still prepares one is told,
        so that it need not ask a host that is gone.
        """
        departures = list(self._departures.values())
        if not departures:
            return
        self.cancel_all(reason)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(departure.ended.wait() for departure in departures))
        preparing = coordinator.CoordinatorPhase.PREPARING
        undecided = [departure for departure in departures if departure.state.phase is preparing]
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                aborts = (departure.link.abort(departure.plan.transfer_id) for departure in undecided)
                await asyncio.gather(*aborts, return_exceptions=True)

    # --- driving the machine ------------------------------------------------------------------------------------------

    def _feed(self, departure: Departure, event: events.CoordinatorEvent) -> None:
        departure.inbox.append(event)
        if not departure.running:
            self._kernel.background(self._drive(departure, ()))

    async def _drive(self, departure: Departure, todo: tuple[actions.CoordinatorAction, ...]) -> None:
        departure.running = True
        try:
            while True:
                for action in todo:
                    event = await self._perform(departure, action)
                    if event is not None:
                        departure.inbox.append(event)
                if departure.state.terminal:
                    self._close(departure)
                    return
                if not departure.inbox:
                    return
                departure.state, todo = coordinator.step(departure.state, departure.inbox.popleft())
        finally:
            departure.running = False

    def _close(self, departure: Departure) -> None:
        if departure.timer is not None:
            departure.timer.cancel()
        self._departures.pop(departure.plan.transfer_id, None)
        departure.ended.set()
        if departure.blob is not departure.entry.last_state:
            departure.blob.close()

    async def _perform(self, departure: Departure, action: actions.CoordinatorAction) -> events.CoordinatorEvent | None:
        match action:
            case (
                actions.CheckTarget()
                | actions.AwaitHandler()
                | actions.RunHook()
                | actions.CleanupResources()
                | actions.Snapshot()
                | actions.StageFiles()
            ):
                try:
                    return await self._prepare_here(departure, action)
                except Exception as exc:  # whatever a hook raised: the move must end and the paglet go on
                    return events.StepFailed(str(exc) or type(exc).__name__, exc)
            case actions.SendPrepare(attempt, recovering):
                return await self._send_prepare(departure, attempt, recovering)
            case actions.SendCommit(vote):
                self._hand_over(departure)
                return await self._send_commit(departure, vote)
            case actions.JournalCommit() | actions.EraseCommit() | actions.ForgetTransfer():
                return await self._write(departure, action)
            case actions.ScheduleRetry(after):
                self._schedule(departure, after)
            case actions.Reply():
                self._reply(departure, action)
            case _:
                self._do(departure, action)
        return None

    def _do(self, departure: Departure, action: actions.CoordinatorAction) -> None:
        entry, kernel = departure.entry, self._kernel
        match action:
            case actions.StopDeliveries():
                entry.mailbox.pause()
            case actions.ResumePaglet():
                if departure.old_place is not None:
                    departure.old_place.left_for = None
                kernel.resume_deliveries(entry)
            case actions.Fence():
                self._fence(departure)
            case actions.LeaveForwarder():
                waiting, departure.waiting = departure.waiting, []
                if waiting:
                    kernel.background(self._forward(departure.plan.target, departure.plan.agent_id, waiting))
            case actions.Release(stop_process, delete_files):
                kernel.background(self._release(departure, stop_process, delete_files))
            case actions.SendAbort():
                kernel.background(departure.link.abort(departure.plan.transfer_id))
            case actions.SendSettled(vote):
                kernel.background(departure.link.settled(departure.plan.transfer_id, vote))
            case actions.ReportAttemptFailed(stage, attempt, attempts, error):
                kernel.emit(
                    "transfer-failed",
                    entry,
                    data={
                        "destination": departure.plan.target,
                        "stage": "preflight" if stage is Stage.PREFLIGHT else "post",
                        "attempt": attempt,
                        "attempts": attempts,
                    },
                    error=error,
                )
            case actions.ReportFault(text):
                kernel.emit("transfer-fault", entry, error=text)

    def _schedule(self, departure: Departure, after: float) -> None:
        if departure.timer is not None:
            departure.timer.cancel()
        jitter = random.uniform(0.9, 1.1)  # noqa: S311 - spreads retries, guards nothing
        departure.timer = self._kernel.loop.call_later(after * jitter, self._feed, departure, events.RetryDue())

    # --- steps at this host -------------------------------------------------------------------------------------------

    async def _prepare_here(
        self, departure: Departure, action: actions.CoordinatorAction
    ) -> events.CoordinatorEvent | None:
        entry, kernel = departure.entry, self._kernel
        match action:
            case actions.CheckTarget():
                departure.target_health = await self._check_target(departure.ticket)
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
                return events.SnapshotTaken()  # likewise
            case actions.StageFiles():
                if entry.files:
                    manifest, files = await kernel.on_disk(self._files.stage, entry)
                    departure.manifest = manifest
                    departure.parts = [FilePart(file.path, file.nbytes) for file in files]
                return events.FilesStaged()
        raise AssertionError(action)

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
            departure.blob = blob
            entry.remember_state(blob)

    def _fence(self, departure: Departure) -> None:
        """Refuse the departing process everything from now on; a commit that cannot be written takes this back."""
        entry = departure.entry
        departure.old_place = entry.place
        if entry.place is not None:
            entry.place.left_for = {"host_url": departure.plan.target, "agent_id": entry.agent_id}

    def _hand_over(self, departure: Departure) -> None:
        """Take the paglet out of this host's table: the commit record is on disk."""
        entry = departure.entry
        if entry.phase is Phase.GONE or departure.plan.kind in (TransferKind.LOCAL, TransferKind.CLONE):
            return
        entry.phase = Phase.GONE
        self._kernel.agents.remove(entry)
        departure.waiting = [queued.item for queued in entry.mailbox.close()]

    async def _write(
        self, departure: Departure, action: actions.CoordinatorAction
    ) -> events.JournalWritten | events.JournalFailed:
        try:
            match action:
                case actions.JournalCommit(record):
                    self._journal.record_commit(record)
                case actions.EraseCommit():
                    self._journal.erase_commit(departure.plan.transfer_id)
                case actions.ForgetTransfer():
                    self._journal.forget_commit(departure.plan.transfer_id)
        except OSError as exc:
            return events.JournalFailed(str(exc))
        return events.JournalWritten()

    async def _release(self, departure: Departure, stop_process: bool, delete_files: bool) -> None:
        entry, kernel = departure.entry, self._kernel
        if stop_process and departure.old_place is not None:
            await kernel.farewell(departure.old_place, wait=bool(departure.parent))
        if delete_files:
            await kernel.on_disk(self._files.remove_departed, entry)

    # --- what the other host says -------------------------------------------------------------------------------------

    async def _send_prepare(
        self, departure: Departure, attempt: int, recovering: bool
    ) -> events.CoordinatorEvent | None:
        header = {
            "envelope": self._envelope(departure).to_wire(),
            "transfer": {"plan": plan_to_wire(departure.plan), "attempt": attempt, "recovering": recovering},
        }
        parts: list[Part] = [BufferPart(departure.blob.view()), *departure.parts]
        try:
            reply = await departure.link.prepare(header, parts, attempt=attempt, timeout=departure.ticket.timeout)
            vote = reply.get("vote")
            if isinstance(vote, str) and vote:
                return events.Prepared(vote)
            if reply.get("acked") is True:
                return events.CommitAcked()
            return events.Refused(refusal_from_wire(reply.get("refused")))
        except (PagletError, OSError) as exc:
            return events.PrepareFailed(str(exc) or type(exc).__name__)

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
            metadata={"transfer_ticket": departure.ticket.to_wire(), "registered_files": departure.manifest},
        )

    async def _send_commit(self, departure: Departure, vote: str) -> events.CoordinatorEvent:
        try:
            reply = await departure.link.commit(departure.plan.transfer_id, vote)
        except (PagletError, OSError) as exc:
            return events.CommitFailed(str(exc))
        if reply.get("unknown") is True:
            return events.CommitUnknown()
        if reply.get("acked") is not True:
            # Only the word itself lets the source forget the paglet, not whatever else answers at that address.
            return events.CommitFailed("malformed acknowledgement")
        location = reply.get("location")
        departure.location = location if isinstance(location, dict) else None
        departure.settling = bool(reply.get("settling"))
        return events.CommitAcked()

    async def _settled_location(self, departure: Departure) -> dict[str, str]:
        """Wait for ``run`` to settle at the target, and return where the paglet is then."""
        provisional = {"host_url": departure.plan.target, "agent_id": departure.plan.agent_id}
        if not departure.settling:
            return departure.location or provisional
        with suppress(PagletError, OSError, TimeoutError):
            async with asyncio.timeout(LOCATION_SECONDS):
                return await departure.link.location(departure.plan.transfer_id) or provisional
        return provisional

    # --- answering the caller -----------------------------------------------------------------------------------------

    def _reply(self, departure: Departure, reply: actions.Reply) -> None:
        if departure.decided.done():
            return
        if reply.ok:
            departure.decided.set_result(None)
        else:
            departure.decided.set_exception(failure(departure.plan, reply))
            departure.decided.exception()  # the caller may have gone

    def _report(self, departure: Departure) -> None:
        plan, entry = departure.plan, departure.entry
        target = {
            "name": departure.target_health.get("name", ""),
            "address": plan.target,
            "transfer_id": plan.transfer_id,
            "epoch": plan.epoch,
            "seconds": round(departure.seconds, 6),
            "state_bytes": departure.blob.nbytes,
            "files": len(departure.parts),
            "file_bytes": sum(part.nbytes for part in departure.parts),
        }
        if plan.kind is TransferKind.CLONE:
            self._kernel.emit("clone", entry, data={"clone_agent_id": plan.agent_id, "target": target})
        else:
            kind = "retract" if plan.kind is TransferKind.RETRACT else "dispatch"
            self._kernel.emit(kind, entry, data={"target": target})


def failure(plan: TransferPlan, reply: actions.Reply) -> Exception:
    """Return the error that the caller of a failed transfer gets."""
    if reply.stage in (Stage.HOOK, Stage.CLEANUP, Stage.SNAPSHOT, Stage.QUIESCE) and isinstance(
        reply.cause, PagletError
    ):
        return reply.cause
    if reply.stage in (Stage.HOOK, Stage.CLEANUP, Stage.SNAPSHOT):
        return HostError(reply.error)
    tries = f" after {reply.attempts} attempt{'s' if reply.attempts != 1 else ''}" if reply.attempts else ""
    error = TransferError(f"could not move paglet {plan.agent_id} to {plan.target}{tries}: {reply.error}")
    error.__cause__ = reply.cause
    return error
