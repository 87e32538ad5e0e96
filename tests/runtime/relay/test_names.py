"""Who may connect, and under which name."""

from __future__ import annotations

from paglets.remote.client import HostClient
from tests.runtime.relay.conftest import KEY, RelayFactory


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
