"""What JSON proper cannot express, between clients and hosts, over real connections."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from paglets.core.errors import HostError, InvalidAgentError
from paglets.core.messages import Message
from paglets.remote.admin import PagletsAdminClient, ServerRef
from paglets.remote.aio import AsyncHostClient
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.serialization.names import qualified_name
from tests.agents.http_agents import Bearer
from tests.effort import thorough
from tests.remote.test_json_text import VALUES
from tests.runtime.http.wire import ask
from tests.support import HostFactory, events_of, eventually

ODD: dict[str, Any] = {
    "numbers": [math.nan, math.inf, -math.inf],
    "caf\udce9": "\ud800",
    "data": b"\xff",
    "big": 2**80,
    "pair": "\U0001f600",
}
# The fixtures are shared by the examples of a test, which leave nothing behind in them that another one would see.
examples = settings(
    max_examples=thorough(25, 400), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Give another host."""
    factory = HostFactory(tmp_path_factory.mktemp("far"))
    try:
        yield factory("beyond-json-far")
    finally:
        factory.close()


@pytest.fixture
def bearer(host: Host) -> Iterator[PagletProxy]:
    proxy = host.create(Bearer)
    yield proxy
    with suppress(InvalidAgentError):
        host.dispose(proxy.agent_id)


@pytest.fixture
def client() -> Iterator[HostClient]:
    with HostClient() as client:
        yield client


def same(got: Any, expected: Any) -> bool:
    # By their texts, since NaN is equal to nothing.
    return repr(got) == repr(expected)


@examples
@given(VALUES)
@example(ODD)
def test_messages_and_replies_over_http(parrot: PagletProxy, client: HostClient, value: Any) -> None:
    message = Message("anything", {"value": value}, arg=value)
    heard = client.deliver(parrot.host_url, parrot.agent_id, message)
    assert same(heard, {"kind": "anything", "args": {"value": value}, "arg": value, "sender": None})


@examples
@given(VALUES)
@example(ODD)
def test_messages_and_replies_on_a_host(parrot: PagletProxy, value: Any) -> None:
    heard = parrot.send(Message("anything", {"value": value}, arg=value))
    assert same((heard["args"], heard["arg"]), ({"value": value}, value))


@examples
@given(VALUES)
@example(ODD)
def test_messages_and_replies_from_another_host(parrot: PagletProxy, far: Host, value: Any) -> None:
    proxy = PagletProxy(parrot.host_url, parrot.agent_id, far.client)
    heard = proxy.send(Message("anything", {"value": value}, arg=value))
    assert same((heard["args"], heard["arg"]), ({"value": value}, value))


@settings(examples, max_examples=thorough(10, 100))
@given(VALUES)
@example(ODD)
def test_messages_and_replies_of_the_asynchronous_client(parrot: PagletProxy, value: Any) -> None:
    async def hear() -> Any:
        async with AsyncHostClient() as client:
            message = Message("anything", {"value": value}, arg=value)
            return await client.deliver(parrot.host_url, parrot.agent_id, message)

    heard = asyncio.run(hear())
    assert same((heard["args"], heard["arg"]), ({"value": value}, value))


@settings(examples, max_examples=thorough(10, 100))
@given(VALUES)
@example(ODD)
def test_states(host: Host, client: HostClient, value: Any) -> None:
    body = {
        "agent_class_name": qualified_name(Bearer),
        "state": {"load": value, "name": "caf\udce9", "number": math.nan},
    }
    agent_id = client.post_json(f"{host.address}/agents", body)["proxy"]["agent_id"]
    try:
        state = client.get_json(f"{host.address}/agents/{agent_id}/state")["state"]
        assert same(state, {"load": value, "name": "caf\udce9", "number": math.nan})
        (listed,) = client.get_json(f"{host.address}/agents?include_state=1")["agents"]
        assert same(listed["state"], state)
    finally:
        host.dispose(agent_id)


def test_what_a_paglet_begins_with(host: Host, client: HostClient) -> None:
    body = {"agent_class_name": qualified_name(Bearer), "init": ODD}
    agent_id = client.post_json(f"{host.address}/agents", body)["proxy"]["agent_id"]
    assert same(client.get_json(f"{host.address}/agents/{agent_id}/state")["state"]["load"], ODD)
    host.dispose(agent_id)


def test_programs_may_send_what_python_writes(host: Host, bearer: PagletProxy) -> None:
    load = [math.nan, math.inf, "caf\udce9"]
    body = json.dumps({"message": {"kind": "bear", "args": {"load": load}}}).encode()
    for end in ("", "/"):
        reply = ask(host.address, "POST", f"/agents/{bearer.agent_id}/messages{end}", body)
        assert (reply.status, repr(reply.json())) == (200, repr({"result": load}))
        assert reply.headers["content-type"] == "application/json"


def test_a_state_that_nothing_expresses_hides_no_other(host: Host, bearer: PagletProxy, client: HostClient) -> None:
    other = host.create(Bearer, init=ODD)
    bearer.send(Message("swell", {"digits": 5000}))
    admin = PagletsAdminClient([], client=client)
    swollen, odd = admin.list_agent_payloads(ServerRef("here", host.address), include_state=True)
    assert "state" not in swollen
    assert "cannot be sent as JSON" in swollen["state_error"]
    assert (swollen["agent_id"], swollen["active"]) == (bearer.agent_id, True)
    assert same(odd["state"]["load"], ODD)
    alone = ask(host.address, "GET", f"/agents/{bearer.agent_id}/state")
    assert (alone.status, alone.error) == (400, "SerializationError")
    host.dispose(other.agent_id)


def test_a_sleep_for_a_reason_that_is_no_text(host: Host, bearer: PagletProxy, client: HostClient) -> None:
    bearer.send_oneway(Message("bear", {"load": ODD}))
    url = f"{host.address}/agents/{bearer.agent_id}"
    client.post_json(f"{url}/deactivate", {"request": {"reason": "caf\udce9", "metadata": ODD}})
    (event,) = events_of(host, "deactivate", agent_id=bearer.agent_id)
    assert event.data["reason"] == "caf\udce9"
    (told,) = client.events(host.address, since=event.event_id - 1, limit=1)
    assert same(told.to_wire(), event.to_wire())
    entries = client.journey(host.address, bearer.agent_id)["entries"]
    assert r"caf\udce9" in [entry.get("cause") for entry in entries]
    assert same(client.get_json(f"{url}/state")["state"]["load"], ODD)
    # It wakes with what it had.
    bearer.send(Message("sleep", {"reason": "\ud800"}))
    eventually(lambda: client.get_json(url)["active"] is False, "a sleeper")
    assert same(client.get_json(f"{url}/state")["state"]["load"], ODD)


def test_an_error_whose_text_is_none(bearer: PagletProxy, client: HostClient) -> None:
    with pytest.raises(HostError, match=r"caf\?"):
        client.deliver(bearer.host_url, bearer.agent_id, Message("complain", {"text": "caf\udce9"}))


@pytest.mark.parametrize("what", ["agent_id", "source_host_name", "agent_class_name"])
def test_an_envelope_has_no_such_names(host: Host, what: str) -> None:
    envelope = {
        "kind": "dispatch",
        "agent_id": "imported",
        "agent_class_name": qualified_name(Bearer),
        "state_class_name": "",
        "state": {"load": ODD["numbers"]},
        "source_host_name": "a",
        "source_host_address": "http://a",
        "target_host_name": "b",
        "target_host_address": "http://b",
    }
    reply = ask(host.address, "POST", "/agents", {"envelope": envelope | {what: "half\udce9"}})
    assert (reply.status, reply.error) == (400, "SerializationError")
    assert f"envelope.{what}" in reply.text
    assert ask(host.address, "POST", "/agents", {"envelope": envelope}).status == 200
    host.dispose("imported")


def test_a_body_that_breaks_off_is_refused(host: Host, bearer: PagletProxy) -> None:
    body = b'{"message": {"kind": "bear", "args": {"load": [' + b'NaN,"\\ud800",' * 10_000
    for end in ("", "/"):
        reply = ask(host.address, "POST", f"/agents/{bearer.agent_id}/messages{end}", body)
        assert (reply.status, reply.error) == (400, "SerializationError")
