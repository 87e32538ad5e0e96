"""What becomes of managed services and leases when their host, or the host of who holds a lease, is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import PagletError
from paglets.remote.client import HostClient
from tests.agents.residents import CONTRACT, ID
from tests.faults.cluster import Cluster, HostProcess
from tests.support import eventually

LAUNCH = """
[[resident_services]]
class = "tests.agents.residents:Resident"
lifecycle = "{lifecycle}"
scope = "mesh"
idle_timeout = {idle}
"""
HOLDER = "tests.agents.residents:Holder"


def with_service(cluster: Cluster, tmp_path: Path, lifecycle: str = "lazy", idle: float = 60.0) -> HostProcess:
    path = tmp_path / "launch.toml"
    path.write_text(LAUNCH.format(lifecycle=lifecycle, idle=idle))
    host = cluster.add("alpha", launch_config=str(path))
    return host.start()


def report(client: HostClient, host: HostProcess) -> dict[str, Any]:
    body = {"message": {"kind": "report", "args": {}}}
    reply: dict[str, Any] = client.post_json(f"{host.url}/agents/{ID}/messages", body)["result"]
    return reply


def shown(client: HostClient, host: HostProcess) -> dict[str, Any]:
    (service,) = client.get_json(f"{host.url}/services/resident")["services"]
    return dict(service)


@pytest.mark.parametrize("lifecycle", ["lazy", "eager"])
def test_a_service_is_there_after_its_host_was_killed_and_its_leases_are_not(
    cluster: Cluster, tmp_path: Path, lifecycle: str
) -> None:
    client, host = cluster.client, with_service(cluster, tmp_path, lifecycle)
    body = {"agent_id": ID, "service_name": CONTRACT.name}
    lease = client.post_json(f"{host.url}/services/leases", body)
    before = report(client, host)
    host.kill()
    host.start()
    assert shown(client, host)["leases"] == 0
    release = f"{host.url}/services/leases/{lease['lease_id']}/release"
    assert client.post_json(release, {}) == {"released": False}
    after = report(client, host)
    assert after["pid"] != before["pid"]
    assert after["log"] == ["created None", "activated recovery"]
    assert client.post_json(f"{host.url}/services/leases", body)["lease_id"] != lease["lease_id"]
    agents = client.get_json(f"{host.url}/agents?state=all")["agents"]
    assert [agent["agent_id"] for agent in agents] == [ID]


@pytest.mark.parametrize("point", ["create.started", "create.stored"])
def test_a_host_that_dies_while_it_starts_a_service_has_one_afterwards(
    cluster: Cluster, tmp_path: Path, point: str
) -> None:
    client, host = cluster.client, with_service(cluster, tmp_path)
    host.stop()
    host.start(point)
    with pytest.raises(PagletError):
        report(client, host)
    host.await_end()
    host.start()
    assert report(client, host)["calls"] == 1
    agents = client.get_json(f"{host.url}/agents?state=all")["agents"]
    assert [agent["agent_id"] for agent in agents] == [ID]
    eventually(lambda: not host.leftovers(), "nothing to be left of the first life")


def test_the_lease_of_a_host_that_was_killed_runs_out(cluster: Cluster, tmp_path: Path) -> None:
    client, host = cluster.client, with_service(cluster, tmp_path, idle=0.05)
    other = cluster.add("beta", mesh=True, mesh_multicast=False, mesh_lan_discovery=False, peers=[host.url]).start()
    holder = cluster.create(other, class_name=HOLDER)
    call = {"message": {"kind": "hold", "args": {"scope": "mesh", "ttl": 1.0}}}
    eventually(lambda: held(client, other, holder, call), "the lease")
    other.kill()
    assert shown(client, host)["state"] == "active"
    eventually(lambda: shown(client, host)["state"] == "asleep", "the lease to run out and the service to sleep")
    assert report(client, host)["log"][-1] == "activated activate"


def held(client: HostClient, host: HostProcess, agent_id: str, call: dict[str, Any]) -> bool:
    """Tell whether a lease could be taken, which takes until the hosts know each other."""
    try:
        return bool(client.post_json(f"{host.url}/agents/{agent_id}/messages", call)["result"])
    except PagletError:
        return False
