"""Hosts that nobody can call take part in everything through their hub."""

from __future__ import annotations

from paglets.core.messages import Message
from tests.agents.actor import Actor
from tests.runtime.relay.conftest import KEY, Trio
from tests.support import events_of, where


def test_everybody_is_known_by_name_and_address(trio: Trio) -> None:
    assert trio.far.address == f"{trio.hub.address}/relay/hosts/B"
    assert trio.far.bind_hosts == []
    for host in (trio.hub, trio.far, trio.laptop):
        assert {ref.name: ref.url for ref in host.list_hosts()} == {
            "A": trio.hub.address,
            "B": trio.far.address,
            "L": trio.laptop.address,
        }
    health = trio.client.get_json(f"{trio.far.address}/health")
    assert (health["name"], health["address"]) == ("B", trio.far.address)


def test_a_paglet_moves_by_name_and_is_found_in_both_directions(trio: Trio) -> None:
    proxy = trio.laptop.create(Actor)
    assert trio.client.deliver(proxy.host_url, proxy.agent_id, Message("add", {"by": 2})) == 2
    there = proxy.dispatch("B")
    assert there.host_url == trio.far.address
    assert where(there, trio.hub, trio.far, trio.laptop) == ["B"]
    assert events_of(trio.hub, "arrival") == []
    assert there.send(Message("add", {"by": 3})) == 5
    assert proxy.send(Message("add", {"by": 1})) == 6
    back = there.dispatch("L")
    assert back.host_url == trio.laptop.address
    assert trio.hub.proxy_for(back.host_url, back.agent_id).send(Message("add")) == 7
    back.dispose()
    assert where(there, trio.hub, trio.far, trio.laptop) == []
    assert KEY not in str(trio.client.get_json(f"{trio.hub.address}/relay/diagnostics"))
