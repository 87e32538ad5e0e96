"""The synchronous proxy: what each method asks of the client, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.core import errors
from paglets.core.agent import ACTIVE, INACTIVE
from paglets.core.messages import FUTURE, ONEWAY, SYNCHRONOUS, Message
from paglets.core.policies import DeactivationPolicy
from paglets.remote.client import HostClient
from paglets.remote.proxy import CallOptions, PagletProxy
from paglets.remote.references import PagletProxyRef
from paglets.remote.requests import decode_json, encode_json
from paglets.remote.transfer import TransferTicket
from tests.remote.artifact_host import MemoryHost
from tests.remote.handlers import Counter, Point, handle

HOST = "http://host:1"


class LocalClient(HostClient):
    """Answer from a paglet in this process; values pass through JSON as they would on a wire."""

    def __init__(self) -> None:
        super().__init__()
        self.paglet = Counter()
        self.deliveries: list[tuple[Message, dict[str, Any]]] = []
        self.operations: list[tuple[str, str, str, dict[str, Any]]] = []
        self.info: dict[str, Any] | errors.PagletError = {"active": True, "class_name": "m:C"}
        self.reply: Any = None

    def deliver(self, host_url: str, agent_id: str, message: Message, **options: Any) -> Any:
        self.deliveries.append((message, options))
        if self.reply is not None:
            return self.reply
        received = Message.from_wire(decode_json(encode_json(message.to_wire())))
        reply = decode_json(encode_json(asyncio.run(handle(self.paglet, received))))
        return None if options["oneway"] else reply

    def operate(
        self, host_url: str, agent_id: str, operation: str, payload: dict[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        self.operations.append((host_url, agent_id, operation, payload))
        return {"proxy": {"host_url": "http://other:2", "agent_id": "b"}, "ok": True}

    def agent_info(self, host_url: str, agent_id: str) -> dict[str, Any]:
        if isinstance(self.info, errors.PagletError):
            raise self.info
        return self.info


@pytest.fixture
def client() -> Iterator[LocalClient]:
    with LocalClient() as made:
        yield made


@pytest.fixture
def proxy(client: LocalClient) -> PagletProxy:
    return PagletProxy(HOST, "a", client)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_a_proxy_is_a_value(proxy: PagletProxy, client: LocalClient) -> None:
    assert proxy == PagletProxy(HOST, "a", client)
    with pytest.raises(dataclasses.FrozenInstanceError):
        proxy.agent_id = "b"  # type: ignore[misc]
    assert not hasattr(proxy, "__dict__")


def test_a_proxy_can_be_stored_and_restored(proxy: PagletProxy, client: LocalClient) -> None:
    assert proxy.to_wire() == {"host_url": HOST, "agent_id": "a"}
    assert PagletProxy.from_wire(proxy.to_wire(), client) == proxy
    assert isinstance(PagletProxy.from_wire(proxy.to_wire()).client, HostClient)
    assert proxy.ref() == PagletProxyRef(HOST, "a")
    assert proxy.ref().resolve(client) == proxy
    with pytest.raises(errors.SerializationError):
        PagletProxy.from_wire({"host_url": HOST})


def test_a_proxy_knows_where_it_points(proxy: PagletProxy) -> None:
    assert (proxy.get_address(), proxy.get_agent_id()) == (HOST, "a")
    assert proxy.is_remote()
    assert proxy.is_remote("http://other")
    assert not proxy.is_remote(HOST + "/")


# --- condition --------------------------------------------------------------------------------------------------------


def test_an_active_paglet(proxy: PagletProxy) -> None:
    assert proxy.info() == {"active": True, "class_name": "m:C"}
    assert proxy.get_agent_class_name() == "m:C"
    assert proxy.is_valid()
    assert proxy.is_active()
    assert [proxy.is_state(state) for state in (ACTIVE, INACTIVE, ACTIVE | INACTIVE, 0, True, False)] == [
        *(True, False, True, False, True, False)
    ]


def test_an_inactive_paglet(proxy: PagletProxy, client: LocalClient) -> None:
    client.info = {"active": False}
    assert proxy.is_valid()
    assert not proxy.is_active()
    assert [proxy.is_state(state) for state in (ACTIVE, INACTIVE, ACTIVE | INACTIVE, 0, True, False)] == [
        *(False, True, True, False, False, True)
    ]
    with pytest.raises(errors.RemoteHostError, match="class_name"):
        proxy.get_agent_class_name()


@pytest.mark.parametrize("error", [errors.InvalidAgentError, errors.RemoteHostError, errors.RemoteTimeoutError])
def test_a_paglet_that_cannot_be_asked_about(
    proxy: PagletProxy, client: LocalClient, error: type[errors.PagletError]
) -> None:
    client.info = error("no")
    assert not proxy.is_valid()
    assert not proxy.is_active()
    assert not any(proxy.is_state(state) for state in (ACTIVE, INACTIVE, True, False))
    with pytest.raises(error):
        proxy.info()


# --- messages ---------------------------------------------------------------------------------------------------------


def test_send_passes_its_options_on(proxy: PagletProxy, client: LocalClient) -> None:
    assert proxy.send(Message("increment", {"by": 2})) == 2
    options = {"activate_if_inactive": True, "no_delay": False, "timeout": None}
    assert client.deliveries[0][1] == {"oneway": False, **options}
    proxy.send(Message("increment"), activate_if_inactive=False, no_delay=True, timeout=3.0)
    assert client.deliveries[1][1] == {
        "oneway": False,
        "activate_if_inactive": False,
        "no_delay": True,
        "timeout": 3.0,
    }


def test_the_message_of_the_caller_stays_as_it_is(proxy: PagletProxy, client: LocalClient) -> None:
    message = Message("increment", {"by": 2})
    before = dataclasses.replace(message)
    assert proxy.send(message) == 2
    proxy.send_oneway(message)
    assert proxy.send_future(message).get_reply(10) == 6
    assert message == before
    types = [delivered.message_type for delivered, _ in client.deliveries]
    assert types == [SYNCHRONOUS, ONEWAY, FUTURE]
    assert {delivered.message_id for delivered, _ in client.deliveries} == {message.message_id}
    assert [options["oneway"] for _, options in client.deliveries] == [False, True, False]


def test_a_synchronous_message_says_so_whatever_it_said_before(proxy: PagletProxy, client: LocalClient) -> None:
    proxy.send(Message("increment", message_type=ONEWAY))
    assert client.deliveries[0][0].message_type == SYNCHRONOUS


def test_a_future_send_carries_the_error(proxy: PagletProxy) -> None:
    reply = proxy.send_future(Message("unknown"), activate_if_inactive=False, no_delay=True)
    with pytest.raises(errors.NotHandledError):
        reply.get_reply(10)


def test_future_sends_run_beside_each_other(client: LocalClient) -> None:
    everyone = threading.Barrier(4, timeout=10)

    class Meeting(LocalClient):
        def deliver(self, host_url: str, agent_id: str, message: Message, **options: Any) -> Any:
            return everyone.wait() >= 0

    with Meeting() as meeting:
        replies = [PagletProxy(HOST, "a", meeting).send_future(Message("x")) for _ in range(4)]
        assert [reply.get_boolean_reply(10) for reply in replies] == [True] * 4


def test_the_reply_of_a_paglet_that_moved_is_its_location(proxy: PagletProxy, client: LocalClient) -> None:
    client.reply = {"host_url": "http://other:2", "agent_id": "a"}
    assert proxy.send(Message("x")) == client.reply


# --- artifacts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def host() -> Iterator[MemoryHost]:
    with MemoryHost() as made:
        yield made


def test_send_artifact_uploads_and_refers(host: MemoryHost, tmp_path: Path) -> None:
    host.answer("POST", "/agents/a/messages", {"result": "thanks"})
    source = tmp_path / "f.bin"
    source.write_bytes(b"data")
    message = Message("take", {"n": 1})
    with HostClient() as client:
        proxy = PagletProxy(host.url, "a", client)
        assert proxy.send_artifact(message, source, arg_name="file", name="other", compression="gz") == "thanks"
        assert source.exists()
        (stored,) = host.refs.values()
        sent = host.requests[-1].json["message"]["args"]
        assert sent == {"n": 1, "file": stored}
        assert (stored["owner_agent_id"], stored["name"], stored["compression"]) == ("a", "other", "gz")
        assert message.args == {"n": 1}
        proxy.send_artifact(message, source, move=True)
        assert not source.exists()
        assert len(host.refs) == 2


def test_a_declined_artifact_is_deleted_and_its_source_kept(host: MemoryHost, tmp_path: Path) -> None:
    error = {"error_type": "NotHandledError", "error": "no"}
    host.answer("POST", "/agents/a/messages", error, "422 Unprocessable Content")
    source = tmp_path / "f.bin"
    source.write_bytes(b"data")
    with HostClient() as client, pytest.raises(errors.NotHandledError):
        PagletProxy(host.url, "a", client).send_artifact(Message("take"), source, move=True)
    assert source.exists()
    assert not host.refs


# --- typed calls ------------------------------------------------------------------------------------------------------


def test_a_call_is_sent_as_its_handler_wants_it(proxy: PagletProxy, client: LocalClient) -> None:
    assert proxy.call(Counter.increment, by=2) == 2
    assert proxy.call(Counter.increment) == 3
    assert proxy.call(Counter.increment, 4) == 7
    assert proxy.call(Counter.echo, b"\x00\xff") == b"\x00\xff"
    assert proxy.call(Counter.move_point, Point(1, 2), dx=3) == Point(4, 2)
    message, options = client.deliveries[-1]
    assert (message.kind, message.args) == ("shift", {"point": {"x": 1, "y": 2}, "dx": 3})
    assert options["timeout"] is None
    proxy.with_options(CallOptions(activate_if_inactive=False)).call(Counter.increment)
    proxy.call_oneway(Counter.increment)
    # Who waits for a reply has no use for a message that is stored for later.
    assert [options["no_delay"] for _, options in client.deliveries[-3:]] == [True, True, False]


def test_calls_take_options(proxy: PagletProxy, client: LocalClient) -> None:
    calls = proxy.with_options(CallOptions(activate_if_inactive=False, no_delay=True, timeout=5.0))
    assert calls.call(Counter.increment, by=2) == 2
    calls.call_oneway(Counter.increment, by=2)
    for _, options in client.deliveries:
        assert (options["activate_if_inactive"], options["no_delay"], options["timeout"]) == (False, True, 5.0)
    assert [options["oneway"] for _, options in client.deliveries] == [False, True]


def test_a_oneway_call_is_delivered_as_one(proxy: PagletProxy, client: LocalClient) -> None:
    proxy.call_oneway(Counter.increment, by=2)
    assert client.paglet.state.count == 2
    assert client.deliveries[0][0].message_type == ONEWAY


def test_a_wrong_call_fails_before_it_is_sent(proxy: PagletProxy, client: LocalClient) -> None:
    unchecked: Any = proxy
    with pytest.raises(TypeError, match="unexpected keyword argument 'buy'"):
        unchecked.call(Counter.increment, buy=2)
    with pytest.raises(TypeError, match="not a handler"):
        unchecked.call(Counter.state_class)
    with pytest.raises(errors.SerializationError, match=r"shift\.point"):
        unchecked.call(Counter.move_point, None, dx=1)
    assert not client.deliveries


def test_a_wrong_type_is_refused_where_it_arrives(proxy: PagletProxy) -> None:
    unchecked: Any = proxy
    with pytest.raises(errors.SerializationError, match=r"increment\.by: expected int, got str"):
        unchecked.call(Counter.increment, by="2")


def test_a_reply_of_another_type_is_refused(proxy: PagletProxy, client: LocalClient) -> None:
    client.reply = "seven"
    with pytest.raises(errors.SerializationError, match="reply of increment"):
        proxy.call(Counter.increment)


def test_a_call_on_which_the_paglet_left_returns_none(proxy: PagletProxy, client: LocalClient) -> None:
    client.reply = {"host_url": "http://other:2", "agent_id": "a"}
    proxy.call(Counter.leave)
    client.reply = {"host_url": "http://other:2", "agent_id": "somebody else"}
    with pytest.raises(errors.SerializationError):
        proxy.call(Counter.leave)


def test_a_handler_may_ask_for_the_message(proxy: PagletProxy, client: LocalClient) -> None:
    assert proxy.call(Counter.named) == "None"
    assert proxy.call(Counter.named, Message("", sender="me")) == "me"


# --- life -------------------------------------------------------------------------------------------------------------


def test_moves_return_the_new_location(proxy: PagletProxy, client: LocalClient) -> None:
    there = PagletProxy("http://other:2", "b", client)
    ticket = TransferTicket("beta", retries=2)
    assert proxy.dispatch("beta") == there
    assert proxy.dispatch(ticket) == there
    assert proxy.clone() == there
    assert proxy.clone("beta") == there
    assert proxy.activate() == there
    assert [operation[2:] for operation in client.operations] == [
        ("dispatch", {"target": "beta"}),
        ("dispatch", {"ticket": ticket.to_wire()}),
        ("clone", {"target": None}),
        ("clone", {"target": "beta"}),
        ("activate", {}),
    ]
    assert {operation[:2] for operation in client.operations} == {(HOST, "a")}


def test_deactivation_carries_its_request(proxy: PagletProxy, client: LocalClient) -> None:
    proxy.deactivate(reason="rest", policy=DeactivationPolicy(activate_on_startup=True), metadata={"k": 1})
    request = client.operations[0][3]["request"]
    assert (request["reason"], request["source"], request["metadata"]) == ("rest", "external", {"k": 1})
    assert request["policy"]["activate_on_startup"] is True
    proxy.deactivate()
    assert client.operations[1][3]["request"]["policy"] is None


def test_dispose_asks_the_host(proxy: PagletProxy, client: LocalClient) -> None:
    proxy.dispose()
    assert client.operations[0][2] == "dispose"


def test_an_operation_without_a_location_is_a_remote_host_error(host: MemoryHost) -> None:
    with HostClient() as client:
        proxy = PagletProxy(host.url, "a", client)
        for answer in ({"ok": True}, {"proxy": None}, {"proxy": {"host_url": 5, "agent_id": "a"}}):
            host.answer("POST", "/agents/a/dispatch", answer)
            with pytest.raises(errors.RemoteHostError):
                proxy.dispatch("beta")
