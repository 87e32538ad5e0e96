"""How long a hub waits for an answer where the request says so in its body."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from paglets.protocol.link import Opened
from paglets.remote.requests import RELAY_TIMEOUT_HEADER
from paglets.runtime.host import Host
from paglets.runtime.relay.patience import MOST_BODY_BYTES, may_be_in_body, timeout_in
from tests.agents.actor import Actor
from tests.runtime.relay.conftest import KEY, RelayFactory
from tests.runtime.relay.scripted import ScriptedHost
from tests.support import await_event, eventually

MESSAGE = "/agents/x/messages"
LOOK = {"kind": "look"}


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"message": LOOK, "timeout": 0.25}, 0.25),
        ({"message": {"kind": "look", "args": {"x": float("nan"), "caf\udce9": 1}}, "timeout": 0.25}, 0.25),
        ({"timeout": 3, "agent_class_name": "x:Y"}, 3.0),
        ({"message": LOOK}, None),
        ({"message": LOOK, "timeout": None}, None),
        ({"message": {"timeout": 1}}, None),
        # What the host that it is for refuses says nothing here.
        ({"timeout": "1"}, None),
        ({"timeout": -1}, None),
        ({"timeout": 1e9}, None),
        ([{"timeout": 1}], None),
        (1, None),
    ],
)
def test_a_body_says_how_long_it_is_waited_for(body: object, seconds: float | None) -> None:
    assert timeout_in(json.dumps(body).encode()) == seconds


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"timeout": 1e999}',
        b'{"timeout": NaN}',
        b'\xff{"timeout": 1}',
        b'{"x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
)
def test_a_malformed_body_says_nothing(body: bytes) -> None:
    assert timeout_in(body) is None


@pytest.mark.parametrize(
    ("fields", "looked_into"),
    [
        ({b"content-length": b"20", b"content-type": b"application/json"}, True),
        ({b"content-length": b"20", b"content-type": b"Application/JSON; charset=utf-8"}, True),
        ({b"content-length": b"20"}, True),
        ({b"content-length": b"%d" % MOST_BODY_BYTES}, True),
        ({b"content-length": b"%d" % (MOST_BODY_BYTES + 1)}, False),
        ({b"content-length": b"0"}, False),
        ({b"content-length": b"20", b"content-type": b"application/x-paglets-message"}, False),
        ({b"content-length": b"20", b"content-type": b"application/x-paglets-movement"}, False),
        ({b"transfer-encoding": b"chunked", b"content-type": b"application/json"}, False),
        ({}, False),
    ],
)
def test_small_bodies_of_json_are_looked_into(fields: dict[bytes, bytes], looked_into: bool) -> None:
    assert may_be_in_body(fields) is looked_into


@pytest.fixture
def hub(relays: RelayFactory) -> Host:
    return relays.hub(relay_delivery_timeout=0.2)


@pytest.fixture
def silent(hub: Host) -> Iterator[ScriptedHost]:
    """Give a connected host that answers nothing."""
    with ScriptedHost(hub.address, "B") as host:
        yield host


def asked(hub: Host, path: str, body: bytes, **fields: str) -> socket.socket:
    """Return a connection on which something was asked of B, whose body comes in two pieces."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **fields}
    lines = [f"{name}: {value}" for name, value in fields.items()]
    head = [f"POST /relay/hosts/B{path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {KEY}", *lines, "", ""]
    connection = socket.create_connection(("127.0.0.1", hub.port), timeout=10)
    connection.sendall("\r\n".join(head).encode() + body[:5])
    connection.sendall(body[5:])
    return connection


def answer(hub: Host, path: str, body: object, **fields: str) -> str:
    with closing(asked(hub, path, json.dumps(body).encode(), **fields)) as connection:
        pieces = []
        while piece := connection.recv(65536):  # it ends: the hub closes what it answers itself
            pieces.append(piece)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("path", [MESSAGE, "/agents"])
@pytest.mark.usefixtures("silent")
def test_the_hub_waits_as_long_as_the_body_says(hub: Host, path: str) -> None:
    said = answer(hub, path, {"message": LOOK, "agent_class_name": "x:Y", "timeout": 0.35})
    assert "504" in said.partition("\r\n")[0]
    assert "Relay delivery to 'B' timed out after 0.35s" in said
    assert await_event(hub, "relay-delivery-enqueued").data["timeout"] == 0.35


@pytest.mark.usefixtures("silent")
def test_the_header_says_it_before_the_body_does(hub: Host) -> None:
    said = answer(hub, MESSAGE, {"message": LOOK, "timeout": 60}, **{RELAY_TIMEOUT_HEADER: "0.3"})
    assert "timed out after 0.3s" in said


@pytest.mark.usefixtures("silent")
def test_what_is_not_looked_into_is_waited_for_as_the_hub_says(hub: Host) -> None:
    large = {"message": {"kind": "x" * MOST_BODY_BYTES}, "timeout": 60}
    assert "timed out after 0.2s" in answer(hub, MESSAGE, large)
    assert "timed out after 0.2s" in answer(hub, "/agents/x/dispatch", {"target": "C", "timeout": 60})


def test_a_body_that_was_looked_into_arrives_as_it_was(relays: RelayFactory) -> None:
    hub = relays.hub()
    proxy = relays.connected("B", hub).create(Actor)
    body = {"message": {"kind": "add", "args": {"by": 4}}, "timeout": 30}
    path = f"/agents/{proxy.agent_id}/messages"
    with closing(asked(hub, path, json.dumps(body).encode(), Connection="close")) as connection:
        said = b""
        while piece := connection.recv(65536):
            said += piece
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b'{"result":4}')


def test_whoever_goes_before_his_body_is_there_asks_nothing(hub: Host, silent: ScriptedHost) -> None:
    asked(hub, MESSAGE, b'{"message":', **{"Content-Length": "200"}).close()
    # What comes over a link comes in order, and this is taken back long after the other one has gone.
    assert "timed out" in answer(hub, "/agents/y/messages", {})
    silent.await_reset("/agents/y/messages")
    assert [opened.target for opened in silent.opened] == ["/agents/y/messages"]


def test_whoever_goes_while_he_waits_takes_the_request_back(hub: Host, silent: ScriptedHost) -> None:
    opened: list[Opened] = silent.opened
    with closing(asked(hub, MESSAGE, json.dumps({"message": LOOK, "timeout": 60}).encode())):
        eventually(lambda: opened, "the request")
    silent.await_reset(MESSAGE)
