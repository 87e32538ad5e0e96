"""Run transfers under a seeded scheduler of misfortunes.

python -m tests.protocol.simulate_transfer --steps N --seed S
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass

from paglets.protocol.transfer import TransferKind
from tests.protocol.transfer_world import Bug, ViolationError, World

KINDS = (TransferKind.DISPATCH, TransferKind.DISPATCH, TransferKind.RETRACT, TransferKind.CLONE, TransferKind.LOCAL)


@dataclass(frozen=True, slots=True)
class Found:
    """Say which seed broke what."""

    seed: int
    step: int
    text: str


def run(
    seed: int, *, steps: int = 400, bug: Bug = "", lose_inert: bool = False, drop_tombstones: bool = False
) -> Found | None:
    """Play one world; None where everything held."""
    rng = random.Random(seed)
    calm = rng.random() < 0.3
    world = World(
        lambda p: rng.random() < p * (0.2 if calm else 1.0),
        bug=bug,
        lose_inert=lose_inert,
        drop_tombstones=drop_tombstones,
    )
    done = 0
    try:
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
    if dice < 0.52 and (busy := world.machines(lambda m: m.busy)):
        host, machine = rng.choice(busy)
        for _ in range(rng.choice((1, 1, 2, 4, 30))):
            if machine.busy:
                world.tick(host, machine)
    elif dice < 0.75 and world.net:
        message = world.net.pop(rng.randrange(len(world.net)))
        fate = rng.random()
        if fate >= 0.06:
            world.deliver(message)
        if fate < 0.25:
            world.late.append(message)
    elif dice < 0.76 and world.late:
        if rng.random() < 0.7:
            world.deliver(world.late.pop(rng.randrange(len(world.late))))
        else:
            replay(world, rng)
    elif dice < 0.81 and (waiting := world.machines(lambda m: bool(m.awaiting))):
        world.timeout(rng.choice(waiting)[1])
    elif dice < 0.86 and (asleep := world.machines(lambda m: m.timer)):
        world.fire(rng.choice(asleep)[1])
    elif dice < 0.92 and (movable := world.movable()):
        host, agent = rng.choice(movable)
        kind = rng.choice(KINDS)
        if kind is not TransferKind.CLONE or len(world.living) < 5:
            target = host.name if kind is TransferKind.LOCAL else rng.choice(sorted(world.hosts))
            world.start(host, agent, target, kind, rng.choice((1, 1, 2, 3)), rng.random() < 0.9)
    elif dice < 0.927 and (up := [h for h in world.hosts.values() if h.up]):
        if not calm or rng.random() < 0.2:
            world.crash(rng.choice(up))
            world.check()
    elif dice < 0.96 and (down := [h for h in world.hosts.values() if not h.up]):
        world.restart(rng.choice(down))
    elif dice < 0.965 and (sources := world.machines(lambda m: m.side == "source" and not m.state.terminal)):
        world.cancel(rng.choice(sources)[1])
    elif dice < 0.98 and (done := world.machines(world.evictable)):
        world.evict(*rng.choice(done))
    elif dice < 0.99 and (movable := world.movable()):
        world.dispose(*rng.choice(movable))
    elif len(world.living) < 3 and (up := [h for h in world.hosts.values() if h.up]):
        world.create(rng.choice(up))


def replay(world: World, rng: random.Random) -> None:
    """Deliver what is late of one transfer in the order it was sent, as a connection that wakes up again would."""
    chosen = rng.choice(world.late).plan.transfer_id
    burst = [m for m in world.late if m.plan.transfer_id == chosen and m.side == "target"]
    world.late = [m for m in world.late if m not in burst]
    for message in burst:
        world.deliver(message)
        for host, machine in world.machines(lambda m: m.side == "target" and m.plan.transfer_id == chosen):
            for _ in range(30):
                if machine.busy:
                    world.tick(host, machine)


def search(
    first: int,
    runs: int,
    *,
    steps: int = 400,
    bug: Bug = "",
    lose_inert: bool = False,
    drop_tombstones: bool = False,
) -> Found | None:
    """Play worlds one after another until one breaks."""
    for seed in range(first, first + runs):
        if found := run(seed, steps=steps, bug=bug, lose_inert=lose_inert, drop_tombstones=drop_tombstones):
            return found
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="how many things happen altogether")
    parser.add_argument("--seed", type=int, default=0, help="the first world's seed; later worlds count up from it")
    parser.add_argument("--length", type=int, default=400, help="how many things happen in one world")
    parser.add_argument("--bug", default="", help="plant a bug in the harness")
    parser.add_argument("--lose-inert", action="store_true", help="let crashes destroy inert copies")
    parser.add_argument("--drop-tombstones", action="store_true", help="let targets forget what was called off")
    options = parser.parse_args(argv)
    runs = max(1, options.steps // options.length)
    began = time.perf_counter()
    found = search(
        options.seed,
        runs,
        steps=options.length,
        bug=options.bug,
        lose_inert=options.lose_inert,
        drop_tombstones=options.drop_tombstones,
    )
    if found is not None:
        again = f"--steps {options.length} --length {options.length} --seed {found.seed}"
        again += f" --bug {options.bug}" if options.bug else ""
        again += " --lose-inert" if options.lose_inert else ""
        again += " --drop-tombstones" if options.drop_tombstones else ""
        print(f"seed {found.seed} breaks at step {found.step}: {found.text}")
        print(f"again: python -m tests.protocol.simulate_transfer {again}")
        return 1
    took = time.perf_counter() - began
    print(f"{runs} worlds of {options.length} steps held, seeds from {options.seed}, {took:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
