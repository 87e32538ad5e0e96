"""Hosts over a fabric of another kind: no sockets, requests and answers that get lost, and nothing above that knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from paglets.core.errors import PagletError
from paglets.remote.client import HostClient
from paglets.remote.connections import ConnectionPool
from paglets.remote.fabric import Fabric
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.ledger_agent import Ledger
from tests.faults.workload import Call, load
from tests.runtime.memory_fabric import MemoryFabric
from tests.support import HostFactory, eventually, where


@pytest.fixture(scope="module")
def fabric() -> MemoryFabric:
    return MemoryFabric(seed=5)


@pytest.fixture(scope="module")
def mesh(fabric: MemoryFabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Give three hosts that have nothing but the fabric."""
    factory = HostFactory(tmp_path_factory.mktemp("fabric"))
    options = {
        "fabric": fabric,
        "mesh": True,
        "mesh_multicast": False,
        "mesh_lan_discovery": False,
        "mesh_gossip_interval": 0.1,
    }
    try:
        alpha = factory("east", **options)
        others = [factory(name, peers=[alpha.address], **options) for name in ("north", "west")]
        yield [alpha, *others]
    finally:
        fabric.loss = 0.0
        factory.close()


@pytest.fixture
def lossy(fabric: MemoryFabric) -> Iterator[None]:
    """Lose one request in ten, and one answer in ten."""
    fabric.loss = 0.1
    yield
    fabric.loss = 0.0


def test_no_host_listens_anywhere(mesh: list[Host], fabric: MemoryFabric) -> None:
    assert [host.address for host in mesh] == [fabric.address(host.name) for host in mesh]
    assert [host.bind_hosts for host in mesh] == [[], [], []]
    listening = [line for line in psutil.Process().net_connections("tcp") if line.status == psutil.CONN_LISTEN]
    assert not [line for line in listening if line.laddr.port == mesh[0].port]


@pytest.mark.usefixtures("lossy")
def test_they_form_a_mesh_although_requests_get_lost(mesh: list[Host], fabric: MemoryFabric) -> None:
    for host in mesh:
        eventually(
            lambda host=host: [ref.name for ref in host.list_hosts(online_only=True)] == ["east", "north", "west"],
            f"{host.name} to know everybody",
        )
    assert fabric.carried > 0


@pytest.mark.usefixtures("lossy")
def test_a_paglet_is_called_and_moves_and_nothing_is_lost_or_doubled(mesh: list[Host], fabric: MemoryFabric) -> None:
    alpha, beta, gamma = mesh
    proxy = alpha.create(Ledger)
    with HostClient(fabric=fabric.for_threads()) as client, load() as talk:
        sender = talk.sender("s", PagletProxy(alpha.address, proxy.agent_id, client))
        for target in (beta, gamma, alpha, beta):
            sender.say_all([Call()] * 5 + [Call(oneway=True)])
            with suppress(PagletError):  # where it went after all is seen below
                sender.proxy.dispatch(target.address)
        told = sender.say(Call())
        assert talk.finish().given_up == []
    assert told == sender.count == 25
    eventually(lambda: len(where(proxy, *mesh)) == 1, f"one owner: {where(proxy, *mesh)}")
    assert fabric.lost > 3


@pytest.mark.usefixtures("lossy")
def test_files_travel(mesh: list[Host], fabric: MemoryFabric, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(300_000))
    with HostClient(fabric=fabric.for_threads()) as client:

        def sent_and_fetched() -> bool:
            try:
                client.download_artifact(client.upload_artifact(mesh[1].address, source), target)
            except PagletError:
                return False
            return True

        eventually(sent_and_fetched, "the file to come through")
    assert target.read_bytes() == source.read_bytes()


def test_a_host_that_leaves_is_missed(mesh: list[Host]) -> None:
    alpha, _, gamma = mesh
    gamma.stop()
    eventually(lambda: not alpha.mesh.is_online("west"), "gamma to be missed")
    found = alpha.mesh.lookup("west")
    assert found is not None
    assert "not plugged in" in (found.error or "")


def test_one_way_of_being_reached(tmp_path: Path, fabric: MemoryFabric) -> None:
    with pytest.raises(ValueError, match="give fabric alone"):
        Host("x", fabric=fabric, connect_to="http://127.0.0.1:1", api_key="k", persistence_dir=tmp_path)


def test_connections_are_a_fabric() -> None:
    made: Fabric = ConnectionPool()
    made.close()
