"""Services that paglets offer and use, on one host and between hosts that know each other."""

from __future__ import annotations

import time
from typing import Any

import pytest

from paglets.core.context import PagletContext
from paglets.core.errors import HostError, InvalidAgentError, ServiceContractError, ServiceNotFoundError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.core.runtime_values import ServiceScope
from paglets.remote.client import HostClient
from paglets.remote.references import PagletProxyRef
from paglets.runtime.host import Host
from paglets.services.contracts import ServiceHandle, ServiceOperation
from tests.agents.changes_its_mind import ChangesItsMind
from tests.agents.services import (
    CONTRACT,
    NEWER,
    PAINT,
    PING,
    Customer,
    CustomerState,
    Order,
    Painter,
    PainterState,
    Receipt,
    Shade,
)
from tests.support import HostFactory, events_of, eventually


def acquainted(hosts: HostFactory, *names: str) -> list[Host]:
    """Start hosts that know each other and look for nobody else."""
    options: dict[str, Any] = {"mesh_multicast": False, "mesh_lan_discovery": False}
    started = [hosts(name, **options) for name in names]
    for host in started:
        for other in started:
            if other is not host:
                host.mesh.register_wire(other.mesh.refresh_self().to_wire())
    return started


def test_a_service_is_found_where_it_is_offered(hosts: HostFactory) -> None:
    host = hosts()
    painter = host.create(Painter, PainterState(scope="", plain="plain"))
    customer = host.create(Customer)
    (record,) = customer.call(Customer.find, "plain")
    assert (record["name"], record["capabilities"], record["metadata"]) == ("plain", ["a", "b"], {"m": 1})
    assert (record["proxy"], record["host_name"], record["host_url"]) == (painter.to_wire(), "alpha", host.address)
    assert record["expires_at"] is None
    assert customer.call(Customer.find, capability="b") == [record]
    assert customer.call(Customer.find, "plain", "c") == []
    assert customer.call(Customer.find_one, "plain") == painter.to_wire()
    assert customer.call(Customer.find_one, "other") is None
    assert host.lookup_service("plain", capability="a") is not None
    assert PagletContext(host).lookup_service("plain") == painter.ref()
    assert HostClient().get_json(f"{host.address}/services?name=plain")["services"] == [record]
    (advertised,) = events_of(host, "service-advertise")
    assert (advertised.service_name, advertised.agent_id, advertised.data["name"]) == (
        "plain",
        painter.agent_id,
        "plain",
    )


def test_a_service_is_gone_when_it_is_withdrawn_or_runs_out(hosts: HostFactory) -> None:
    host = hosts()
    painter = host.create(Painter, PainterState(plain="plain"))
    assert painter.call(Painter.withdraw, "plain") == 1
    assert painter.call(Painter.withdraw, "plain") == 0
    assert host.lookup_service("plain") is None
    expires = painter.call(Painter.offer, "short", 0.05)
    assert expires is not None
    eventually(lambda: host.lookup_service("short") is None, "the advertisement to run out")
    assert time.time() >= expires
    for ttl in (0, -1):
        with pytest.raises(Exception, match="ttl"):
            host.advertise_service(painter.agent_id, "bad", ttl=ttl)
    host.advertise_service(painter.agent_id, "by-host", scope=ServiceScope.MESH)
    assert [record.name for record in host.unadvertise_service("by-host")] == ["by-host"]
    assert [event.service_name for event in events_of(host, "service-remove")] == ["plain", "by-host"]
    with pytest.raises(TypeError):
        host.lookup_services(scope="mesh")  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["dispose", "deactivate", "dispatch", "crash"])
def test_a_service_ends_with_the_stay_of_its_provider(hosts: HostFactory, end: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    painter = alpha.create(Painter, PainterState(plain="plain"))
    assert len(alpha.lookup_services()) == 2
    match end:
        case "dispatch":
            painter.dispatch(beta.address)
        case "crash":
            import os

            os.kill(painter.info()["pid"], 9)
        case _:
            getattr(painter, end)()
    eventually(lambda: alpha.lookup_services() == [], "the records to go")
    assert sorted(event.service_name for event in events_of(alpha, "service-remove")) == ["plain", "tests.painter"]
    assert beta.lookup_services() == []


def test_only_what_is_offered_to_the_mesh_is_found_from_other_hosts(hosts: HostFactory) -> None:
    alpha, beta = acquainted(hosts, "alpha", "beta")
    alpha.create(Painter, PainterState(scope="", plain="private"))
    painter = alpha.create(Painter, PainterState(scope="mesh"))
    customer = beta.create(Customer)
    assert customer.call(Customer.find, "private", None, "mesh") == []
    assert [record["name"] for record in customer.call(Customer.find, None, None, "mesh")] == ["tests.painter"]
    assert customer.call(Customer.find, None, None, "local") == []
    ref = customer.call(Customer.find_one, "tests.painter", "mesh")
    assert ref == painter.to_wire()
    assert PagletProxyRef.from_wire(ref).resolve(PagletContext(beta)).is_active()
    for scope, names in (("mesh", ["tests.painter"]), ("local", ["private", "tests.painter"])):
        found = HostClient().get_json(f"{alpha.address}/services?scope={scope}")["services"]
        assert [record["name"] for record in found] == names


@pytest.mark.parametrize("place", ["same host", "other host"])
def test_a_contract_is_called_from_inside_a_paglet(hosts: HostFactory, place: str) -> None:
    alpha, beta = acquainted(hosts, "alpha", "beta")
    painter = alpha.create(Painter, PainterState(scope="mesh"))
    customer = (alpha if place == "same host" else beta).create(Customer)
    assert customer.call(Customer.buy, "red") == {
        "text": "RED",
        "shade": "dark",
        "data": b"\xff\x00",
        "host": "alpha",
        "extra": {"deep": [b"\x01", {"b": b"\x02"}]},
        "metadata": 3,
    }
    eventually(lambda: alpha.get_state(painter.agent_id, PainterState).pings == 1, "the one-way call")


def test_a_contract_of_another_version_is_not_found(hosts: HostFactory) -> None:
    alpha, beta = acquainted(hosts, "alpha", "beta")
    alpha.create(Painter, PainterState(scope="mesh"))
    customer = beta.create(Customer)
    assert customer.call(Customer.find_contract) == ["alpha", 1, "found"]
    assert customer.call(Customer.find_contract, newer=True) == [None, 0, "ServiceNotFoundError"]
    assert customer.call(Customer.find_contract, scope="local") == [None, 0, "ServiceNotFoundError"]
    context = PagletContext(beta)
    with pytest.raises(ServiceNotFoundError):
        context.require_contract(NEWER, scope=ServiceScope.MESH)
    with pytest.raises(ServiceNotFoundError):
        customer.call(Customer.buy, "red", "local")


def test_a_service_without_a_contract_is_not_taken_for_one(hosts: HostFactory) -> None:
    host = hosts()
    host.create(Painter, PainterState(scope="", plain=CONTRACT.name))
    context = PagletContext(host)
    assert context.lookup_service(CONTRACT.name) is not None
    assert context.lookup_contract(CONTRACT) is None
    assert context.lookup_contracts(CONTRACT) == []
    with pytest.raises(ServiceContractError):
        ServiceHandle(CONTRACT, context.lookup_services(CONTRACT.name)[0])


def test_calls_that_do_not_fit_the_contract_are_refused_before_they_leave(hosts: HostFactory) -> None:
    host = hosts()
    painter = host.create(Painter)
    handle = PagletContext(host).require_contract(CONTRACT)
    before = host.mailbox_status(painter.agent_id)
    with pytest.raises(ServiceContractError):
        handle.call(ServiceOperation("other", Order, Receipt), Order("x"))
    with pytest.raises(ServiceContractError):
        handle.call(PAINT, Receipt("x", Shade.DARK, b"", "h"))  # type: ignore[arg-type]
    with pytest.raises(ServiceContractError):
        handle.call(PAINT)
    with pytest.raises(ServiceContractError):
        PagletContext(host).lookup_contract(CONTRACT, operation=ServiceOperation("other"))
    assert host.mailbox_status(painter.agent_id) == before
    with pytest.raises(ServiceContractError):
        painter.send(Message("paint", {"text": ["no text"]}))
    assert handle.call(PING) is not None


def test_a_service_that_answers_something_else_is_found_out(hosts: HostFactory) -> None:
    alpha, beta = acquainted(hosts, "alpha", "beta")
    alpha.create(Painter, PainterState(scope="mesh", lie=True))
    customer = beta.create(Customer)
    with pytest.raises(ServiceContractError):
        customer.call(Customer.buy, "red")


def test_a_peer_that_is_gone_offers_nothing_and_hides_nobody(hosts: HostFactory) -> None:
    alpha, beta, gamma = acquainted(hosts, "alpha", "beta", "gamma")
    gamma.create(Painter, PainterState(scope="mesh"))
    customer = beta.create(Customer)
    alpha.stop()
    assert customer.call(Customer.find_contract) == ["gamma", 1, "found"]


def test_only_a_managed_service_can_be_leased(hosts: HostFactory) -> None:
    host = hosts()
    host.create(Painter)
    customer = host.create(Customer)
    assert customer.call(Customer.lease) == "ServiceNotFoundError"
    handle = PagletContext(host).require_contract(CONTRACT)
    with pytest.raises(HostError, match="ttl"):
        host.lease_service_handle(handle, ttl=0)


def test_a_reference_in_the_state_survives_sleep_and_moves(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    friend = alpha.create(Painter, PainterState(scope=""))
    customer = alpha.create(Customer)
    customer.call(Customer.befriend, friend.ref())
    assert customer.call(Customer.ask_friend) is True
    shown = HostClient().get_json(f"{alpha.address}/agents/{customer.agent_id}/state")["state"]
    assert shown["friend"] == friend.to_wire()
    assert alpha.get_state(customer.agent_id, CustomerState).friend == friend.ref()
    customer.deactivate(policy=DeactivationPolicy(activate_on_message=False))
    customer.activate()
    assert customer.call(Customer.ask_friend) is True
    moved = customer.dispatch(beta.address)
    assert moved.call(Customer.ask_friend) is True
    friend.dispose()
    assert moved.call(Customer.ask_friend) is False
    with pytest.raises(InvalidAgentError):
        friend.info()


def test_a_creation_that_fails_leaves_no_service_behind(hosts: HostFactory) -> None:
    host = hosts()
    with pytest.raises(HostError, match="not after all"):
        host.create(ChangesItsMind)
    assert host.lookup_services() == []
    assert host.list_agents() == []
