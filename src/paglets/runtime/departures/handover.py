"""The moment from which a paglet is another host's: its record on disk, and what becomes of what it leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from paglets.core.errors import HostError, PagletError
from paglets.persistence.rows import OutboxRow
from paglets.protocol.transfer import actions, events
from paglets.protocol.transfer.model import CommitRecord, TransferKind
from paglets.runtime import faults
from paglets.runtime.agents import Delivery, Phase
from paglets.runtime.carriage import Carriage
from paglets.runtime.departures.packing import Packer
from paglets.runtime.departures.record import Departure
from paglets.runtime.files import FileDesk
from paglets.runtime.kernel import Kernel
from paglets.runtime.outbox import Outbox
from paglets.runtime.post import PostOffice
from paglets.runtime.timekeeper import Timekeeper
from paglets.runtime.transfer_log import TransferLog
from paglets.runtime.vault import INLINE_BYTES


class Handover:
    """Give away the paglets that depart from one host."""

    def __init__(
        self,
        kernel: Kernel,
        files: FileDesk,
        carriage: Carriage,
        log: TransferLog,
        timers: Timekeeper,
        post: PostOffice,
        outbox: Outbox,
        packer: Packer,
    ) -> None:
        self._kernel = kernel
        self._files = files
        self._carriage = carriage
        self._log = log
        self._timers = timers
        self._post = post
        self._outbox = outbox
        self._packer = packer

    def fence(self, departure: Departure) -> None:
        """Refuse the departing process everything from now on; a commit that cannot be written takes this back."""
        entry = departure.entry
        departure.old_place = entry.place
        if entry.place is not None:
            entry.place.left_for = {"host_url": departure.plan.target, "agent_id": entry.agent_id}

    def hand_over(self, departure: Departure) -> None:
        """Take the paglet out of this host's table: the commit record is on disk."""
        entry = departure.entry
        if departure.plan.kind is TransferKind.LOCAL:
            aftermath = self._packer.aftermath(departure)
            if aftermath.message_id:
                # Where the process died under the move its message was put back; it counts as handled all the same.
                entry.window.remember(aftermath.message_id, aftermath.outcome)
            return
        if entry.phase is Phase.GONE or departure.plan.kind is TransferKind.CLONE:
            return
        entry.phase = Phase.GONE
        self._kernel.agents.remove(entry)
        gone = set(map(id, departure.travelling))
        for delivery in (queued.item for queued in entry.mailbox.close()):
            if id(delivery) in gone or delivery.stored:
                delivery.packed.close()  # it is there, or on disk here and sent after
            else:
                departure.waiting.append(delivery)
        self._timers.forget_all(entry.agent_id)
        entry.release_held()

    async def write(
        self, departure: Departure, action: actions.CoordinatorAction
    ) -> events.JournalWritten | events.JournalFailed:
        """Write the commit record, or take it back or away; return what the machine is to hear of it."""
        try:
            match action:
                case actions.JournalCommit(record):
                    await self._commit(departure, record)
                case actions.EraseCommit():
                    await self._log.erase_commit(departure.plan, departure.entry, departure.luggage, departure.before)
                    departure.entry.balance = replace(departure.before, exceeded=departure.entry.balance.exceeded)
                case actions.ForgetTransfer():
                    if departure.released is not None:
                        await departure.released  # whoever forgets it cannot remove files any more
                    if faults.ARMED:
                        faults.reached("source.released")
                    await self._log.forget_commit(departure.plan)
                    if faults.ARMED:
                        faults.reached("source.settled")
        except (PagletError, OSError) as exc:
            return events.JournalFailed(str(exc))
        return events.JournalWritten()

    async def _commit(self, departure: Departure, record: CommitRecord) -> None:
        if faults.ARMED:
            faults.reached("source.voted")
        blob, entry = departure.blob, departure.entry
        # A target that loses what it voted for gets it again: a small state from disk, a large one while this host
        # lives.
        state = await self._kernel.vault.keep(blob) if blob.nbytes <= INLINE_BYTES else None
        writing = self._log.record_commit(
            record,
            entry,
            header=self._packer.header(departure, departure.state.attempt, False),
            luggage=departure.luggage,
            travelling=[delivery.message_id for delivery in departure.travelling],
            state=state,
            aftermath=self._packer.aftermath(departure),
            target_name=str(departure.target_health.get("name", "")),
            size_bytes=blob.nbytes + departure.shipment.nbytes,
            seconds=time.perf_counter() - departure.started,
            marks=departure.shipment.marks,
            before=departure.before,
        )
        if departure.plan.kept is not None:
            # Before it is written: whatever is written of the original from now on must know it.
            entry.balance = replace(departure.plan.kept, exceeded=entry.balance.exceeded)
        if faults.ARMED:
            writing = self._killed_while(writing)
        rows = await writing
        if faults.ARMED:
            faults.reached("source.committed")
        self._outbox.send(rows)

    async def _killed_while(self, writing: Coroutine[Any, Any, list[OutboxRow]]) -> list[OutboxRow]:
        task = self._kernel.loop.create_task(writing)
        await asyncio.sleep(0)  # it has been submitted
        faults.reached("source.committing")
        return await task

    async def send_after(self, departure: Departure, waiting: Sequence[Delivery]) -> None:
        """Send what waited here after its paglet, one after the other so that the order is kept."""
        agent_id = departure.plan.agent_id
        rest = deque(waiting)
        try:
            while rest:
                await self._post.send_on(agent_id, rest[0])
                rest.popleft()
        finally:
            # Only when this host stops meanwhile.
            for delivery in rest:
                delivery.packed.close()
                delivery.answer(None, HostError(f"host {self._kernel.config.name} is shutting down"))
        await self._post.collect(agent_id)

    async def release(self, departure: Departure, stop_process: bool, delete_files: bool) -> None:
        """End the process that the paglet had here, and remove the files that went along and were not changed since."""
        entry, kernel = departure.entry, self._kernel
        if stop_process and departure.old_place is not None:
            await kernel.ending.farewell(departure.old_place, wait=bool(departure.parent))
        if not delete_files:
            return
        try:
            if faults.ARMED:
                faults.reached("source.releasing")
            marks = departure.shipment.marks if departure.stored is None else departure.stored.marks
            for path in await self._carriage.threads.carry(self._files.remove_departed, entry, marks):
                kernel.emit("file-kept", entry, data={"path": path}, error="it was changed since it was sent")
        finally:
            if departure.released is not None and not departure.released.done():
                departure.released.set_result(None)
