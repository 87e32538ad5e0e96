"""A peer that is paused, or dead, stalls nobody: what does not need it goes on while others wait for it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from paglets.core.errors import PagletError
from paglets.core.messages import Message
from tests.faults.cluster import Cluster, HostProcess
from tests.support import eventually

WAITING = 24
"""Messages that wait for the paused host at the same time."""
OTHERS = 60
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
    everybody = {alpha.name, beta.name, gamma.name}
    eventually(lambda: all(online(cluster, host) == everybody for host in (alpha, beta, gamma)), "a mesh")
    local, near, far = cluster.create(alpha), cluster.create(beta), cluster.create(gamma)
    callers = [cluster.create(alpha) for _ in range(WAITING)]
    go_between = cluster.create(alpha)
    gamma.pause(with_paglets=True)
    with ThreadPoolExecutor(WAITING) as pool:

        def call_far(number: int) -> Any:
            args = {"sender": f"w{number}", "number": 1, "to": far, "at": gamma.url}
            return cluster.proxy(alpha, callers[number]).send(Message("relay", args), timeout=60.0)

        waiting: list[Future[Any]] = [pool.submit(call_far, number) for number in range(WAITING)]
        try:
            for number in range(1, OTHERS + 1):
                assert cluster.proxy(alpha, local).send(Message("add", {"sender": "l", "number": number})) == number
                passed_on = {"sender": "n", "number": number, "to": near, "at": beta.url}
                cluster.proxy(alpha, go_between).send(Message("relay", passed_on))
                assert cluster.client.get_json(f"{alpha.url}/health")["name"] == alpha.name
            cluster.proxy(alpha, local).dispatch(beta.url)
            assert cluster.proxy(beta, near).send(Message("add", {"sender": "x", "number": 1})) == OTHERS + 1
            # All of that while everybody who needs the paused host still waits for it.
            assert not [future for future in waiting if future.done() and future.exception() is None]
            # It is missed, and only it.
            living = {alpha.name, beta.name}
            eventually(
                lambda: online(cluster, alpha) == living and online(cluster, beta) == living, "gamma to be missed"
            )
        finally:
            gamma.go_on()
        assert [future.result(60.0) for future in waiting]
    eventually(lambda: all(online(cluster, host) == everybody for host in (alpha, beta, gamma)), "gamma to be back")
    gamma.kill()
    for number in range(1, 10):
        try:
            args = {"sender": "d", "number": number, "to": far, "at": gamma.url}
            cluster.proxy(alpha, callers[0]).send_oneway(Message("relay", args))
        except PagletError as exc:
            raise AssertionError("a dead third host is no failure to take a message") from exc
        assert cluster.client.get_json(f"{alpha.url}/health")["name"] == alpha.name
    assert cluster.proxy(beta, near).send(Message("add", {"sender": "x", "number": 2})) == OTHERS + 2
    eventually(lambda: online(cluster, alpha) == living, "the dead host to be missed")
