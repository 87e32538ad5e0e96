"""Connections: kept, shared, broken off, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct

import pytest

from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.http.connection import ServerLimits
from tests.agents.http_agents import Talker
from tests.runtime.http.wire import (
    Listener,
    Served,
    Wire,
    ask,
    in_threads,
    message_request,
    refused_and_closed,
)
from tests.support import Gate, eventually


@pytest.fixture
def listener() -> Listener:
    return Listener()


def test_one_connection_serves_many_requests(host: Host, talker: PagletProxy) -> None:
    path = f"/agents/{talker.agent_id}/messages"
    with Wire(host.address) as wire:
        for number in range(1, 21):
            assert wire.ask("POST", path, {"message": {"kind": "count"}}).json() == {"result": number}
            assert wire.ask("POST", path, b"{").status == 400
            assert wire.ask("GET", "/nowhere").status == 404
            assert wire.ask("GET", f"/agents/{talker.agent_id}").status == 200
        assert wire.ask("GET", "/health", headers={"Connection": "close"}).headers["connection"] == "close"
        assert wire.ended()


def test_answers_without_a_body_keep_the_connection(host: Host) -> None:
    with Wire(host.address) as wire:
        for request, status in (("OPTIONS /health", 204), ("HEAD /health", 405), ("GET /health", 200)):
            wire.send(f"{request} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = wire.head()
            assert head.status == status
            if status == 200:
                assert wire.body_of(head).json()["name"] == host.name
            else:
                assert "GET" in head.headers["allow"]


def test_requests_in_one_go_are_answered_in_order(host: Host, talker: PagletProxy) -> None:
    one = message_request(talker.agent_id, {"message": {"kind": "count"}})
    other = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Wire(host.address) as wire:
        wire.send((one + other) * 25)
        for number in range(1, 26):
            assert wire.reply().json() == {"result": number}
            assert wire.reply().status == 404


def test_nonsense_behind_a_request_in_progress_ends_the_connection(host: Host, gate: Gate) -> None:
    talker = host.create(Talker)
    with Wire(host.address) as wire:
        wire.send(message_request(talker.agent_id, {"message": {"kind": "wait", "args": {"gate": str(gate)}}}))
        gate.await_entered()
        wire.send(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert wire.ended(), "and no answer could be taken for that of the first request"
    gate.open()
    host.dispose(talker.agent_id)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the start of TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00" * 100,
        b"GET /health\r\n\r\n",
        b"GET  /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /he\x00alth HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nA\x00: b\r\n\r\n",
        b"POST /agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_closed(host: Host, data: bytes) -> None:
    with Wire(host.address) as wire:
        reply = wire.send(data).reply()
        assert 400 <= reply.status < 500
        refused_and_closed(reply, reply.status)
        assert wire.ended()


def test_other_protocols_are_not_spoken(host: Host) -> None:
    upgrade = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {}\r\n{}\r\n"
    for protocol, extra in (
        ("websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"),
        ("h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"),
    ):
        with Wire(host.address) as wire:
            assert wire.send(upgrade.format(protocol, extra).encode()).reply().status == 200
    with Wire(host.address) as wire:
        wire.send(b"POST /agents HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n")
        reply = wire.send(b"Content-Length: 2\r\n\r\n{}").reply()
        assert reply.status == 400


def test_clients_that_vanish_are_noticed(listener: Listener) -> None:
    with Served(listener) as served:

        def vanish(index: int) -> None:
            wire = Wire(served.address)
            wire.send(b"POST /silent HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n" + b"hello"[: index % 6])
            if index % 2:
                # With a reset instead of an orderly end.
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.sock.close()

        in_threads(vanish, 60)
        eventually(lambda: served.connections == 0 and served.requests == 0, "everything to be let go")
    assert len(listener.sizes) <= 10


def test_a_half_closed_connection_is_let_go(listener: Listener) -> None:
    with Served(listener) as served, Wire(served.address) as wire:
        wire.send(b"POST /silent HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
        eventually(lambda: listener.sizes, "the request to arrive")
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.ended()
        eventually(lambda: served.connections == 0 and served.requests == 0, "everything to be let go")
    assert listener.gone == 1


def test_connections_beyond_the_bound_are_turned_away(listener: Listener) -> None:
    with Served(listener, ServerLimits(max_connections=2)) as served:
        with Wire(served.address) as first, Wire(served.address) as second:
            assert first.ask("GET", "/").status == second.ask("GET", "/").status == 200
            with Wire(served.address) as third:
                refused_and_closed(third.reply(), 503)
                assert third.ended()
            assert first.ask("GET", "/").status == 200
        eventually(lambda: served.connections == 0, "the connections to end")
        assert ask(served.address, "GET", "/").status == 200


def test_two_hundred_clients_at_once(host: Host, talker: PagletProxy) -> None:
    wires = [Wire(host.address) for _ in range(200)]
    try:
        for wire in wires:
            wire.send(message_request(talker.agent_id, {"message": {"kind": "count"}}))
        assert sorted(wire.reply().json()["result"] for wire in wires) == list(range(1, 201))
        assert all(wire.ask("GET", "/health").status == 200 for wire in wires)
    finally:
        for wire in wires:
            wire.sock.close()


def test_health_answers_while_every_paglet_is_busy(host: Host, gate: Gate) -> None:
    busy = [host.create(Talker) for _ in range(4)]
    for talker in busy:
        for _ in range(3):
            talker.send_oneway(Message("wait", {"gate": str(gate)}))
    eventually(lambda: _all_busy(host, busy), "every paglet to be busy")
    gate.await_entered()

    assert ask(host.address, "GET", "/health").json()["active_count"] == len(busy)
    assert len(ask(host.address, "GET", "/agents").json()["agents"]) == len(busy)
    assert _all_busy(host, busy)

    for talker in busy:
        with contextlib.suppress(OSError):
            # Its process is ended with what it waits for: the gate would have to open once for each of them.
            os.kill(int(talker.info()["pid"]), signal.SIGKILL)
        eventually(lambda talker=talker: talker.info()["crashed"], "the process to be gone")
        host.dispose(talker.agent_id)


def _all_busy(host: Host, busy: list[PagletProxy]) -> bool:
    return all(host.mailbox_status(talker.agent_id)["in_flight_count"] == 1 for talker in busy)


def test_stopping_lets_requests_finish_and_ends_the_others(listener: Listener) -> None:
    with Served(listener, ServerLimits(graceful_seconds=0.2)) as served:
        idle, silent = Wire(served.address), Wire(served.address)
        assert idle.ask("GET", "/").status == 200
        silent.send(b"GET /silent HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: len(listener.sizes) == 2, "the request to arrive")
    assert idle.ended()
    assert silent.ended()
    idle.sock.close()
    silent.sock.close()
