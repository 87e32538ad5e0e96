"""A world of hosts, clients and paglets, in which everything that can go wrong does.

Hosts are thin shells over the real cores (transfer, mailbox, window, routing, forwarding, supervision, reminders). A
network loses, doubles, delays and reorders; it can be cut in two. Disks forget what was not synced, and may lie about
a failure. Processes die. The world is passive: each method is one indivisible thing that can happen. What nobody may
ever see is checked at once, what must hold in the end by `heal`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from paglets.protocol.delivery import Asleep, Crashed
from paglets.protocol.reminders import Reminder
from paglets.protocol.transfer import TransferKind

from .system_client import Client
from .system_disk import Disk, Msg, Row
from .system_end import Ending
from .system_host import Host
from .system_moves import Machine, Moves
from .system_post import Answer, Body, Courier, Move, Packet, Request
from .system_process import Proc
from .transfer_world import ViolationError

Bug: TypeAlias = Literal[
    "",
    "ack-before-sync",
    "commit-before-prepared",
    "forget-forwarder",
    "no-window",
    "window-stays",
    "no-hold",
    "no-wait",
    "late-window",
]
BUGS: tuple[Bug, ...] = (
    "ack-before-sync",
    "commit-before-prepared",
    "forget-forwarder",
    "no-window",
    "window-stays",
    "no-hold",
    "no-wait",
    "late-window",
)
#: Seconds after which a message to a paglet that is not durable is not handled any more (its `timeout` says so).
LIFETIME = 50.0


class World:
    """Hold everybody, and what everybody was promised.

    :param chance: answers whether something of the given probability happens
    :param bug: a planted bug of the shells, to see that the checks find it
    """

    def __init__(self, chance: Callable[[float], bool], *, hosts: int = 3, clients: int = 2, bug: Bug = "") -> None:
        self._chance = chance
        self.bug = bug
        self.healed = False
        self.now = 1_000.0
        self.hosts = {name: Host(self, name) for name in "ABCDEFGH"[:hosts]}
        self.moves = {name: Moves(self, host) for name, host in self.hosts.items()}
        self.clients = {name: Client(self, name) for name in (f"K{n}" for n in range(clients))}
        self.couriers: dict[str, Courier] = {**self.hosts, **self.clients}
        self.net: list[Packet] = []
        self.late: list[Packet] = []
        """Copies, and packets thought lost, that may still come."""
        self.cut: dict[frozenset[str], None] = {}
        self.count = 0
        self.living: dict[str, Row] = {}
        """Paglets that exist, with what they began as."""
        self.graves: dict[str, tuple[str, ...] | None] = {}
        self.committed: set[str] = set()
        self.acked: dict[str, tuple[Msg, Answer]] = {}
        self.timers: dict[tuple[str, str], list[str]] = {}
        self.posts: dict[str, Msg] = {}
        self.places: dict[str, set[str]] = {}
        self.losses: dict[str, float] = {}
        """When the window of a paglet was last lost."""

    def chance(self, probability: float) -> bool:
        """Tell whether a trouble happens; none does once everything is healed."""
        return not self.healed and self._chance(probability)

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # -- the network -------------------------------------------------------------------------------------------------

    def send(self, frm: str, to: str, body: Body) -> None:
        self.net.append(Packet(frm, to, body, self.now))

    def reachable(self, frm: str, to: str) -> bool:
        host = self.hosts.get(to)
        return (host is None or host.up) and frozenset((frm, to)) not in self.cut

    def deliver(self, packet: Packet) -> None:
        if not self.reachable(packet.frm, packet.to):
            return
        body = packet.body
        if isinstance(body, Move):
            self.moves[packet.to].take(body)
            return
        courier = self.couriers[packet.to]
        if isinstance(courier, Host):
            courier.take(body)
        elif isinstance(body, Answer):
            courier.answered(body)
        else:
            courier.told(body)  # type: ignore[arg-type]

    def outlived(self, request: Request) -> bool:
        """Tell whether a request is one that a host without a durable memory cannot recognise, and may not get.

        Its sender has long given it up; or it is a first attempt from before the window was lost, and may have been
        overtaken by its repetition.
        """
        message = request.message
        row = self.living.get(message.receiver)
        if row is None or row.durable or message.kind == "tick" or ">" in message.id:
            return False
        late = request.attempt == 1 and message.born <= self.losses.get(message.receiver, -1.0)
        return late or self.now - message.born > LIFETIME

    def window_lost(self, agent: str) -> None:
        """Take note that a window was lost with a process."""
        self.losses[agent] = self.now

    # -- what may happen ---------------------------------------------------------------------------------------------

    def up(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.up]

    def down(self) -> list[Host]:
        return [host for host in self.hosts.values() if not host.up]

    def procs(self, wanted: Callable[[Proc], bool]) -> list[tuple[Host, Proc]]:
        return [(h, p) for h in self.hosts.values() if h.procs for p in h.procs.values() if wanted(p)]

    def machines(self, wanted: Callable[[Machine], bool]) -> list[tuple[Moves, Machine]]:
        return [(m, k) for m in self.moves.values() if m.host.machines for k in m.host.machines.values() if wanted(k)]

    def create(self, host: Host, *, durable: bool) -> None:
        agent = self.fresh("p")
        row = Row(1, host.name, durable)

        def apply(disk: Disk) -> None:
            disk.paglets[agent] = row

        def done(ok: bool) -> None:
            if ok:
                host.procs[agent] = host.start(agent, row)
                self.born(agent, row)
            else:
                host.persist(lambda disk: disk.remove(agent))

        host.writer.put(apply, done)

    def ready(self) -> list[Courier]:
        return [courier for courier in self.couriers.values() if courier.ready]

    def sync(self, host: Host) -> None:
        failed = self.chance(0.02)
        host.ready.extend(host.writer.sync(failed, failed and self.chance(0.5)))
        self.check()

    def crash(self, host: Host) -> None:
        host.crash()
        self.check()

    def restart(self, host: Host) -> None:
        # Whether a creation that nobody was told of happened is seen here.
        for agent, row in host.disk.paglets.items():
            if agent not in self.living and agent not in self.graves:
                self.born(agent, row)
        host.boot()
        self.moves[host.name].boot()

    def lifecycle(self, host: Host, proc: Proc, what: str, target: str = "", attempts: int = 1) -> None:
        match what:
            case "move" | "retract" | "sleep-move":
                kind = TransferKind.RETRACT if what == "retract" else TransferKind.DISPATCH
                self.moves[host.name].start(proc, target, kind, attempts, what != "sleep-move")
            case "clone":
                self.moves[host.name].start(proc, target, TransferKind.CLONE, attempts, True)
            case "sleep" | "nap":
                host.lives.sleep(proc, wakes=what == "nap")
            case "dispose":
                host.lives.dispose(proc)
            case _:
                raise AssertionError(what)

    def movable(self) -> list[tuple[Host, Proc]]:
        return self.procs(lambda p: p.phase == "live" and p.alive and not p.failing)

    def idle(self) -> list[tuple[Host, Proc]]:
        return self.procs(lambda p: p.phase == "live" and p.idle)

    def sleepers(self) -> list[tuple[Host, str]]:
        """List who can be woken or revived."""
        return [
            (host, agent)
            for host in self.up()
            for agent, row in host.disk.paglets.items()
            if row.status != "active" and isinstance(host.knowledge(agent), Asleep | Crashed)
        ]

    def evict(self, moves: Moves, machine: Machine) -> None:
        del moves.host.machines[machine.side, machine.plan.transfer_id]
        moves.host.luggage.pop(machine.plan.transfer_id, None)

    def due(self) -> float | None:
        """Return when the next timer of any host is due."""
        times = [due for host in self.up() if (due := host.timers.next_due()) is not None]
        times += [p.restart_at for _, p in self.procs(lambda p: not p.alive and p.phase == "live")]
        return min(times, default=None)

    # -- what is promised --------------------------------------------------------------------------------------------

    def born(self, agent: str, row: Row) -> None:
        self.living[agent] = row
        for client in self.clients.values():
            client.meet(agent, row.home, row.home, durable=row.durable)
        self.been(agent, row.home)

    def unborn(self, agent: str) -> None:
        """Take back a clone whose commit was called off; nobody was told of it but in this world."""
        self.living.pop(agent, None)
        for client in self.clients.values():
            client.streams.pop(agent, None)

    def been(self, agent: str, place: str) -> None:
        self.places.setdefault(agent, set()).add(place)

    def disposed(self, agent: str, row: Row | None) -> None:
        self.living.pop(agent)
        self.graves[agent] = row.log if row is not None else None

    def acknowledged(self, message: Msg, answer: Answer) -> None:
        if message.id in self.acked:
            raise ViolationError(f"{message.id} was acknowledged twice")
        self.acked[message.id] = (message, answer)

    def told_gone(self, agent: str, whom: str) -> None:
        if agent in self.living:
            raise ViolationError(f"{whom} was told that {agent} does not exist")

    def posted(self, posts: list[Msg]) -> None:
        self.posts.update((post.id, post) for post in posts)

    def reminded(self, row: Reminder) -> None:
        self.timers[row.agent_id, row.name] = []

    def fired(self, row: Reminder, occurrence: str) -> None:
        times = self.timers[row.agent_id, row.name]
        if occurrence not in times:
            times.append(occurrence)

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what must hold at any moment: one owner, one process, nobody lost."""
        owners: dict[str, str] = {}
        running: dict[str, str] = {}
        for host in self.hosts.values():
            for agent in host.disk.paglets:
                if agent in owners:
                    raise ViolationError(f"{agent} is owned by {owners[agent]} and {host.name}")
                owners[agent] = host.name
                if agent in self.graves:
                    raise ViolationError(f"{agent} came back from the dead at {host.name}")
            for agent, proc in host.procs.items():
                # A fenced process is no process; one that the callback of its end has not reached yet is fenced.
                if agent in running and proc.phase == "live":
                    raise ViolationError(f"{agent} runs at {running[agent]} and {host.name}")
                if proc.phase == "live":
                    running[agent] = host.name
        for agent in self.living:
            if agent not in owners and not self._on_its_way(agent):
                raise ViolationError(f"{agent} is lost")

    def _on_its_way(self, agent: str) -> bool:
        for host in self.hosts.values():
            for commit in host.disk.journal.load().commits:
                if commit.plan.agent_id == agent:
                    inert = self.hosts[commit.plan.target].disk.journal.load().prepared
                    if any(record.plan == commit.plan and record.vote == commit.vote for record in inert):
                        return True
        return False

    def heal(self, pick: Callable[[int], int]) -> None:
        """End all trouble, let everything run out, and check what must hold then."""
        self.healed = True
        self.cut.clear()
        for host in self.down():
            self.restart(host)
        Ending(self, pick).run()


__all__ = ["BUGS", "Bug", "ViolationError", "World"]
