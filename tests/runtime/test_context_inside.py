"""The context of a paglet, used from inside its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState
from tests.agents.inside import Insider, InsiderState
from tests.support import HostFactory, eventually, free_port, where


def test_a_paglet_knows_where_it_is(hosts: HostFactory) -> None:
    host = hosts(tags=["Fast", "fast", "big"], properties={"rack": "7"})
    proxy = host.create(Insider)
    who = proxy.call(Insider.who)
    assert (who["name"], who["address"], who["agent_id"]) == ("alpha", host.address, proxy.agent_id)
    assert who["health"] == host.health()
    assert (who["health"]["tags"], who["health"]["properties"]) == (["big", "fast"], {"rack": "7"})
    assert who["code_version"] == "test-version"


def test_a_paglet_sees_the_paglets_of_its_host(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Insider)
    other, asleep, far = alpha.create(Actor), alpha.create(Actor), beta.create(Actor)
    asleep.deactivate()
    seen = proxy.call(Insider.proxies, asleep.agent_id, far.ref())
    assert seen["self"] == proxy.to_wire()
    assert seen["other"] == seen["other with address"] == asleep.to_wire()
    assert seen["other without inactive"] is None
    assert seen["unknown"] is None
    assert seen["far"] == far.to_wire()
    assert seen["unchecked"] == {"host_url": beta.address, "agent_id": "unknown"}
    assert seen["active"] == [proxy.agent_id, other.agent_id]
    assert seen["inactive"] == [asleep.agent_id]
    assert seen["all"] == [proxy.agent_id, other.agent_id, asleep.agent_id]
    listed = proxy.call(Insider.listings, other.agent_id)
    assert (listed["active"], listed["inactive"]) == (seen["active"], seen["inactive"])
    assert len(listed["states"]) == 3
    assert listed["states"][2]["log"] == ["creation", "run", "deactivating"]
    assert (listed["hosts"], listed["others"]) == (["alpha"], [])
    assert listed["mailbox"] == {"queued_count": 0, "in_flight_count": 1, "delivered_count": 1, "failed_count": 0}
    assert listed["other"] == {"queued_count": 0, "in_flight_count": 0, "delivered_count": 0, "failed_count": 0}
    assert listed["unknown"].startswith("InvalidAgentError")


def test_properties_are_shared_between_paglets_and_their_host(hosts: HostFactory) -> None:
    host = hosts()
    one, two = host.create(Insider), host.create(Insider)
    host.set_property("k", {"from": "host"})
    assert one.call(Insider.properties, "k", [1, b"\x00"]) == [{"from": "host"}, [1, b"\x00"]]
    assert two.call(Insider.properties, "k", None) == [[1, b"\x00"], None]
    assert host.get_property("k", "gone") == "gone"


@pytest.mark.parametrize("place", ["here", "by its own address", "elsewhere"])
def test_a_paglet_creates_others(hosts: HostFactory, place: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Insider)
    url = {"here": "", "by its own address": alpha.address + "/", "elsewhere": beta.address}[place]
    target: Host = beta if place == "elsewhere" else alpha
    wire = proxy.call(Insider.create, 5, url)
    assert wire["host_url"] == target.address
    state = target.get_state(wire["agent_id"], ActorState)
    assert (state.count, state.log, state.events[0]["init"]) == (5, ["creation", "run"], "i")
    failed, wrong = proxy.call(Insider.create_badly, url)
    assert failed.startswith("HostError")
    assert "bad start" in failed
    assert wrong.split(":")[0] in ("HostError", "AttributeError")
    assert len(target.list_agents()) == (1 if place == "elsewhere" else 2)


@pytest.mark.parametrize("place", ["same host", "other host"])
def test_a_paglet_speaks_with_another_in_every_way(hosts: HostFactory, place: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Insider)
    host = alpha if place == "same host" else beta
    other = host.create(Actor)
    said = proxy.call(Insider.talk, other.ref())
    assert [said[way] for way in ("future", "send", "call", "context", "self.send")] == [10, 11, 13, 16, 20]
    assert said["active"] == [True, True, True, False]
    assert said["class"] == "tests.agents.actor:Actor"
    assert said["remote"] is (place == "other host")
    assert said["unknown"] == "HostError: No paglet unknown on alpha"
    eventually(lambda: host.get_state(other.agent_id, ActorState).count == 220, "the one-way messages")


@pytest.mark.parametrize("place", ["same host", "other host"])
def test_a_paglet_manages_another_through_its_proxy(hosts: HostFactory, place: str) -> None:
    alpha, beta, gamma = hosts("alpha"), hosts("beta"), hosts("gamma")
    proxy = alpha.create(Insider)
    host = alpha if place == "same host" else beta
    other = host.create(Actor)
    assert proxy.call(Insider.manage, other.ref(), gamma.address) == [
        host.address,
        gamma.address,
        {"host_url": gamma.address, "agent_id": other.agent_id},
        True,
        True,
        False,
        False,
        other.to_wire(),
    ]
    assert where(other, alpha, beta, gamma) == [host.name]
    assert gamma.list_agents(inactive=True) == []


def test_a_paglet_manages_nobody_but_itself_through_its_context(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Insider)
    other = alpha.create(Actor)
    answers = proxy.call(Insider.manage_through_context, other.agent_id, beta.address)
    assert {name: text.split(":")[0] for name, text in answers.items()} == dict.fromkeys(answers, "InvalidAgentError")
    assert all(other.agent_id in text for text in answers.values())
    assert where(other, alpha, beta) == ["alpha"]
    assert alpha.get_state(other.agent_id, ActorState).log == ["creation", "run"]
    assert alpha.lookup_services() == []


def test_a_multicast_from_inside_reaches_the_others(hosts: HostFactory) -> None:
    host = hosts()
    one, two, three = (host.create(Insider) for _ in range(3))
    asleep = host.create(Insider)
    asleep.deactivate(policy=DeactivationPolicy(activate_on_message=False))
    replies, second = one.call(Insider.multicast_to_all, "hear", [one.agent_id, three.agent_id])
    assert (replies, second) == ([1], 2)
    heard = {proxy: host.get_state(proxy.agent_id, InsiderState).heard for proxy in (one, two, three)}
    assert heard == {one: [], two: ["all", "more"], three: ["more"]}


def test_a_paglet_uses_what_belongs_to_it(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    proxy = host.create(Insider)
    work = str(host.persistence_dir / "work" / proxy.agent_id)
    assert proxy.call(Insider.own_things, str(tmp_path)) == {
        "resources": {"thing": False},
        "work_dir": work,
        "no work_dir yet": work,
        "files": ["f"],
        "path": str(tmp_path / "file.txt"),
        "storage": [b"b", 100],
        "afterwards": [[], {}, ["thing"]],
    }


def test_a_paglet_offers_and_finds_services(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Insider)
    found = proxy.call(Insider.services)
    record = found.pop("record")
    assert (record["scope"], record["capabilities"], record["metadata"]) == ("mesh", ["c"], {"m": 1})
    assert record["expires_at"] > record["advertised_at"]
    assert found == {
        "contract": "tests.painter",
        "handle": proxy.to_wire(),
        "lookup": proxy.to_wire(),
        "all": ["s", "tests.painter"],
        "contracts": 1,
        "newer": None,
        "required": "ServiceNotFoundError",
        "lease": "ServiceNotFoundError",
        "scope": "TypeError: scope must be a ServiceScope",
        "removed": ["s"],
    }


def test_a_paglet_reaches_hosts_over_http_through_its_own(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha", api_key="secret"), hosts("beta", api_key="secret")
    proxy = alpha.create(Insider)
    for host in (alpha, beta):
        assert proxy.call(Insider.http, host.address) == [host.name, "NotFoundError"]
    other = beta.create(Actor)
    assert proxy.call(Insider.talk, other.ref())["remote"] is True
    nowhere = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Exception, match="reach"):
        proxy.call(Insider.http, nowhere)
    assert proxy.send(Message("where")) == "alpha"
