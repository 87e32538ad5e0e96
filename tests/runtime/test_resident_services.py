"""Services that a host keeps: declared, started when wanted, put to sleep when not, held awake by leases."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from paglets.config.startup import LaunchConfig, ResidentServiceConfig, StartupAgentConfig
from paglets.core.context import PagletContext
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.runtime.host import Host
from paglets.services.contracts import ServiceHandle
from paglets.services.resident import RESIDENT_SERVICE_METADATA_KEY
from tests.agents.residents import (
    CONTRACT,
    ID,
    REPORT,
    WAIT,
    At,
    Busy,
    Resident,
)
from tests.support import Gate, HostFactory, await_event, events_of, eventually

LAZY, EAGER = ResidentLifecycle.LAZY, ResidentLifecycle.EAGER


def service(cls: type[Any] = Resident, **options: Any) -> ResidentServiceConfig:
    return ResidentServiceConfig(class_name=f"{cls.__module__}:{cls.__name__}", **options)


def launch(*services: ResidentServiceConfig, agents: tuple[StartupAgentConfig, ...] = ()) -> LaunchConfig:
    return LaunchConfig(resident_services=services, startup_agents=agents)


def handle_of(host: Host, scope: ServiceScope = ServiceScope.LOCAL) -> ServiceHandle:
    return PagletContext(host).require_contract(CONTRACT, scope=scope)


def state_of(host: Host) -> str:
    (shown,) = host.resident_services()
    return str(shown["state"])


def test_a_lazy_service_is_found_before_it_runs_and_starts_with_the_first_call(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service(state={"greeting": "hi"}, init={"a": 1})))
    handle = handle_of(host)
    assert host.list_agents(inactive=True) == []
    assert handle.record.metadata[RESIDENT_SERVICE_METADATA_KEY] == {
        "agent_id": ID,
        "agent_class_name": "tests.agents.residents:Resident",
        "lifecycle": "lazy",
        "idle_timeout": 60.0,
    }
    (declared,) = events_of(host, "resident-service-declare")
    assert declared.data == handle.record.to_wire() == events_of(host, "service-advertise")[0].data

    report = handle.call(REPORT)

    assert (report.calls, report.log, report.greeting) == (1, ["created {'a': 1}"], "hi")
    assert [summary["agent_id"] for summary in host.list_agents()] == [ID]
    (created,) = events_of(host, "resident-service-create")
    assert (created.agent_id, created.service_name, created.data) == (ID, CONTRACT.name, {"lifecycle": "lazy"})
    assert handle.call(REPORT).pid == report.pid


def test_it_is_stored_with_its_host_and_sleeps_until_the_next_call(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service()))
    assert handle_of(host).call(REPORT).calls == 1
    host.shutdown()
    again = hosts(launch_config=launch(service()))
    assert again.get_proxy(ID) is None
    assert state_of(again) == "asleep"
    report = handle_of(again).call(REPORT)
    assert report.calls == 2
    assert report.log == [
        "created None",
        "deactivating shutdown host [True, True, False]",
        "activated activate",
    ]
    (activated,) = events_of(again, "resident-service-activate")
    assert activated.data == {"lifecycle": "lazy"}
    assert events_of(again, "resident-service-create") == []


def test_an_eager_service_runs_with_its_host(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service(Busy)))
    assert host.get_proxy(ID) is not None
    assert handle_of(host, ServiceScope.MESH).record.scope is ServiceScope.MESH
    host.shutdown()
    again = hosts(launch_config=launch(service(Busy)))
    assert again.get_proxy(ID) is not None
    assert handle_of(again).call(REPORT).log[1:] == [
        "deactivating shutdown host [True, True, True]",
        "activated activate",
    ]


def test_concurrent_first_calls_start_one(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service()))
    handle, start = handle_of(host), threading.Barrier(4)

    def call() -> int:
        start.wait()
        return handle.call(REPORT).pid

    with ThreadPoolExecutor(4) as threads:
        pids = {future.result() for future in [threads.submit(call) for _ in range(4)]}
    assert len(pids) == len(host.list_agents()) == 1
    assert len(events_of(host, "resident-service-create")) == 1
    assert handle.call(REPORT).calls == 5


def test_an_idle_service_sleeps_and_stays_known(hosts: HostFactory, gate: Gate) -> None:
    host = hosts(launch_config=launch(service(idle_timeout=0.1)))
    handle = handle_of(host)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(handle.call, WAIT, At(str(gate)))
        gate.await_entered()
        # Not while a call is in progress, however long that takes.
        eventually(lambda: time.monotonic() > host_started(host) + 0.3, "some idle timeouts")
        assert state_of(host) == "active"
        gate.open()
        assert call.result().calls == 1
    idled = await_event(host, "resident-service-idle-deactivate")
    assert (idled.agent_id, idled.service_name, idled.data) == (ID, CONTRACT.name, {"idle_timeout": 0.1})
    assert host.get_proxy(ID) is None
    assert state_of(host) == "asleep"
    assert handle_of(host).record == handle.record
    assert handle.call(REPORT).log == [
        "created None",
        "deactivating resident-service-idle resident-service-manager [True, True, False]",
        "activated activate",
    ]


def host_started(host: Host) -> float:
    """Return when the service was created, on the clock of `time.monotonic`."""
    (created,) = events_of(host, "resident-service-create")
    return time.monotonic() - (time.time() - created.timestamp)
