"""How a simulated world ends: trouble is over, everything runs out, and then every promise is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from paglets.protocol.delivery import Departed, Elsewhere

from .system_errands import MOST_FIRINGS
from .transfer_world import ViolationError

if TYPE_CHECKING:
    from .system_world import World

MOST_STEPS = 20_000


class Ending:
    """Let a healed world come to rest, and check what must hold then.

    :param pick: chooses one of so many; it has to be fair, or somebody starves
    """

    def __init__(self, world: World, pick: Callable[[int], int]) -> None:
        self.world = world
        self.pick = pick

    def run(self) -> None:
        """Run out, ask everybody from everywhere, run out again, check."""
        self._run_out()
        for client in self.world.clients.values():
            for agent in client.free():
                if agent in self.world.living:
                    been = sorted(self.world.places[agent])
                    client.streams[agent].url = been[self.pick(len(been))]
                    client.send(agent, "log", oneway=False)
        self._run_out()
        for client in self.world.clients.values():
            for stream in client.streams.values():
                if stream.message is not None:
                    raise ViolationError(f"{client.name} never heard what became of {stream.message}")
        self._check_rest()

    def _run_out(self) -> None:
        for _ in range(MOST_STEPS):
            if not self._step():
                return
        raise ViolationError(f"never came to rest: {self._unrest()}")

    def _unrest(self) -> list[str]:
        world = self.world
        restless = world.procs(lambda p: not p.idle or p.busy)
        found = [f"{p.agent}@{h.name} {p.phase} {len(p.mailbox)}" for h, p in restless]
        stuck = world.machines(lambda m: not m.state.terminal)
        found += [f"{m.plan.transfer_id} {m.side} {m.state.phase}" for _, m in stuck]
        return found + [f"{c.name}: {call.message}" for c in self.world.couriers.values() for call in c.calls.values()]

    def _step(self) -> bool:
        if ready := self.world.ready():
            ready[self.pick(len(ready))].ready.popleft()()
            return True
        if busy := self.world.machines(lambda m: m.busy):
            moves, machine = busy[self.pick(len(busy))]
            moves.tick(machine)
            return True
        if waiting := [host for host in self.world.up() if host.writer.waiting]:
            self.world.sync(waiting[self.pick(len(waiting))])
            return True
        if working := self.world.procs(lambda p: p.busy):
            host, proc = working[self.pick(len(working))]
            host.work(proc)
            return True
        if self.world.net:
            self.world.deliver(self.world.net.pop(self.pick(len(self.world.net))))
            return True
        if self.world.late:
            self.world.net.append(self.world.late.pop())
            return True
        return any(step() for step in self._slow_steps())

    def _slow_steps(self) -> Iterator[Callable[[], bool]]:
        yield lambda: any(moves.idle(machine) for moves, machine in self.world.machines(lambda m: m.waits))
        yield self._evict_done
        yield lambda: any(host.lives.restart_dead() for host in self.world.up())
        yield self._wake_all
        yield lambda: any(host.errands.post_outbox() for host in self.world.up())
        yield lambda: any(host.errands.post_notice() for host in self.world.up())
        yield lambda: any(client.again() for client in self.world.clients.values())
        if self.pick(2):  # time and patience wait for each other
            yield self._lose_patience
        yield lambda: any(host.errands.fire_due() for host in self.world.up())
        yield self._let_time_pass
        yield self._lose_patience

    def _evict_done(self) -> bool:
        for moves, machine in self.world.machines(lambda m: m.state.terminal):
            if moves.evictable(machine):
                self.world.evict(moves, machine)
                return True
        return False

    def _lose_patience(self) -> bool:
        if waiting := self.world.machines(lambda m: bool(m.awaiting) and not m.state.terminal):
            moves, machine = waiting[self.pick(len(waiting))]
            moves.time_out(machine)
            return True
        if asleep := self.world.machines(lambda m: m.timer and not m.state.terminal):
            moves, machine = asleep[self.pick(len(asleep))]
            moves.wake(machine)
            return True
        for courier in self.world.couriers.values():
            for call_id in courier.calls:
                courier.time_out(call_id)
                return True
        return False

    def _wake_all(self) -> bool:
        for host, agent in self.world.sleepers():
            host.lives.wake(agent)
            return True
        return False

    def _let_time_pass(self) -> bool:
        due = self.world.due()
        if due is None:
            return False
        self.world.now = max(self.world.now, due) + 0.01
        return True

    def _check_rest(self) -> None:
        self.world.check()
        dead: dict[str, str] = {}
        for host in self.world.hosts.values():
            found, disk = host.disk.journal.load(), host.disk
            if found.commits or found.prepared or found.activated or disk.kept or disk.inert:
                raise ViolationError(f"{host.name} never forgets {found} {disk.kept} {disk.inert}")
            if disk.outbox or disk.notices or host.held or disk.reminders or any(disk.queued.values()):
                raise ViolationError(
                    f"{host.name} is stuck with {disk.outbox} {disk.notices} {host.held} {disk.reminders} {disk.queued}"
                )
            dead.update({message_id: reason for message_id, (_, reason) in disk.dead.items()})
        logs: dict[str, tuple[str, ...] | None] = dict(self.world.graves)
        for agent in self.world.living:
            logs[agent] = self._check_owner(agent)
        self._check_messages(logs, dead)
        self._check_reminders(logs, dead)
        for agent in self.world.living:
            self._check_forwarders(agent)

    def _check_owner(self, agent: str) -> tuple[str, ...]:
        owners = [host for host in self.world.hosts.values() if agent in host.disk.paglets]
        if len(owners) != 1 or agent not in owners[0].procs:
            raise ViolationError(f"{agent} is owned by {[host.name for host in owners]}, or does not run")
        proc = owners[0].procs[agent]
        if proc.durable and tuple(proc.log) != owners[0].disk.paglets[agent].log:
            raise ViolationError(f"{agent} is not what its host has on disk")
        return tuple(proc.log)

    def _check_messages(self, logs: dict[str, tuple[str, ...] | None], dead: dict[str, str]) -> None:
        positions: dict[str, dict[str, int]] = {}
        for agent, log in logs.items():
            positions[agent] = {message_id: place for place, message_id in enumerate(log or ())}
            twice = [message_id for message_id, times in Counter(log or ()).items() if times > 1]
            if agent in self.world.living and not self.world.living[agent].durable:
                # An outbox repeats for longer than a lost window is remembered.
                twice = [message_id for message_id in twice if ">" not in message_id]
            if twice:
                raise ViolationError(f"{agent} handled {twice} more than once")
        order: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for message, answer in self.world.acked.values():
            agent, log = message.receiver, logs[message.receiver]
            place, buried = positions[agent].get(message.id), message.id in dead
            living = self.world.living.get(agent)
            durable = living is not None and living.durable
            if durable or (living is None and log is not None):
                if (place is None) is not buried:
                    raise ViolationError(f"{message} was acknowledged; place {place}, dead {dead.get(message.id)}")
            elif living is not None and agent not in self.world.losses and place is None and not buried:
                raise ViolationError(f"{message} was acknowledged, nothing died, and it was not handled")
            if place is None:
                continue
            if answer.kind == "ok" and answer.value != str(place) and durable:
                raise ViolationError(f"{message} was answered {answer.value}, and is at {place}")
            order.setdefault((message.sender, agent), []).append((message.seq, place))
        for lane, handled in order.items():
            if [place for _, place in sorted(handled)] != sorted(place for _, place in handled):
                raise ViolationError(f"messages of {lane} were handled out of order: {handled}")
        self._check_posts(positions, dead)

    def _check_posts(self, positions: dict[str, dict[str, int]], dead: dict[str, str]) -> None:
        """What a durable handler sent arrives, in order, or is a dead letter."""
        for agent, places in positions.items():
            row = self.world.living.get(agent)
            for child, place in places.items() if row is None or row.durable else ():
                if child.endswith(">2") and place < places.get(f"{child[:-1]}1", -1):
                    raise ViolationError(f"{child} overtook its brother on the way to {agent}")
        for child, post in self.world.posts.items():
            row = self.world.living.get(post.receiver)
            if row is not None and not row.durable:
                continue
            if row is None and self.world.graves.get(post.receiver) is None:
                continue
            handled, buried = child in positions[post.receiver], child in dead
            # Repeated because nobody knew whether it arrived, it may find that its receiver has handled it and ended.
            if not handled and not buried:
                raise ViolationError(f"{post} left an outbox, and is nowhere")
            if handled and buried and row is not None:
                raise ViolationError(f"{post} left an outbox; it was handled and buried")

    def _check_reminders(self, logs: dict[str, tuple[str, ...] | None], dead: dict[str, str]) -> None:
        for (agent, name), occurrences in self.world.timers.items():
            if agent not in self.world.living:
                continue
            if not occurrences or len(occurrences) > MOST_FIRINGS:
                raise ViolationError(f"reminder {name} of {agent} fired {len(occurrences)} times")
            for occurrence in occurrences:
                if (occurrence in (logs[agent] or ())) is (occurrence in dead):
                    raise ViolationError(f"firing {occurrence} of {name} of {agent} was not handled")

    def _check_forwarders(self, agent: str) -> None:
        owner = next(host.name for host in self.world.hosts.values() if agent in host.disk.paglets)
        for start in self.world.hosts:
            place, seen = start, {start}
            while place != owner:
                knowledge = self.world.hosts[place].knowledge(agent)
                if not isinstance(knowledge, Departed | Elsewhere):
                    if place in self.world.places[agent]:
                        raise ViolationError(f"{place} has forgotten where {agent} went: {knowledge}")
                    break
                place = knowledge.target if isinstance(knowledge, Departed) else knowledge.url
                if place in seen:
                    raise ViolationError(f"the forwarders of {agent} go round: {seen}")
                seen.add(place)
