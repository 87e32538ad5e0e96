"""Run whole systems under a seeded scheduler of misfortunes.

python -m tests.protocol.simulate_system --steps N --seed S
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.protocol.system_client import Client
from tests.protocol.system_world import BUGS, Bug, ViolationError, World

LIFECYCLE = ("move", "move", "move", "retract", "sleep-move", "clone")
REST = ("sleep", "nap", "nap", "dispose")
KINDS = ("log", "log", "log", "post", "remind", "poison")
MOST_PAGLETS = 5


@dataclass(frozen=True, slots=True)
class Found:
    """Say which seed broke what."""

    seed: int
    step: int
    text: str


def run(seed: int, *, steps: int = 600, bug: Bug = "") -> Found | None:
    """Play one world; None where everything held."""
    rng = random.Random(seed)
    calm = rng.random() < 0.4
    scale = 0.2 if calm else 1.0
    world = World(lambda p: rng.random() < p * scale, hosts=rng.choice((2, 3, 3, 4)), bug=bug)
    done = 0
    try:
        for number, host in enumerate(world.hosts.values()):
            world.create(host, durable=number != 1)
        while done < steps:
            happen(world, rng, calm=calm)
            done += 1
        world.heal(rng.randrange)
    except ViolationError as violation:
        return Found(seed, done, str(violation))
    return None


def happen(world: World, rng: random.Random, *, calm: bool) -> None:
    """Let one thing happen."""
    dice = rng.random()
    world.now += 0.02 if dice < 0.99 else rng.choice((0.5, 2.0, 10.0))
    if dice < 0.30:
        _think(world, rng)
    elif dice < 0.56:
        _network(world, rng)
    elif dice < 0.68:
        if waiting := [host for host in world.up() if host.writer.waiting]:
            world.sync(rng.choice(waiting))
    elif dice < 0.80:
        if busy := world.procs(lambda p: p.busy):
            host, proc = rng.choice(busy)
            kills = proc.handling is not None and rng.random() < (0.5 if proc.handling.kind == "poison" else 0.01)
            if kills and proc.phase == "live":
                host.lives.die(proc)
            else:
                host.work(proc)
    elif dice < 0.88:
        _talk(world, rng)
    elif dice < 0.93:
        _wait(world, rng)
    elif dice < 0.965:
        _background(world, rng)
    elif dice < 0.99:
        _life(world, rng)
    elif not calm or rng.random() < 0.3:
        _trouble(world, rng)


def _think(world: World, rng: random.Random) -> None:
    """Let shells perform actions, take events, hear of what is on disk."""
    ready, busy = world.ready(), world.machines(lambda m: m.busy)
    if ready and (not busy or rng.random() < 0.5):
        queue = rng.choice(ready).ready
        for _ in range(rng.choice((1, 1, 3))):
            if queue:
                queue.popleft()()
    elif busy:
        moves, machine = rng.choice(busy)
        for _ in range(rng.choice((1, 1, 2, 4, 20))):
            if machine.busy:
                moves.tick(machine)
    elif waits := world.machines(lambda m: m.waits):
        moves, machine = rng.choice(waits)
        moves.idle(machine)


def _network(world: World, rng: random.Random) -> None:
    fate = rng.random()
    if fate < 0.03 and world.late:
        world.deliver(world.late.pop(rng.randrange(len(world.late))))
    elif world.net:
        packet = world.net.pop(rng.randrange(min(len(world.net), 8)))
        if fate < 0.95:
            world.deliver(packet)
        if fate > 0.85 and len(world.late) < 200:
            world.late.append(packet)


def _talk(world: World, rng: random.Random) -> None:
    client = rng.choice(list(world.clients.values()))
    free = client.free()
    if not free or rng.random() < 0.3:
        client.again()
        return
    speak(world, client, rng.choice(free), rng.choice(KINDS), oneway=rng.random() < 0.5, pick=rng.randrange)


def speak(world: World, client: Client, agent: str, kind: str, *, oneway: bool, pick: Callable[[int], int]) -> None:
    """Let a client send a message."""
    post_to = ("", "")
    if kind == "post":
        if not world.living:
            return
        receiver = list(world.living)[pick(len(world.living))]
        post_to = (receiver, world.living[receiver].home)
    client.send(agent, kind, oneway=oneway, post_to=post_to)


def _wait(world: World, rng: random.Random) -> None:
    """Let somebody lose patience, or a timer run out."""
    fate = rng.random()
    if fate < 0.25 and (waiting := world.machines(lambda m: bool(m.awaiting))):
        moves, machine = rng.choice(waiting)
        moves.time_out(machine)
    elif fate < 0.5 and (asleep := world.machines(lambda m: m.timer)):
        moves, machine = rng.choice(asleep)
        moves.wake(machine)
    elif fate < 0.65 and (calling := [c for c in world.couriers.values() if c.calls]):
        courier = rng.choice(calling)
        courier.time_out(rng.choice(list(courier.calls)))
    elif fate < 0.8:
        for host in world.up():
            host.errands.fire_due()
    else:
        for host in world.up():
            host.lives.restart_dead()


def _background(world: World, rng: random.Random) -> None:
    if not (up := world.up()):
        return
    host = rng.choice(up)
    fate = rng.random()
    if fate < 0.4:
        host.errands.post_outbox()
    elif fate < 0.6:
        host.errands.post_notice()
    elif fate < 0.75 and (dirty := [p for p in host.procs.values() if p.dirty and p.phase == "live" and p.alive]):
        host.checkpoint(rng.choice(dirty))
    elif done := world.machines(lambda m: m.state.terminal):
        moves, machine = rng.choice(done)
        if moves.evictable(machine):
            world.evict(moves, machine)


def _life(world: World, rng: random.Random) -> None:
    fate = rng.random()
    if fate < 0.5 and (movable := world.movable()):
        host, proc = rng.choice(movable)
        what = rng.choice(LIFECYCLE)
        others = [name for name in world.hosts if name != host.name]
        if what != "clone" or len(world.living) < MOST_PAGLETS:
            world.lifecycle(host, proc, what, rng.choice(others), rng.choice((1, 1, 2, 3)))
    elif fate < 0.7 and (idle := world.idle()):
        host, proc = rng.choice(idle)
        what = rng.choice(REST)
        if what != "dispose" or rng.random() < 0.3:
            world.lifecycle(host, proc, what)
    elif fate < 0.85 and (sleepers := world.sleepers()):
        host, agent = rng.choice(sleepers)
        host.lives.wake(agent)
    elif len(world.living) < 3 and (up := world.up()):
        world.create(rng.choice(up), durable=rng.random() < 0.7)


def _trouble(world: World, rng: random.Random) -> None:
    fate = rng.random()
    down = world.down()
    if down and fate < 0.6:
        world.restart(rng.choice(down))
    elif fate < 0.75 and (up := world.up()):
        world.crash(rng.choice(up))
    elif world.cut and fate < 0.9:
        world.cut.popitem()
    else:
        one, other = rng.sample(list(world.couriers), 2)
        world.cut[frozenset((one, other))] = None


def search(first: int, runs: int, *, steps: int = 600, bug: Bug = "", progress: bool = False) -> Found | None:
    """Play worlds one after another until one breaks."""
    began = time.perf_counter()
    for number, seed in enumerate(range(first, first + runs)):
        if found := run(seed, steps=steps, bug=bug):
            return found
        if progress and number % 100 == 99:
            rate = (number + 1) * steps / (time.perf_counter() - began)
            print(f"{(number + 1) * steps:,} steps, {rate:,.0f} a second", file=sys.stderr, flush=True)
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="how many things happen altogether")
    parser.add_argument("--seed", type=int, default=0, help="the first world's seed; later worlds count up from it")
    parser.add_argument("--length", type=int, default=600, help="how many things happen in one world")
    parser.add_argument("--bug", default="", choices=("", *BUGS), help="plant a bug in the shells")
    options = parser.parse_args(argv)
    runs = max(1, options.steps // options.length)
    began = time.perf_counter()
    found = search(options.seed, runs, steps=options.length, bug=options.bug, progress=True)
    if found is not None:
        again = f"--steps {options.length} --length {options.length} --seed {found.seed}"
        again += f" --bug {options.bug}" if options.bug else ""
        print(f"seed {found.seed} breaks at step {found.step}: {found.text}")
        print(f"again: python -m tests.protocol.simulate_system {again}")
        return 1
    took = time.perf_counter() - began
    print(f"{runs} worlds of {options.length} steps held, seeds from {options.seed}, {took:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
