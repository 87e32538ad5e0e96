"""Hosts that know each other: seeds, gossip, versions, and what paglets see of it. Nothing looks for unknown hosts."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core.agent import ACTIVE
from paglets.core.errors import HostError, SerializationError, TransferError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.mesh import HostRef
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.host import Host
from tests.agents.actor import Actor
from tests.agents.inside import Insider
from tests.support import HostFactory, eventually, free_port

QUIET: dict[str, Any] = {"mesh_multicast": False, "mesh_lan_discovery": False}


def names(host: Host, **options: Any) -> list[str]:
    return [ref.name for ref in host.list_hosts(**options)]


def acquaint(*hosts: Host) -> None:
    for host in hosts:
        for other in hosts:
            if other is not host:
                host.join_mesh(other.mesh.refresh_self().to_wire())


def test_a_host_describes_itself(hosts: HostFactory) -> None:
    host = hosts(tags=[" Fast", "fast", "BIG"], properties={" rack ": 7, "": "x"}, **QUIET)  # type: ignore[dict-item]
    host.create(Actor)
    host.create(Actor).deactivate()
    (record,) = HostClient().get_json(f"{host.address}/hosts")["hosts"]
    assert set(record) == {
        "name",
        "url",
        "code_version",
        "online",
        "last_seen",
        "active_count",
        "inactive_count",
        "tags",
        "properties",
    }
    assert (record["name"], record["url"], record["code_version"]) == ("alpha", host.address, "test-version")
    assert (record["online"], record["active_count"], record["inactive_count"]) == (True, 1, 1)
    assert (record["tags"], record["properties"]) == (["big", "fast"], {"rack": "7"})
    health = HostClient().get_json(f"{host.address}/health")
    assert health["code_version"] == "test-version"
    assert "hosts:list" in health["capabilities"]
    assert (health["tags"], health["properties"]) == (record["tags"], record["properties"])
    assert health == host.health()


def test_one_seed_and_a_round_each_make_two_hosts_acquainted(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha", **QUIET), hosts("beta", **QUIET)
    alpha.mesh.add_seed(beta.address)
    alpha.mesh.gossip_once()
    beta.mesh.gossip_once()
    assert names(alpha) == names(beta) == ["alpha", "beta"]
    assert names(alpha, include_self=False) == ["beta"]
    assert alpha.mesh.is_online("beta")
    assert alpha.mesh.resolve_url("beta") == beta.address
    assert alpha.mesh.resolve_url("http://elsewhere:1/") == "http://elsewhere:1"
    ref = alpha.mesh.lookup(beta.address)
    assert ref is not None
    assert ref.name == "beta"
    beta.create(Actor)
    alpha.mesh.gossip_once()
    assert alpha.mesh.lookup("beta").active_count == 1  # type: ignore[union-attr]


def test_running_hosts_find_each_other_through_a_peer_and_lose_one_that_stops(hosts: HostFactory) -> None:
    options = {**QUIET, "mesh": True, "mesh_gossip_interval": 0.05}
    alpha = hosts("alpha", **options)
    beta = hosts("beta", peers=[alpha.address], **options)
    gamma = hosts("gamma", peers=[alpha.address], **options)
    for host in (alpha, beta, gamma):
        eventually(
            lambda host=host: names(host, online_only=True) == ["alpha", "beta", "gamma"],
            f"{host.name} to know everybody",
        )
    beta.stop()
    for host in (alpha, gamma):
        eventually(lambda host=host: not host.mesh.is_online("beta"), f"{host.name} to miss beta")
        ref = host.mesh.lookup("beta")
        assert ref is not None
        assert ref.error


def test_a_peer_that_stopped_is_offline_after_a_round(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha", **QUIET), hosts("beta", **QUIET)
    acquaint(alpha, beta)
    beta.stop()
    eventually(lambda: alpha.mesh.gossip_once() or not alpha.mesh.is_online("beta"), "beta to be missed")
    (shown,) = [ref for ref in HostClient().get_json(f"{alpha.address}/hosts")["hosts"] if ref["name"] == "beta"]
    assert shown["online"] is False
    assert shown["error"]
    assert names(alpha) == ["alpha", "beta"]
    assert names(alpha, online_only=True) == ["alpha"]


def test_hosts_of_another_version_stay_apart(hosts: HostFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = hosts("alpha", **QUIET)
    beta = hosts("beta", mesh_version="another-version", **QUIET)
    asked: list[Any] = []
    monkeypatch.setattr(alpha, "request_peer_git_update", lambda url, **options: asked.append((url, options)))
    alpha.mesh.join(beta.address)
    (url, options) = asked.pop()
    assert url == beta.address
    assert options["health"]["code_version"] == "another-version"
    assert alpha.mesh.register_wire(beta.mesh.refresh_self().to_wire()) is None
    assert asked == [(beta.address, {"validate_health": True, "report_unreachable": False})]
    (event,) = [event for event in alpha.list_events() if event.kind == "mesh-host-left-out"]
    left_out = {"name": "beta", "url": beta.address, "code_version": "another-version"}
    assert (event.data, event.error) == (left_out, "code version 'another-version' != 'test-version'")
    assert alpha.health()["left_out"] == [left_out]
    assert "left_out" not in beta.health()
    beta.mesh.join(alpha.address)
    assert [each["name"] for each in beta.health()["left_out"]] == ["alpha"]
    assert not any(ref.online for ref in alpha.list_hosts(include_self=False))
    assert not any(ref.online for ref in beta.list_hosts(include_self=False))
    moved = alpha.create(Actor).dispatch(beta.address)
    assert moved.is_state(ACTIVE)


def test_records_that_are_no_hosts_are_refused(hosts: HostFactory) -> None:
    host = hosts(**QUIET)
    client = HostClient()
    for payload in ({}, {"name": "x"}, {"name": "x", "url": "", "code_version": "test-version"}, {"name": 3, "url": 4}):
        with pytest.raises((HostError, SerializationError)):
            client.post_json(f"{host.address}/hosts/join", payload)
    assert names(host) == ["alpha"]
    ref = HostRef("beta", f"http://127.0.0.1:{free_port()}", "test-version", True, 0.0, 0, 0)
    answer = client.post_json(f"{host.address}/hosts/join", ref.to_wire())
    assert [entry["name"] for entry in answer["hosts"]] == ["alpha", "beta"]


def test_a_paglet_sees_and_uses_the_mesh_by_names(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha", **QUIET), hosts("beta", **QUIET)
    acquaint(alpha, beta)
    proxy = alpha.create(Insider)
    assert proxy.call(Insider.mesh, "beta", beta.address) == {
        "available": ["alpha", "beta"],
        "others": ["beta"],
        "status": beta.address,
        "by url": "beta",
        "unknown": None,
        "online": True,
        "waited": beta.address,
        "in vain": proxy.call(Insider.mesh, "beta", beta.address)["in vain"],
    }
    assert proxy.call(Insider.mesh, "beta", beta.address)["in vain"].startswith("HostError")
    copy = PagletProxy.from_wire(proxy.call(Insider.clone_me, "beta"))
    assert copy.host_url == beta.address
    assert copy.send(Message("where")) == "beta"
    beta.stop()
    eventually(lambda: alpha.mesh.gossip_once() or not alpha.mesh.is_online("beta"), "beta to be missed")
    online, waited = proxy.call(Insider.online, "beta")
    assert online is False
    assert waited.startswith("HostError")
    with pytest.raises(TransferError):
        proxy.call(Insider.move_me, "beta")
    again = hosts("beta", port=beta.port, **QUIET)
    assert proxy.call(Insider.online, beta.address)[1] == "beta"
    assert proxy.call(Insider.move_me, "beta") == {"host_url": again.address, "agent_id": proxy.agent_id}


def test_hosts_are_named_in_every_operation(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha", **QUIET), hosts("beta", **QUIET)
    acquaint(alpha, beta)
    there = alpha.create_remote("beta", Actor)
    assert there.host_url == beta.address
    assert alpha.retract("beta", there.agent_id).host_url == alpha.address
    assert alpha.clone(there.agent_id, target="beta").host_url == beta.address
    assert alpha.dispatch(there.agent_id, TransferTicket("beta")).host_url == beta.address
    with pytest.raises(TransferError):
        beta.dispatch(there.agent_id, "nobody")


def test_a_host_that_changes_its_address_replaces_its_own_record(hosts: HostFactory) -> None:
    host = hosts(**QUIET)
    first = host.address
    host.stop()
    host.port = free_port()
    host.start_background()
    assert [ref.url for ref in host.list_hosts()] == [host.address]
    assert host.address != first
    host.mesh.local_address_changed(first)
    assert [ref.url for ref in host.list_hosts()] == [host.address]
