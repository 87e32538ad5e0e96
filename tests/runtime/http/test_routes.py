"""Every route, with the exact shape of its answers."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from paglets.core.errors import PagletCrashedError, PagletInactiveError
from paglets.core.messages import Message
from paglets.core.runtime_values import EnvelopeKind
from paglets.persistence.envelope import PagletEnvelope
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import HOST_CAPABILITIES, Host
from tests.agents.http_agents import Talker, TalkerState
from tests.runtime.http.wire import ask
from tests.support import Gate, HostFactory, eventually

TALKER = "tests.agents.http_agents:Talker"
STATE = "tests.agents.http_agents:TalkerState"


def get(host: Host, path: str) -> Any:
    reply = ask(host.address, "GET", path)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


def post(host: Host, path: str, body: Any = None) -> Any:
    reply = ask(host.address, "POST", path, body)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


def say(kind: str, **args: Any) -> dict[str, Any]:
    return {"message": {"kind": kind, "args": args}}


# --- the host --------------------------------------------------------------------------------------------------------


def test_health(host: Host, talker: PagletProxy) -> None:
    missing = ("artifacts:", "admin:")
    assert get(host, "/health") == {
        "name": host.name,
        "address": host.address,
        "active_count": 1,
        "inactive_count": 0,
        "code_version": "test-version",
        "capabilities": [name for name in HOST_CAPABILITIES if not name.startswith(missing)],
        "tags": [],
        "properties": {},
        "auto_update_from_git": False,
        "auto_update_restart_scheduled": False,
    }


def test_hosts_and_join(hosts: HostFactory) -> None:
    host = hosts("joined")
    assert [ref["name"] for ref in get(host, "/hosts")["hosts"]] == ["joined"]
    record = {"name": "other", "url": "http://127.0.0.1:9", "code_version": "test-version", "tags": ["Fast "]}

    joined = post(host, "/hosts/join", record)["hosts"]

    assert {ref["name"]: ref["url"] for ref in joined} == {"joined": host.address, "other": "http://127.0.0.1:9"}
    other = next(ref for ref in joined if ref["name"] == "other")
    expected = {"name", "url", "code_version", "online", "last_seen", "active_count", "inactive_count", "tags"}
    assert set(other) == expected | {"properties"}
    assert other["tags"] == ["fast"]
    assert [ref["name"] for ref in get(host, "/hosts")["hosts"]] == [ref["name"] for ref in joined]


def test_join_needs_a_usable_record(host: Host) -> None:
    for body, field in (
        ({"url": "http://127.0.0.1:9", "code_version": "x"}, "name"),
        ({"name": "x", "code_version": "x"}, "address"),
        ({"name": "x", "code_version": "x", "url": "file:///etc/passwd"}, "url"),
        ({"name": "x", "code_version": "x", "url": "http://127.0.0.1:9", "active_count": "many"}, "active_count"),
    ):
        reply = ask(host.address, "POST", "/hosts/join", body)
        assert (reply.status, reply.error) == (400, "SerializationError")
        assert field in reply.text
    assert [ref["name"] for ref in get(host, "/hosts")["hosts"]] == [host.name]


def test_events_by_id_and_number(host: Host, talker: PagletProxy) -> None:
    events = get(host, "/events?limit=1000")["events"]
    assert [event["event_id"] for event in events] == list(range(1, len(events) + 1))
    created = next(event for event in events if event["agent_id"] == talker.agent_id)
    assert created["kind"] == "create"
    assert set(created) == {
        "event_id", "kind", "host_name", "host_address", "timestamp", "agent_id", "class_name", "message_id",
        "service_name", "data", "error",
    }  # fmt: skip

    after = get(host, f"/events?since={created['event_id'] - 1}&limit=1")["events"]

    assert after == [created]
    assert get(host, "/events?limit=0")["events"] == []
    for query, field in (("since=-1", "since"), ("limit=1001", "limit"), ("since=soon", "since")):
        refused = ask(host.address, "GET", f"/events?{query}")
        assert (refused.status, refused.error) == (400, "SerializationError")
        assert field in refused.text


def test_git_update_is_disabled(host: Host) -> None:
    body = {"target_hash": "abc", "source_name": "peer", "source_url": "http://127.0.0.1:9"}
    status = post(host, "/admin/git-update", body)
    assert status == {
        "ok": False,
        "status": "disabled",
        "error": "auto update from git is disabled on this host",
        "target_hash": "abc",
    }


def test_git_update_is_forbidden_in_relay_mode(hosts: HostFactory) -> None:
    host = hosts("relayed", public_url="http://localhost/x")
    reply = ask(f"http://127.0.0.1:{host.port}", "POST", "/admin/git-update", {"target_hash": "abc"})
    assert (reply.status, reply.error) == (403, "ForbiddenError")


# --- creating and looking --------------------------------------------------------------------------------------------


def test_create_by_json(host: Host) -> None:
    body = {
        "agent_class_name": TALKER,
        "state_class_name": STATE,
        "state": {"count": 4, "data": {"__paglets_binary__": "bytes", "base64": base64.b64encode(b"\0\xff").decode()}},
        "init": {"why": [1, None]},
        "agent_id": "by-json",
    }

    assert post(host, "/agents", body) == {"proxy": {"host_url": host.address, "agent_id": "by-json"}}

    state = host.get_state("by-json", TalkerState)
    assert state == TalkerState(count=4, data=b"\0\xff", begun="{'why': [1, None]}")
    host.dispose("by-json")


def test_create_with_the_defaults_of_the_class(host: Host) -> None:
    proxy = post(host, "/agents", {"agent_class_name": TALKER})["proxy"]
    assert host.get_state(proxy["agent_id"], TalkerState) == TalkerState(begun="None")
    host.dispose(proxy["agent_id"])


def test_create_by_movement(host: Host) -> None:
    client = HostClient()
    data = bytes(range(256)) * 4096
    payload = {"agent_class_name": TALKER, "state_class_name": STATE, "state": {"data": data}, "agent_id": "moved"}

    assert client.post_pickle(f"{host.address}/agents", payload) == {
        "proxy": {"host_url": host.address, "agent_id": "moved"}
    }

    assert host.get_state("moved", TalkerState).data == data
    client.close()
    host.dispose("moved")


@pytest.mark.parametrize("encoding", ["json", "movement"])
def test_import_from_an_envelope(host: Host, encoding: str) -> None:
    envelope = PagletEnvelope(
        kind=EnvelopeKind.DISPATCH,
        agent_id=f"imported-{encoding}",
        agent_class_name=TALKER,
        state_class_name=STATE,
        state={"count": 3},
        source_host_name="elsewhere",
        source_host_address="http://127.0.0.1:9",
        target_host_name=host.name,
        target_host_address=host.address,
    )
    client = HostClient()
    send = client.post_json if encoding == "json" else client.post_pickle

    reply = send(f"{host.address}/agents", {"envelope": envelope.to_wire()})

    assert reply == {"proxy": {"host_url": host.address, "agent_id": envelope.agent_id}}
    assert host.get_state(envelope.agent_id, TalkerState).count == 3
    again = ask(host.address, "POST", "/agents", {"envelope": envelope.to_wire()})
    assert (again.status, again.error) == (409, "ConflictError")
    client.close()
    host.dispose(envelope.agent_id)


def test_summary_counts_every_message(host: Host, talker: PagletProxy) -> None:
    talker.send(Message("count"))

    summary = get(host, f"/agents/{talker.agent_id}")

    pid = summary.pop("pid")
    assert isinstance(pid, int)
    assert summary == {
        "agent_id": talker.agent_id,
        "class_name": TALKER,
        "state_class_name": STATE,
        "host": host.name,
        "address": host.address,
        "active": True,
        "crashed": False,
        "exitcode": None,
        "error": None,
        "mailbox": {"queued_count": 0, "in_flight_count": 0, "delivered_count": 1, "failed_count": 0},
        "resources": {},
    }
    ask(host.address, "POST", f"/agents/{talker.agent_id}/messages", say("raise", error="ValueError"))
    assert get(host, f"/agents/{talker.agent_id}")["mailbox"]["failed_count"] == 1


def test_summary_while_a_handler_runs(host: Host, talker: PagletProxy, gate: Gate) -> None:
    waiting = talker.send_future(Message("wait", {"gate": str(gate)}))
    gate.await_entered()
    post(host, f"/agents/{talker.agent_id}/messages", {**say("count"), "oneway": True})

    mailbox = get(host, f"/agents/{talker.agent_id}")["mailbox"]

    assert mailbox == {"queued_count": 1, "in_flight_count": 1, "delivered_count": 0, "failed_count": 0}
    gate.open()
    assert waiting.get_reply(10) == "waited"


def test_list_by_state(host: Host, talker: PagletProxy) -> None:
    sleeper = host.create(Talker)
    sleeper.deactivate()

    def ids(query: str) -> list[str]:
        return [summary["agent_id"] for summary in get(host, f"/agents{query}")["agents"]]

    assert ids("") == ids("?state=active") == [talker.agent_id]
    assert ids("?state=inactive") == [sleeper.agent_id]
    assert ids("?state=all") == [talker.agent_id, sleeper.agent_id]
    with_state = get(host, "/agents?state=all&include_state=true")["agents"]
    assert [summary["state"]["count"] for summary in with_state] == [0, 0]
    for yes in ("1", "yes", "TRUE"):
        assert "state" in get(host, f"/agents?include_state={yes}")["agents"][0]
    assert "state" not in get(host, "/agents?include_state=0")["agents"][0]
    refused = ask(host.address, "GET", "/agents?state=asleep")
    assert (refused.status, refused.error) == (400, "SerializationError")
    host.dispose(sleeper.agent_id)


def test_state_of_an_active_paglet(host: Host, talker: PagletProxy) -> None:
    talker.send(Message("take", {"data": b"\x00\x01"}))

    payload = get(host, f"/agents/{talker.agent_id}/state")

    assert payload["state"] == {
        "count": 0,
        "data": {"__paglets_binary__": "bytes", "base64": "AAE="},
        "begun": "{'why': 'test'}",
    }
    assert payload["mailbox"]["delivered_count"] == 1


def test_state_and_summary_of_an_inactive_paglet(host: Host, talker: PagletProxy) -> None:
    talker.deactivate()
    body = {**say("count"), "activate_if_inactive": False}
    queued = post(host, f"/agents/{talker.agent_id}/messages", body)["result"]
    assert queued["queued"] is True

    payload = get(host, f"/agents/{talker.agent_id}/state")

    common = {
        "agent_id": talker.agent_id,
        "class_name": TALKER,
        "state_class_name": STATE,
        "host": host.name,
        "address": host.address,
        "active": False,
    }
    assert payload == {
        **common,
        "state": {"count": 0, "data": {"__paglets_binary__": "bytes", "base64": ""}, "begun": "{'why': 'test'}"},
        "deactivation_policy": {
            "activate_on_message": True,
            "queue_messages_when_inactive": True,
            "activate_on_startup": False,
            "activate_at": None,
        },
        "queued_message_count": 1,
    }
    summary = get(host, f"/agents/{talker.agent_id}")
    assert isinstance(summary.pop("deactivated_at"), float)
    assert summary == common


def test_a_crashed_paglet_stays_visible(host: Host, talker: PagletProxy) -> None:
    before = get(host, f"/agents/{talker.agent_id}/state")["state"]
    with pytest.raises(PagletCrashedError):
        talker.send(Message("leave", {"code": 5}))

    summary = get(host, f"/agents/{talker.agent_id}")

    assert isinstance(summary["pid"], int)
    assert {name: summary[name] for name in ("active", "crashed", "exitcode", "error", "mailbox")} == {
        "active": False,
        "crashed": True,
        "exitcode": 5,
        "error": "process exited with code 5",
        "mailbox": None,
    }
    assert talker.agent_id in [row["agent_id"] for row in get(host, "/agents")["agents"]]
    assert get(host, f"/agents/{talker.agent_id}/state")["state"] == before
    refused = ask(host.address, "POST", f"/agents/{talker.agent_id}/messages", say("count"))
    assert (refused.status, refused.error) == (400, "PagletCrashedError")
    assert post(host, f"/agents/{talker.agent_id}/dispose") == {"ok": True}
    assert ask(host.address, "GET", f"/agents/{talker.agent_id}").status == 404


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
