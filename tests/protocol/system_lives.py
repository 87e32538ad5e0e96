"""Deaths, sleep, waking and the end of the paglets of a simulated host."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paglets.core.policies import RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.protocol.delivery import DedupWindow
from paglets.protocol.mailbox import Queued
from paglets.protocol.supervision import DeadLetter, InHand, Keep, Rerun, Restart

from .system_disk import Disk, Msg, Place, bury_one, drop, enqueue
from .system_process import PRIORITY, Flight, Proc

if TYPE_CHECKING:
    from .system_host import Host

RESTART = RestartPolicy(restarts=2, window=60.0, backoff=0.5, max_backoff=5.0)


class Lives:
    """See to the processes of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # -- deaths ------------------------------------------------------------------------------------------------------

    def die(self, proc: Proc) -> None:
        """Let the process of a paglet die by itself."""
        message = proc.handling
        durability = Durability.MESSAGE if proc.durable else Durability.CHECKPOINT
        in_hand = None
        if message is not None:
            flight = proc.flight[message.id]
            in_hand = InHand(message.id, flight.stored)
        proc.supervisor, verdict = proc.supervisor.died(self.host.world.now, RESTART, durability, in_hand)
        if message is not None:
            proc.handling = None
            if isinstance(verdict.message, Rerun):
                proc.mailbox.put_back()
            else:
                proc.mailbox.done(ok=False)
                flight = proc.flight.pop(message.id)
                self.host.answer_all(flight, "failed", "crashed")
                if isinstance(verdict.message, DeadLetter):
                    self.host.persist(partial(bury_one, message, verdict.message.reason))
                elif isinstance(verdict.message, Keep):
                    proc.mailbox.push_front(message, PRIORITY)
                    proc.flight[message.id] = Flight(message, [], stored=True)
        if not proc.durable:
            self.host.lost_window(proc)
        proc.alive = False
        if isinstance(verdict.process, Restart):
            proc.restart_at = self.host.world.now + verdict.process.after
        else:
            self.give_up(proc)

    def give_up(self, proc: Proc) -> None:
        agent = proc.agent
        del self.host.procs[agent]
        recording = {message.id for message in proc.uncommitted}
        for queued in proc.mailbox.close():
            message = queued.item
            accepted = proc.flight[message.id].stored
            if message.id not in recording:
                self.host.answer_all(proc.flight.pop(message.id), "failed", "crashed")
            if not proc.durable and accepted:
                self.host.persist(partial(bury_one, message, "its receiver crashed for good"))
        lost_at = proc.lost_at

        def apply(disk: Disk) -> None:
            disk.set_row(agent, status="crashed", lost_at=lost_at)

        # Until this is on disk nobody may revive it.
        proc.phase = "ending"
        self.host.procs[agent] = proc
        self.host.persist(apply, lambda: self.gone(proc))

    def gone(self, proc: Proc) -> None:
        """Take a paglet that does not run here any more off the list, and route anew what waited for it."""
        if self.host.procs.get(proc.agent) is proc:
            del self.host.procs[proc.agent]
        proc.mailbox.close()
        self.host.writer.poisoned.discard(f"{proc.agent}/{proc.epoch}")
        waiters = proc.waiters()
        proc.flight.clear()
        self.host.release_held(proc.agent, waiters)

    def restart_due(self, proc: Proc) -> bool:
        waits = not proc.alive and not proc.failing and not proc.pending and proc.phase == "live"
        return waits and proc.restart_at <= self.host.world.now

    def restart_dead(self) -> bool:
        """Start a process again whose pause is over; tell whether there was any."""
        for proc in self.host.procs.values():
            if self.restart_due(proc):
                self.restart(proc)
                return True
        return False

    def restart(self, proc: Proc) -> None:
        proc.alive = True
        proc.log = list(self.host.disk.paglets[proc.agent].log)

    # -- sleep, waking, end ------------------------------------------------------------------------------------------

    def sleep(self, proc: Proc, wakes: bool) -> None:
        proc.phase = "sleeping"
        agent, log, window, lost_at = proc.agent, tuple(proc.log), proc.window.export(), proc.lost_at
        accepted = [] if proc.durable else proc.accepted()

        def apply(disk: Disk) -> None:
            disk.set_row(agent, log=log, status="inactive", wakes=wakes, lost_at=lost_at)
            kept = disk.handled[agent] = DedupWindow()
            kept.restore(window)
            for message in accepted:
                enqueue(message, disk)

        self.host.persist(apply, lambda: self.gone(proc))

    def wake(self, agent: str) -> None:
        """Bring back a paglet that sleeps, or that crashed for good."""
        row = self.host.disk.paglets[agent]
        proc = self.host.procs[agent] = self.host.start(agent, row)
        proc.phase = "waking"
        if not row.durable and row.status == "crashed":
            self.host.lost_window(proc)
        late = self.host.world.bug == "late-window"
        # At once: what is stored has to be recognised, and to be ahead of what comes while the row is written.
        if late:
            proc.window = DedupWindow()
        else:
            self.load_queue(proc)
        proc.pending += self.host.queueing[agent]

        def apply(disk: Disk) -> None:
            disk.set_row(agent, status="active")

        def awake() -> None:
            proc.phase = "live"
            if late:
                proc.window.restore(self.host.disk.handled.get(agent, DedupWindow()).export())
                self.load_queue(proc)

        self.host.persist(apply, awake)

    def load_queue(self, proc: Proc) -> None:
        """Let what is stored wait ahead of what came meanwhile."""
        stored = [m for m in self.host.disk.queued.get(proc.agent, {}).values() if m.id not in proc.flight]
        self.in_memory(proc, stored)
        proc.mailbox.restore(Queued(message, PRIORITY, 0) for message in stored)
        for message in stored:
            proc.flight[message.id] = Flight(message, [], stored=True)

    def in_memory(self, proc: Proc, messages: list[Msg]) -> None:
        """Remove from disk what a paglet that is not durable has taken into its memory."""
        if proc.durable or not messages:
            return

        def dropped() -> None:
            proc.pending -= 1

        proc.pending += 1  # or a row of the next sleep could be dropped
        self.host.persist(partial(drop, messages), dropped)

    def dispose(self, proc: Proc) -> None:
        proc.phase = "ending"
        agent, epoch, home = proc.agent, proc.epoch, proc.home
        accepted = [] if proc.durable else proc.accepted()

        def apply(disk: Disk) -> None:
            self.host.world.disposed(agent, disk.paglets[agent] if proc.durable else None)
            disk.bury(agent, "disposed")
            for message in accepted:
                disk.dead[message.id] = (message, "disposed")
            disk.remove(agent)
            disk.ended.add(agent)
            if home == self.host.name:
                disk.homes[agent] = Place(epoch, None)
            else:
                disk.notices[agent] = Place(epoch, None, home)

        applied = False

        def once(disk: Disk) -> None:
            nonlocal applied
            if not applied:
                applied = True
                apply(disk)

        self.host.persist(once, lambda: self.gone(proc))

    def start_arrived(self, agent: str) -> None:
        """Start a paglet that a transfer has just made ours."""
        row = self.host.disk.paglets.get(agent)
        if row is None:
            return
        self.host.errands.timer_rows(agent)
        if row.status == "active" and agent not in self.host.procs:
            proc = self.host.procs[agent] = self.host.start(agent, row)
            self.load_queue(proc)
        self.host.release_held(agent)
