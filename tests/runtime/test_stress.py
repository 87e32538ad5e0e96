"""Everything at once: many paglets, several hosts and threads, random operations, and afterwards a census."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState
from tests.support import HostFactory, events_of, eventually, leftovers, processes_of

HOSTS = 3
PAGLETS = 20
OPERATIONS = 200
THREADS = 4

#: What may go wrong when several threads move the same paglets about: it has just left, or it is busy leaving.
EXPECTED = ("InvalidAgentError", "TransferError", "LifecycleError", "ConflictError", "HostError", "PagletInactiveError")


@dataclass
class Census:
    """Who should be there, and how much each must have counted at least and at most."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: set[str] = field(default_factory=set)
    disposed: set[str] = field(default_factory=set)
    counted: dict[str, int] = field(default_factory=dict)
    """Additions that were answered."""
    unsure: dict[str, int] = field(default_factory=dict)
    """Additions that ended in an error, which may have been done all the same."""
    origin: dict[str, str] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)


class Chaos:
    def __init__(self, hosts: list[Host], seed: int) -> None:
        self._hosts = hosts
        self._seed = seed
        self.census = Census()

    def populate(self) -> None:
        for number in range(PAGLETS):
            proxy = self._hosts[number % HOSTS].create(Actor)
            self.census.known.add(proxy.agent_id)

    def work(self, thread: int) -> None:
        chance = random.Random(self._seed * 1000 + thread)
        for _ in range(OPERATIONS // THREADS):
            with self.census.lock:
                agent_id = chance.choice(sorted(self.census.known))
            name = chance.choices(
                ["send", "dispatch", "clone", "retract", "deactivate", "activate", "dispose"],
                [40, 18, 6, 12, 10, 10, 4],
            )[0]
            try:
                getattr(self, name)(chance, agent_id)
            except PagletError as exc:
                if type(exc).__name__ not in EXPECTED:
                    self.census.surprises.append(f"{name}: {type(exc).__name__}: {exc}")
            except Exception as exc:
                self.census.surprises.append(f"{name}: {type(exc).__name__}: {exc}")

    def find(self, agent_id: str) -> PagletProxy | None:
        for host in self._hosts:
            proxy = host.get_proxy(agent_id, include_inactive=True)
            if proxy is not None:
                return proxy
        return None

    def send(self, chance: random.Random, agent_id: str) -> None:
        proxy = self.find(agent_id)
        if proxy is None:
            return
        try:
            proxy.send(Message("add", {"by": 1}))
        except PagletError:
            with self.census.lock:
                self.census.unsure[agent_id] = self.census.unsure.get(agent_id, 0) + 1
            raise
        with self.census.lock:
            self.census.counted[agent_id] = self.census.counted.get(agent_id, 0) + 1

    def dispatch(self, chance: random.Random, agent_id: str) -> None:
        proxy = self.find(agent_id)
        if proxy is not None:
            proxy.dispatch(chance.choice(self._hosts).address)

    def retract(self, chance: random.Random, agent_id: str) -> None:
        proxy = self.find(agent_id)
        if proxy is not None:
            chance.choice(self._hosts).retract(proxy.host_url, agent_id)

    def clone(self, chance: random.Random, agent_id: str) -> None:
        proxy = self.find(agent_id)
        if proxy is not None:
            copy = proxy.clone(chance.choice(self._hosts).address)
            with self.census.lock:
                self.census.known.add(copy.agent_id)
                self.census.origin[copy.agent_id] = agent_id

    def deactivate(self, _: random.Random, agent_id: str) -> None:
        proxy = self.find(agent_id)
        if proxy is not None:
            proxy.deactivate()

    def activate(self, _: random.Random, agent_id: str) -> None:
        proxy = self.find(agent_id)
        if proxy is not None:
            proxy.activate()

    def dispose(self, _: random.Random, agent_id: str) -> None:
        proxy = self.find(agent_id)
        if proxy is not None:
            proxy.dispose()
            with self.census.lock:
                self.census.disposed.add(agent_id)


@pytest.mark.parametrize("run", [1, 2])
def test_random_operations_from_many_threads_leave_every_paglet_exactly_once(hosts: HostFactory, run: int) -> None:
    seed = int(os.environ.get("PAGLETS_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
    started = [hosts(f"host{number}") for number in range(HOSTS)]
    chaos = Chaos(started, seed)
    chaos.populate()
    with ThreadPoolExecutor(THREADS) as pool:
        for finished in [pool.submit(chaos.work, thread) for thread in range(THREADS)]:
            finished.result(90)
    census = chaos.census
    label = f"seed {seed}"
    assert census.surprises == [], label

    places: dict[str, list[str]] = {}
    for host in started:
        for summary in host.list_agents(inactive=True):
            assert not summary.get("crashed"), (label, summary)
            places.setdefault(summary["agent_id"], []).append(host.name)
    assert {agent_id: found for agent_id, found in places.items() if len(found) != 1} == {}, label
    assert set(places) == census.known - census.disposed, label

    for agent_id in sorted(places):
        proxy = chaos.find(agent_id)
        assert proxy is not None, label
        counted, unsure = census.counted.get(agent_id, 0), census.unsure.get(agent_id, 0)
        # A clone begins with what its original had counted when it was copied.
        base = 0 if agent_id not in census.origin else None
        count = proxy.send(Message("add", {"by": 0}))
        if base is not None:
            assert counted <= count <= counted + unsure, (label, agent_id)
        else:
            assert count >= counted, (label, agent_id)

    for host in started:
        active = host.health()["active_count"]
        eventually(lambda host=host, active=active: len(processes_of(host.name)) == active, f"processes, {label}")
        for kind in ("paglet-crashed", "background-failure", "transfer-fault", "activation-failed"):
            assert [(event.kind, event.error) for event in events_of(host, kind)] == [], label
        assert [name for name in leftovers(host) if name.startswith("incoming")] == [], label
        for summary in host.list_agents():
            if summary["active"]:
                assert host.get_state(summary["agent_id"], ActorState).log[0] == "creation"
