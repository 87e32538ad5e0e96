"""Every route, with the exact shape of its answers."""

from __future__ import annotations

import base64

import pytest

from paglets.artifacts.compression import encodings
from paglets.core.errors import PagletCrashedError
from paglets.core.messages import Message
from paglets.core.runtime_values import EnvelopeKind
from paglets.persistence.envelope import PagletEnvelope
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import HOST_CAPABILITIES, Host
from tests.agents.http_agents import Talker, TalkerState
from tests.runtime.http.wire import (
    ask,
    get,
    post,
    say,
)
from tests.support import Gate, HostFactory

TALKER = "tests.agents.http_agents:Talker"
STATE = "tests.agents.http_agents:TalkerState"


# --- the host --------------------------------------------------------------------------------------------------------


def test_health(host: Host, talker: PagletProxy) -> None:
    missing = ("admin:",)
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
        "encodings": encodings(),
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
    assert summary.pop("epoch") > 0
    assert summary == {
        "durability": "checkpoint",
        "home": host.address,
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
        "deactivation_policy": {
            "activate_on_message": True,
            "queue_messages_when_inactive": True,
            "activate_on_startup": False,
            "activate_at": None,
        },
    }
    assert payload.pop("epoch") > 0
    assert payload == {
        **common,
        "state": {"count": 0, "data": {"__paglets_binary__": "bytes", "base64": ""}, "begun": "{'why': 'test'}"},
        "queued_message_count": 1,
    }
    summary = get(host, f"/agents/{talker.agent_id}")
    assert isinstance(summary.pop("deactivated_at"), float)
    assert summary.pop("epoch") > 0
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
