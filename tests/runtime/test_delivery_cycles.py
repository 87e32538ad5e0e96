"""Handlers that wait for each other: a circle is an error at once, and what is no circle is none."""

from __future__ import annotations

import pytest

from paglets.core.errors import CallCycleError
from paglets.core.messages import Message
from paglets.core.terms import MAX_CHAIN
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from tests.agents.clerk import Clerk, ClerkState, LightClerk
from tests.runtime.delivery import book, deliver_at, note, way_to
from tests.support import HostFactory, eventually

kinds = pytest.mark.parametrize("kind", ["around", "around_async"])


@kinds
def test_two_paglets_that_wait_for_each_other_are_told(hosts: HostFactory, kind: str) -> None:
    host = hosts()
    one, other = host.create(Clerk), host.create(LightClerk)
    with pytest.raises(CallCycleError, match=f"{one.agent_id} -> {other.agent_id} -> {one.agent_id}"):
        one.send(Message(kind, {"way": way_to(other, one)}))
    assert one.send(note("free")) == 1


@kinds
def test_a_circle_over_three_hosts_is_seen(hosts: HostFactory, kind: str) -> None:
    row = [hosts(name) for name in ("alpha", "beta", "gamma")]
    first, second, third = (host.create(LightClerk) for host in row)
    chain = " -> ".join(proxy.agent_id for proxy in (first, second, third, first))
    with HostClient() as client:
        far = PagletProxy(first.host_url, first.agent_id, client)
        with pytest.raises(CallCycleError, match=chain):
            far.send(Message(kind, {"way": way_to(second, third, first)}))
        assert far.send(Message(kind, {"way": way_to(second, third)})) == 1
        # Also along a forwarder, and where the paglet that waits has been called by another name.
        row[1].dispatch(second.agent_id, row[2].address)
        with pytest.raises(CallCycleError, match=chain):
            far.send(Message(kind, {"way": way_to(second, third, first)}))


def test_a_one_way_message_ends_the_circle(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    for agent_class in (LightClerk, Clerk):
        one, other = alpha.create(agent_class), beta.create(agent_class)
        assert one.send(Message("around_oneway", {"way": way_to(other, one, other)})) == 1
        with HostClient() as client:
            for proxy in (one, other):
                eventually(lambda proxy=proxy: book(client, proxy) == ["passed on"] * 2, "two rounds")


def test_what_is_no_handler_may_ask_anybody(hosts: HostFactory) -> None:
    host = hosts()
    asked = host.create(LightClerk)
    # `run` asks another paglet; a thread that outlives its handler asks its own.
    asking = host.create(LightClerk, ClerkState(calls=way_to(asked)))
    asking.send(Message("ask_beside", {"url": host.address, "agent_id": asking.agent_id}))
    with HostClient() as client:
        eventually(lambda: {"run 1", "asked"} <= set(book(client, asking)), "both answers")


def test_how_many_wait_for_each_other_is_bounded(hosts: HostFactory) -> None:
    host = hosts()
    made = host.create(LightClerk)
    deep = tuple(f"paglet-{number}" for number in range(MAX_CHAIN))
    with HostClient() as client:
        assert deliver_at(client, host.address, made.agent_id, note("deep"), chain=deep)["result"] == 1
        peer = host.create(LightClerk)
        way = Message("around", {"way": way_to(peer)})
        with pytest.raises(CallCycleError, match=f"at most {MAX_CHAIN}"):
            deliver_at(client, host.address, made.agent_id, way, chain=deep)
        assert book(client, made) == ["deep"]
