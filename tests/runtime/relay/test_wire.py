"""What a hub makes of WebSockets that do not behave."""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

from paglets.protocol.link import Hello, Link
from paglets.runtime.host import Host
from tests.runtime.relay.conftest import KEY, RelayFactory
from tests.support import await_event, eventually

BINARY, TEXT, CLOSE, PING, PONG = 0x2, 0x1, 0x8, 0x9, 0xA
HANDSHAKE = {
    "Host": "127.0.0.1",
    "Authorization": f"Bearer {KEY}",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}


@pytest.fixture
def hub(relays: RelayFactory) -> Host:
    return relays.hub()


def asked(hub: Host, changes: dict[str, str | None]) -> socket.socket:
    """Return a connection on which a link was asked for."""
    fields = {**HANDSHAKE, **changes}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    connection = socket.create_connection(("127.0.0.1", hub.port), timeout=10)
    connection.sendall("\r\n".join(["GET /relay/link?name=B HTTP/1.1", *lines, "", ""]).encode())
    return connection


@pytest.fixture
def linked(hub: Host) -> Iterator[socket.socket]:
    """Give a raw connection that has become a link of host B."""
    with closing(asked(hub, {})) as connection:
        assert b"101 Switching Protocols" in connection.recv(4096)
        hello = b"".join(Link(Hello(name="B", health={"code_version": "x"}), first=True, now=0.0).take())
        # Cut in two, as proxies may do.
        connection.sendall(frame(BINARY, hello[:10], final=False) + frame(0, hello[10:]))
        await_event(hub, "relay-connected")
        yield connection


def frame(opcode: int, content: bytes, *, final: bool = True, masked: bool = True) -> bytes:
    mask = os.urandom(4) if masked else b""
    head = bytes([opcode | (0x80 if final else 0)])
    size = len(content)
    marked = 0x80 if masked else 0
    if size < 126:
        head += bytes([size | marked])
    elif size < 65536:
        head += bytes([126 | marked]) + struct.pack(">H", size)
    else:
        head += bytes([127 | marked]) + struct.pack(">Q", size)
    if masked:
        content = bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))
    return head + mask + content


def rest_of(connection: socket.socket) -> bytes:
    """Return what comes until the other end closes."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        return received
    return received


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Version": "8"},
    ],
)
def test_another_handshake_is_refused_in_the_words_of_the_host(hub: Host, changes: dict[str, str | None]) -> None:
    with closing(asked(hub, changes)) as connection:
        answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"error_type":"HostError"' in answer
    assert b"WebSocket handshake, version 13" in answer


def test_a_request_with_a_body_is_no_handshake(hub: Host) -> None:
    with closing(asked(hub, {"Content-Length": "5"})) as connection:
        assert rest_of(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "misuse",
    [
        frame(TEXT, b"hello"),
        frame(BINARY, b"", masked=False),
        bytes([0x83, 0x80, 0, 0, 0, 0]),
        frame(0, b"a continuation of nothing"),
        bytes([0x82, 127 | 0x80]) + struct.pack(">Q", 1 << 40),
    ],
    ids=["text", "unmasked", "reserved", "continuation", "endless"],
)
def test_misuse_ends_the_link_and_nothing_else(hub: Host, linked: socket.socket, misuse: bytes) -> None:
    linked.sendall(misuse)
    rest_of(linked)
    await_event(hub, "relay-disconnected")
    assert hub.client.get_json(f"{hub.address}/health")["name"] == "A"


def test_pings_of_the_websocket_are_answered(linked: socket.socket) -> None:
    linked.sendall(frame(PING, b"are you there"))
    received = b""
    while b"are you there" not in received:
        received += linked.recv(4096)
    assert bytes([0x80 | PONG, 13]) in received


def test_an_end_that_pings_and_takes_nothing_is_dropped(hub: Host, linked: socket.socket) -> None:
    # As fast as the hub reads, until it has had enough: on a busy machine it may take its time over each portion.
    linked.settimeout(60)
    flood = frame(PING, bytes(125)) * 2000
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        while True:
            linked.sendall(flood)
    error = eventually(lambda: [e.error for e in hub.list_events(limit=1000) if e.kind == "relay-disconnected"], "end")
    assert error


def test_a_link_that_is_closed_in_order_is_gone(hub: Host, linked: socket.socket) -> None:
    linked.sendall(frame(CLOSE, struct.pack(">H", 1000) + b"going home"))
    rest_of(linked)
    assert await_event(hub, "relay-disconnected").error == "going home"
