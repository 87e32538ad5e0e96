from __future__ import annotations

import math
import threading
import time
from typing import Any, cast

import pytest

from paglets.core.errors import RemoteHostError
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.remote.client import HostClient
from paglets.remote.references import PagletProxyRef
from paglets.services import resident
from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceOperation, ServiceRecord
from paglets.services.resident import ResidentServiceSpec, ServiceLease

CONTRACT = ServiceContract("tests.sleepy", (ServiceOperation("ping"),))


class FakeClient:
    def __init__(self, error: Exception | None = None) -> None:
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def post_json(self, url: str, payload: dict[str, Any]) -> Any:
        self.posts.append((url, payload))
        if self.error is not None:
            raise self.error
        return {"released": True}


def lease_with(client: FakeClient, expires_at: float = 0.0, lease_id: str = "lease-1") -> ServiceLease:
    record = ServiceRecord(
        CONTRACT.name,
        PagletProxyRef("http://h:1", "service.tests.sleepy"),
        CONTRACT.capabilities,
        CONTRACT.advertise_metadata(),
    )
    return ServiceLease(
        ServiceHandle(CONTRACT, record), lease_id, "http://h:1/", expires_at, cast("HostClient", client)
    )


def test_constants() -> None:
    assert resident.RESIDENT_SERVICE_METADATA_KEY == "paglets.resident_service"
    assert resident.DEFAULT_RESIDENT_IDLE_TIMEOUT_SECONDS == 30.0
    assert resident.DEFAULT_SERVICE_LEASE_TTL_SECONDS == 60.0


def test_spec_defaults() -> None:
    spec = ResidentServiceSpec(CONTRACT)
    assert (spec.scope, spec.lifecycle) == (ServiceScope.LOCAL, ResidentLifecycle.LAZY)
    assert (spec.agent_id, spec.singleton, spec.idle_timeout, spec.state) == (None, True, 30.0, {})


def test_spec_wants_enum_members() -> None:
    with pytest.raises(TypeError, match="scope"):
        ResidentServiceSpec(CONTRACT, scope=cast("Any", "mesh"))
    with pytest.raises(TypeError, match="lifecycle"):
        ResidentServiceSpec(CONTRACT, lifecycle=cast("Any", "eager"))


@pytest.mark.parametrize("idle_timeout", [-1.0, math.nan])
def test_spec_refuses_a_senseless_idle_timeout(idle_timeout: float) -> None:
    with pytest.raises(ValueError, match="idle_timeout"):
        ResidentServiceSpec(CONTRACT, idle_timeout=idle_timeout)


def test_leaving_the_block_releases_once() -> None:
    client = FakeClient()
    lease = lease_with(client, lease_id="a/b")
    with lease as handle:
        assert handle is lease.handle
        assert client.posts == []
    lease.release()
    assert client.posts == [("http://h:1/services/leases/a%2Fb/release", {})]


def test_concurrent_releases_are_one() -> None:
    client = FakeClient()
    lease = lease_with(client)
    threads = [threading.Thread(target=lease.release) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.posts) == 1


def test_a_failed_release_is_told_to_who_asked_for_it() -> None:
    client = FakeClient(RemoteHostError("gone"))
    lease = lease_with(client)
    with pytest.raises(RemoteHostError):
        lease.release()
    lease.release()
    assert len(client.posts) == 1


def test_a_failed_release_does_not_spoil_the_work() -> None:
    with lease_with(FakeClient(RemoteHostError("gone"))):
        pass
    with pytest.raises(ZeroDivisionError), lease_with(FakeClient(RemoteHostError("gone"))):
        _ = 1 / 0


def test_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 100.0)
    assert lease_with(FakeClient(), expires_at=100.0).expired
    assert not lease_with(FakeClient(), expires_at=100.5).expired
