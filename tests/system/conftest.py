"""Two hosts of a mesh with the services that tell about machines, for the tests of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paglets.runtime.host import Host
from paglets.system.mesh_info import MeshInfoAgent, MeshInfoState
from paglets.system.server_info import ServerInfoAgent
from tests.support import HostFactory

Pair = tuple[Host, Host]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Give two hosts, `alpha` and `beta`, that look and talk more often than usual."""
    factory = HostFactory(tmp_path_factory.mktemp("pair"))
    try:
        alpha = factory("alpha", mesh=True, tags=["fast"], properties={"room": "1"})
        beta = factory("beta", mesh=True, peers=[alpha.address])
        alpha.mesh.wait_for_host("beta")
        for host in (alpha, beta):
            host.create(ServerInfoAgent, agent_id="service.server-info")
            host.create(MeshInfoAgent, MeshInfoState(gossip_interval=0.1), agent_id="service.mesh-info")
        yield alpha, beta
    finally:
        factory.close()
