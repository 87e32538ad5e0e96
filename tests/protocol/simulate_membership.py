"""Hundreds of hosts that gossip, on a virtual clock and a network that loses, delays and separates.

Every host is the real core, `Membership` with what it says to others; only the shell around it, threads and sockets, is
played here. Everything is drawn from one seeded generator, so that a seed is a run.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec

from paglets.protocol.gossip import Tidings
from paglets.protocol.membership import HostRef, Membership
from paglets.remote import meetings
from paglets.remote.mesh import PEERS_PER_ROUND
from paglets.remote.roster import LATE_ROUND_SECONDS
from paglets.remote.visits import CONTACT_THREADS, REQUEST_TIMEOUT_SECONDS

VERSION = "v1"
HTTP_HEAD_BYTES = 260
"""Of a request and its answer together, as the client and the server of this project write them."""
HEALTH_BYTES = 900
"""Of an answer to /health, which a peer that is not known to be online is asked first."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to an exchange."""

    delay: tuple[float, float] = (0.001, 0.02)
    """Seconds that each direction takes, between these two."""
    late: float = 0.0
    """How probable it is that an exchange is not complete in time. Half of these arrive, and their answer does not."""
    retransmitted: float = 0.0
    """How probable it is that a direction takes a second longer, as where the first packet of a connection is lost."""


@dataclass
class Traffic:
    """What one host sent and was sent."""

    requests: int = 0
    """That it made or served."""
    bytes: int = 0
    """In both directions."""


@dataclass(eq=False)
class SimHost:
    """One host."""

    name: str
    url: str
    core: Membership
    seeds: list[str]
    stamp: Callable[[], float]
    up: bool = True
    paused: bool = False
    busy: set[str] = field(default_factory=set)
    listened_at: float = 0.0
    traffic: Traffic = field(default_factory=Traffic)
    lives: int = 1

    def own(self) -> HostRef:
        return HostRef(
            self.name, self.url, VERSION, True, round(self.stamp(), 3), 3, 1, ("gpu",), {"rack": "3", "zone": "north"}
        )


class World:
    """A network of hosts; `run` lets virtual seconds pass."""

    def __init__(self, seed: int, *, offline_after: float = 10.0, interval: float = 1.0) -> None:
        self.chance = random.Random(seed)
        self.offline_after = offline_after
        self.interval = interval
        self.now = 1000.0
        self.weather = Weather()
        self.hosts: dict[str, SimHost] = {}
        self.sides: list[set[str]] = []
        self.flaps: list[tuple[float, str, str]] = []
        """When which host took which healthy one for offline."""
        self.watching = False
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._seen: dict[str, frozenset[str]] = {}

    # what happens to hosts

    def add(self, name: str, *, seeds: Collection[str] = (), at: float | None = None, skew: float = 0.0) -> SimHost:
        """Start a host; its own clock is wrong by some seconds."""
        core = Membership(
            code_version=VERSION,
            offline_after=self.offline_after,
            retry_interval=self.interval,
            chance=self.chance.random,
        )
        host = SimHost(name, f"http://{name}.mesh:8765", core, list(seeds), lambda: 1.7e9 + self.now + skew)
        host.listened_at = self.now
        self.hosts[host.url] = host
        self.at(self.chance.uniform(0.0, 0.2) if at is None else at, lambda: self._round(host, host.lives))
        return host

    def kill(self, host: SimHost) -> None:
        """End a host at once; its machine refuses connections."""
        host.up = False
        host.lives += 1

    def revive(self, host: SimHost) -> None:
        """Start it again, where it was, with an empty table."""
        host.core = Membership(
            code_version=VERSION,
            offline_after=self.offline_after,
            retry_interval=self.interval,
            chance=self.chance.random,
        )
        host.up, host.busy, host.listened_at = True, set(), self.now
        self._seen.pop(host.url, None)
        self.at(0.01, lambda life=host.lives: self._round(host, life))

    def move(self, host: SimHost, name: str) -> None:
        """Give a running host another address."""
        del self.hosts[host.url]
        former, host.url = host.url, f"http://{name}.mesh:8765"
        host.core.remove(host.url)
        self.hosts[host.url] = host
        self._seen.pop(former, None)

    def separate(self, *sides: Collection[SimHost]) -> None:
        """Let hosts of different sides not reach each other; packets vanish."""
        self.sides = [{host.url for host in side} for side in sides]

    # time

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something so many seconds from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], most: float, step: float = 0.25) -> float:
        """Let time pass until something is so; return the seconds it took.

        :raises AssertionError: it is not so after `most` seconds.
        """
        began = self.now
        while not condition():
            assert self.now - began < most, f"not within {most:g} virtual seconds"
            self.run(step)
        return self.now - began

    # what can be seen

    def alive(self) -> list[SimHost]:
        return [host for host in self.hosts.values() if host.up]

    def online(self, host: SimHost) -> frozenset[str]:
        """Return the URLs that a host takes for online now."""
        host.core.age(now=self.now)
        return frozenset(ref.url for ref in host.core.peers() if ref.online)

    def complete(self) -> bool:
        """Tell whether every running host knows exactly the running ones."""
        running = {host.url for host in self.alive()}
        return all(self.online(host) == running - {host.url} for host in self.alive())

    # the shell

    def _round(self, host: SimHost, life: int) -> None:
        if not host.up or host.lives != life:
            return
        self.at(self.interval * self.chance.uniform(0.9, 1.1), lambda: self._round(host, life))
        if host.paused:
            return
        late = self.now - host.listened_at - self.interval * 1.1
        if late > LATE_ROUND_SECONDS:
            host.core.excuse(late)
        host.listened_at = self.now
        host.core.age(now=self.now)
        self._watch(host)
        urls = {*host.seeds, *(ref.url for ref in host.core.peers())} - {host.url}
        for url in host.core.due(urls, now=self.now, limit=PEERS_PER_ROUND, busy=host.busy):
            if len(host.busy) < CONTACT_THREADS:
                host.busy.add(url)
                self._visit(host, url, host.lives)

    def _watch(self, host: SimHost) -> None:
        online = self.online(host)
        if self.watching:
            for url in self._seen.get(host.url, frozenset()) - online:
                other = self.hosts.get(url)
                if other is not None and other.up and not other.paused and self._joined(host.url, url):
                    self.flaps.append((self.now, host.name, other.name))
        self._seen[host.url] = online

    def _joined(self, one: str, other: str) -> bool:
        return not self.sides or any(one in side and other in side for side in self.sides)

    def _visit(self, host: SimHost, url: str, life: int) -> None:
        known = host.core.get(url)
        looked_at = known is not None and known.online
        there = self.hosts.get(url)
        if not self._joined(host.url, url) or (there is not None and there.paused):
            self.at(REQUEST_TIMEOUT_SECONDS, lambda: self._lost(host, url, life))
            return
        if there is None or not there.up:
            self.at(0.001, lambda: self._refused(host, url, life))
            return
        lost = self.chance.random() < self.weather.late
        if lost:
            self.at(REQUEST_TIMEOUT_SECONDS, lambda: self._lost(host, url, life))
            if self.chance.random() < 0.5:
                return
        own = host.own()
        host.core.age(now=self.now)
        body = meetings.invitation(own, host.core.inquiry(own, now=self.now))
        if not looked_at:
            self._count(host, there, HEALTH_BYTES)
        trips = self._trip() + (0.0 if looked_at else self._trip() * 2)
        self.at(trips, lambda: self._serve(host, there, url, life, body, lost))

    def _trip(self) -> float:
        late = 1.0 if self.chance.random() < self.weather.retransmitted else 0.0
        return self.chance.uniform(*self.weather.delay) + late

    def _serve(self, host: SimHost, there: SimHost, url: str, life: int, body: dict[str, Any], lost: bool) -> None:
        if not there.up or there.paused or there.url != url:
            self.at(REQUEST_TIMEOUT_SECONDS, lambda: self._lost(host, url, life))
            return
        ref = HostRef.from_wire(body)
        own = there.own()
        there.core.age(now=self.now)
        self._observe(there, ref, direct=True)
        tidings = Tidings.from_wire(body[meetings.GOSSIP])
        self._hear(there, tidings)
        lacking = there.core.lacking(tidings.digest, own, visitor=ref.url, now=self.now)
        reply = meetings.answer(own, lacking, there.core.reply(tidings, own, now=self.now))
        self._count(host, there, len(msgspec.json.encode(body)) + len(msgspec.json.encode(reply)) + HTTP_HEAD_BYTES)
        if not lost:
            self.at(self._trip(), lambda: self._answered(host, url, life, reply))

    def _answered(self, host: SimHost, url: str, life: int, reply: dict[str, Any]) -> None:
        if not host.up or host.lives != life or host.paused:
            return
        host.busy.discard(url)
        answer = meetings.read_answer(url, reply)
        host.core.reached(url, now=self.now)
        for told in answer.records:
            self._observe(host, told.ref, direct=told.ref.url == url, age=told.age)
        self._hear(host, answer.tidings)

    def _observe(self, host: SimHost, ref: HostRef, *, direct: bool, age: float = 0.0) -> None:
        host.core.observe(
            ref, own_url=host.url, now=self.now, direct=direct, keep_other_version=False, age=0.0 if direct else age
        )

    def _hear(self, host: SimHost, tidings: Tidings) -> None:
        for beat in tidings.beats:
            if beat.url != host.url:
                host.core.hear_beat(beat, now=self.now)

    def _lost(self, host: SimHost, url: str, life: int) -> None:
        if host.up and host.lives == life:
            host.busy.discard(url)
            host.core.doubt(url, "late", now=self.now)

    def _refused(self, host: SimHost, url: str, life: int) -> None:
        if host.up and host.lives == life:
            host.busy.discard(url)
            host.core.fail(url, "refused", now=self.now)

    def _count(self, one: SimHost, other: SimHost, size: int) -> None:
        for host in (one, other):
            host.traffic.requests += 1
            host.traffic.bytes += size


def mesh_of(count: int, seed: int, **options: Any) -> World:
    """Return a world of hosts that all name the first one as their peer, none of which has run yet."""
    world = World(seed, **options)
    first = world.add("h0")
    for number in range(1, count):
        world.add(f"h{number}", seeds=[first.url], skew=world.chance.uniform(-3600.0, 3600.0))
    return world
