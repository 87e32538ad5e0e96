"""Nothing that a client sends, or does not send, is without a bound."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from paglets.core.errors import OverloadedError, PayloadTooLargeError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.http.connection import ServerLimits
from paglets.runtime.http.guards import Receive, Scope, Send, send_json
from tests.agents.http_agents import Talker
from tests.runtime.http.wire import Reply, Served, Wire, ask, in_threads, served_again
from tests.support import Gate, eventually

HASTY = ServerLimits(head_seconds=0.2, body_pause_seconds=0.2, body_seconds=0.6, min_body_bytes_per_second=1000)
POST = "POST /agents HTTP/1.1\r\nHost: localhost\r\n"


class Listener:
    """An application that reads every body to its end, or waits to be let go."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gone = 0
        self.answer = b"{}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            size += len(message["body"])
            more = message["more_body"]
        self.sizes.append(size)
        if scope["path"] == "/silent":
            while (await receive())["type"] != "http.disconnect":
                continue
            self.gone += 1
            return
        await send_json(send, 200, self.answer)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def hasty(listener: Listener) -> Iterator[Served]:
    """Serve a listener that has little patience."""
    with Served(listener, HASTY) as served:
        yield served


@pytest.fixture(scope="module")
def tight(host: Host) -> Iterator[Served]:
    """Serve a host that takes little."""
    with served_again(host, HASTY, max_json_bytes=100_000, max_buffered_bytes=150_000, max_movements=2) as served:
        yield served


def refused(reply: Reply, status: int) -> None:
    assert reply.status == status, reply.body
    assert set(reply.json()) == {"error_type", "error"}
    assert reply.headers["connection"] == "close"


# --- size ------------------------------------------------------------------------------------------------------------


def test_an_announced_gigabyte_is_refused_at_once(host: Host) -> None:
    with Wire(host.address) as wire:
        reply = wire.send(f"{POST}Content-Length: 1000000000\r\n\r\n".encode()).reply()
        refused(reply, 413)
        assert reply.error == "PayloadTooLargeError"
        assert wire.ended()


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "1 1", "+5", "", "9" * 40, "1,1", "\xb2"])
def test_lengths_that_are_none(host: Host, length: str) -> None:
    with Wire(host.address) as wire:
        reply = wire.send(f"{POST}Content-Length: {length}\r\n\r\n".encode("latin-1")).reply()
        assert reply.status in (400, 413)
        assert wire.ended()


def test_two_lengths_or_two_ways_of_framing_are_refused(host: Host) -> None:
    smuggled = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for fields in (
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        f"Content-Length: {len(smuggled)}\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
    ):
        with Wire(host.address) as wire:
            reply = wire.send(f"{POST}{fields}\r\n0\r\n\r\n{smuggled}".encode()).reply()
            assert reply.status == 400, fields
            assert wire.ended()


def test_an_endless_body_is_cut_at_the_bound(tight: Served) -> None:
    chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
    with Wire(tight.address) as wire:
        wire.send(f"{POST}Transfer-Encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                wire.send(chunk)
        reply = wire.reply()
        refused(reply, 413)


def test_a_client_hears_why_its_body_was_refused(tight: Served) -> None:
    client = HostClient()
    with pytest.raises(PayloadTooLargeError):
        client.post_json(f"{tight.address}/agents", {"agent_class_name": "x" * 10_000_000})
    client.close()


def test_all_bodies_together_have_a_bound(tight: Served) -> None:
    body = b'{"agent_class_name": "' + b"x" * 90_000
    with Wire(tight.address) as first, Wire(tight.address) as second:
        first.send(f"{POST}Content-Length: 95000\r\n\r\n".encode() + body)
        # Until this one hears that there is no room the first is held, however slowly it is read.
        eventually(lambda: _is_full(tight, body), "the first body to be held")
        first.send(b" " * (95_000 - len(body)))
        assert first.reply().status == 400
        reply = second.ask("POST", "/agents", body)
    assert reply.status == 400, "there is room again"


def _is_full(tight: Served, body: bytes) -> bool:
    reply = ask(tight.address, "POST", "/agents", body)
    assert reply.status in (400, 429)
    if reply.status == 429:
        assert reply.error == OverloadedError.__name__
    return reply.status == 429


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"a" * 100_000 + b": x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"a" * 200_000,
        b"GET /" + b"a" * 200_000,
        b"G" * 200_000,
    ],
)
def test_heads_have_a_bound(host: Host, head: bytes) -> None:
    with Wire(host.address) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(head)
        reply = wire.reply()
        assert reply.status in (400, 431)
        refused(reply, reply.status)
        assert wire.ended()


def test_many_headers_are_taken(host: Host) -> None:
    headers = {f"X-{number}": "y" for number in range(100)}
    assert ask(host.address, "GET", "/health", headers=headers).status == 200


@pytest.mark.parametrize(
    "tail", [b"0\r\nTrailer: " + b"a" * 200_000, b"0\r\n" + b"T: a\r\n" * 40_000, b"5;" + b"e" * 200_000]
)
def test_what_stands_around_a_body_has_a_bound(listener: Listener, tail: bytes) -> None:
    with Served(listener) as served, Wire(served.address) as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        with contextlib.suppress(ConnectionError):
            wire.send(tail)
        reply = wire.reply()
        assert reply.status in (400, 431)
        assert wire.ended()
        eventually(lambda: served.requests == 0, "the application to be told")
    assert (listener.sizes, listener.gone) == ([], 1)


def test_trailers_are_no_headers(host: Host, talker: PagletProxy) -> None:
    body = b'{"message": {"kind": "count"}}'
    with Wire(host.address) as wire:
        wire.send(
            f"POST /agents/{talker.agent_id}/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            f"{len(body):x};name=value\r\n".encode()
            + body
            + b"\r\n0\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n"
        )
        assert wire.reply().json() == {"result": 1}
        assert wire.ask("GET", "/health").status == 200


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: local"])
def test_a_slow_head_is_given_up(hasty: Served, start: bytes) -> None:
    with Wire(hasty.address) as wire:
        refused(wire.send(start).reply(), 408)
        assert wire.ended()
    eventually(lambda: hasty.connections == 0, "the connection to be let go")


def test_the_second_head_has_a_clock_too(hasty: Served) -> None:
    with Wire(hasty.address) as wire:
        assert wire.ask("GET", "/").status == 200
        refused(wire.send(b"GET / HT").reply(), 408)


def test_a_body_that_stops_is_given_up(hasty: Served, listener: Listener) -> None:
    with Wire(hasty.address) as wire:
        refused(wire.send(f"{POST}Content-Length: 10\r\n\r\nabc".encode()).reply(), 408)
        assert wire.ended()
    eventually(lambda: hasty.requests == 0, "the application to be told")
    assert (listener.sizes, listener.gone) == ([], 1)


def test_a_body_that_drips_is_given_up(hasty: Served, listener: Listener) -> None:
    with Wire(hasty.address) as wire:
        wire.send(f"{POST}Content-Length: 100000\r\n\r\n".encode())
        answered = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not answered.wait(0.03):
                    wire.send(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            refused(wire.reply(), 408)
        finally:
            answered.set()
            dripping.join()
    eventually(lambda: hasty.requests == 0, "the application to be told")
    assert (listener.sizes, listener.gone) == ([], 1)


def test_a_fast_body_may_take_long(listener: Listener) -> None:
    limits = ServerLimits(body_pause_seconds=5, body_seconds=0.0, min_body_bytes_per_second=100)
    with Served(listener, limits) as served, Wire(served.address) as wire:
        wire.send(f"{POST}Content-Length: 1000001\r\n\r\n".encode() + b"x" * 1_000_000)
        with pytest.raises(TimeoutError):
            wire.sock.settimeout(0.3)  # nothing must come: the piece that was sent pays for hours
            wire.reply()
        wire.sock.settimeout(10)
        assert wire.send(b"x").reply().status == 200
    assert listener.sizes == [1_000_001]


def test_a_body_that_nobody_reads_is_not_the_client_s_fault(host: Host, gate: Gate, tight: Served) -> None:
    talker = host.create(Talker)
    message = {"message": {"kind": "wait", "args": {"gate": str(gate)}}}
    with Wire(tight.address) as wire:
        busy = threading.Thread(target=lambda: wire.send(_message(talker.agent_id, message)))
        busy.start()
        busy.join()
        gate.await_entered()
        # The next request stands in line behind one that is being answered, for longer than a body may pause.
        wire.send(f"{POST}Content-Length: 80000\r\n\r\n".encode() + b"x" * 40_000)
        with pytest.raises(TimeoutError):
            wire.sock.settimeout(HASTY.body_pause_seconds * 3)
            wire.reply()
        wire.sock.settimeout(10)
        gate.open()
        assert wire.reply().json() == {"result": "waited"}
        wire.send(b"x" * 40_000)
        assert wire.reply().status == 400
    host.dispose(talker.agent_id)


def _message(agent_id: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /agents/{agent_id}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def test_an_idle_connection_is_closed() -> None:
    with Served(Listener(), ServerLimits(keep_alive_seconds=0.1)) as served, Wire(served.address) as wire:
        assert wire.ask("GET", "/").status == 200
        assert wire.ended()
        eventually(lambda: served.connections == 0, "the connection to be let go")


def test_a_client_that_takes_no_answer_is_given_up(listener: Listener) -> None:
    listener.answer = b" " * 20_000_000
    with Served(listener, ServerLimits(write_pause_seconds=0.2)) as served, Wire(served.address) as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: listener.sizes, "the request to arrive")
        eventually(lambda: served.connections == 0 and served.requests == 0, "the connection to be let go")


# --- connections -----------------------------------------------------------------------------------------------------


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
    one = _message(talker.agent_id, {"message": {"kind": "count"}})
    other = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Wire(host.address) as wire:
        wire.send((one + other) * 25)
        for number in range(1, 26):
            assert wire.reply().json() == {"result": number}
            assert wire.reply().status == 404


def test_nonsense_behind_a_request_in_progress_ends_the_connection(host: Host, gate: Gate) -> None:
    talker = host.create(Talker)
    with Wire(host.address) as wire:
        wire.send(_message(talker.agent_id, {"message": {"kind": "wait", "args": {"gate": str(gate)}}}))
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
def test_what_is_no_http_is_refused(host: Host, data: bytes) -> None:
    with Wire(host.address) as wire:
        reply = wire.send(data).reply()
        assert 400 <= reply.status < 500
        refused(reply, reply.status)
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
                refused(third.reply(), 503)
                assert third.ended()
            assert first.ask("GET", "/").status == 200
        eventually(lambda: served.connections == 0, "the connections to end")
        assert ask(served.address, "GET", "/").status == 200


def test_two_hundred_clients_at_once(host: Host, talker: PagletProxy) -> None:
    wires = [Wire(host.address) for _ in range(200)]
    try:
        for wire in wires:
            wire.send(_message(talker.agent_id, {"message": {"kind": "count"}}))
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
