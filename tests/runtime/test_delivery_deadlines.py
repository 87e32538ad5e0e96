"""Messages that nobody waits for any more, and messages that are taken back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from paglets.core.errors import InvalidAgentError, MessageCancelledError, RemoteTimeoutError
from paglets.core.messages import FutureReply, Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState
from tests.agents.clerk import Clerk, LightClerk
from tests.runtime.delivery import book, deliver_at, far, note
from tests.support import Gate, HostFactory, await_event, events_of, eventually

every_class = pytest.mark.parametrize("agent_class", [Clerk, LightClerk], ids=["message", "checkpoint"])


def held_up(proxy: PagletProxy, gate: Gate) -> FutureReply:
    """Have a handler of a clerk wait in a gate."""
    reply = proxy.send_future(Message("gate", {"path": str(gate)}))
    gate.await_entered()
    return reply


def waiting_at(host: Host, proxy: PagletProxy, count: int) -> Callable[[], Any]:
    return lambda: host.mailbox_status(proxy.agent_id)["queued_count"] == count


# --- deadlines ---------------------------------------------------------------------------------------------------


@every_class
def test_what_nobody_waits_for_is_not_begun(hosts: HostFactory, gate: Gate, agent_class: type[Any]) -> None:
    host = hosts()
    made, asker = host.create(agent_class), host.create(LightClerk)
    held = held_up(made, gate)
    with HostClient() as client:
        for proxy in (made, far(made, client)):
            with pytest.raises(RemoteTimeoutError):
                proxy.send(note("late"), timeout=0.2)
        args = {"url": host.address, "agent_id": made.agent_id, "kind": "note", "args": {"entry": "late"}}
        assert asker.send(Message("ask", {**args, "timeout": 0.2}))[0] == "RemoteTimeoutError"
        eventually(waiting_at(host, made, 3), "all have arrived, at which the host's clock for them has started")
        time.sleep(0.25)  # so that their time is over for the host, too
        gate.open()
        assert held.get_reply(20) == 1
        eventually(lambda: len(events_of(host, "message-failed")) == 3, "all are let go")
        assert book(client, made) == ["gate"]


def test_an_error_tells_how_long_was_waited_in_round_figures(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    made, asker = host.create(LightClerk), host.create(LightClerk)
    held = held_up(made, gate)
    within = re.compile(r"did not answer within 0(\.\d{1,3})? s")
    with pytest.raises(RemoteTimeoutError, match=within):
        made.send(note("late"), timeout=0.1234567)
    args = {"url": host.address, "agent_id": made.agent_id, "kind": "note", "args": {"entry": "late"}}
    name, text = asker.send(Message("ask", {**args, "timeout": 0.1234567}))
    assert name == "RemoteTimeoutError"
    assert within.search(text), text
    gate.open()
    assert held.get_reply(20) == 1


def test_the_deadline_goes_along_a_forwarder(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta, gamma = (hosts(name) for name in ("alpha", "beta", "gamma"))
    made = alpha.create(LightClerk)
    alpha.dispatch(made.agent_id, beta.address)
    beta.dispatch(made.agent_id, gamma.address)
    there = PagletProxy(gamma.address, made.agent_id, gamma.client)
    held = held_up(there, gate)
    with HostClient() as client:
        for host in (alpha, beta):
            with pytest.raises(RemoteTimeoutError):
                deliver_at(client, host.address, made.agent_id, note("late"), timeout=0.3)
        # The host's clock for a message starts when that has arrived: let it run out before the way is free.
        with pytest.raises(RemoteTimeoutError):
            there.send(note("later"), timeout=0.5)
        gate.open()
        assert held.get_reply(20) == 1
        eventually(lambda: len(events_of(gamma, "message-failed")) >= 2, "both are let go")
        assert "late" not in book(client, there)


def test_the_time_that_a_paglet_takes_to_wake_counts(hosts: HostFactory, gate: Gate) -> None:
    host = hosts()
    made = host.create(Actor, ActorState(plan={"activation": [f"gate {gate}"]}))
    host.deactivate(made.agent_id)
    with HostClient() as client:
        with pytest.raises(RemoteTimeoutError):
            far(made, client).send(Message("add"), timeout=0.2)
        gate.await_entered()
        # It woke its receiver: the host has it since then at the latest, and its time is over there after this.
        time.sleep(0.25)
        gate.open()
        await_event(host, "message-failed", agent_id=made.agent_id)
        assert far(made, client).send(Message("look"))["count"] == 0


def test_the_time_that_a_move_takes_counts(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(Actor, ActorState(plan={"arrival": [f"gate {gate}"]}))
    moving = alpha.create(LightClerk)
    with HostClient() as client:
        busy = moving.send_future(
            Message(
                "ask",
                {
                    "url": alpha.address,
                    "agent_id": made.agent_id,
                    "kind": "do",
                    "args": {"steps": f"dispatch {beta.address}"},
                },
            )
        )
        gate.await_entered()
        # Held at both ends, since it is not decided where the paglet is.
        for host in (alpha, beta):
            with pytest.raises(RemoteTimeoutError):
                deliver_at(client, host.address, made.agent_id, Message("add"), timeout=0.2)
        # For the hosts, too, their time is over then: that counts from their arrival, which nothing shows here.
        time.sleep(1.0)
        gate.open()
        assert busy.get_reply(20)[0] == "reply"
        eventually(lambda: far(made, client).send(Message("look"))["host"] == "beta", "its arrival")
        assert far(made, client).send(Message("add")) == 1


# --- taking back -------------------------------------------------------------------------------------------------


@every_class
def test_a_message_that_waits_is_taken_back(hosts: HostFactory, gate: Gate, agent_class: type[Any]) -> None:
    host = hosts()
    made = host.create(agent_class)
    with HostClient() as client:
        held = held_up(made, gate)
        for proxy in (made, far(made, client)):
            waiting = proxy.send_future(note("taken back"))
            eventually(waiting_at(host, made, 1), "it waits")
            assert waiting.cancel()
            with pytest.raises(MessageCancelledError):
                waiting.get_reply(10)
        far(made, client).send_oneway(note("taken back", message_id="one-way"))
        assert client.cancel_message(host.address, made.agent_id, "one-way")
        assert not client.cancel_message(host.address, made.agent_id, "one-way")
        assert not held.cancel(), "it runs"
        gate.open()
        assert held.get_reply(20) == 1
        assert not held.cancel()
        assert book(client, made) == ["gate"]


def test_a_message_is_taken_back_along_the_forwarders(hosts: HostFactory, gate: Gate) -> None:
    row = [hosts(name) for name in ("alpha", "beta", "gamma", "delta")]
    made = row[0].create(LightClerk)
    for here, there in pairwise(row):
        here.dispatch(made.agent_id, there.address)
    there = PagletProxy(row[-1].address, made.agent_id, row[-1].client)
    held = held_up(there, gate)
    for host in row[:-1]:
        with HostClient() as client:
            waiting = PagletProxy(host.address, made.agent_id, client).send_future(note("taken back"))
            eventually(waiting_at(row[-1], made, 1), "it waits")
            assert waiting.cancel()
            with pytest.raises(MessageCancelledError):
                waiting.get_reply(10)
            assert waiting_at(row[-1], made, 0)()
    gate.open()
    assert held.get_reply(20) == 1
    with HostClient() as client:
        assert book(client, there) == ["gate"]


def test_a_message_to_a_sleeper_is_taken_back(hosts: HostFactory) -> None:
    host = hosts()
    made = host.create(LightClerk)
    made.send(Message("deafen"))
    host.deactivate(made.agent_id)
    made.send_oneway(note("taken back", message_id="back"))
    made.send_oneway(note("stays"))
    with HostClient() as client:
        assert client.cancel_message(host.address, made.agent_id, "back")
        assert not client.cancel_message(host.address, made.agent_id, "back")
        with pytest.raises(InvalidAgentError):
            client.cancel_message(host.address, "nobody", "back")
        made.activate()
        assert book(client, made) == ["stays"]


def test_a_message_that_is_held_during_a_move_is_taken_back(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(Actor, ActorState(plan={"arrival": [f"gate {gate}"]}))
    with HostClient() as client:
        moving = far(made, client).send_future(Message("do", {"steps": f"dispatch {beta.address}"}))
        gate.await_entered()
        waiting = far(made, client).send_future(Message("add"))
        eventually(waiting.cancel, "it is held, and taken back")
        with pytest.raises(MessageCancelledError):
            waiting.get_reply(10)
        gate.open()
        moving.wait_for_reply(20)
        assert far(made, client).send(Message("add")) == 1
