"""Services that a host keeps: declared, started when wanted, put to sleep when not, started again when they die."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paglets.config.startup import ResidentServiceConfig
from paglets.core.context import PagletContext
from paglets.core.errors import (
    ConflictError,
    HostError,
    InvalidAgentError,
    PagletCrashedError,
    PagletError,
    PagletInactiveError,
    ServiceContractError,
    TransferError,
)
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.services.resident import RESIDENT_SERVICE_METADATA_KEY
from tests.agents.actor import Actor
from tests.agents.residents import (
    CONTRACT,
    DIE,
    ID,
    REPORT,
    WAIT,
    At,
    Busy,
    Fleeting,
    Holder,
    Renamed,
    Resident,
    ResidentState,
    Several,
)
from tests.runtime.services import handle_of, launch, service, state_of
from tests.support import Gate, HostFactory, await_event, events_of, eventually

EAGER = ResidentLifecycle.EAGER


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


def test_a_message_that_may_wake_nobody_starts_nobody(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service()))
    handle = handle_of(host)
    with pytest.raises(InvalidAgentError):
        handle.call(REPORT, activate_if_inactive=False)
    handle.send_oneway(REPORT)
    eventually(lambda: state_of(host) == "active", "the one-way message to start it")
    # Whatever its policy says, a managed service is woken by whoever may wake.
    asleep = DeactivationRequest(policy=DeactivationPolicy(activate_on_message=False))
    host.deactivate(ID, asleep)
    assert handle.call(REPORT).calls == 2
    host.deactivate(ID)
    with pytest.raises(PagletInactiveError):
        handle.call(REPORT, activate_if_inactive=False)
    queued = host.deliver_message(ID, REPORT.to_message(), activate_if_inactive=False)
    assert queued["queued"] is True
    assert state_of(host) == "asleep"
    assert handle.call(REPORT).calls == 4


def test_a_paglet_of_the_host_starts_it_by_contract_or_id(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service()))
    caller = host.create(Holder)
    assert caller.call(Holder.tell, ID) == 1
    host.dispose(ID)
    assert caller.call(Holder.call) == 1
    host.dispose(ID)
    assert PagletContext(host).send(ID, REPORT.to_message())["calls"] == 1
    with pytest.raises(HostError, match="No paglet"):
        PagletContext(host).send("nobody", REPORT.to_message())


def test_its_own_advertisement_does_not_make_it_unmanaged(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service(state={"advertise": True})))
    declared = handle_of(host).record
    handle_of(host).call(REPORT)
    record = handle_of(host).record
    managed = record.metadata[RESIDENT_SERVICE_METADATA_KEY]
    assert (record.metadata["colours"], managed) == (3, declared.metadata[RESIDENT_SERVICE_METADATA_KEY])
    assert (record.scope, record.expires_at) == (ServiceScope.MESH, None)
    proxy = host.get_proxy(ID)
    assert proxy is not None
    assert proxy.call(Resident.withdraw) == 1
    assert handle_of(host).record.metadata == declared.metadata
    proxy.dispose()
    assert handle_of(host).call(REPORT).log == ["created None"]
    stranger = host.create(Actor)
    with pytest.raises(ServiceContractError, match="reserved"):
        host.advertise_service(stranger.agent_id, "x", metadata={RESIDENT_SERVICE_METADATA_KEY: {}})


@pytest.mark.parametrize("how", ["asleep", "killed"])
def test_a_record_of_another_class_is_replaced(hosts: HostFactory, how: str) -> None:
    host = hosts(launch_config=launch(service()))
    host.deliver_message(ID, REPORT.to_message())
    if how == "asleep":
        host.shutdown()
    else:
        os.kill(host.get_proxy(ID).info()["pid"], signal.SIGKILL)  # type: ignore[union-attr]
        eventually(lambda: host.list_agents()[0]["crashed"], "the crash")
        host.shutdown()
    again = hosts(launch_config=launch(service(Renamed)))
    (replaced,) = events_of(again, "resident-service-replace")
    assert replaced.agent_id == ID
    assert replaced.data == {
        "class": "tests.agents.residents:Renamed",
        "previous_class": "tests.agents.residents:Resident",
    }
    assert handle_of(again).call(REPORT).log == ["created None"]
    assert [summary["class_name"] for summary in again.list_agents()] == ["tests.agents.residents:Renamed"]


def test_an_entry_that_cannot_be_kept_is_told_and_stops_nothing(hosts: HostFactory) -> None:
    missing = ResidentServiceConfig(class_name="tests.agents.not_there:Nobody")
    host = hosts(
        launch_config=launch(
            missing, service(enabled=False), service(Several), service(), service(Fleeting), service(Actor)
        )
    )
    (skipped,) = events_of(host, "resident-service-skip")
    assert skipped.data == {"reason": "disabled", "use": "", "class": "tests.agents.residents:Resident"}
    errors = [(event.data["class"].rpartition(":")[2], event.error) for event in events_of(host, *FAILED)]
    assert [name for name, _ in errors] == ["Nobody", "Several", "Fleeting", "Actor"]
    for (_, error), part in zip(errors, ("not_there", "several", "declared already", "RESIDENT_SERVICES"), strict=True):
        assert part in str(error)
    assert handle_of(host).call(REPORT).calls == 1


FAILED = ("resident-service-failed",)


def test_what_keeps_a_service_from_starting_is_told_to_who_calls_it(hosts: HostFactory, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    host = hosts(launch_config=launch(service(state={"fail_while": str(lock)})))
    handle = handle_of(host)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(handle.call, REPORT) for _ in range(2)]
        for call in calls:
            with pytest.raises(HostError, match="not while this file is there"):
                call.result()
    assert state_of(host) == "failed"
    failed = events_of(host, *FAILED)[-1]
    assert (failed.agent_id, failed.service_name) == (ID, CONTRACT.name)
    assert failed.data["retry_in"] > 0
    lock.unlink()
    assert handle.call(REPORT).calls == 1
    assert state_of(host) == "active"


def test_an_eager_service_that_cannot_start_is_tried_again(hosts: HostFactory, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    host = hosts(launch_config=launch(service(lifecycle=EAGER, state={"fail_while": str(lock)})))
    eventually(lambda: len(events_of(host, *FAILED)) >= 3, "some tries")
    pauses = [event.data["retry_in"] for event in events_of(host, *FAILED)]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    lock.unlink()
    eventually(lambda: state_of(host) == "active", "a try that works")
    assert len(events_of(host, "resident-service-create")) == 1


@pytest.mark.parametrize("cls", [Resident, Fleeting])
@pytest.mark.parametrize("lifecycle", list(ResidentLifecycle))
def test_a_service_that_dies_is_there_again(hosts: HostFactory, cls: type[Any], lifecycle: ResidentLifecycle) -> None:
    host = hosts(launch_config=launch(service(cls, lifecycle=lifecycle)))
    handle = handle_of(host)
    first = handle.call(REPORT)
    with pytest.raises(PagletCrashedError):
        handle.call(DIE)
    assert handle_of(host).record == handle.record
    again = eventually(lambda: answered(lambda: handle.call(REPORT)), "an answer")
    assert again.pid != first.pid
    if cls is Resident:
        assert again.log[-1] == "activated restart"
    else:
        assert (again.calls, again.log) == (1, ["created None"])
    assert len(host.list_agents()) == 1


def answered(call: Any) -> Any:
    try:
        return call()
    except PagletError:
        return None


def test_an_eager_service_whose_run_dies_again_and_again_rests_in_between(hosts: HostFactory, tmp_path: Path) -> None:
    deadly = tmp_path / "deadly"
    host = hosts(launch_config=launch(service(Busy, state={"die_while": str(deadly)})))
    deadly.touch()
    os.kill(host.get_proxy(ID).info()["pid"], signal.SIGKILL)  # type: ignore[union-attr]
    eventually(lambda: len(events_of(host, "paglet-crashed")) >= 3, "some deaths")
    assert len(events_of(host, "paglet-crashed")) < 8
    deadly.unlink()
    eventually(lambda: answered(lambda: handle_of(host).call(REPORT, timeout=3)), "it to live", timeout=20)


def test_nobody_else_can_have_the_id_of_a_service(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service()))
    with pytest.raises(ConflictError, match="resident service"):
        host.create(Actor, agent_id=ID)
    with HostClient() as client, pytest.raises(ConflictError):
        client.post_json(f"{host.address}/agents", {"agent_class_name": "tests.agents.actor:Actor", "agent_id": ID})
    beta = hosts("beta")
    stranger = beta.create(Actor, agent_id=ID)
    with pytest.raises(TransferError, match="resident service"):
        stranger.dispatch(host.address)
    assert beta.get_proxy(ID) is not None
    # One of its class is the service.
    host.create(Resident, ResidentState(greeting="mine"), agent_id=ID)
    assert handle_of(host).call(REPORT).greeting == "mine"


def test_a_service_that_moved_is_called_where_it_is(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha", launch_config=launch(service(lifecycle=EAGER))), hosts("beta")
    handle = handle_of(alpha)
    handle.call(REPORT)
    away = alpha.dispatch(ID, beta.address)
    assert state_of(alpha) == "away"
    assert handle_of(alpha).record == handle.record
    assert (handle.call(REPORT).host, handle.call(REPORT).calls) == ("beta", 3)

    # Also after a restart, which starts no second one.
    alpha.shutdown()
    alpha = hosts("alpha", port=alpha.port, launch_config=launch(service(lifecycle=EAGER)))
    assert alpha.get_proxy(ID) is None
    assert handle_of(alpha).call(REPORT).host == "beta"

    # It has ended: the next call begins anew.
    away.dispose()
    eventually(lambda: answered(lambda: handle_of(alpha).call(REPORT).host) == "alpha", "a new one")
    assert handle_of(alpha).call(REPORT).log == ["created None"]

    # And one that comes home is the service again.
    alpha.dispatch(ID, beta.address)
    alpha.retract(beta.address, ID)
    assert state_of(alpha) == "active"
    assert handle_of(alpha).call(REPORT).host == "alpha"


def test_a_drain_puts_services_to_sleep_and_its_end_wakes_the_eager_ones(hosts: HostFactory) -> None:
    beta = hosts("beta")
    alpha = hosts("alpha", launch_config=launch(service(lifecycle=EAGER)))
    alpha.drain([beta.address])
    status = eventually(lambda: finished(alpha), "the drain")
    assert ([entry["agent_id"] for entry in status["asleep"]], status["moved"]) == ([ID], [])
    with pytest.raises(HostError, match="draining"):
        handle_of(alpha).call(REPORT)
    assert state_of(alpha) == "asleep"
    alpha.undrain()
    assert state_of(alpha) == "active"
    assert handle_of(alpha).call(REPORT).host == "alpha"


def finished(host: Host) -> dict[str, Any] | None:
    status = host.drain_status()
    return None if status["running"] else status


def test_somebody_who_puts_an_eager_service_to_sleep_has_their_way(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service(lifecycle=EAGER)))
    handle_of(host).call(REPORT)
    host.deactivate(ID)
    assert state_of(host) == "asleep"
    host.shutdown()
    again = hosts(launch_config=launch(service(lifecycle=EAGER)))
    assert state_of(again) == "active"
    again.dispose(ID)
    assert state_of(again) == "declared"
    assert handle_of(again).call(REPORT).calls == 1


def test_a_queue_of_calls_of_a_service_that_sleeps_at_once_is_answered(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service(idle_timeout=0.0)))
    handle = handle_of(host)
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(handle.call, REPORT) for _ in range(20)]
        assert sorted(call.result().calls for call in calls) == list(range(1, 21))
    eventually(lambda: state_of(host) == "asleep", "it to sleep")


def test_a_message_is_answered_once_while_services_come_and_go(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service(idle_timeout=0.0)))
    replies = [host.deliver_message(ID, Message("report"))["calls"] for _ in range(10)]
    assert replies == list(range(1, 11))
    assert PagletContext(host).lookup_contract(CONTRACT) is not None


def test_every_call_is_handled_once_while_others_put_the_service_to_sleep_and_lease_it(hosts: HostFactory) -> None:
    host = hosts(launch_config=launch(service(idle_timeout=0.0)))
    handle, over = handle_of(host), threading.Event()

    def call(number: int) -> list[int]:
        counts = []
        for _ in range(6):
            if number == 0:
                with host.lease_service_handle(handle) as held:
                    counts.append(held.call(REPORT).calls)
            else:
                counts.append(handle.call(REPORT).calls)
        return counts

    def disturb() -> int:
        times = 0
        while not over.is_set():
            times += answered(lambda: host.deactivate(ID)) is not None
        return times

    with ThreadPoolExecutor(5) as threads:
        disturbing = threads.submit(disturb)
        counts = [
            count for caller in [threads.submit(call, number) for number in range(4)] for count in caller.result()
        ]
        over.set()
        assert disturbing.result() > 0
    assert sorted(counts) == list(range(1, 25))
    assert len(events_of(host, "resident-service-create")) == 1
