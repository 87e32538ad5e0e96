"""A hub that dies, links that break and connected hosts that stand still: everything goes on by itself, once."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.remote.senders import submit
from tests.faults.cluster import Cluster, HostProcess
from tests.support import eventually, free_port

MESSAGES = 60


@dataclass(slots=True)
class Relayed:
    """A hub and two hosts that only it can reach."""

    cluster: Cluster
    hub: HostProcess
    near: HostProcess
    far: HostProcess

    def restart_hub(self) -> None:
        self.hub.kill()
        self.hub.start()

    def owners(self, agent_id: str) -> list[HostProcess]:
        """Return the connected hosts that have a paglet."""
        return [host for host in (self.near, self.far) if agent_id in self._agents(host)]

    def _agents(self, host: HostProcess) -> list[str]:
        answer = self.cluster.client.get_json(f"{host.url}/agents?state=all", timeout=10.0)
        return [summary["agent_id"] for summary in answer["agents"]]

    def book(self, proxy: PagletProxy) -> list[str]:
        """Return what a ledger has entered."""
        url = f"{proxy.host_url}/agents/{proxy.agent_id}/state"
        entries: list[str] = self.cluster.client.get_json(url, timeout=30.0)["state"]["entries"]
        return entries


@pytest.fixture
def relayed(cluster: Cluster) -> Relayed:
    port = free_port()
    hub = cluster.add("hub", public_url=f"http://127.0.0.1:{port}", relay_offline_after=1.5)
    hub.port = port
    hub.start()
    options: dict[str, Any] = {"connect_to": hub.url, "relay_offline_after": 1.5}
    near, far = cluster.start("near", "far", **options)
    return Relayed(cluster, hub, near, far)


def test_messages_are_handled_once_although_the_hub_dies(relayed: Relayed) -> None:
    proxy = relayed.cluster.proxy(relayed.far, relayed.cluster.create(relayed.far))
    sent = threading.Semaphore(0)

    def send_all() -> list[int]:
        replies = []
        for number in range(MESSAGES):
            replies.append(proxy.send(Message("add", {"sender": "s", "number": number}), timeout=30.0))
            sent.release()
        return replies

    sending = submit(send_all)
    for _ in range(3):
        for _ in range(MESSAGES // 5):
            assert sent.acquire(timeout=30)
        relayed.restart_hub()
    assert sending.result(60) == list(range(1, MESSAGES + 1))
    assert relayed.book(proxy) == [f"s:{number}" for number in range(MESSAGES)]


def test_a_paglet_has_one_owner_although_the_hub_dies_under_its_moves(relayed: Relayed) -> None:
    agent_id = relayed.cluster.create(relayed.near)
    proxy = relayed.cluster.proxy(relayed.near, agent_id)
    proxy.send(Message("load", {"nbytes": 4 * 1024 * 1024}))
    hosts = [relayed.near, relayed.far]
    for number in range(4):
        (owner,) = relayed.owners(agent_id)
        other = hosts[1 - hosts.index(owner)]
        moving = submit(
            lambda owner=owner, other=other, number=number: relayed.cluster.proxy(owner, agent_id).send(
                Message("hop", {"sender": "s", "number": number, "to": other.url}), timeout=40.0
            )
        )
        # At another point of the move every time: after none to three more answers of the hub.
        for _ in range(number):
            relayed.cluster.client.get_json(f"{relayed.hub.url}/health")
        relayed.restart_hub()
        # Whoever asked may not hear of it; the paglet is somewhere all the same.
        with suppress(PagletError):
            moving.result(60)
        eventually(lambda: len(owners_or_none(relayed, agent_id)) == 1, "one owner", 30.0)
    (owner,) = relayed.owners(agent_id)
    there = relayed.cluster.proxy(owner, agent_id)
    assert there.send(Message("receipt"), timeout=30.0) == agent_id
    entries = relayed.book(there)
    assert entries == sorted(set(entries))
    relayed.cluster.proxy(owner, agent_id).dispatch(hosts[1 - hosts.index(owner)].url)
    assert relayed.owners(agent_id) != [owner]


def owners_or_none(relayed: Relayed, agent_id: str) -> list[HostProcess]:
    try:
        return relayed.owners(agent_id)
    except PagletError:
        return []


def test_a_host_that_stood_still_goes_on(relayed: Relayed) -> None:
    proxy = relayed.cluster.proxy(relayed.far, relayed.cluster.create(relayed.far))
    relayed.far.pause(with_paglets=True)
    sending = submit(lambda: proxy.send(Message("add", {"sender": "s", "number": 1}), timeout=40.0))

    def lost() -> bool:
        nodes = relayed.cluster.client.get_json(f"{relayed.hub.url}/relay/diagnostics")["nodes"]
        return not next(node["online"] for node in nodes if node["name"] == relayed.far.name)

    eventually(lost, "the hub to give the link up")
    relayed.far.go_on()
    assert sending.result(60) == 1
    assert relayed.book(proxy) == ["s:1"]


def test_a_hub_that_stood_still_goes_on(relayed: Relayed) -> None:
    proxy = relayed.cluster.proxy(relayed.far, relayed.cluster.create(relayed.far))
    relayed.hub.pause()
    sending = submit(lambda: proxy.send(Message("add", {"sender": "s", "number": 1}), timeout=40.0))
    relayed.hub.go_on()
    assert sending.result(60) == 1
    assert relayed.book(proxy) == ["s:1"]


def test_a_connected_host_that_is_killed_comes_back_at_its_address(relayed: Relayed) -> None:
    agent_id = relayed.cluster.create(relayed.far)
    proxy = relayed.cluster.proxy(relayed.far, agent_id)
    assert proxy.send(Message("add", {"sender": "s", "number": 0})) == 1
    relayed.far.kill()
    sending = submit(lambda: proxy.send(Message("add", {"sender": "s", "number": 1}), timeout=40.0))
    relayed.far.start()
    assert sending.result(60) == 2
    assert relayed.book(proxy) == ["s:0", "s:1"]
