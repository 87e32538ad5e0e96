"""The source side of a move: perform what :mod:`paglets.protocol.transfer.coordinator` decides."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from paglets.core.errors import HostError, PagletError, TransferError
from paglets.core.runtime_values import ArrivalMode
from paglets.protocol.mailbox import Mailbox
from paglets.protocol.transfer import Charge, actions, charge, coordinator, events
from paglets.protocol.transfer.model import Outcome, Stage, TransferKind, TransferPlan
from paglets.remote.transfer import TransferTicket
from paglets.runtime.agents import AgentEntry, Phase
from paglets.runtime.carriage import Carriage
from paglets.runtime.departures.dialogue import Dialogue
from paglets.runtime.departures.handover import Handover
from paglets.runtime.departures.packing import Packer
from paglets.runtime.departures.record import Departure
from paglets.runtime.files import FileDesk
from paglets.runtime.kernel import Kernel
from paglets.runtime.outbox import Outbox
from paglets.runtime.pauses import call_about
from paglets.runtime.post import PostOffice
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.transfer_log import StoredCommit, TransferLog
from paglets.runtime.transfer_wire import TransferLink


class DepartureDesk:
    """Send paglets of this host to others, or copies of them.

    :param link_to: returns the way to speak with a host.
    """

    def __init__(
        self,
        kernel: Kernel,
        files: FileDesk,
        carriage: Carriage,
        log: TransferLog,
        timers: Timekeeper,
        post: PostOffice,
        outbox: Outbox,
        *,
        link_to: Callable[[str], TransferLink],
        check_target: Callable[[TransferTicket, bool], Awaitable[dict[str, Any]]],
    ) -> None:
        self._kernel = kernel
        self._link_to = link_to
        self._packer = Packer(kernel, carriage, timers, check_target)
        self._dialogue = Dialogue(carriage, self._packer)
        self._handover = Handover(kernel, files, carriage, log, timers, post, outbox, self._packer)
        self._departures: dict[str, Departure] = {}

    def restore(self, commits: Sequence[StoredCommit]) -> None:
        """Take up the transfers that were committed before this host died."""
        kernel = self._kernel
        for stored in commits:
            plan = stored.record.plan
            state, todo = coordinator.restore(stored.record)
            envelope = stored.header["envelope"]
            entry = AgentEntry(
                plan.origin_id or plan.agent_id,
                str(envelope["agent_class_name"]),
                str(envelope["state_class_name"]),
                plan.departed_epoch,
                gone=kernel.loop.create_future(),
                lock=asyncio.Lock(),
                mailbox=Mailbox(),
                phase=Phase.GONE,
                home=stored.home,
                files=stored.files,
            )
            departure = Departure(
                plan,
                TransferTicket(plan.target),
                entry,
                self._link_to(plan.target),
                0,
                False,
                state,
                kernel.loop.create_future(),
                luggage=stored.luggage,
                stored=stored,
            )
            self._departures[plan.transfer_id] = departure
            kernel.background(self._drive(departure, todo))

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
        :raises AllowanceExceededError: it may not; it goes to sleep here.
        :raises PagletError: a hook or a cleanup of the paglet said no.
        """
        kernel = self._kernel
        held = entry.balance.held(time.time())
        if held is not None:
            # Before it waits: what holds it up may be its being put to sleep for this.
            kernel.exceeded(entry, held)
            raise held.error(entry.agent_id)
        async with kernel.hold(entry, parent=parent):
            here = kernel.address()
            cost = charge(entry.balance, kind, source=here, target=ticket.destination, now=time.time())
            if not isinstance(cost, Charge):
                kernel.exceeded(entry, cost)
                raise cost.error(entry.agent_id)
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
                carried=cost.carried,
                kept=cost.kept,
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
                entry.balance,
                entry.current if in_handler else None,
            )
            self._departures[plan.transfer_id] = departure
            # A move inside the host takes along whatever is left in the end.
            entry.charging = kind is not TransferKind.LOCAL
            kernel.background(self._drive(departure, todo))
            await asyncio.shield(departure.decided)
            departure.seconds = time.perf_counter() - departure.started
        if kind is TransferKind.LOCAL:
            kernel.starter.open_mailbox(entry)
        # Outside the lock: where the paglet goes from there is its own affair again.
        location = await self._dialogue.settled_location(departure)
        if plan.leaves_source and kind is not TransferKind.LOCAL:
            if entry.last_state is departure.blob:
                # A target that loses what it voted for gets it again, so the transfer keeps it to its end.
                entry.last_state = None
                if departure.ended.is_set():
                    departure.blob.close()
            kernel.ending.departed(entry, location)
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
        if isinstance(event, events.Cancel) and departure.voyage is not None:
            departure.voyage.cancel()
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
        except Exception as exc:
            # A mistake of this program. Whoever asked must hear of it instead of waiting without end; what is committed
            # is taken up again by the next start.
            departure.entry.charging = False
            if not departure.decided.done():
                departure.decided.set_exception(TransferError(f"the transfer failed: {type(exc).__name__}: {exc}"))
                departure.decided.exception()
            raise
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
                    return await self._packer.perform(departure, action)
                except Exception as exc:  # whatever a hook raised: the move must end and the paglet go on
                    return events.StepFailed(str(exc) or type(exc).__name__, exc)
            case actions.SendPrepare(attempt, recovering):
                return await self._dialogue.send_prepare(departure, attempt, recovering)
            case actions.SendCommit(vote):
                self._handover.hand_over(departure)
                return await self._dialogue.send_commit(departure, vote)
            case actions.JournalCommit() | actions.EraseCommit() | actions.ForgetTransfer():
                return await self._handover.write(departure, action)
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
                entry.release_held()
            case actions.Fence():
                self._handover.fence(departure)
            case actions.LeaveForwarder():
                if departure.plan.kind is not TransferKind.LOCAL:
                    waiting, departure.waiting = departure.waiting, []
                    kernel.background(self._handover.send_after(departure, waiting))
            case actions.Release(stop_process, delete_files):
                if delete_files and entry.files:
                    departure.released = kernel.loop.create_future()
                kernel.background(self._handover.release(departure, stop_process, delete_files))
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
        departure.timer = call_about(after, partial(self._feed, departure, events.RetryDue()))

    # --- answering the caller -----------------------------------------------------------------------------------------

    def _reply(self, departure: Departure, reply: actions.Reply) -> None:
        departure.entry.charging = False
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
            "files": departure.shipment.count,
            "file_bytes": departure.shipment.nbytes,
        }
        if plan.kind is TransferKind.CLONE:
            self._kernel.emit("clone", entry, data={"clone_agent_id": plan.agent_id, "target": target})
        else:
            kind = "retract" if plan.kind is TransferKind.RETRACT else "dispatch"
            self._kernel.emit(kind, entry, data={"target": target})


def failure(plan: TransferPlan, reply: actions.Reply) -> Exception:
    """Return the error that the caller of a failed transfer gets."""
    if reply.stage in (Stage.HOOK, Stage.CLEANUP, Stage.SNAPSHOT, Stage.QUIESCE) and isinstance(
        reply.cause, PagletError | ValueError
    ):
        return reply.cause  # as of any other hook
    if reply.stage in (Stage.HOOK, Stage.CLEANUP, Stage.SNAPSHOT):
        return HostError(reply.error)
    tries = f" after {reply.attempts} attempt{'s' if reply.attempts != 1 else ''}" if reply.attempts else ""
    error = TransferError(f"could not move paglet {plan.agent_id} to {plan.target}{tries}: {reply.error}")
    error.__cause__ = reply.cause
    return error
