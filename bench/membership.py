"""What it costs to know who is there: the core of the mesh on a virtual clock, the same figures on any machine."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from tests.protocol.simulate_membership import HTTP_HEAD_BYTES, SimHost, Traffic, Weather, mesh_of

from bench.measure import Row

KILOBYTE = 1024
SEED = 1
LAN = Weather(delay=(0.0005, 0.005))


def membership(quick: bool) -> Iterator[Row]:
    """Let meshes of several sizes form and go on."""
    seconds = 5.0 if quick else 20.0
    for count in (20, 200) if quick else (5, 20, 50, 100, 200):
        world = mesh_of(count, SEED)
        world.weather = LAN
        formed = world.run_until(world.complete, 60.0)
        yield Row(f"mesh of {count}: until all know all", "s", round(formed, 2), aim=10.0)
        world.run(3.0)
        for host in world.hosts.values():
            host.traffic = Traffic()
        world.run(seconds)
        requests = sum(host.traffic.requests for host in world.hosts.values()) / count / seconds
        rate = sum(host.traffic.bytes for host in world.hosts.values()) / count / seconds / KILOBYTE
        beat = _heartbeat_bytes(next(iter(world.hosts.values())))
        yield Row(f"mesh of {count}: requests made and served by a host", "/s", round(requests, 2))
        yield Row(
            f"mesh of {count}: sent and received by a host",
            "KB/s",
            round(rate, 2),
            # As many exchanges that say nothing but "I am here".
            floor=round(requests * beat / KILOBYTE, 2),
            aim=48.0,
        )
        victim = list(world.hosts.values())[count // 2]
        world.kill(victim)
        missed = world.run_until(
            lambda world=world, victim=victim: all(victim.url not in world.online(host) for host in world.alive()), 30.0
        )
        yield Row(f"mesh of {count}: until all miss a dead host", "s", round(missed, 2), aim=world.offline_after + 1.0)


def _heartbeat_bytes(host: SimHost) -> int:
    own = host.own().to_wire()
    return len(msgspec.json.encode(own)) + len(msgspec.json.encode({"hosts": [own]})) + HTTP_HEAD_BYTES
