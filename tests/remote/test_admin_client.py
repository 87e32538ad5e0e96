"""The admin client, with hosts that run and with hosts that answer from a script."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from paglets.core import errors
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy
from paglets.core.runtime_values import ServiceScope
from paglets.remote.admin import AgentRecord, PagletsAdminClient, ServerRef, select_reachable_entry_server
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.serialization.codec import qualified_name
from tests.agents.actor import Actor, ActorState
from tests.agents.services import CONTRACT, Painter, PainterState
from tests.remote.scripted import Answer, ScriptedHost, reply, response
from tests.support import HostFactory, eventually, free_port, where

ACTOR = qualified_name(Actor)
ACTOR_STATE = qualified_name(ActorState)


def server_of(host: Host) -> ServerRef:
    return ServerRef(host.name, host.address)


def admin_of(*hosts: Host) -> PagletsAdminClient:
    return PagletsAdminClient([server_of(host) for host in hosts])


def scripted_admin(*scripted: ScriptedHost) -> tuple[PagletsAdminClient, list[ServerRef]]:
    servers = [ServerRef(f"host-{number}", host.url) for number, host in enumerate(scripted)]
    return PagletsAdminClient(servers), servers


def only_agent(admin: PagletsAdminClient, server: ServerRef) -> AgentRecord:
    (record,) = admin.list_agents(server)
    return record


@pytest.fixture
def alpha(hosts: HostFactory) -> Host:
    return hosts("alpha")


@pytest.fixture
def beta(hosts: HostFactory) -> Host:
    return hosts("beta")


@pytest.fixture
def nobody() -> Iterator[ServerRef]:
    """Give a server that nobody runs."""
    return ServerRef("nobody", f"http://127.0.0.1:{free_port()}")


# --- hosts ------------------------------------------------------------------------------------------------------------


def test_the_health_of_all_hosts(alpha: Host, beta: Host) -> None:
    alpha.create(Actor)
    alpha.create(Actor).deactivate()
    first, second = admin_of(alpha, beta).health_all()
    assert (first.name, first.url, first.reachable, first.error) == ("alpha", alpha.address, True, None)
    assert (first.active_count, first.inactive_count, first.code_version) == (1, 1, "test-version")
    assert (second.name, second.active_count, second.inactive_count) == ("beta", 0, 0)
    assert first.latency_ms > 0


def test_a_host_that_is_not_there_has_a_health_too(alpha: Host, nobody: ServerRef) -> None:
    admin = PagletsAdminClient([nobody, server_of(alpha)])
    missing, there = admin.health_all()
    assert (missing.name, missing.reachable, there.reachable) == ("nobody", False, True)
    assert (missing.active_count, missing.inactive_count, missing.code_version) == (0, 0, None)
    assert missing.error is not None
    assert "Could not reach" in missing.error
    assert missing.latency_ms > 0


def test_only_enabled_hosts_are_asked(alpha: Host, beta: Host) -> None:
    admin = admin_of(alpha)
    assert [status.name for status in admin.health_all()] == ["alpha"]
    off = dataclasses.replace(server_of(alpha), enabled=False)
    admin.set_servers([off, server_of(beta)])
    assert admin.enabled_servers() == [server_of(beta)]
    assert [status.name for status in admin.health_all()] == ["beta"]
    admin.set_servers([off])
    assert (admin.health_all(), admin.list_agents_all()) == ([], [])
    assert admin.health(off).reachable


def test_where_a_paglet_was_and_is(alpha: Host, beta: Host) -> None:
    admin = admin_of(alpha, beta)
    agent = only_agent_of(admin, alpha.create(Actor))
    admin.dispatch(agent, beta.address)
    journey = admin.journey(agent)
    assert [(stage.host, stage.event) for stage in journey.stages] == [
        ("alpha", "created"),
        ("alpha", "departed"),
        ("beta", "arrived"),
    ]
    assert admin.locate(agent)["host_url"] == beta.address


def only_agent_of(admin: PagletsAdminClient, proxy: PagletProxy) -> AgentRecord:
    (record,) = [record for record in admin.list_agents_all() if record.agent_id == proxy.agent_id]
    return record


def test_dead_letters_are_listed_retried_and_cleared(alpha: Host) -> None:
    admin, server = admin_of(alpha), server_of(alpha)
    for _ in range(2):
        sleeper = alpha.create(Actor, agent_id="sleeper")
        sleeper.deactivate(policy=DeactivationPolicy(activate_on_message=False))
        sleeper.send_oneway(Message("do", {"steps": "count 1"}))
        alpha.dispose("sleeper")
    first, second = eventually(
        lambda: found if len(found := admin.list_dead_letters(server)) == 2 else None, "both letters"
    )
    assert admin.list_dead_letters(server, since=first["letter_id"], limit=5, agent_id="sleeper") == [second]
    admin.clear_dead_letter(server, second["letter_id"])
    with pytest.raises(errors.InvalidAgentError):
        admin.retry_dead_letter(server, first["letter_id"])
    back = alpha.create(Actor, agent_id="sleeper")
    admin.retry_dead_letter(server, first["letter_id"])
    eventually(lambda: alpha.get_state("sleeper", ActorState).count == 1, "the message handled")
    assert admin.list_dead_letters(server) == []
    back.dispose()


def test_a_host_without_mesh_knows_itself(alpha: Host) -> None:
    (ref,) = admin_of(alpha).list_hosts(server_of(alpha))
    assert (ref.name, ref.url, ref.code_version, ref.online) == ("alpha", alpha.address, "test-version", True)


def test_an_entry_host_is_chosen_by_its_url(alpha: Host) -> None:
    found = select_reachable_entry_server(entry_name=f"{alpha.address}/", client=HostClient())
    assert found == server_of(alpha)


def test_services_are_listed_with_their_scope(alpha: Host) -> None:
    painter = alpha.create(Painter, PainterState(scope="mesh", plain="plain"))
    admin, server = admin_of(alpha), server_of(alpha)
    contract, plain = sorted(admin.list_services(server), key=lambda service: service.scope is ServiceScope.LOCAL)
    assert asdict(plain) == {
        "server_name": "alpha",
        "name": "plain",
        "host_url": alpha.address,
        "agent_id": painter.agent_id,
        "capabilities": ("a", "b"),
        "scope": ServiceScope.LOCAL,
    }
    assert (contract.name, contract.scope) == (CONTRACT.name, ServiceScope.MESH)
    assert admin.list_services(server, scope=ServiceScope.MESH) == [contract]
    assert admin.list_services(server, name="plain", capability="b") == [plain]
    assert admin.list_services(server, capability="c") == []
    with pytest.raises(TypeError, match="scope"):
        admin.list_services(server, scope="mesh")  # type: ignore[arg-type]


def test_events_are_listed_from_a_point_on(alpha: Host) -> None:
    admin, server = admin_of(alpha), server_of(alpha)
    alpha.create(Actor)
    events = admin.list_events(server)
    assert "create" in [event["kind"] for event in events]
    first = events[0]["event_id"]
    assert admin.list_events(server, limit=1) == events[:1]
    assert [event["event_id"] for event in admin.list_events(server, since=first)][:1] == [events[1]["event_id"]]


# --- paglets ----------------------------------------------------------------------------------------------------------


def test_a_created_paglet_has_its_state_and_what_its_creator_passed(alpha: Host) -> None:
    admin, server = admin_of(alpha), server_of(alpha)
    made = admin.create_agent(server, ACTOR, ACTOR_STATE, {"count": 5}, init={"why": "test"})
    assert made["host_url"] == alpha.address
    agent = only_agent(admin, server)
    assert agent == AgentRecord("alpha", alpha.address, made["agent_id"], ACTOR, ACTOR_STATE, True)
    answer = admin.get_agent_state(agent)
    assert (answer["agent_id"], answer["state"]["count"]) == (agent.agent_id, 5)
    assert answer["state"]["events"][0]["init"] == {"why": "test"}
    info = admin.get_agent_info(agent)
    assert (info["class_name"], info["active"]) == (ACTOR, True)
    assert "state" not in info


def test_a_paglet_is_created_with_nothing_but_its_class(alpha: Host) -> None:
    admin, server = admin_of(alpha), server_of(alpha)
    admin.create_agent(server, ACTOR, "")
    (payload,) = admin.list_agent_payloads(server, include_state=True)
    assert (payload["server_name"], payload["host_url"]) == ("alpha", alpha.address)
    assert payload["state"]["count"] == 0
    assert "state" not in admin.list_agent_payloads(server)[0]


def test_messages_are_answered_or_not_waited_for(alpha: Host) -> None:
    admin = admin_of(alpha)
    admin.create_agent(server_of(alpha), ACTOR, ACTOR_STATE)
    agent = only_agent(admin, server_of(alpha))
    assert admin.send(agent, Message("add", {"by": 2})) == 2
    assert admin.send(agent, Message("add", {"by": 3}), oneway=True) is None
    # Messages are handled in order.
    assert admin.send(agent, Message("add", {"by": 0})) == 5
    with pytest.raises(errors.NotHandledError):
        admin.send(agent, Message("unheard-of"))


def test_paglets_of_several_hosts_are_told_apart_by_server(alpha: Host, beta: Host, nobody: ServerRef) -> None:
    here, there = alpha.create(Actor), beta.create(Actor)
    admin = PagletsAdminClient([server_of(alpha), nobody, server_of(beta)])
    found = [(record.server_name, record.host_url, record.agent_id) for record in admin.list_agents_all()]
    assert found == [("alpha", alpha.address, here.agent_id), ("beta", beta.address, there.agent_id)]
    with pytest.raises(errors.RemoteHostError, match="Could not reach"):
        admin.list_agents(nobody)


def test_a_paglet_is_moved_copied_and_called_back(alpha: Host, beta: Host) -> None:
    admin = admin_of(alpha, beta)
    proxy = alpha.create(Actor)
    moved = admin.dispatch(only_agent(admin, server_of(alpha)), beta.address)
    assert moved == {"host_url": beta.address, "agent_id": proxy.agent_id}
    assert where(proxy, alpha, beta) == ["beta"]

    away = only_agent(admin, server_of(beta))
    assert away.server_name == "beta"
    copy = admin.clone(away, alpha.address)
    assert copy["host_url"] == alpha.address
    assert copy["agent_id"] == only_agent(admin, server_of(alpha)).agent_id != proxy.agent_id
    assert admin.clone(away)["host_url"] == beta.address
    assert len(admin.list_agents(server_of(beta))) == 2

    assert admin.retract(away, alpha.address) == {"host_url": alpha.address, "agent_id": proxy.agent_id}
    assert where(proxy, alpha, beta) == ["alpha"]


def test_a_paglet_is_stored_woken_and_ended(alpha: Host) -> None:
    admin, server = admin_of(alpha), server_of(alpha)
    proxy = alpha.create(Actor, ActorState(policy={"activate_on_message": False}))
    agent = only_agent(admin, server)
    assert admin.deactivate(agent) is None  # type: ignore[func-returns-value]
    assert only_agent(admin, server) == dataclasses.replace(agent, active=False)
    assert admin.get_agent_state(agent)["state"]["log"][-1] == "deactivating"
    with pytest.raises(errors.PagletInactiveError):
        admin.send(agent, Message("add"), no_delay=True)
    assert admin.activate(agent) == proxy.to_wire()
    assert only_agent(admin, server) == agent
    assert admin.dispose(agent) is None  # type: ignore[func-returns-value]
    assert admin.list_agents(server) == []
    with pytest.raises(errors.InvalidAgentError):
        admin.get_agent_info(agent)


def test_a_message_wakes_a_paglet_only_if_it_may(alpha: Host) -> None:
    admin, server = admin_of(alpha), server_of(alpha)
    alpha.create(Actor).deactivate()
    agent = only_agent(admin, server)
    with pytest.raises(errors.PagletInactiveError):
        admin.send(agent, Message("add"), activate_if_inactive=False, no_delay=True)
    assert admin.send(agent, Message("add")) == 1
    assert only_agent(admin, server).active


# --- references -------------------------------------------------------------------------------------------------------


def test_a_server_is_found_by_name_and_by_url() -> None:
    alpha, beta = ServerRef("alpha", "http://a:1"), ServerRef("beta", "http://b:2/", local_start=True)
    admin = PagletsAdminClient([alpha, beta])
    assert admin.get_server("alpha") is alpha
    assert admin.get_server("b:2") is admin.get_server("http://b:2") is admin.get_server("beta") is beta
    assert admin.get_server("http://c:3/") == ServerRef("http://c:3/", "http://c:3")
    with pytest.raises(ValueError, match="Not a host URL"):
        admin.get_server(" ")


def test_the_default_client_is_less_patient_than_others() -> None:
    assert PagletsAdminClient([]).client.timeout == 2
    client = HostClient()
    assert PagletsAdminClient([], client=client).client is client


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerRef("a", "http://a").name = "b"  # type: ignore[misc]


# --- hosts that answer badly ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply([]), "must be an object"),
        (reply({"active_count": "many"}), "active_count"),
        (response(b"<html>"), "not JSON"),
        (reply({"error_type": "AuthenticationError", "error": "no"}, "401 Unauthorized"), "PAGLETS_API_KEY"),
        (reply({"error_type": "HostError", "error": "is tired"}, "400 Bad Request"), "is tired"),
    ],
)
def test_the_health_of_a_host_that_answers_badly_says_why(answer: bytes, text: str) -> None:
    with ScriptedHost(answer) as host:
        admin, (server,) = scripted_admin(host)
        status = admin.health(server)
        admin.client.close()
    assert not status.reachable
    assert text in (status.error or "")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"agents": {}, "hosts": {}, "services": {}},
        {"agents": [1], "hosts": [1], "services": [1]},
        {
            "agents": [{"agent_id": 3}],
            "hosts": [{"name": "x"}],
            "services": [{"name": "x", "proxy": {"host_url": "http://x", "agent_id": "a"}, "scope": "everywhere"}],
        },
    ],
)
def test_lists_that_cannot_be_read_are_errors_of_the_host(answer: Any) -> None:
    with ScriptedHost(reply(answer)) as host:
        admin, (server,) = scripted_admin(host)
        for ask in (admin.list_agents, admin.list_hosts, admin.list_services):
            with pytest.raises(errors.RemoteHostError, match=r"answered with"):
                ask(server)
        assert admin.list_agents_all() == []
        admin.client.close()


def test_a_refused_key_is_not_left_out_of_a_list() -> None:
    refusal = reply({"error_type": "AuthenticationError", "error": "no"}, "401 Unauthorized")
    with ScriptedHost(refusal) as host:
        admin, _ = scripted_admin(host)
        with pytest.raises(errors.AuthenticationError):
            admin.list_agents_all()
        admin.client.close()


def test_records_carry_the_url_that_the_client_uses() -> None:
    with ScriptedHost(
        reply({"agents": [{"agent_id": "a", "class_name": "m:C", "address": "http://inside:1"}]})
    ) as host:
        admin, (server,) = scripted_admin(host)
        assert admin.list_agents(server) == [AgentRecord("host-0", host.url, "a", "m:C", "", True)]
        assert host.requests[0].target == "/agents?state=all"
        admin.client.close()


def test_hosts_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(*_: Any) -> bytes:
        together.wait()
        return reply({"active_count": 1})

    answer: Answer = meet
    with ScriptedHost(answer) as one, ScriptedHost(answer) as two, ScriptedHost(answer) as three:
        admin = PagletsAdminClient([ServerRef(host.url, host.url) for host in (one, two, three)])
        admin.client.timeout = 10
        statuses = admin.health_all()
        admin.client.close()
    assert [status.name for status in statuses] == [one.url, two.url, three.url]
    assert all(status.reachable for status in statuses)
