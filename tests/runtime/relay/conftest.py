"""A hub and two hosts that are connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.runtime.relay import hub, wiring
from tests.support import HostFactory, eventually, free_port

KEY = "relay-test-key"


@dataclass(slots=True)
class Trio:
    """Hub A, and hosts B and L that nobody can call."""

    hub: Host
    far: Host
    laptop: Host
    client: HostClient


class RelayFactory(HostFactory):
    """Start hubs and hosts that connect to them."""

    def hub(self, name: str = "A", **options: Any) -> Host:
        """Return a started hub; its port stays the same from one start to the next."""
        port = options.setdefault("port", free_port())
        options.setdefault("public_url", f"http://127.0.0.1:{port}")
        return self(name, api_key=KEY, **options)

    def connected(self, name: str, hub: Host, **options: Any) -> Host:
        """Return a started host that is connected to a hub."""
        return self(name, api_key=KEY, connect_to=hub.address, **options)

    def trio(self, **options: Any) -> tuple[Host, Host, Host]:
        """Return A, B and L, which know each other."""
        options = {"mesh": True, "mesh_gossip_interval": 0.1, **options}
        middle = self.hub(**options)
        far, laptop = self.connected("B", middle, **options), self.connected("L", middle, **options)
        for host in (middle, far, laptop):
            eventually(lambda host=host: len(host.list_hosts(online_only=True)) == 3, f"{host.name} knows all three")
        return middle, far, laptop


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for hosts that will not come."""
    monkeypatch.setattr(hub, "RETURN_SECONDS", 1.0)
    monkeypatch.setattr(wiring, "FIRST_LINK_SECONDS", 0.5)


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[RelayFactory]:
    """Give a factory of hubs and connected hosts, which stops them after the test."""
    factory = RelayFactory(tmp_path)
    try:
        yield factory
    finally:
        factory.close()


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """Give a hub with two connected hosts, the same to all tests of a module."""
    factory = RelayFactory(tmp_path_factory.mktemp("trio"))
    try:
        middle, far, laptop = factory.trio()
        with HostClient(api_key=KEY) as client:
            yield Trio(middle, far, laptop, client)
    finally:
        factory.close()
