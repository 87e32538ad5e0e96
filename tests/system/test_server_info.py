"""The service of a host tells how its machine does, and a collector brings together what those of all hosts tell."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from paglets.core.agent import Paglet, PagletContext
from paglets.core.errors import HostError, NotHandledError
from paglets.core.messages import Message
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.serialization.codec import to_wire
from paglets.services.contracts import ServiceHandle
from paglets.system import server_info
from paglets.system.server_info import (
    GET_DISK,
    GET_LOAD,
    GET_SUMMARY,
    LIST_PROCESSES,
    SERVER_INFO,
    DiskRequest,
    LoadReply,
    LoadRequest,
    ProcessListRequest,
    ServerInfoAgent,
    SystemInfoCollectorAgent,
    SystemInfoCollectorState,
)
from paglets.system.server_info.collecting import TIMED_OUT
from paglets.system.server_info.disks import MAX_PATHS
from paglets.system.server_info.meters import ProcessorMeter
from tests.support import eventually
from tests.system.conftest import Pair


@pytest.fixture
def service(pair: Pair) -> ServiceHandle:
    return PagletContext(pair[0]).require_contract(SERVER_INFO)


def test_what_the_class_declares() -> None:
    (spec,) = ServerInfoAgent.RESIDENT_SERVICES
    assert (spec.contract, spec.scope, spec.lifecycle) == (SERVER_INFO, ServiceScope.MESH, ResidentLifecycle.LAZY)
    assert (spec.agent_id, spec.idle_timeout) == ("service.server-info", 30.0)
    assert (SERVER_INFO.name, SERVER_INFO.version) == ("server-info", "1")
    assert SERVER_INFO.capabilities == ("load", "df", "plist", "summary")
    assert all(hasattr(server_info, name) for name in server_info.__all__)


def test_load(pair: Pair, service: ServiceHandle) -> None:
    reply = service.call(GET_LOAD, LoadRequest(include_gpu=False))
    assert (reply.host_name, reply.host_url) == ("alpha", pair[0].address)
    assert 0.0 <= reply.cpu_percent <= 100.0
    assert len(reply.load_average) == 3
    assert reply.memory_total_bytes >= reply.memory_available_bytes > 0
    assert 0.0 <= reply.memory_percent <= 100.0
    assert (reply.gpu_available, reply.gpu_error, reply.gpus) == (False, None, [])


def test_disks(tmp_path: Path, service: ServiceHandle) -> None:
    everything = service.call(GET_DISK)
    assert "/" in [volume.path for volume in everything.volumes]
    assert [volume.path for volume in everything.volumes] == sorted(volume.path for volume in everything.volumes)
    (root,) = service.call(GET_DISK, DiskRequest(all_volumes=False)).volumes
    assert root.path == "/"
    missing = str(tmp_path / "missing")
    named = service.call(GET_DISK, DiskRequest([str(tmp_path), missing]))
    assert [volume.path for volume in named.volumes] == [str(tmp_path)]
    assert named.errors == {missing: "No such file or directory"}


def test_processes(service: ServiceHandle) -> None:
    own = psutil.Process()
    reply = service.call(LIST_PROCESSES, ProcessListRequest(own.name(), limit=10_000, include_args=True))
    assert reply.query == own.name()
    (found,) = [process for process in reply.processes if process.pid == os.getpid()]
    assert found.cmdline == own.cmdline()
    assert found.memory_rss_bytes > 0
    assert found.memory_percent > 0
    few = service.call(LIST_PROCESSES, ProcessListRequest("", limit=0))
    assert (len(few.processes), few.truncated, few.processes[0].cmdline) == (1, True, [])


def test_more_paths_than_are_looked_at_are_named(tmp_path: Path, service: ServiceHandle) -> None:
    paths = [str(tmp_path / str(number)) for number in range(MAX_PATHS + 2)]
    errors = service.call(GET_DISK, DiskRequest([str(tmp_path), *paths])).errors
    assert {path for path, text in errors.items() if "only 256 paths" in text} == set(paths[-3:])


NAMED_ODDLY = r"""
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"odd-gr\xc3", 0, 0, 0)
print("named", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of processes are cut by Linux")
def test_a_process_whose_name_is_no_text_hides_no_other(pair: Pair) -> None:
    command = [sys.executable, "-c", NAMED_ODDLY, b"caf\xe9"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as odd,
        HostClient() as client,
    ):
        assert odd.stdout is not None and odd.stdin is not None
        assert odd.stdout.readline() == b"named\n"
        service = PagletProxy(pair[0].address, "service.server-info", client)
        request = to_wire(ProcessListRequest("odd-gr", include_args=True))
        (found,) = service.send(Message("plist", request))["processes"]
        odd.stdin.close()
    assert (found["name"], found["cmdline"][-1]) == ("odd-gr\ufffd", "caf\ufffd")


def test_summary(service: ServiceHandle) -> None:
    reply = service.call(GET_SUMMARY)
    assert (reply.platform, reply.python_version) == (platform.platform(), platform.python_version())
    assert reply.boot_time == psutil.boot_time()
    assert 1 <= reply.cpu_count_logical <= reply.cpu_count_machine == psutil.cpu_count()
    assert reply.service_agent_id == "service.server-info"


def test_other_messages_are_declined(pair: Pair) -> None:
    for agent_id in ("service.server-info", "service.mesh-info"):
        proxy = pair[0].get_proxy(agent_id)
        assert proxy is not None
        with pytest.raises(NotHandledError):
            proxy.send(Message("hello"))


# --- the collector ----------------------------------------------------------------------------------------------------


def collected(proxy: PagletProxy, operation: str, request: dict[str, Any], **more: Any) -> dict[str, Any]:
    proxy.send(Message("collect", {"operation": operation, "request": request, **more}))
    return eventually(lambda: (found := proxy.send(Message("drain"))) and found["done"] and found, "all answers")


def test_all_hosts_are_asked_and_nothing_is_left(pair: Pair) -> None:
    collector = pair[0].create(SystemInfoCollectorAgent)
    answer = collected(collector, "df", {"paths": ["/"]}, timeout=20.0)
    assert sorted(answer) == ["done", "summary"]
    summary = answer["summary"]
    assert summary == collector.send(Message("summary"))
    assert (summary["operation"], summary["errors"], summary["pending_hosts"]) == ("df", {}, [])
    for host in pair:
        told = summary["results"][host.name]
        assert told["host_url"] == host.address
        assert told["result"]["host_name"] == host.name
        assert [volume["path"] for volume in told["result"]["volumes"]] == ["/"]
    # It can be asked again, and then ends.
    assert set(collected(collector, "summary", {})["summary"]["results"]) == {"alpha", "beta"}
    collector.dispose()
    for host in pair:
        eventually(lambda host=host: ids(host) == ["service.mesh-info", "service.server-info"], "no clone to be left")


def ids(host: Any) -> list[str]:
    return sorted(summary["agent_id"] for summary in host.list_agents(inactive=True))


def test_the_service_answers_others_while_somebody_has_load_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone measures; the service is asked for the rest of it when that is done."""
    asked: list[LoadRequest] = []

    class Service:
        def call(self, operation: Any, request: LoadRequest, *, timeout: float) -> LoadReply:
            asked.append(request)
            return LoadReply("alpha", "http://a", 99.9, memory_percent=12.5)

    clone = SystemInfoCollectorAgent(
        SystemInfoCollectorState(operation="load", request={"interval": 0.1, "include_gpu": False})
    )
    monkeypatch.setattr(clone, "require_contract", lambda _: Service())
    monkeypatch.setattr(ProcessorMeter, "percent", lambda _, seconds: 100 * seconds)
    told = clone.ask_local_service(5.0)
    assert asked == [LoadRequest(interval=0.0, include_gpu=False)]
    assert (told["cpu_percent"], told["memory_percent"]) == (10.0, 12.5)


def test_a_host_without_the_service_is_an_error_of_that_host(pair: Pair) -> None:
    _, beta = pair
    service = beta.get_proxy("service.server-info")
    assert service is not None
    service.dispose()
    collector = pair[0].create(SystemInfoCollectorAgent)
    try:
        summary = collected(collector, "load", {"include_gpu": False}, timeout=20.0)["summary"]
        assert list(summary["results"]) == ["alpha"]
        assert "server-info" in summary["errors"]["beta"]
        with pytest.raises(HostError, match="no operation 'reboot'"):
            collector.send(Message("collect", {"operation": "reboot"}))
        with pytest.raises(HostError, match="timeout must be more than 0"):
            collector.send(Message("collect", {"operation": "load", "timeout": -1.0}))
        with pytest.raises(HostError, match="a mapping of the fields"):
            collector.send(Message("collect", {"operation": "load", "request": [1]}))
        with pytest.raises(HostError, match="no clone"):
            collector.send(Message("ask_local_service"))
    finally:
        collector.dispose()
        beta.create(ServerInfoAgent, agent_id="service.server-info")


def test_hosts_that_do_not_answer_in_time_are_given_up() -> None:
    state = SystemInfoCollectorState(timeout=0.0, pending_hosts=["alpha", "beta", "gamma"], operation="load")
    parent = SystemInfoCollectorAgent(state)
    parent.record_child_result({"host_name": "alpha", "host_url": "http://a", "result": {"x": 1}})
    parent.record_child_result({"host_name": "beta", "error": "no service"})
    # Whoever was not waited for any more comes too late.
    answer = parent.drain(wait_timeout=5.0)
    parent.record_child_result({"host_name": "gamma", "result": {}})
    assert answer == {"done": True, "summary": parent.summary()}
    assert parent.summary() == {
        "operation": "load",
        "results": {"alpha": {"host_url": "http://a", "result": {"x": 1}}},
        "errors": {"beta": "no service", "gamma": TIMED_OUT},
        "pending_hosts": [],
    }
    assert isinstance(parent, Paglet)
