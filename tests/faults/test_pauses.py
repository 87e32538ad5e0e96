"""Hosts that stop running for a while and go on: to the others they were dead, to themselves nothing happened."""

from __future__ import annotations

import threading

import pytest

from paglets.core.errors import PagletError, RemoteTimeoutError
from paglets.core.messages import Message
from paglets.remote.transfer import TransferTicket
from tests.faults.cluster import Cluster, is_stopped
from tests.faults.judge import assert_good, judge, quiet
from tests.faults.workload import Call, load
from tests.support import eventually


def test_others_go_on_while_a_host_is_paused(cluster: Cluster) -> None:
    """What they send it meanwhile arrives once, and what they try to move there stays."""
    alpha, beta = cluster.start("alpha", "beta")
    first, second = cluster.create(alpha), cluster.create(beta)
    with load() as talk:
        sender = talk.sender("s", cluster.proxy(beta, second))
        sender.say(Call("relay", {"to": first, "at": alpha.url}))
        alpha.pause(with_paglets=True)
        for _ in range(5):
            sender.say(Call("relay", {"to": first, "at": alpha.url}))
        with pytest.raises(PagletError):
            cluster.proxy(beta, second).dispatch(TransferTicket(alpha.url, timeout=1.0))
        assert sender.say(Call()) == 7
        alpha.go_on()
        verdict = judge(cluster, talk.finish(), [first, second])
        places = quiet(cluster)
    assert_good(verdict)
    assert places[second][0].host == beta.name


def test_a_sender_that_gave_up_waiting_is_not_heard_twice(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha")
    agent_id = cluster.create(alpha)
    with load() as talk:
        proxy = cluster.proxy(alpha, agent_id)
        sender = talk.sender("s", proxy)
        sender.say(Call())
        alpha.pause()
        message = Message("add", {"sender": "impatient", "number": 1})
        with pytest.raises(RemoteTimeoutError):
            proxy.send(message, timeout=0.5)
        alpha.go_on()
        sender.say(Call())
        place = proxy.send(message)
        assert proxy.send(message) == place
        sender.say(Call())
        entries = quiet(cluster)[agent_id][0].entries
    assert sorted(entries) == ["impatient:1", "s:1", "s:2", "s:3"]
    assert entries[place - 1] == "impatient:1"


@pytest.mark.parametrize(
    ("host", "point"),
    [
        ("beta", "target.received"),
        ("beta", "target.prepared"),
        ("beta", "target.activated"),
        ("alpha", "source.voted"),
        ("alpha", "source.committed"),
        ("alpha", "source.acknowledged"),
    ],
)
def test_a_host_is_paused_in_the_middle_of_a_move(cluster: Cluster, host: str, point: str) -> None:
    """Longer than its partner waits for one answer."""
    alpha, beta = cluster.start_all([cluster.add("alpha"), cluster.add("beta")], {host: f"{point}:1:stop"})
    paused = cluster.hosts[host]
    agent_id = cluster.create(alpha)
    proxy = cluster.proxy(alpha, agent_id)
    ended = threading.Event()

    def move() -> None:
        try:
            proxy.dispatch(TransferTicket(beta.url, timeout=1.0))
        except PagletError:
            pass
        finally:
            ended.set()

    with load() as talk:
        sender = talk.sender("s", proxy)
        sender.say_all([Call()] * 3)
        talk.run("mover", move)
        eventually(lambda: is_stopped(paused.pid), f"{host} to stop at {point}", 30.0)
        # The other one meets its time limit, where it has one; without one it waits for as long as it takes.
        ended.wait(2.0)
        paused.go_on()
        sender.say_all([Call(), Call(oneway=True), Call()])
        verdict = judge(cluster, talk.finish(), [agent_id])
    assert_good(verdict)
