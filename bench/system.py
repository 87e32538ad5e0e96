"""What it costs that a mesh knows how its hosts do, and how long it takes to ask them all."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from bench.measure import Row, milliseconds, timed
from paglets.core.context import PagletContext
from paglets.remote.admin import ServerRef
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.system.mesh_info import GET_LANDSCAPE, MESH_INFO, SELECT_TARGETS, MeshInfoAgent
from paglets.system.server_info import LIST_PROCESSES, SERVER_INFO, LoadRequest, ProcessListRequest, ServerInfoAgent
from paglets.system.server_info.agent import GET_LOAD
from paglets.system.server_info.reports import collect

HOSTS = 5
_MODULES = ["paglets.system.server_info.agent", "paglets.system.mesh_info.agent"]
_SETTLE_SECONDS = 6.0


@contextmanager
def _mesh() -> Iterator[list[Host]]:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        hosts: list[Host] = []
        for number in range(HOSTS):
            name, peers = f"bench-{number}", [host.address for host in hosts[:1]]
            host = Host(name, persistence_dir=Path(directory) / name, peers=peers, preload=_MODULES)
            host.start_background()
            stack.callback(host.stop)
            hosts.append(host)
        for host in hosts:
            for number in range(HOSTS):
                host.mesh.wait_for_host(f"bench-{number}")
        yield hosts


def _cpu(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _used(pids: list[int], seconds: float) -> float:
    before = _cpu(pids)
    threading.Event().wait(seconds)
    return 100 * (_cpu(pids) - before) / seconds / HOSTS


def system(quick: bool) -> Iterator[Row]:
    """Leave a mesh of hosts alone, without and with its services, then ask it."""
    seconds, own = 20.0 if quick else 60.0, [psutil.Process().pid]
    with _mesh() as hosts:
        threading.Event().wait(_SETTLE_SECONDS)
        alone = _used(own, seconds)
        for host in hosts:
            host.create(ServerInfoAgent, agent_id="service.server-info")
            host.create(MeshInfoAgent, agent_id="service.mesh-info")
        threading.Event().wait(_SETTLE_SECONDS)
        services = [summary["pid"] for host in hosts for summary in host.list_agents()]
        note = f"per host of {HOSTS} that nobody asks, percent of one CPU"
        together = _used([*own, *services], seconds)
        yield Row("hosts with services that watch them", "% CPU", round(together, 2), floor=round(alone, 2), note=note)
        yield Row("of that the services themselves", "% CPU", round(_used(services, seconds), 2), aim=1.0, note=note)
        private = [psutil.Process(pid).memory_full_info().uss / 2**20 for pid in services]
        yield Row("private memory of such a service", "MB", round(sum(private) / len(private), 2), samples=len(private))

        context = PagletContext(hosts[0])
        machine, mesh = context.require_contract(SERVER_INFO), context.require_contract(MESH_INFO)
        rounds = 20 if quick else 100
        load = LoadRequest(interval=0.0, include_gpu=False)
        pause = threading.Event()

        def ask_load() -> None:
            pause.wait(0.12)  # asked sooner it would wait by itself until it has something to tell
            machine.call(GET_LOAD, load)

        yield milliseconds("load of a machine, with 120 ms between", timed(ask_load, rounds))
        listed = timed(lambda: machine.call(LIST_PROCESSES, ProcessListRequest("python")), 5, warm_up=1)
        yield milliseconds("processes of a machine, 250 ms of it looking", listed)
        yield milliseconds("landscape of the mesh", timed(lambda: mesh.call(GET_LANDSCAPE), rounds * 5))
        yield milliseconds("targets for work", timed(lambda: mesh.call(SELECT_TARGETS), rounds * 5))
        with HostClient() as client:
            entry = ServerRef(hosts[0].name, hosts[0].address)
            asked = timed(lambda: collect(client, entry, "summary", {}, timeout=10.0), 5 if quick else 20, warm_up=1)
        yield milliseconds(f"clones to {HOSTS} hosts, and what they found", asked)
