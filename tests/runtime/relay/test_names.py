"""Who may connect, and under which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.errors import ConflictError, ForbiddenError, HostError, NotFoundError
from paglets.remote.client import HostClient
from paglets.remote.mesh import HostRef
from paglets.runtime.host import Host
from paglets.runtime.relay import hub as hub_module
from paglets.security.roles import Role
from tests.agents.actor import Actor
from tests.runtime.relay.conftest import KEY, RelayFactory
from tests.runtime.relay.scripted import ScriptedHost
from tests.security.support import add_key
from tests.support import eventually, free_port, where


def test_a_host_of_another_version_is_known_and_offline(relays: RelayFactory) -> None:
    hub = relays.hub(mesh=True)
    relays.connected("B", hub, mesh=True, mesh_version="another")
    (peer,) = hub.list_hosts(include_self=False)
    assert (peer.name, peer.online, peer.error) == ("B", False, "code version 'another' != 'test-version'")


def test_a_name_with_unusual_characters(relays: RelayFactory) -> None:
    hub = relays.hub()
    host = relays.connected("Büro 7/2", hub)
    assert host.address.endswith("/relay/hosts/B%C3%BCro%207%2F2")
    with HostClient(api_key=KEY) as client:
        assert client.get_json(f"{host.address}/health")["name"] == "Büro 7/2"
        assert client.get_json(f"{hub.address}/relay/hosts/A/health")["name"] == "A"


def test_a_hub_reaches_what_is_connected_to_it_without_its_public_address(relays: RelayFactory) -> None:
    """Behind a proxy it may not be able to call itself from outside."""
    port = free_port()
    hub = relays.hub(port=port, public_url="https://hub.invalid/paglets")
    far = relays("B", api_key=KEY, connect_to=f"http://127.0.0.1:{port}/paglets")
    address = f"{hub.address}/relay/hosts/B"
    assert hub.client.get_json(f"{address}/health")["name"] == "B"
    proxy = hub.create(Actor)
    assert proxy.dispatch(address).agent_id == proxy.agent_id
    assert where(proxy, hub, far) == ["B"]


def test_a_connected_host_is_online_as_long_as_its_link_is(relays: RelayFactory) -> None:
    """Also where nobody gossips."""
    hub = relays.hub(mesh_offline_after=0.3)
    far = relays.connected("B", hub)

    def record() -> HostRef:
        (peer,) = hub.list_hosts(include_self=False)
        return peer

    eventually(lambda: hub.list_hosts(include_self=False), "the hub to know it")
    first = record()
    eventually(lambda: record().last_seen > first.last_seen + 0.6, "news for longer than the mesh waits for them")
    assert record().online
    far.stop()
    eventually(lambda: not record().online, "the end of the link")
    assert "offline/not polling" in str(record().error)


def keyed_hub(relays: RelayFactory, path: Path, port: int) -> Host:
    return relays("A", keys=path, port=port, public_url=f"http://127.0.0.1:{port}")


def test_a_name_stays_with_its_key_over_restarts_of_the_hub(relays: RelayFactory, tmp_path: Path) -> None:
    path, port = tmp_path / "keys.toml", free_port()
    mine, other = add_key(path, "mine", Role.OPERATE), add_key(path, "other", Role.OPERATE)
    admin = add_key(path, "boss", Role.ADMIN)
    hub = keyed_hub(relays, path, port)
    with ScriptedHost(hub.address, "B", key=mine):
        eventually(lambda: hub._running()._relay.hub.diagnostics(), "the hub knows B")
    hub.stop()

    hub = keyed_hub(relays, path, port)
    with pytest.raises(HostError, match="409"), ScriptedHost(hub.address, "B", key=other):
        pass
    with HostClient(api_key=other) as client, HostClient(api_key=admin) as boss:
        (taken,) = client.get_json(f"{hub.address}/relay/names")["names"]
        assert (taken["name"], taken["online"]) == ("B", False)
        with pytest.raises(ForbiddenError):
            client.post_json(f"{hub.address}/relay/names/B/release", {})
        with ScriptedHost(hub.address, "B", key=mine):
            eventually(lambda: hub._running()._relay.hub.names()[0]["online"], "B to be back")
            with pytest.raises(ConflictError, match="is connected under"):
                boss.post_json(f"{hub.address}/relay/names/B/release", {})
        eventually(lambda: not hub._running()._relay.hub.names()[0]["online"], "B to be gone")
        assert boss.post_json(f"{hub.address}/relay/names/B/release", {}) == {"ok": True}
        with pytest.raises(NotFoundError):
            boss.post_json(f"{hub.address}/relay/names/B/release", {})
    with ScriptedHost(hub.address, "B", key=other):
        eventually(lambda: hub._running()._relay.hub.names()[0]["online"], "the other host as B")


def test_the_name_that_was_gone_for_longest_makes_room(relays: RelayFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MOST_NODES", 2)
    hub = relays.hub()
    for name in ("B", "C", "D"):
        with ScriptedHost(hub.address, name):
            eventually(lambda name=name: name in taken(hub), f"{name} to be known")
        eventually(lambda: not any(each["online"] for each in hub._running()._relay.hub.names()), "nobody connected")
    assert taken(hub) == ["C", "D"]
    hub.stop()
    assert taken(relays.hub(port=hub.port)) == ["C", "D"]


def taken(hub: Host) -> list[str]:
    return [each["name"] for each in hub._running()._relay.hub.names()]
