"""The routes of one paglet, with the exact shape of their answers."""

from __future__ import annotations

import pytest

from paglets.core.errors import PagletInactiveError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.http_agents import Talker, TalkerState
from tests.runtime.http.wire import (
    ask,
    get,
    post,
    say,
)
from tests.support import Gate, HostFactory, eventually

TALKER = "tests.agents.http_agents:Talker"
STATE = "tests.agents.http_agents:TalkerState"


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_message_is_answered(host: Host, talker: PagletProxy) -> None:
    assert post(host, f"/agents/{talker.agent_id}/messages", say("count", by=2)) == {"result": 2}
    assert post(host, f"/agents/{talker.agent_id}/messages/", say("count", by=2)) == {"result": 4}


def test_binary_values_survive_both_ways(host: Host, talker: PagletProxy) -> None:
    data = bytes(range(256))
    client = HostClient()
    far = PagletProxy(host.address, talker.agent_id, client)
    assert far.send(Message("take", {"data": data})) == {
        "size": 256,
        "nested": [{"data": data}, {"again": bytearray(data)}],
    }
    client.close()


def test_every_part_of_a_message_arrives(host: Host, parrot: PagletProxy) -> None:
    client = HostClient()
    far = PagletProxy(host.address, parrot.agent_id, client)
    args = {"bytes": b"\xff", "list": [1, -0.5, None, True, "ü"], "big": 2**80, "nested": {"deep": {"er": b""}}}

    heard = far.send(Message("anything", args, arg=[b"\x00", bytearray(b"x")], sender="me"))

    assert heard == {"kind": "anything", "args": args, "arg": [b"\x00", bytearray(b"x")], "sender": "me"}
    client.close()


def test_a_large_message_takes_the_same_way(host: Host, talker: PagletProxy) -> None:
    client = HostClient()
    far = PagletProxy(host.address, talker.agent_id, client)
    data = b"\x01\x02" * 500_000
    assert far.send(Message("take", {"data": data}))["nested"][0] == {"data": data}
    client.close()


def test_oneway_returns_at_once(host: Host, talker: PagletProxy, gate: Gate) -> None:
    body = {**say("wait", gate=str(gate)), "oneway": True}
    assert post(host, f"/agents/{talker.agent_id}/messages", body) == {"result": None}
    gate.await_entered()
    gate.open()
    eventually(lambda: host.mailbox_status(talker.agent_id)["delivered_count"] == 1, "the message to be handled")


def test_messages_to_an_inactive_paglet(host: Host, talker: PagletProxy) -> None:
    path = f"/agents/{talker.agent_id}/messages"
    talker.deactivate()
    refused = ask(host.address, "POST", path, {**say("count"), "activate_if_inactive": False, "no_delay": True})
    assert (refused.status, refused.error) == (400, PagletInactiveError.__name__)

    queued = post(host, path, {"message": {"kind": "count", "message_id": "m1"}, "activate_if_inactive": False})
    assert queued == {"result": {"queued": True, "message_id": "m1"}}

    assert post(host, path, say("count")) == {"result": 2}, "the queued one came first"
    assert get(host, f"/agents/{talker.agent_id}")["active"] is True


# --- lifecycle -------------------------------------------------------------------------------------------------------


def test_deactivate_and_activate(host: Host, talker: PagletProxy) -> None:
    here = {"host_url": host.address, "agent_id": talker.agent_id}
    request = {"request": {"reason": "night", "policy": {"activate_on_message": False}}}
    assert post(host, f"/agents/{talker.agent_id}/deactivate", request) == {"proxy": here, "ok": True}
    assert get(host, f"/agents/{talker.agent_id}")["active"] is False

    assert post(host, f"/agents/{talker.agent_id}/activate") == {"proxy": here}

    assert get(host, f"/agents/{talker.agent_id}")["active"] is True
    assert post(host, f"/agents/{talker.agent_id}/deactivate") == {"proxy": here, "ok": True}


def test_dispose(host: Host, talker: PagletProxy) -> None:
    assert post(host, f"/agents/{talker.agent_id}/dispose", {}) == {"ok": True}
    again = ask(host.address, "POST", f"/agents/{talker.agent_id}/dispose")
    assert (again.status, again.error) == (404, "InvalidAgentError")


def test_clone_here(host: Host, talker: PagletProxy) -> None:
    path = f"/agents/{talker.agent_id}/clone"
    clones = [post(host, path, body)["proxy"] for body in (None, {}, {"target": None}, {"target": host.address})]
    assert {clone["host_url"] for clone in clones} == {host.address}
    assert len({clone["agent_id"] for clone in clones} | {talker.agent_id}) == 5
    for clone in clones:
        assert host.get_state(clone["agent_id"], TalkerState).begun == "{'why': 'test'}"
        host.dispose(clone["agent_id"])


def test_dispatch_clone_and_retract_between_hosts(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    agent_id = alpha.create(Talker).agent_id
    ticket = {"destination": beta.address, "timeout": 5, "required_capabilities": ["agents:list"]}

    moved = post(alpha, f"/agents/{agent_id}/dispatch", {"ticket": ticket})
    copied = post(beta, f"/agents/{agent_id}/clone", {"target": alpha.address})["proxy"]
    back = post(beta, f"/agents/{agent_id}/retract", {"target": alpha.address})

    assert moved == {"proxy": {"host_url": beta.address, "agent_id": agent_id}}
    assert copied["host_url"] == alpha.address
    assert back == {"proxy": {"host_url": alpha.address, "agent_id": agent_id}}
    assert {row["agent_id"] for row in get(alpha, "/agents")["agents"]} == {agent_id, copied["agent_id"]}
    again = post(alpha, f"/agents/{agent_id}/dispatch", {"target": beta.address})
    assert again["proxy"]["host_url"] == beta.address


def test_a_dispatch_that_cannot_be(host: Host, talker: PagletProxy) -> None:
    path = f"/agents/{talker.agent_id}/dispatch"
    for body, error in (
        ({}, "HostError"),
        ({"ticket": {"timeout": 1}}, "SerializationError"),
        ({"ticket": {"destination": "http://127.0.0.1:9", "timeout": -1}}, "SerializationError"),
        ({"ticket": {"destination": "http://127.0.0.1:9", "arrival_mode": "sideways"}}, "RemoteHostError"),
        ({"target": "http://127.0.0.1:9"}, "TransferError"),
    ):
        reply = ask(host.address, "POST", path, body)
        assert (reply.status, reply.error) == (400, error), body
    assert get(host, f"/agents/{talker.agent_id}")["active"] is True


# --- services --------------------------------------------------------------------------------------------------------


def test_services(host: Host, talker: PagletProxy) -> None:
    advertise = f"/agents/{talker.agent_id}/services"
    body = {"name": "print", "capabilities": ["color"], "metadata": {"dpi": 600}, "scope": "mesh", "ttl": 60}
    service = post(host, advertise, body)["service"]
    local = post(host, advertise, {"name": "scan"})["service"]
    assert service["proxy"] == {"host_url": host.address, "agent_id": talker.agent_id}
    assert (service["name"], service["capabilities"], service["metadata"]) == ("print", ["color"], {"dpi": 600})
    assert service["expires_at"] == pytest.approx(service["advertised_at"] + 60)
    assert local["scope"] == "local"

    def found(query: str) -> list[str]:
        return [record["name"] for record in get(host, f"/services{query}")["services"]]

    assert found("") == found("?scope=local") == ["print", "scan"]
    assert found("?scope=mesh") == found("?capability=color") == found("?name=print") == ["print"]
    assert found("?name=scan&capability=color") == []
    assert ask(host.address, "GET", "/services?scope=world").status == 400

    withdraw = f"/agents/{talker.agent_id}/unadvertise-service"
    assert post(host, withdraw, {"name": "print"}) == {"services": [service]}
    assert post(host, withdraw, {"name": "print"}) == {"services": []}
    for wrong in ({"name": "x", "ttl": 0}, {"name": "x", "scope": "world"}, {"name": ""}, {"name": " "}, {}):
        assert ask(host.address, "POST", advertise, wrong).status == 400, wrong
    assert found("") == ["scan"]
    missing = ask(host.address, "POST", "/agents/nobody/services", {"name": "x"})
    assert (missing.status, missing.error) == (404, "InvalidAgentError")


@pytest.mark.parametrize(
    "query",
    [
        "scope=mesh",
        "scope=mesh&name=pr%C3%BCft&capability=",
        "scope=%6desh&name=a+b",
        "scope=mesh&name=a%20b&capability=c%2Bd",
        "name=&scope=mesh",
        "scope=mesh&name=a&name=b",
        "scope=mesh&scope=local",
        "scope=mesh&other=1",
        "scope=mesh&name=" + "x" * 1025,
    ],
)
def test_hosts_that_look_for_services_get_the_documented_answer(host: Host, talker: PagletProxy, query: str) -> None:
    for name, capability in (("a b", "c+d"), ("pr\u00fcft", "")):
        body = {"name": name, "capabilities": [capability], "scope": "mesh"}
        post(host, f"/agents/{talker.agent_id}/services", body)
    hot, documented = (ask(host.address, "GET", f"/services{slash}?{query}") for slash in ("", "/"))
    assert (hot.status, hot.json()) == (documented.status, documented.json())


# --- a path in front -------------------------------------------------------------------------------------------------


def test_the_path_of_the_public_url_is_optional(hosts: HostFactory) -> None:
    public = "https://paglets.example.org/lab/one"
    host = hosts("public", public_url=public, api_key="secret")
    near = f"http://127.0.0.1:{host.port}"
    key = {"Authorization": "Bearer secret", "Host": "paglets.example.org"}

    for path in ("/lab/one/health", "/health"):
        assert ask(near, "GET", path, headers=key).json()["address"] == public
    proxy = ask(near, "POST", "/lab/one/agents", {"agent_class_name": TALKER}, key).json()["proxy"]
    assert proxy["host_url"] == public
    for prefix in ("/lab/one", ""):
        path = f"{prefix}/agents/{proxy['agent_id']}/messages"
        assert ask(near, "POST", path, say("count"), key).status == 200
    for path in ("/lab/onehealth", "/lab/health", "/lab/one/lab/one/health"):
        assert ask(near, "GET", path, headers=key).status == 404
    assert ask(near, "GET", "/lab/one/schema", headers=key).status == 200
