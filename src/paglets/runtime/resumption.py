"""Go on with what is on disk: where an earlier life of a host stopped, and what has waited for the end of a drain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paglets.persistence.rows import RecordSummary, Status
from paglets.protocol.transfer.model import TransferKind

if TYPE_CHECKING:
    from paglets.runtime.node import Node
    from paglets.runtime.transfer_log import TransferLog

#: How long it is waited for the paglets that are brought back, at the start of a host and after a drain.
RESUME_SECONDS = 10.0


class Resumption:
    """Take up what one host left on disk; runs on its loop."""

    def __init__(self, node: Node, log: TransferLog) -> None:
        self._node = node
        self._kernel = node.kernel
        self._log = log

    async def load(self) -> list[RecordSummary]:
        """Read the journal, before anything is answered; return the paglets that are to be brought back.

        :raises HostError: it cannot be read.
        """
        kernel, node = self._kernel, self._node
        await kernel.vault.settle_in()
        summaries = await kernel.on_disk(kernel.vault.summaries)
        crashed = [summary.agent_id for summary in summaries if summary.status is Status.CRASHED]
        wanted = node.dormitory.load(summaries, await kernel.on_disk(kernel.vault.crash_errors, crashed))
        for summary in summaries:
            if summary.holder:
                kernel.holdings.count(summary.holder, summary.agent_id)
        await self._load_timers(summaries)
        found = await kernel.on_disk(self._log.load)
        stay = {summary.agent_id: summary.epoch for summary in summaries if summary.status is not Status.DEPARTING}
        for record, _ in found.prepared:
            plan = record.plan
            # A move inside the host begins no stay, and may come to nothing yet.
            stay[plan.agent_id] = plan.departed_epoch if plan.kind is TransferKind.LOCAL else plan.epoch
        known = stay.keys() | {summary.agent_id for summary in summaries}
        await kernel.on_disk(node.files.clear, known)
        for commit in found.commits:
            agent_id = commit.record.plan.agent_id
            if agent_id in stay:
                # It is back: what its earlier departure still has to remove must not be what it has now.
                node.files.note_stay(agent_id, stay[agent_id])
        for text in found.unreadable:
            kernel.emit("transfer-fault", error=f"a record of a transfer cannot be read: {text}")
        node.arrivals.restore(found.prepared, found.activated)
        node.departures.restore(found.commits)
        return wanted

    async def _load_timers(self, summaries: Sequence[RecordSummary]) -> None:
        timers = await self._kernel.on_disk(self._kernel.vault.timers)
        # Those of a departing paglet ring where it is now.
        here = {summary.agent_id for summary in summaries if summary.status is not Status.DEPARTING}
        self._node.timers.load([timer for timer in timers if timer[0] in here])
        # Of paglets that kept nothing and ended with an earlier life of this host.
        ended = {timer[0] for timer in timers}.difference(summary.agent_id for summary in summaries)
        if ended:
            self._kernel.background(self._kernel.vault.drop_timers(ended))

    async def resume(self, wanted: Sequence[RecordSummary]) -> None:
        """Go on where an earlier life of this host stopped; others can reach it by now."""
        kernel, node = self._kernel, self._node
        await node.outbox.start()
        await node.whereabouts.tell_everything()
        await node.wakeups.wake_for_startup(wanted)
        for agent_id in await kernel.on_disk(kernel.vault.receivers):
            if agent_id in node.dormitory:
                kernel.background(node.wakeups.wake_if_timer_rang(agent_id))
            elif agent_id not in kernel.agents:
                kernel.background(node.post.collect(agent_id))

    async def see_to_waiting(self) -> None:
        """Do what sleepers' messages and timers ask for, after a time in which nobody was woken."""
        node = self._node
        await node.residents.start_wanted(RESUME_SECONDS)
        await node.wakeups.wake_put_off()
        for agent_id in await self._kernel.on_disk(self._kernel.vault.receivers):
            if agent_id in node.dormitory:
                node.wakeups.look_at_mail(agent_id)
