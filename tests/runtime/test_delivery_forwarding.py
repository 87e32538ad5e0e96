"""Messages to paglets that have left: along forwarders, around hosts that are gone, and back."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from paglets.core.errors import HostUnreachableError, InvalidAgentError, PagletError, RemoteHostError
from paglets.core.messages import Message
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.clerk import Clerk, LightClerk
from tests.runtime.delivery import await_known, book, deliver_at, far, note, where_is
from tests.support import Gate, HostFactory, events_of, eventually

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")


def row_of(hosts: HostFactory, count: int) -> list[Host]:
    return [hosts(name) for name in NAMES[:count]]


def moved_along(row: list[Host], agent_class: type[Any] = LightClerk) -> PagletProxy:
    """Create a clerk on the first host and move it along to the last; return the proxy that was made first."""
    made = row[0].create(agent_class)
    for here, there in pairwise(row):
        here.dispatch(made.agent_id, there.address)
    return PagletProxy(row[0].address, made.agent_id, made.client)


def requests_at(host: Host, agent_id: str) -> int:
    """Count the messages for a paglet that a host has handled."""
    return len(events_of(host, "message-delivered", agent_id=agent_id))


# --- along the chain ---------------------------------------------------------------------------------------------


def test_every_old_proxy_reaches_a_paglet_that_moved_often(hosts: HostFactory) -> None:
    row = row_of(hosts, 5)
    made = moved_along(row)
    with HostClient() as client:
        for number, host in enumerate(row):
            assert PagletProxy(host.address, made.agent_id, client).send(note(f"far {number}")) == number + 1
    for number, host in enumerate(row):
        assert PagletProxy(host.address, made.agent_id, host.client).send(note(f"near {number}")) == number + 6
    for number, host in enumerate(row):
        PagletProxy(host.address, made.agent_id, host.client).send_oneway(note(f"one-way {number}"))
    ask = {"agent_id": made.agent_id, "kind": "note"}
    for number, host in enumerate(row):
        asker = host.create(LightClerk)
        # The second goes by what the first was told.
        for again in range(2):
            args = {"entry": f"inside {number} {again}"}
            reply = asker.send(Message("ask", {"url": host.address, "args": args, **ask}))
            assert reply[0] == "reply", reply

    async def main() -> None:
        async with AsyncHostClient() as client:
            for number, host in enumerate(row):
                proxy = PagletProxy(host.address, made.agent_id, made.client).aio(client)
                assert await proxy.send(note(f"async {number}")) > 0

    asyncio.run(main())
    with HostClient() as client:
        entries = book(client, made)
    assert len(entries) == len(set(entries)) == 5 + 5 + 5 + 10 + 5
    assert [requests_at(host, made.agent_id) for host in row[:-1]] == [0, 0, 0, 0]


def test_an_answer_names_the_place_and_the_home(hosts: HostFactory) -> None:
    alpha, beta, gamma = row = row_of(hosts, 3)
    made = moved_along(row)
    with HostClient() as client:
        answer = deliver_at(client, beta.address, made.agent_id, note("by beta"))
        assert answer["result"] == 1
        assert (answer["location"], answer["home"]) == (gamma.address, alpha.address)
        await_known(client, alpha.address, made.agent_id, gamma.address)
        answer = deliver_at(client, alpha.address, made.agent_id, note("by alpha"))
        assert (answer["result"], answer["location"]) == (2, gamma.address)
        assert deliver_at(client, gamma.address, made.agent_id, note("there"))["result"] == 3


def test_the_second_message_takes_the_short_way(hosts: HostFactory) -> None:
    row = row_of(hosts, 4)
    made = moved_along(row)
    asker = row[1].create(LightClerk)
    ask = Message(
        "ask", {"url": row[1].address, "agent_id": made.agent_id, "kind": "note", "args": {"entry": "inside"}}
    )
    with HostClient() as client:
        proxy = PagletProxy(row[1].address, made.agent_id, client)
        assert proxy.send(note("first")) == 1
        assert asker.send(ask) == ["reply", 2]
        PagletProxy(row[1].address, made.agent_id, row[1].client).send_oneway(note("one-way"))
        for host in row[:3]:
            # Nobody who has only a forwarder is asked any more.
            if host is not row[1]:
                host.stop()
        assert proxy.send(note("second")) == 4
        assert asker.send(ask) == ["reply", 5]


def test_a_paglet_that_comes_back_is_found_where_it_is(hosts: HostFactory) -> None:
    alpha, beta, gamma = row_of(hosts, 3)
    made = moved_along([alpha, beta, gamma])
    gamma.dispatch(made.agent_id, alpha.address)
    alpha.dispatch(made.agent_id, gamma.address)
    gamma.dispatch(made.agent_id, beta.address)
    with HostClient() as client:
        for number, host in enumerate((alpha, beta, gamma)):
            assert deliver_at(client, host.address, made.agent_id, note(str(number)))["result"] == number + 1
        assert requests_at(beta, made.agent_id) == 3
        beta.dispatch(made.agent_id, alpha.address)
        for number, host in enumerate((alpha, beta, gamma)):
            assert deliver_at(client, host.address, made.agent_id, note(str(number)))["result"] == number + 4


def test_forwarders_survive_a_restart(hosts: HostFactory) -> None:
    alpha, beta, gamma = row_of(hosts, 3)
    made = moved_along([alpha, beta, gamma])
    ports = {"alpha": alpha.port, "beta": beta.port}
    alpha.shutdown()
    beta.shutdown()
    beta = hosts("beta", port=ports["beta"])
    with HostClient() as client:
        assert deliver_at(client, beta.address, made.agent_id, note("by beta"))["result"] == 1
        alpha = hosts("alpha", port=ports["alpha"])
        assert deliver_at(client, alpha.address, made.agent_id, note("by alpha"))["result"] == 2


def test_a_message_that_waits_when_its_host_stops_is_sent_again(hosts: HostFactory, gate: Gate) -> None:
    alpha, beta = row_of(hosts, 2)
    made = beta.create(Clerk)
    beta.dispatch(made.agent_id, alpha.address)
    port = alpha.port
    with HostClient(timeout=30.0) as client:
        for host in (alpha, beta):
            assert PagletProxy(host.address, made.agent_id, client).send(note("before")) > 0
        held = far(made, client).send_future(Message("gate", {"path": str(gate)}))
        gate.await_entered()
        proxies = [PagletProxy(host.address, made.agent_id, client) for host in (alpha, beta)]
        waiting = [proxy.send_future(note(f"waits {number}")) for number, proxy in enumerate(proxies)]
        eventually(lambda: alpha.mailbox_status(made.agent_id)["queued_count"] == 2, "both wait")
        alpha.shutdown()
        gate.open()
        hosts("alpha", port=port)
        assert len({future.get_reply(30) for future in waiting}) == 2
        with pytest.raises(PagletError):
            held.get_reply(30)
        assert sorted(entry for entry in book(client, proxies[0]) if entry.startswith("waits")) == [
            "waits 0",
            "waits 1",
        ]


# --- around what is gone -----------------------------------------------------------------------------------------


def test_the_home_is_asked_when_the_middle_of_the_chain_is_gone(hosts: HostFactory) -> None:
    alpha, beta, gamma, delta = row_of(hosts, 4)
    made = moved_along([alpha, beta, gamma, delta])
    with HostClient() as client:
        await_known(client, alpha.address, made.agent_id, delta.address)
        gamma.stop()
        # beta has a forwarder to gamma, and knows the home.
        answer = deliver_at(client, beta.address, made.agent_id, note("around"))
        assert (answer["result"], answer["location"]) == (1, delta.address)
        beta.stop()
        assert deliver_at(client, alpha.address, made.agent_id, note("home"))["result"] == 2


def test_the_chain_is_enough_when_the_home_is_gone(hosts: HostFactory) -> None:
    alpha, beta, gamma, delta = row_of(hosts, 4)
    made = moved_along([alpha, beta, gamma, delta])
    alpha.stop()
    with HostClient() as client:
        assert deliver_at(client, beta.address, made.agent_id, note("along"))["result"] == 1


def test_a_message_that_finds_no_way_ends_soon_with_an_error_that_says_so(hosts: HostFactory) -> None:
    alpha, beta, gamma, delta = row_of(hosts, 4)
    made = moved_along([alpha, beta, gamma, delta])
    asker = beta.create(LightClerk)
    alpha.stop()
    gamma.stop()
    with HostClient() as client:
        # Whoever waited to the end of its time would be told of a timeout.
        for oneway in (False, True):
            with pytest.raises(HostUnreachableError, match=made.agent_id):
                deliver_at(client, beta.address, made.agent_id, note("lost"), oneway=oneway)
        with pytest.raises(HostUnreachableError):
            PagletProxy(beta.address, made.agent_id, client).send(note("lost"))
        args = {"url": beta.address, "agent_id": made.agent_id, "kind": "note", "args": {"entry": "lost"}}
        assert asker.send(Message("ask", {**args, "timeout": 5.0}))[0] in ("HostUnreachableError", "RemoteHostError")
        assert book(client, PagletProxy(delta.address, made.agent_id, client)) == []


def test_a_paglet_that_ended_far_away_is_known_to_have_ended(hosts: HostFactory) -> None:
    _, beta, gamma = row = row_of(hosts, 3)
    made = moved_along(row)
    gamma.dispose(made.agent_id)
    with HostClient() as client:
        eventually(lambda: client.locate(row[0].address, made.agent_id)["ended"], "the home knows")
        for host in row:
            with pytest.raises(InvalidAgentError):
                deliver_at(client, host.address, made.agent_id, note("gone"))
            with pytest.raises(InvalidAgentError):
                PagletProxy(host.address, made.agent_id, client).send(note("gone"))
        with pytest.raises(InvalidAgentError):
            deliver_at(client, beta.address, "never-was", note("gone"))


def test_who_had_a_paglet_last_knows_its_end_before_the_home_does(hosts: HostFactory) -> None:
    alpha, beta, gamma = row = row_of(hosts, 3)
    made = moved_along(row)
    alpha.stop()
    gamma.dispose(made.agent_id)
    with HostClient() as client:
        for host in (beta, gamma):
            with pytest.raises(InvalidAgentError, match="has ended"):
                deliver_at(client, host.address, made.agent_id, note("gone"))
        assert client.locate(gamma.address, made.agent_id)["ended"]


# --- what handlers say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_class", [LightClerk, Clerk])
def test_a_handler_may_say_that_a_paglet_is_unknown(hosts: HostFactory, agent_class: type[Any]) -> None:
    alpha, beta, gamma = row = row_of(hosts, 3)
    made = moved_along(row, agent_class)
    with HostClient() as client:
        for host in row:
            with pytest.raises(InvalidAgentError, match="said by the handler"):
                deliver_at(client, host.address, made.agent_id, Message("refuse"))
        with pytest.raises(InvalidAgentError, match="said by the handler"):
            PagletProxy(beta.address, made.agent_id, client).send(Message("refuse"))
        assert book(client, made) == ["refused"] * 4
        # Nothing was taken for a sign that it is not there.
        assert where_is(client, beta.address, made.agent_id) == gamma.address
        assert deliver_at(client, alpha.address, made.agent_id, note("still there"))["result"] == 5


def test_other_errors_of_handlers_come_through_a_forwarder_as_they_are(hosts: HostFactory) -> None:
    alpha, beta = row = row_of(hosts, 2)
    made = moved_along(row)
    with HostClient() as client:
        with pytest.raises(PagletError, match="said by the handler") as caught:
            deliver_at(client, alpha.address, made.agent_id, Message("late"))
        assert isinstance(caught.value, RemoteHostError)
        assert far(made, client).send(Message("book")) == ["late"]
        assert requests_at(alpha, made.agent_id) == 0
        assert len(events_of(beta, "message-failed", agent_id=made.agent_id)) == 1
