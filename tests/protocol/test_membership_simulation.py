"""What the mesh promises, with up to 200 hosts on a virtual clock."""

from __future__ import annotations

import pytest

from tests.effort import thorough
from tests.protocol.simulate_membership import SimHost, Traffic, Weather, World, mesh_of

ROUGH = Weather(delay=(0.01, 0.1), late=0.05, retransmitted=0.1)
"""One exchange in twenty fails, one direction in ten takes a second longer."""
SLACK_SECONDS = 3.0
"""What the last word of a host may spend on its way from host to host, a second more where a packet was lost."""


def formed(count: int, seed: int, most: float = 10.0) -> World:
    world = mesh_of(count, seed)
    world.run_until(world.complete, most)
    return world


def nobody_sees(world: World, url: str) -> bool:
    return not any(url in world.online(host) for host in world.alive())


def test_a_large_mesh() -> None:
    """They learn of each other in ten rounds, rough weather makes nobody look dead, and a death is seen in time."""
    world = formed(thorough(60, 200), seed=1)
    for host in world.hosts.values():
        host.traffic = Traffic()
    world.weather, world.watching = ROUGH, True
    world.run(3.0)
    assert all(host.traffic.requests <= 2 * 3 * 12 for host in world.hosts.values())
    assert all(host.traffic.bytes < 3 * 60 * 1024 for host in world.hosts.values())
    victim = world.hosts["http://h17.mesh:8765"]
    world.kill(victim)
    world.run_until(lambda: nobody_sees(world, victim.url), world.offline_after + SLACK_SECONDS, step=0.5)
    assert world.flaps == []


@pytest.mark.parametrize("seed", range(1, 1 + thorough(1, 4)))
def test_rough_weather_makes_no_healthy_host_offline(seed: int) -> None:
    world = formed(24, seed)
    world.weather, world.watching = ROUGH, True
    world.run(60.0)
    assert world.flaps == []
    assert world.complete()


@pytest.mark.parametrize("seed", range(1, 1 + thorough(2, 6)))
def test_churn_leaves_no_ghost(seed: int) -> None:
    """Hosts die, come back, come new and move to other addresses; afterwards everybody knows exactly who is there."""
    world = formed(20, seed)
    world.weather = ROUGH
    first = world.hosts["http://h0.mesh:8765"]
    down: list[SimHost] = []
    for turn in range(30):
        world.run(world.chance.uniform(0.5, 2.0))
        running = [host for host in world.alive() if host is not first]
        match world.chance.choice(["kill", "kill", "revive", "add", "move"]):
            case "kill" if len(running) > 8:
                down.append(world.chance.choice(running))
                world.kill(down[-1])
            case "revive" if down:
                world.revive(down.pop(world.chance.randrange(len(down))))
            case "move" if running:
                world.move(world.chance.choice(running), f"moved{turn}")
            case _:
                world.add(f"new{turn}", seeds=[first.url])
    world.run_until(world.complete, world.offline_after + 10.0)
    world.watching = True
    world.run(20.0)
    assert world.flaps == []
    assert world.complete()


def test_a_host_that_never_was_is_soon_forgotten() -> None:
    """A peer that makes one up is believed no longer than silence takes."""
    world = formed(12, seed=4)
    liar = world.hosts["http://h3.mesh:8765"]
    ghost = SimHost("ghost", "http://ghost.mesh:8765", liar.core, [], lambda: 1.7e9).own()
    liar.core.observe(ghost, own_url=liar.url, now=world.now, direct=False, keep_other_version=False)
    world.run_until(lambda: nobody_sees(world, ghost.url), world.offline_after + SLACK_SECONDS)
    world.run(30.0)
    assert nobody_sees(world, ghost.url)


@pytest.mark.parametrize("weather", [Weather(), ROUGH], ids=["fine", "rough"])
def test_a_partition_is_seen_and_heals(weather: Weather) -> None:
    world = formed(24, seed=5)
    world.weather = weather
    hosts = list(world.hosts.values())
    west, east = hosts[:9], hosts[9:]
    world.separate(west, east)
    world.run(world.offline_after + SLACK_SECONDS)
    for side in (west, east):
        urls = {host.url for host in side}
        assert all(world.online(host) == urls - {host.url} for host in side)
    world.run(30.0)
    world.separate()
    assert world.run_until(world.complete, 20.0) < 20.0


def test_a_paused_host_is_missed_and_misses_nobody() -> None:
    """What passed while it did not run is nobody's silence, so it does not take everybody for dead when it goes on."""
    world = formed(16, seed=6)
    world.watching = True
    sleeper = world.hosts["http://h5.mesh:8765"]
    sleeper.paused = True
    world.run_until(
        lambda: not any(sleeper.url in world.online(host) for host in world.alive() if host is not sleeper),
        world.offline_after + SLACK_SECONDS,
    )
    world.run(30.0)
    sleeper.paused = False
    world.run(2.0)
    assert len(world.online(sleeper)) == 15
    world.run_until(world.complete, 10.0)
    assert world.flaps == []


def test_traffic_does_not_grow_with_the_mesh() -> None:
    """Beyond what one exchange may hold, more hosts add nothing to what each of them sends."""
    rates = []
    for count in (50, 100):
        world = formed(count, seed=7)
        world.run(2.0)
        for host in world.hosts.values():
            host.traffic = Traffic()
        world.run(3.0)
        rates.append(sum(host.traffic.bytes for host in world.hosts.values()) / count / 3.0)
    assert rates[1] < rates[0] * 1.2
