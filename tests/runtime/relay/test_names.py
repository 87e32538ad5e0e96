"""Who may connect, and under which name."""

from __future__ import annotations

from paglets.remote.client import HostClient
from paglets.remote.mesh import HostRef
from tests.agents.actor import Actor
from tests.runtime.relay.conftest import KEY, RelayFactory
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

    first = record()
    eventually(lambda: record().last_seen > first.last_seen + 0.6, "news for longer than the mesh waits for them")
    assert record().online
    far.stop()
    eventually(lambda: not record().online, "the end of the link")
    assert "offline/not polling" in str(record().error)
