"""What a simulated host does by itself: it empties outboxes, tells homes the news, and lets reminders fire."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paglets.protocol.delivery import UNKNOWN, Forward, Forwarding
from paglets.protocol.reminders import fire

from .system_disk import Disk, Msg, enqueue, sent, undeliverable
from .system_post import Answer, Notice, NoticeTaken
from .system_process import Flight

if TYPE_CHECKING:
    from .system_host import Host

MOST_FIRINGS = 3


class Errands:
    """Run the errands of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # -- what goes out by itself -------------------------------------------------------------------------------------

    def post_outbox(self) -> bool:
        """Send the next message of some outbox; tell whether there was one."""
        lanes: set[tuple[str, str]] = set()
        for message in self.host.disk.outbox.values():
            lane = (message.sender, message.receiver)
            if lane in self.host.sending or lane in lanes:
                lanes.add(lane)  # one after the other, in order
                continue
            lanes.add(lane)
            self.host.sending.add(lane)
            attempt = self.host.attempts.get(message.id, 1)
            forward = Forward(message.home, -1, message.home)
            knowledge = self.host.knowledge(message.receiver)
            if knowledge is not UNKNOWN:
                forward = Forward(self.host.name, -1, message.home)
            self.host.carry(forward, message, attempt, 0, partial(self.posted, message))
            return True
        return False

    def posted(self, message: Msg, answer: Answer, state: Forwarding) -> None:
        lane = (message.sender, message.receiver)
        match answer.kind:
            case "ok" | "accepted":
                apply = partial(sent, message)
            case "unknown" | "ended":
                self.host.world.told_gone(message.receiver, f"the outbox of {self.host.name}")
                apply = partial(undeliverable, message, answer.kind)
            case "refused" if answer.value == "ambiguous":
                # Repeated until the minute is over it would be taken for a new one.
                apply = partial(undeliverable, message, "may have been handled")
            case _:
                self.host.attempts[message.id] = state.attempt + 1
                self.host.sending.discard(lane)
                return
        self.host.persist(apply, lambda: self.host.sending.discard(lane))

    def post_notice(self) -> bool:
        """Send one piece of news to a home host; tell whether there was any."""
        for agent, place in self.host.disk.notices.items():
            self.host.world.send(self.host.name, place.home, Notice(self.host.name, agent, place))
            return True
        return False

    def notice(self, notice: Notice) -> None:
        agent, place = notice.agent, notice.place

        def apply(disk: Disk) -> None:
            known = disk.homes.get(agent)
            newer = known is None or place.epoch > known.epoch or (place.epoch == known.epoch and place.url is None)
            if newer and not (known is not None and known.url is None):
                disk.homes[agent] = place

        taken = NoticeTaken(agent, place)
        self.host.writer.put(apply, lambda ok: self.host.world.send(self.host.name, notice.frm, taken) if ok else None)

    # -- reminders ---------------------------------------------------------------------------------------------------

    def fire_due(self) -> bool:
        """Let due reminders fire; tell whether there were any."""
        keys = self.host.timers.due(self.host.world.now)
        for key in keys:
            self.fire_row(key)
        return bool(keys)

    def fire_row(self, key: tuple[str, str]) -> None:
        agent = key[0]
        row = self.host.disk.reminders.get(key)
        if row is None or agent not in self.host.disk.paglets:
            return
        proc = self.host.procs.get(agent)
        if row.due > self.host.world.now or (proc is not None and proc.phase != "live"):
            self.host.timers.set(key, max(row.due, self.host.world.now + 0.5))
            return
        fired = fire(row, self.host.world.now)
        tick = Msg(fired.occurrence, "tick", "", agent, row.series, row.count, True)
        if proc is not None and tick.id in proc.flight:
            self.host.timers.set(key, self.host.world.now + 0.5)
            return
        following = fired.next if fired.next is not None and fired.next.count < MOST_FIRINGS else None

        def apply(disk: Disk) -> None:
            if disk.reminders.get(key) != row or agent not in disk.paglets:
                return
            enqueue(tick, disk)
            if following is None:
                del disk.reminders[key]
            else:
                disk.reminders[key] = following
            self.host.world.fired(row, tick.id)

        def done(ok: bool) -> None:
            if proc is None:
                self.host.adopt(tick)
            now = self.host.disk.reminders.get(key)
            if now is not None:
                self.host.timers.set(key, now.due)

        if proc is None:
            self.host.queueing[agent] += 1
        self.host.writer.put(apply, done)
        if proc is not None:
            proc.flight[tick.id] = Flight(tick)
            self.host.accept(proc, tick)
        elif self.host.disk.paglets[agent].status == "inactive" and self.host.disk.paglets[agent].wakes:
            self.host.lives.wake(agent)

    def timer_rows(self, agent: str) -> None:
        """Wait for the reminders of a paglet that has just arrived."""
        for key, row in self.host.disk.reminders.items():
            if key[0] == agent:
                self.host.timers.set(key, row.due)
