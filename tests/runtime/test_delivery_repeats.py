"""Messages that come more than once: joined, answered as before, or refused, but never handled again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import (
    HostError,
    InvalidAgentError,
    PagletCrashedError,
    PagletError,
    PagletInactiveError,
    RemoteTimeoutError,
)
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from tests.agents.clerk import Clerk, LightClerk
from tests.faults.cluster import Cluster
from tests.runtime.delivery import book, deliver_at, far, note
from tests.support import Gate, HostFactory, eventually

CLERK = "tests.agents.clerk:Clerk"
LIGHT_CLERK = "tests.agents.clerk:LightClerk"

every_class = pytest.mark.parametrize("agent_class", [Clerk, LightClerk], ids=["message", "checkpoint"])


@every_class
def test_a_repeated_message_is_answered_as_it_was(hosts: HostFactory, agent_class: type[Any]) -> None:
    host = hosts()
    made = host.create(agent_class)
    with HostClient() as client:
        first = deliver_at(client, host.address, made.agent_id, note("one", message_id="m1"))["result"]
        deliver_at(client, host.address, made.agent_id, note("two", message_id="m2"))
        for attempt in (2, 3):
            again = deliver_at(client, host.address, made.agent_id, note("one", message_id="m1"), attempt=attempt)
            assert again["result"] == first == 1
        deliver_at(client, host.address, made.agent_id, note("three", message_id="m3"), oneway=True)
        deliver_at(client, host.address, made.agent_id, note("three", message_id="m3"), oneway=True, attempt=2)
        for kind, caught in (("refuse", InvalidAgentError), ("late", RemoteTimeoutError)):
            for attempt in (1, 2):
                with pytest.raises(caught, match="said by the handler"):
                    deliver_at(client, host.address, made.agent_id, Message(kind, message_id=kind), attempt=attempt)
        assert book(client, made) == ["one", "two", "three", "refused", "late"]


@every_class
def test_a_repeated_message_joins_the_one_that_waits_or_runs(
    hosts: HostFactory, gate: Gate, agent_class: type[Any]
) -> None:
    host = hosts()
    made = host.create(agent_class)
    with HostClient() as client, ThreadPoolExecutor(8) as pool:

        def send(message: Message, attempt: int, oneway: bool = False) -> Any:
            return deliver_at(client, host.address, made.agent_id, message, attempt=attempt, oneway=oneway)["result"]

        running = Message("gate", {"path": str(gate)}, message_id="running")
        first = pool.submit(send, running, 1)
        gate.await_entered()
        again = pool.submit(send, running, 2)
        waiting = [pool.submit(send, note("waiting", message_id="waiting"), attempt) for attempt in (1, 2, 2)]
        for attempt in (1, 2):
            # It is acknowledged as soon as it is accepted, also when it was before.
            assert send(note("one-way", message_id="one-way"), attempt, oneway=True) is None
        eventually(lambda: host.mailbox_status(made.agent_id)["queued_count"] == 2, "two messages wait")
        gate.open()
        assert first.result(20) == again.result(20) == 1
        assert len({future.result(20) for future in waiting}) == 1
        eventually(lambda: len(book(client, made)) == 3, "the one-way message")
        assert sorted(book(client, made)) == ["gate", "one-way", "waiting"]


def test_the_same_message_sent_twice_is_two_messages_unless_ids_say_which_is_which(hosts: HostFactory) -> None:
    host = hosts()
    light, durable = host.create(LightClerk), host.create(Clerk)
    for proxy, count in ((light, 2), (durable, 1)):
        message = note("again")
        assert proxy.send(message) == 1
        assert proxy.send(message) == count
        proxy.send_oneway(message)
        with HostClient() as client:
            assert book(client, proxy) == ["again"] * (count + (proxy is light))


@every_class
def test_what_was_handled_is_known_wherever_the_paglet_goes(hosts: HostFactory, agent_class: type[Any]) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(agent_class)
    message = note("once", message_id="once")
    with HostClient() as client:
        assert deliver_at(client, alpha.address, made.agent_id, message)["result"] == 1
        alpha.dispatch(made.agent_id, beta.address)
        for host in (alpha, beta):
            assert deliver_at(client, host.address, made.agent_id, message, attempt=2)["result"] == 1
        beta.deactivate(made.agent_id)
        assert deliver_at(client, alpha.address, made.agent_id, message, attempt=2)["result"] == 1
        beta.dispatch(made.agent_id, alpha.address)
        assert deliver_at(client, beta.address, made.agent_id, message, attempt=3)["result"] == 1
        assert book(client, made) == ["once"]


@every_class
def test_a_sleeper_that_is_not_woken_knows_what_it_has_handled(hosts: HostFactory, agent_class: type[Any]) -> None:
    host = hosts()
    made = host.create(agent_class)
    message = note("once", message_id="once")
    with HostClient() as client:
        deliver_at(client, host.address, made.agent_id, message)
        made.send(Message("deafen"))
        host.deactivate(made.agent_id)
        for no_delay in (False, True):
            again = deliver_at(client, host.address, made.agent_id, message, attempt=2, no_delay=no_delay)
            assert again["result"] == 1
        with pytest.raises(PagletInactiveError):
            deliver_at(client, host.address, made.agent_id, note("now", message_id="now"), attempt=2, no_delay=True)
        deliver_at(client, host.address, made.agent_id, message, attempt=2, oneway=True)
        for _ in range(2):
            deliver_at(client, host.address, made.agent_id, note("later", message_id="later"), oneway=True, attempt=2)
        made.activate()
        assert book(client, made) == ["once", "later"]
        host.deactivate(made.agent_id)
        assert client.get_json(f"{host.address}/agents?state=inactive")["agents"][0]["queued_message_count"] == 0


def test_a_checkpoint_paglet_that_was_told_the_same_while_it_slept_hears_it(hosts: HostFactory) -> None:
    host = hosts()
    made = host.create(LightClerk)
    message = note("again")
    made.send(message)
    made.send(Message("deafen"))
    host.deactivate(made.agent_id)
    made.send_oneway(message)
    made.activate()
    with HostClient() as client:
        assert book(client, made) == ["again", "again"]


def test_a_message_that_killed_its_receiver_is_not_tried_again(hosts: HostFactory) -> None:
    host = hosts()
    made = host.create(LightClerk)
    with HostClient() as client:
        for attempt in (1, 2):
            with pytest.raises(PagletCrashedError):
                deliver_at(
                    client, host.address, made.agent_id, Message("die", {"entry": "x"}, message_id="d"), attempt=attempt
                )
        assert deliver_at(client, host.address, made.agent_id, note("after"))["result"] == 1


def test_a_durable_handler_that_died_runs_again_and_its_repetition_joins(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    made = host.create(Clerk)
    message = Message("die", {"entry": "twice tried", "once": str(tmp_path / "once")}, message_id="d")
    with HostClient() as client, ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(deliver_at, client, host.address, made.agent_id, message, attempt=attempt) for attempt in (1, 2)
        ]
        assert [future.result(20)["result"] for future in futures] == [1, 1]
        assert book(client, made) == ["twice tried"]


def test_a_death_of_the_host_leaves_a_durable_paglet_what_it_has_handled(cluster: Cluster) -> None:
    (alpha,) = cluster.start("alpha")
    durable = cluster.create(alpha, CLERK)
    light = cluster.create(alpha, LIGHT_CLERK)
    client = cluster.client
    for agent_id in (durable, light):
        assert deliver_at(client, alpha.url, agent_id, note("once", message_id="once"))["result"] == 1
    alpha.kill()
    alpha.start()
    assert deliver_at(client, alpha.url, durable, note("once", message_id="once"), attempt=2)["result"] == 1
    # Whether the process that died had handled it, nobody knows.
    with pytest.raises(HostError, match="not known"):
        deliver_at(client, alpha.url, light, note("once", message_id="once"), attempt=2)
    assert "once" not in far(PagletProxy(alpha.url, light, client), client).send(Message("book"))[1:]
    assert book(client, PagletProxy(alpha.url, durable, client)) == ["once"]


def test_a_message_to_a_paglet_whose_arrival_is_undecided_waits(cluster: Cluster) -> None:
    alpha, beta = cluster.start("alpha", "beta")
    agent_id = cluster.create(alpha, CLERK)
    beta.kill()
    # It dies when the source has committed, with the inert copy on its disk.
    beta.start("target.activating")
    client = cluster.client
    moving = threading.Thread(target=_try_to_move, args=(client, alpha.url, agent_id, beta.url))
    moving.start()
    beta.await_end()
    alpha.pause()
    beta.start()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(deliver_at, client, beta.url, agent_id, note("waited for"))
        for _ in range(20):
            client.get_json(f"{beta.url}/health")
        assert not sent.done(), sent.result()
        alpha.go_on()
        assert sent.result(25)["result"] == 1
    moving.join(30)
    assert book(client, PagletProxy(alpha.url, agent_id, client)) == ["waited for"]


@pytest.mark.parametrize(("operation", "left"), [("dispose", []), ("deactivate", [False]), ("clone", [True, True])])
def test_an_operation_on_a_paglet_whose_arrival_is_undecided_waits(
    cluster: Cluster, operation: str, left: list[bool]
) -> None:
    alpha, beta = cluster.start("alpha", "beta")
    agent_id = cluster.create(alpha, CLERK)
    beta.kill()
    beta.start("target.activating")
    client = cluster.client
    moving = threading.Thread(target=_try_to_move, args=(client, alpha.url, agent_id, beta.url))
    moving.start()
    beta.await_end()
    alpha.pause()
    beta.start()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(client.operate, beta.url, agent_id, operation, {}, timeout=30.0)
        for _ in range(20):
            client.get_json(f"{beta.url}/health")
        assert not done.done(), done.result()
        alpha.go_on()
        done.result(25)
    moving.join(30)
    assert [each["active"] for each in client.get_json(f"{beta.url}/agents?state=all")["agents"]] == left
    assert client.get_json(f"{alpha.url}/agents?state=all")["agents"] == []


def test_a_paglet_moves_again_although_its_last_move_is_undecided_at_the_target(cluster: Cluster) -> None:
    alpha, beta = cluster.start("alpha", "beta")
    agent_id = cluster.create(alpha, CLERK)
    alpha.kill()
    # It dies with the vote of the target in its hands, so that an inert copy is left there.
    alpha.start("source.voted")
    client = cluster.client
    moving = threading.Thread(target=_try_to_move, args=(client, alpha.url, agent_id, beta.url))
    moving.start()
    alpha.await_end()
    moving.join(30)
    alpha.start()
    client.operate(alpha.url, agent_id, "dispatch", {"target": beta.url}, timeout=30.0)
    assert book(client, PagletProxy(beta.url, agent_id, client)) == []
    assert [each["agent_id"] for each in client.get_json(f"{alpha.url}/agents?state=all")["agents"]] == []


def _try_to_move(client: HostClient, source: str, agent_id: str, target: str) -> None:
    try:
        client.operate(source, agent_id, "dispatch", {"target": target}, timeout=30.0)
    except PagletError:
        return
