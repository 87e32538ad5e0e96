"""What a hub says of the hosts that are connected to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.errors import AuthenticationError, HostError, HostUnreachableError, RemoteHostError
from paglets.remote.client import HostClient
from paglets.runtime import host as host_module
from paglets.runtime.host import Host
from paglets.runtime.http.access import ACCESS
from paglets.security.roles import Role
from tests.runtime.relay.conftest import KEY, RelayFactory, Trio
from tests.runtime.relay.scripted import ScriptedHost
from tests.security.support import add_key
from tests.support import await_event, events_of, eventually, free_port

# Hubs of single tests are called H: threads are told apart by name, and the hub of all tests is called A.
FIELDS = ["name", "online", "last_seen", "last_seen_age", "active_polls", "queue_depth", "in_flight", "last_error"]


def test_health_tells_of_connected_hosts(trio: Trio) -> None:
    told = trio.client.get_json(f"{trio.hub.address}/health")["relay_nodes"]
    for nodes in (told, trio.hub.health()["relay_nodes"]):
        assert [list(node) for node in nodes] == [FIELDS, FIELDS]
        assert [(node["name"], node["online"], node["active_polls"]) for node in nodes] == [
            ("B", True, 1),
            ("L", True, 1),
        ]
    assert KEY not in str(told)


def test_health_says_nothing_where_nobody_is_connected(relays: RelayFactory, trio: Trio) -> None:
    hub = relays.hub("H")
    assert "relay_nodes" not in hub.health()
    assert "relay_nodes" not in trio.far.health()
    hub.stop()
    assert "relay_nodes" not in hub.health()


def test_health_tells_of_some_and_diagnostics_of_all(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "MOST_RELAY_NODES", 1)
    assert [node["name"] for node in trio.hub.health()["relay_nodes"]] == ["B"]
    assert [node["name"] for node in trio.hub.relay_diagnostics()["nodes"]] == ["B", "L"]


def test_nobody_learns_from_health_what_the_diagnostics_refuse_him(relays: RelayFactory, tmp_path: Path) -> None:
    assert ACCESS["/relay/diagnostics"]["GET"] <= ACCESS["/health"]["GET"]
    path, port = tmp_path / "keys.toml", free_port()
    observer, host_key = add_key(path, "watch", Role.OBSERVE), add_key(path, "B", Role.OPERATE)
    hub = relays("H", keys=path, port=port, public_url=f"http://127.0.0.1:{port}")
    with ScriptedHost(hub.address, "B", key=host_key):
        eventually(lambda: hub.relay_diagnostics()["nodes"], "the hub knows B")
        with HostClient(api_key=observer) as client:
            (shown,) = client.get_json(f"{hub.address}/relay/diagnostics")["nodes"]
            (told,) = client.get_json(f"{hub.address}/health")["relay_nodes"]
            assert (shown["name"], told["name"]) == ("B", "B")
        with HostClient(api_key="wrong") as client, pytest.raises(AuthenticationError):
            client.get_json(f"{hub.address}/health")


def test_a_link_is_not_greeted_with_who_else_is_connected(relays: RelayFactory) -> None:
    hub = relays.hub("H")
    with ScriptedHost(hub.address, "B"):
        eventually(lambda: hub.relay_diagnostics()["nodes"], "the hub knows B")
        with ScriptedHost(hub.address, "C") as second:
            assert second.link.other is not None
            assert second.link.other.health["name"] == "H"
            assert "relay_nodes" not in second.link.other.health


def test_diagnostics_are_those_of_the_route(trio: Trio) -> None:
    (far, laptop) = trio.hub.relay_diagnostics()["nodes"]
    assert (list(far), far["name"], laptop["name"]) == (FIELDS, "B", "L")
    shown = trio.client.get_json(f"{trio.hub.address}/relay/diagnostics")
    assert [node["name"] for node in shown["nodes"]] == ["B", "L"]
    assert trio.far.relay_diagnostics() == {"nodes": []}


def test_diagnostics_of_a_hub_that_is_not_started_are_empty(tmp_path: Path) -> None:
    hub = Host("A", public_url="http://127.0.0.1:1", api_key=KEY, mesh_version="v", persistence_dir=tmp_path)
    assert hub.relay_diagnostics() == {"nodes": []}
    with pytest.raises(HostError, match="not started"):
        hub.relay_host_health("B")


def test_the_health_of_a_connected_host(trio: Trio) -> None:
    health = trio.hub.relay_host_health("B")
    assert (health["name"], health["address"]) == ("B", trio.far.address)
    assert trio.hub.relay_host_health("A")["address"] == trio.hub.address


def test_the_health_of_a_host_that_is_not_connected(trio: Trio) -> None:
    for host in (trio.hub, trio.far):
        with pytest.raises(RemoteHostError, match="Relay target 'nobody' is not connected"):
            host.relay_host_health("nobody")


def test_the_health_of_a_host_that_is_offline(relays: RelayFactory) -> None:
    hub = relays.hub("H")
    relays.connected("far 1/2", hub).stop()
    await_event(hub, "relay-disconnected")
    with pytest.raises(
        HostUnreachableError, match=r"Relay target 'far 1/2' is offline/not polling \(last seen \d+\.\ds"
    ):
        hub.relay_host_health("far 1/2")
    (event,) = events_of(hub, "relay-target-offline")
    assert (event.data["target"], event.data["stage"]) == ("far 1/2", "relay-preflight")
