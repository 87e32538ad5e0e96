"""Leases: a service that somebody holds does not sleep, near and far, and no lease outlives its holder for long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from paglets.core.context import PagletContext
from paglets.core.errors import HostError, PagletCrashedError, ServiceNotFoundError
from paglets.core.runtime_values import ServiceScope
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.services.contracts import ServiceHandle, ServiceRecord
from tests.agents.residents import CONTRACT, DIE, ID, REPORT, Holder
from tests.runtime.services import handle_of, launch, service, state_of
from tests.support import HostFactory, events_of, eventually

IDLE = 0.05


@dataclass(slots=True)
class Two:
    """A host that keeps the service, and one that knows it."""

    alpha: Host
    beta: Host

    def idled(self) -> int:
        """Count how often the service was put to sleep."""
        return len(events_of(self.alpha, "resident-service-idle-deactivate"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Give two hosts of one mesh."""
    factory = HostFactory(tmp_path_factory.mktemp("hosts"))
    offered = service(idle_timeout=IDLE, scope=ServiceScope.MESH)
    quiet = {"mesh_multicast": False, "mesh_lan_discovery": False, "mesh": True}
    try:
        alpha, beta = factory("alpha", launch_config=launch(offered), **quiet), factory("beta", **quiet)
        for host, other in ((alpha, beta), (beta, alpha)):
            host.mesh.register_wire(other.mesh.refresh_self().to_wire())
        yield Two(alpha, beta)
    finally:
        factory.close()


@pytest.fixture
def two(running: Two) -> Iterator[Two]:
    """Give them without leases and other paglets, the service asleep or never started."""
    yield running
    for host in (running.alpha, running.beta):
        for summary in host.list_agents(inactive=True):
            if summary["agent_id"] != ID:
                host.dispose(summary["agent_id"])
    eventually(lambda: leases(running.alpha) == 0, "no lease to be left")
    eventually(lambda: state_of(running.alpha) in ("asleep", "declared", "failed"), "the service to be at rest")
    if running.alpha.list_agents(inactive=True):
        running.alpha.dispose(ID)


def leases(host: Host) -> int:
    (shown,) = host.resident_services()
    return int(shown["leases"])


def outlast(two: Two) -> None:
    """Wait for several idle timeouts, in which the service sleeps unless something keeps it from that."""
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 4 * IDLE, "some idle timeouts")


@pytest.mark.parametrize("near", [True, False])
def test_a_lease_starts_a_service_and_keeps_it_awake_until_it_is_given_back(two: Two, near: bool) -> None:
    host = two.alpha if near else two.beta
    before = two.idled()
    held = handle_of(host, ServiceScope.MESH)
    with host.lease_service_handle(held, ttl=30) as lent:
        assert lent is held
        assert (state_of(two.alpha), leases(two.alpha)) == ("active", 1)
        outlast(two)
        assert (state_of(two.alpha), two.idled()) == ("active", before)
        assert lent.call(REPORT).calls == 1
        (taken,) = events_of(two.alpha, "service-lease-acquire")[-1:]
        assert (taken.agent_id, taken.service_name, taken.data["ttl"]) == (ID, CONTRACT.name, 30)
        assert abs(taken.data["expires_at"] - time.time() - 30) < 5
    assert leases(two.alpha) == 0
    assert events_of(two.alpha, "service-lease-release")[-1].data == {"lease_id": taken.data["lease_id"]}
    eventually(lambda: state_of(two.alpha) == "asleep", "it to sleep after all")
    assert two.idled() == before + 1


def test_a_lease_runs_out(two: Two) -> None:
    lease = two.beta.lease_service_handle(handle_of(two.beta, ServiceScope.MESH), ttl=0.2)
    assert not lease.expired
    eventually(lambda: state_of(two.alpha) == "asleep", "it to sleep without being given back")
    assert lease.expired
    assert events_of(two.alpha, "service-lease-expire")[-1].data == {"lease_id": lease.lease_id}
    lease.release()
    assert two.alpha.release_resident_service_lease(lease.lease_id) == {"released": False}


def test_several_leases_hold_it_until_the_last_is_given_back(two: Two) -> None:
    context = PagletContext(two.alpha)
    first, second = context.lease_contract(CONTRACT), context.lease_contract(CONTRACT)
    first.release()
    outlast(two)
    assert (state_of(two.alpha), leases(two.alpha)) == ("active", 1)
    second.release()
    second.release()
    eventually(lambda: state_of(two.alpha) == "asleep", "it to sleep")


def test_a_service_that_is_leased_while_it_goes_to_bed_is_awake_afterwards(two: Two) -> None:
    handle = handle_of(two.alpha)
    for _ in range(10):
        handle.call(REPORT)
        idled = two.idled()
        eventually(lambda idled=idled: state_of(two.alpha) == "stopping" or two.idled() > idled, "it to begin to sleep")
        with two.alpha.lease_service_handle(handle):
            assert state_of(two.alpha) == "active"
            assert two.alpha.get_proxy(ID) is not None


def test_the_provider_that_a_handle_has_found_since_is_leased(two: Two) -> None:
    handle = handle_of(two.alpha)
    lost = replace(handle.record, proxy=replace(handle.record.proxy, agent_id="lost"))
    handle = replace(handle, record=lost)
    handle.call(REPORT)
    assert (handle.record.proxy.agent_id, handle.provider.proxy.agent_id) == ("lost", ID)
    with two.alpha.lease_service_handle(handle) as leased:
        assert leases(two.alpha) == 1
        assert leased is handle
    holder = two.alpha.create(Holder)
    assert holder.call(Holder.hold_another, "lost")
    assert leases(two.alpha) == 1


def test_only_what_is_managed_can_be_leased_and_only_for_a_time(two: Two) -> None:
    handle = handle_of(two.alpha)
    for ttl in (0, -1, float("inf"), float("nan"), 1e9):
        with pytest.raises(HostError, match="ttl"):
            two.alpha.lease_service_handle(handle, ttl=ttl)
    for agent_id, name in ((ID, "tests.other"), ("somebody", CONTRACT.name)):
        with pytest.raises(ServiceNotFoundError, match="no managed"):
            two.alpha.acquire_resident_service_lease(agent_id, name, ttl=5)
        wire = handle.record.to_wire() | {"name": name, "proxy": {"host_url": two.alpha.address, "agent_id": agent_id}}
        with HostClient() as client, pytest.raises(ServiceNotFoundError):
            body = {"agent_id": agent_id, "service_name": wire["name"]}
            client.post_json(f"{two.alpha.address}/services/leases", body)
    holder = two.beta.create(Holder)
    with pytest.raises(ServiceNotFoundError):
        holder.call(Holder.hold, "local")
    assert leases(two.alpha) == 0


def test_leases_over_http(two: Two) -> None:
    with HostClient() as client:
        url = f"{two.alpha.address}/services/leases"
        lease = client.post_json(url, {"agent_id": ID, "service_name": CONTRACT.name})
        assert 50 < lease["expires_at"] - time.time() < 61
        assert sorted(lease) == ["expires_at", "lease_id"]
        (shown,) = client.get_json(f"{two.alpha.address}/services/resident")["services"]
        assert shown == two.alpha.resident_services()[0] | {"idle_seconds": shown["idle_seconds"]}
        assert (shown["state"], shown["leases"], shown["lifecycle"], shown["scope"]) == ("active", 1, "lazy", "mesh")
        assert client.post_json(f"{url}/{lease['lease_id']}/release", {}) == {"released": True}
        assert client.post_json(f"{url}/{lease['lease_id']}/release", {}) == {"released": False}
        for body in ({"agent_id": ID}, {"agent_id": ID, "service_name": CONTRACT.name, "ttl": 0}):
            with pytest.raises(Exception, match=r"service_name|ttl"):
                client.post_json(url, body)


@pytest.mark.parametrize("end", ["dispose", "deactivate", "dispatch", "crash"])
def test_the_lease_of_a_paglet_ends_with_its_stay(two: Two, end: str) -> None:
    holder = two.alpha.create(Holder)
    lease_id = holder.call(Holder.hold)
    assert leases(two.alpha) == 1
    assert holder.info()["resources"] == {f"service-lease:{lease_id}": True}
    match end:
        case "dispatch":
            holder.dispatch(two.beta.address)
        case "crash":
            os.kill(holder.info()["pid"], signal.SIGKILL)
        case _:
            getattr(holder, end)()
    eventually(lambda: leases(two.alpha) == 0, "the lease to go")


@pytest.mark.parametrize("end", ["dispose", "crash"])
def test_the_lease_of_a_paglet_on_another_host_is_given_back(two: Two, end: str) -> None:
    holder = two.beta.create(Holder)
    holder.call(Holder.hold, "mesh")
    assert leases(two.alpha) == 1
    if end == "dispose":
        holder.dispose()
    else:
        os.kill(holder.info()["pid"], signal.SIGKILL)
    eventually(lambda: leases(two.alpha) == 0, "the lease to go")


@pytest.mark.parametrize("near", [True, False])
def test_a_lease_that_was_given_back_is_no_resource_any_more(two: Two, near: bool) -> None:
    holder = (two.alpha if near else two.beta).create(Holder)
    assert holder.call(Holder.use, "mesh") == [1, 1, []]
    assert leases(two.alpha) == 0


def test_a_leased_service_that_dies_is_started_again(two: Two) -> None:
    with two.alpha.lease_service_handle(handle_of(two.alpha)) as held:
        with pytest.raises(PagletCrashedError):
            held.call(DIE)
        eventually(lambda: two.alpha.get_proxy(ID), "it to be there again")
        outlast(two)
        assert state_of(two.alpha) == "active"


def test_a_lease_on_a_host_that_is_gone_is_refused(hosts: HostFactory, tmp_path: Path) -> None:
    gone = hosts("gone", launch_config=launch(service()))
    host = hosts("here")
    wire = handle_of(gone).record.to_wire()
    gone.stop()
    with pytest.raises(Exception, match="reach"):
        host.lease_service_handle(ServiceHandle(CONTRACT, ServiceRecord.from_wire(wire)), ttl=5)
