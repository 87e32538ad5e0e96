"""A peer that is paused, or dead, stalls nobody: what does not need it goes on while others wait for it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from paglets.core.messages import Message
from paglets.remote.transfer import TransferTicket
from tests.faults.cluster import Cluster, HostProcess
from tests.faults.judge import paglets_of
from tests.support import eventually

WAITING = 12
"""Paglets that wait for the paused host at the same time."""
OTHERS = 30
"""Messages that have nothing to do with it."""
MESH: dict[str, Any] = {
    "mesh": True,
    "mesh_multicast": False,
    "mesh_lan_discovery": False,
    "mesh_gossip_interval": 0.2,
    "mesh_offline_after": 2.0,
}


def online(cluster: Cluster, host: HostProcess) -> set[str]:
    records = cluster.client.get_json(f"{host.url}/hosts")["hosts"]
    return {str(record["name"]) for record in records if record["online"]}


def test_a_paused_and_a_dead_peer_stall_nobody(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha", **MESH)
    beta, gamma = cluster.start("beta", "gamma", peers=[alpha.url], **MESH)
    living = {alpha.name, beta.name}
    everybody = {*living, gamma.name}
    eventually(lambda: all(online(cluster, host) == everybody for host in (alpha, beta, gamma)), "a mesh")
    local, near, far = cluster.create(alpha), cluster.create(beta), cluster.create(gamma)
    travellers = [cluster.create(alpha) for _ in range(WAITING)]
    go_between = cluster.create(alpha)

    def need_far(number: int) -> str:
        """Leave a message for the paused host in the outbox of this one, and then move there."""
        traveller = cluster.proxy(alpha, travellers[number])
        traveller.send(Message("relay", {"sender": f"w{number}", "number": 1, "to": far, "at": gamma.url}))
        return traveller.dispatch(TransferTicket(gamma.url, timeout=60.0)).host_url

    def go_on(turn: int) -> None:
        """Do what needs the others only."""
        assert cluster.client.get_json(f"{alpha.url}/health")["name"] == alpha.name
        assert cluster.proxy(alpha, local).send(Message("add", {"sender": "l", "number": turn})) == turn
        passed_on = {"sender": "n", "number": turn, "to": near, "at": beta.url}
        assert cluster.proxy(alpha, go_between).send(Message("relay", passed_on)) == turn

    gamma.pause(with_paglets=True)
    with ThreadPoolExecutor(WAITING) as pool:
        waiting: list[Future[str]] = [pool.submit(need_far, number) for number in range(WAITING)]
        try:
            for turn in range(1, OTHERS + 1):
                go_on(turn)
            cluster.proxy(alpha, cluster.create(alpha)).dispatch(beta.url)
            eventually(
                lambda: len(paglets_of(cluster, beta)[near].entries) == OTHERS, "what was passed on to arrive at beta"
            )
            # All of that while everybody who needs the paused host still waits for it.
            assert not any(future.done() for future in waiting)
            # It is missed, and only it.
            eventually(lambda: all(online(cluster, host) == living for host in (alpha, beta)), "gamma to be missed")
        finally:
            gamma.go_on()
        assert {future.result(60.0) for future in waiting} == {gamma.url}
    eventually(lambda: all(online(cluster, host) == everybody for host in (alpha, beta, gamma)), "gamma to be back")
    gamma.kill()
    cluster.proxy(alpha, go_between).send(Message("relay", {"sender": "d", "number": 1, "to": far, "at": gamma.url}))
    for turn in range(OTHERS + 1, OTHERS + 11):
        assert cluster.client.get_json(f"{alpha.url}/health")["name"] == alpha.name
        assert cluster.proxy(alpha, local).send(Message("add", {"sender": "l", "number": turn})) == turn
    assert cluster.proxy(beta, near).send(Message("add", {"sender": "x", "number": 1})) == OTHERS + 1
    eventually(lambda: online(cluster, alpha) == living, "the dead host to be missed")
