"""Nothing that a client sends, or does not send, is without a bound."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from paglets.core.errors import OverloadedError, PayloadTooLargeError
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.runtime.http.connection import ServerLimits
from tests.agents.http_agents import Talker
from tests.runtime.http.wire import (
    Listener,
    Served,
    Wire,
    ask,
    message_request,
    refused_and_closed,
    served_again,
)
from tests.support import Gate, eventually

HASTY = ServerLimits(head_seconds=0.2, body_pause_seconds=0.2, body_seconds=0.6, min_body_bytes_per_second=1000)
POST = "POST /agents HTTP/1.1\r\nHost: localhost\r\n"


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
        # The first documented route takes longer to load than a connection may wait here for its next request.
        assert ask(served.address, "GET", "/agents").status == 200
        yield served


# --- size ------------------------------------------------------------------------------------------------------------


def test_an_announced_gigabyte_is_refused_at_once(host: Host) -> None:
    with Wire(host.address) as wire:
        reply = wire.send(f"{POST}Content-Length: 1000000000\r\n\r\n".encode()).reply()
        refused_and_closed(reply, 413)
        assert reply.error == "PayloadTooLargeError"
        assert wire.ended()


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "1 1", "+5", "", "9" * 40, "1,1", "\xb2"])
def test_lengths_that_are_none(host: Host, length: str) -> None:
    with Wire(host.address) as wire:
        reply = wire.send(f"{POST}Content-Length: {length}\r\n\r\n".encode("latin-1")).reply()
        assert reply.status in (400, 413)
        assert wire.ended()


def test_two_lengths_or_two_ways_of_framing_are_refused_and_closed(host: Host) -> None:
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
        refused_and_closed(reply, 413)


def test_a_client_hears_why_its_body_was_refused_and_closed(tight: Served) -> None:
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
        refused_and_closed(reply, reply.status)
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
        refused_and_closed(wire.send(start).reply(), 408)
        assert wire.ended()
    eventually(lambda: hasty.connections == 0, "the connection to be let go")


def test_the_second_head_has_a_clock_too(hasty: Served) -> None:
    with Wire(hasty.address) as wire:
        assert wire.ask("GET", "/").status == 200
        refused_and_closed(wire.send(b"GET / HT").reply(), 408)


def test_a_body_that_stops_is_given_up(hasty: Served, listener: Listener) -> None:
    with Wire(hasty.address) as wire:
        refused_and_closed(wire.send(f"{POST}Content-Length: 10\r\n\r\nabc".encode()).reply(), 408)
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
            refused_and_closed(wire.reply(), 408)
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
        busy = threading.Thread(target=lambda: wire.send(message_request(talker.agent_id, message)))
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
