"""Bodies pass through a hub as they come: nothing piles up there, and what breaks off breaks off everywhere."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from paglets.protocol.link import Opened
from paglets.runtime.host import Host
from tests.agents.actor import Actor, ActorState
from tests.runtime.relay.conftest import KEY, RelayFactory, Trio
from tests.runtime.relay.scripted import ScriptedHost
from tests.support import eventually

MEGABYTE = 1024 * 1024
# What kernel and hub may hold of a stream that nobody reads: socket buffers of both ends, the window, some pieces.
MOST_HELD = 12 * MEGABYTE
BODY = 40 * MEGABYTE


@pytest.fixture
def hub(relays: RelayFactory) -> Host:
    return relays.hub()


@pytest.fixture
def host(hub: Host) -> Iterator[ScriptedHost]:
    with ScriptedHost(hub.address, "B") as made:
        yield made


def asked(hub: Host, head: str) -> socket.socket:
    """Return a connection on which a request was begun."""
    connection = socket.create_connection(("127.0.0.1", hub.port), timeout=20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
    connection.sendall(f"{head}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
    return connection


def stalls(connection: socket.socket) -> bool:
    """Tell whether a connection takes nothing for a while."""
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return not poll.poll(400)


def test_a_body_that_nobody_reads_waits_at_its_sender(hub: Host, host: ScriptedHost) -> None:
    head = f"POST /relay/hosts/B/artifacts HTTP/1.1\r\nContent-Length: {BODY}"
    with closing(asked(hub, head)) as connection:
        connection.setblocking(False)
        sent = 0
        while sent < BODY and not stalls(connection):
            sent += connection.send(bytes(MEGABYTE))
        assert sent < MOST_HELD
        (opened,) = host.opened
        assert (b"content-length", str(BODY).encode()) in opened.headers
        assert host.link.statistics().unread <= host.link.limits.first_window
        # The reader begins to read: everything arrives.
        connection.setblocking(True)
        rest = threading.Thread(target=lambda: connection.sendall(bytes(BODY - sent)))
        rest.start()
        got = 0
        while got < BODY:
            eventually(lambda: host.unread.get(opened.stream, 0), "more of the body")
            got += host.read(opened.stream)
        rest.join()
        assert got == BODY


def test_an_answer_that_nobody_reads_waits_at_the_connected_host(hub: Host, host: ScriptedHost) -> None:
    sent = 0

    def begin(opened: Opened) -> None:
        host.link.answer(opened.stream, 200, [(b"content-length", str(BODY).encode())])

    host.on_request = begin
    with closing(asked(hub, "GET /relay/hosts/B/artifacts/x HTTP/1.1")) as connection:
        (opened,) = eventually(lambda: host.opened, "the request")
        idle = 0
        while idle < 40:
            nbytes = host.write(opened.stream, bytes(64 * 1024))
            sent += nbytes
            idle = 0 if nbytes else idle + 1
            if not nbytes:
                select.select([], [], [], 0.01)
        assert 0 < sent < MOST_HELD
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        got = len(body)
        while got < sent:
            got += len(connection.recv(MEGABYTE))
        assert got == sent


def test_another_stream_is_not_held_up(hub: Host, host: ScriptedHost) -> None:
    head = f"POST /relay/hosts/B/artifacts HTTP/1.1\r\nContent-Length: {BODY}"
    with closing(asked(hub, head)) as stuck:
        stuck.setblocking(False)
        while not stalls(stuck):
            stuck.send(bytes(MEGABYTE))
        host.answers["/health"] = {"name": "B"}
        with closing(asked(hub, "GET /relay/hosts/B/health HTTP/1.1")) as connection:
            assert b'{"name": "B"}' in connection.recv(65536)


def test_whoever_leaves_takes_the_request_back(hub: Host, host: ScriptedHost) -> None:
    with closing(asked(hub, "GET /relay/hosts/B/slow HTTP/1.1")):
        eventually(lambda: host.opened, "the request")
    host.await_reset("/slow")


def test_whoever_leaves_in_the_middle_of_a_body_takes_the_request_back(hub: Host, host: ScriptedHost) -> None:
    with closing(asked(hub, "PUT /relay/hosts/B/blobs/x HTTP/1.1\r\nContent-Length: 1000")) as connection:
        connection.sendall(b"some")
        eventually(lambda: host.unread, "the beginning")
    host.await_reset("/blobs/x")


def test_an_answer_that_breaks_off_ends_the_connection(hub: Host, host: ScriptedHost) -> None:
    def begin(opened: Opened) -> None:
        host.link.answer(opened.stream, 200, [(b"content-length", b"100")])
        host.link.send(opened.stream, b"half")

    host.on_request = begin
    with closing(asked(hub, "GET /relay/hosts/B/x HTTP/1.1")) as connection:
        received = b""
        while not received.endswith(b"half"):
            received += connection.recv(65536)
        host.drop(host.opened[0])
        assert connection.recv(65536) == b""


def test_an_early_answer_ends_an_upload(hub: Host, host: ScriptedHost) -> None:
    def refuse(opened: Opened) -> None:
        host.link.answer(opened.stream, 413, [(b"content-length", b"0")])
        host.link.end(opened.stream)

    host.on_request = refuse
    with closing(asked(hub, f"PUT /relay/hosts/B/blobs/x HTTP/1.1\r\nContent-Length: {BODY}")) as connection:
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
    eventually(lambda: not host.link.statistics().serving, "the stream is gone")


def test_fields_of_one_connection_stay_there(hub: Host, host: ScriptedHost) -> None:
    fields = "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\nForwarded: for=192.0.2.1\r\nTE: trailers"
    with closing(asked(hub, f"GET /relay/hosts/B/a%2Fb?x=%20 HTTP/1.1\r\n{fields}")):
        (opened,) = eventually(lambda: host.opened, "the request")
    assert opened.target == "/a%2Fb?x=%20"
    names = dict(opened.headers)
    assert names[b"x-other"] == b"2"
    assert names[b"forwarded"] == b"for=192.0.2.1, for=127.0.0.1"
    assert not {b"connection", b"x-mine", b"te", b"expect"} & names.keys()


def test_any_method_and_kind_of_body_arrives(trio: Trio) -> None:
    proxy = trio.laptop.create(Actor, ActorState(blob=bytes(3 * MEGABYTE)))
    assert proxy.dispatch("B").call(Actor.look)["size"] == 3 * MEGABYTE  # in chunks
    url = f"/relay/hosts/B/agents/{proxy.agent_id}"
    for method, status in (("HEAD", "405"), ("GET", "200"), ("PUT", "405"), ("OPTIONS", "204")):
        with closing(asked(trio.hub, f"{method} {url} HTTP/1.1")) as connection:
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), head
        assert bool(body) == (method not in ("HEAD", "OPTIONS"))
