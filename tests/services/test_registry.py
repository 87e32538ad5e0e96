from __future__ import annotations

import math
import threading
import time
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import SerializationError, ServiceContractError
from paglets.core.runtime_values import ServiceScope
from paglets.remote.references import PagletProxyRef
from paglets.services.contracts import ServiceRecord, ServiceRegistry

REF = PagletProxyRef("http://h:1", "a1")


def advertise(registry: ServiceRegistry, name: str, agent_id: str = "a1", **options: Any) -> ServiceRecord:
    return registry.advertise(
        host_name="alpha", host_url="http://h:1", name=name, proxy=PagletProxyRef("http://h:1", agent_id), **options
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


# records


def test_record_round_trip() -> None:
    record = ServiceRecord("s", REF, ("a", "b"), {"k": b"v"}, ServiceScope.MESH, "alpha", "http://h:1", 1.0, 2.0)
    wire = record.to_wire()
    assert wire["scope"] == "mesh"
    assert wire["capabilities"] == ["a", "b"]
    assert wire["proxy"] == {"host_url": "http://h:1", "agent_id": "a1"}
    assert ServiceRecord.from_wire(wire) == record


def test_record_defaults(clock: list[float]) -> None:
    record = ServiceRecord.from_wire({"name": "s", "proxy": REF.to_wire()})
    assert record == ServiceRecord("s", REF, advertised_at=clock[0])


@pytest.mark.parametrize("payload", [{}, {"name": "s"}, {"proxy": REF.to_wire()}, {"name": 3, "proxy": REF.to_wire()}])
def test_record_needs_name_and_proxy(payload: dict[str, Any]) -> None:
    with pytest.raises(SerializationError):
        ServiceRecord.from_wire(payload)


def test_scope_is_an_enum_member() -> None:
    with pytest.raises(TypeError, match="scope"):
        ServiceRecord("s", REF, scope=cast("Any", "mesh"))
    with pytest.raises(ValueError, match="scope must be one of: local, mesh"):
        ServiceRecord.from_wire({"name": "s", "proxy": REF.to_wire(), "scope": "galaxy"})


def test_expiry_and_matching(clock: list[float]) -> None:
    record = ServiceRecord("s", REF, ("read",), expires_at=1001.0)
    assert record.matches("s")
    assert record.matches("s", "read")
    assert not record.matches("s", "write")
    assert not record.matches("other")
    clock[0] = 1001.0
    assert record.expired
    assert not record.matches("s")
    assert not ServiceRecord("s", REF).expired


# registry


def test_advertise_describes_the_provider(clock: list[float]) -> None:
    registry = ServiceRegistry()
    record = advertise(registry, "s", capabilities=["x"], metadata={"m": 1}, scope=ServiceScope.MESH, ttl=5.0)
    assert record == ServiceRecord(
        "s", REF, ("x",), {"m": 1}, ServiceScope.MESH, "alpha", "http://h:1", clock[0], clock[0] + 5
    )
    assert registry.record("s", "a1") is record
    assert registry.lookup("s") is record


@pytest.mark.parametrize("ttl", [0, -1.0, math.nan, math.inf])
def test_a_ttl_is_positive(ttl: float) -> None:
    registry = ServiceRegistry()
    with pytest.raises(ServiceContractError, match="ttl"):
        advertise(registry, "s", ttl=ttl)
    assert registry.lookup_all() == []


def test_wrong_arguments() -> None:
    registry = ServiceRegistry()
    with pytest.raises(TypeError, match="scope"):
        advertise(registry, "s", scope="mesh")
    with pytest.raises(ServiceContractError, match="name"):
        advertise(registry, "  ")
    with pytest.raises(TypeError, match="scope"):
        registry.lookup_all(scope=cast("Any", "local"))


def test_advertising_again_renews_in_place(clock: list[float]) -> None:
    registry = ServiceRegistry()
    advertise(registry, "s", "a1", ttl=5)
    advertise(registry, "s", "a2")
    clock[0] += 4
    renewed = advertise(registry, "s", "a1", ttl=5, capabilities=["new"])
    clock[0] += 4
    assert [record.proxy.agent_id for record in registry.lookup_all("s")] == ["a1", "a2"]
    assert registry.lookup("s") is renewed


def test_expired_records_disappear(clock: list[float]) -> None:
    registry = ServiceRegistry()
    advertise(registry, "s", "a1", ttl=1)
    advertise(registry, "s", "a2")
    clock[0] += 1
    assert registry.record("s", "a1") is None
    assert [record.proxy.agent_id for record in registry.lookup_all()] == ["a2"]
    advertise(registry, "s", "a1")
    assert [record.proxy.agent_id for record in registry.lookup_all()] == ["a2", "a1"]


def test_lookup_all_by_criteria() -> None:
    registry = ServiceRegistry()
    advertise(registry, "s", "a1", capabilities=("read",))
    advertise(registry, "s", "a2", capabilities=("read", "write"), scope=ServiceScope.MESH)
    advertise(registry, "t", "a1", scope=ServiceScope.MESH)

    def found(*criteria: Any) -> list[tuple[str, str]]:
        return [(record.name, record.proxy.agent_id) for record in registry.lookup_all(*criteria)]

    assert found() == [("s", "a1"), ("s", "a2"), ("t", "a1")]
    assert found("s", "write") == [("s", "a2")]
    assert found(None, None, ServiceScope.MESH) == [("s", "a2"), ("t", "a1")]
    assert registry.lookup("s", "write") == registry.record("s", "a2")
    assert registry.lookup("absent") is None


def test_unadvertise_one_or_all() -> None:
    registry = ServiceRegistry()
    for agent_id in ("a1", "a2", "a3"):
        advertise(registry, "s", agent_id)
    advertise(registry, "t", "a1")
    assert [record.proxy.agent_id for record in registry.unadvertise("s", "a2")] == ["a2"]
    assert [record.proxy.agent_id for record in registry.unadvertise("s")] == ["a1", "a3"]
    assert registry.unadvertise("s") == []
    assert [record.name for record in registry.lookup_all()] == ["t"]


def test_remove_agent_keeps_what_the_predicate_wants() -> None:
    registry = ServiceRegistry()
    advertise(registry, "s")
    advertise(registry, "t", metadata={"resident": True})
    advertise(registry, "s", "a2")

    def keep(record: ServiceRecord) -> bool:
        assert registry.lookup("s") is not None  # a predicate may ask the registry
        return "resident" in record.metadata

    assert [record.name for record in registry.remove_agent("a1", keep=keep)] == ["s"]
    assert [(record.name, record.proxy.agent_id) for record in registry.lookup_all()] == [("t", "a1"), ("s", "a2")]
    assert [record.name for record in registry.remove_agent("a1")] == ["t"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "drop", "agent"]), st.sampled_from("st"), st.sampled_from(["a1", "a2"])),
        max_size=30,
    )
)
def test_registry_is_an_ordered_dict_of_name_and_agent(steps: list[tuple[str, str, str]]) -> None:
    registry = ServiceRegistry()
    model: dict[tuple[str, str], None] = {}
    for step, name, agent_id in steps:
        if step == "put":
            advertise(registry, name, agent_id)
            model[(name, agent_id)] = None
        elif step == "drop":
            registry.unadvertise(name, agent_id)
            model.pop((name, agent_id), None)
        else:
            registry.remove_agent(agent_id)
            model = {key: None for key in model if key[1] != agent_id}
    assert [(record.name, record.proxy.agent_id) for record in registry.lookup_all()] == list(model)


def test_many_threads() -> None:
    registry = ServiceRegistry()
    failures: list[BaseException] = []

    def churn(agent_id: str) -> None:
        try:
            for _ in range(200):
                advertise(registry, "s", agent_id)
                registry.lookup_all("s")
                registry.remove_agent(agent_id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(f"a{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert registry.lookup_all() == []
