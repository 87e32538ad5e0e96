"""Everything in which messages wait has bounds: mailboxes, the disk of a sleeper, what is held during a move."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from paglets.core.errors import OverloadedError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from tests.agents.actor import Actor, ActorState
from tests.agents.clerk import Clerk, LightClerk
from tests.runtime.delivery import book, deliver_at, far, note
from tests.support import Gate, HostFactory, eventually

every_class = pytest.mark.parametrize("agent_class", [Clerk, LightClerk], ids=["message", "checkpoint"])


@every_class
@pytest.mark.parametrize("bound", ["count", "bytes"])
def test_a_busy_paglet_turns_away_what_is_too_much(
    hosts: HostFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch, agent_class: type[Any], bound: str
) -> None:
    padding = b"" if bound == "count" else bytes(100_000)
    monkeypatch.setattr("paglets.runtime.agents.MAILBOX_MESSAGES", 5 if bound == "count" else 10_000)
    monkeypatch.setattr("paglets.runtime.agents.MAILBOX_BYTES", 550_000)
    monkeypatch.setattr("paglets.runtime.units.QUEUED_MESSAGES", 5 if bound == "count" else 10_000)
    monkeypatch.setattr("paglets.runtime.units.QUEUED_BYTES", 550_000)
    host = hosts()
    made = host.create(agent_class)

    def message(number: int) -> Message:
        return Message("note", {"entry": str(number), "padding": padding})

    with HostClient() as client:
        held = made.send_future(Message("gate", {"path": str(gate)}))
        gate.await_entered()
        proxy = far(made, client)
        for number in range(5):
            proxy.send_oneway(message(number))
        for _ in range(3):
            with pytest.raises(OverloadedError):
                proxy.send_oneway(message(99))
            with pytest.raises(OverloadedError):
                proxy.send(message(99))
        gate.open()
        held.get_reply(20)
        eventually(lambda: len(book(client, made)) == 6, "what was taken")
        assert book(client, made) == ["gate", *map(str, range(5))]
        assert proxy.send(message(6)) == 7


def test_a_flood_for_a_sleeper_ends_at_a_bound(hosts: HostFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paglets.runtime.units.QUEUED_MESSAGES", 20)
    host = hosts()
    made = host.create(LightClerk)
    made.send(Message("deafen"))
    host.deactivate(made.agent_id)
    with HostClient() as client:
        taken = 0
        for number in range(30):
            try:
                deliver_at(client, host.address, made.agent_id, note(str(number)), oneway=True)
            except OverloadedError:
                continue
            taken += 1
        assert taken == 20
        with pytest.raises(OverloadedError):
            deliver_at(client, host.address, made.agent_id, note("sync"))
        made.activate()
        assert book(client, made) == [str(number) for number in range(20)]


@every_class
def test_a_flood_that_wakes_a_sleeper_is_handled_in_order(hosts: HostFactory, agent_class: type[Any]) -> None:
    host = hosts()
    made = host.create(agent_class)
    host.deactivate(made.agent_id)
    with HostClient() as client:
        for number in range(100):
            far(made, client).send_oneway(note(str(number)))
        eventually(lambda: len(book(client, made)) == 100, "the flood")
        assert book(client, made) == [str(number) for number in range(100)]


@pytest.mark.parametrize("at", ["source", "target"])
def test_what_is_held_during_a_move_is_bounded(
    hosts: HostFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr("paglets.runtime.agents.HELD_MESSAGES", 3)
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(Actor, ActorState(plan={"arrival": [f"gate {gate}"]}))
    with HostClient() as client, ThreadPoolExecutor(12) as pool:
        moving = pool.submit(alpha.dispatch, made.agent_id, beta.address)
        gate.await_entered()
        place = alpha.address if at == "source" else beta.address
        outcomes = [
            pool.submit(deliver_at, client, place, made.agent_id, Message("add"), oneway=oneway)
            for oneway in (False, True, False, True, False)
        ]
        eventually(lambda: sum(future.done() for future in outcomes) == 2, "what is too much is turned away")
        for future in outcomes:
            if future.done():
                with pytest.raises(OverloadedError):
                    future.result()
        gate.open()
        moving.result(20)
        eventually(lambda: all(future.done() for future in outcomes), "the others")
        eventually(lambda: far(made, client).send(Message("look"))["count"] == 3, "the others are handled")


def test_a_full_mailbox_moves_and_sleeps_with_everything_in_it(
    hosts: HostFactory, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was accepted is not turned away later, however little the disk is to take of new ones.
    monkeypatch.setattr("paglets.runtime.units.QUEUED_MESSAGES", 5)
    alpha, beta = hosts("alpha"), hosts("beta")
    made = alpha.create(LightClerk)
    with HostClient() as client, ThreadPoolExecutor(1) as pool:
        made.send_future(Message("gate", {"path": str(gate)}))
        gate.await_entered()
        for number in range(20):
            far(made, client).send_oneway(note(str(number)))
        moving = pool.submit(alpha.deactivate, made.agent_id)
        gate.open()
        moving.result(20)
        made.activate()
        alpha.dispatch(made.agent_id, beta.address)
        eventually(lambda: len(book(client, made)) == 21, "everything")
        assert book(client, made) == ["gate", *map(str, range(20))]
