"""The pool of connections, against servers that do what they should and servers that do not."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from paglets.remote.connections import (
    BodyTooLargeError,
    ConnectionPool,
    ConnectTimeoutError,
    Deadline,
    NotSentError,
    Origin,
    PoolOptions,
    ProtocolError,
    Request,
)
from paglets.remote.content import FileBody
from tests.remote.scripted import Received, ScriptedHost, response

SECONDS = 10.0


def request_to(host: ScriptedHost, method: str = "GET", body: bytes = b"") -> Request:
    port = int(host.url.rpartition(":")[2])
    head = f"{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return Request(method, Origin("http", "127.0.0.1", port), head, body)


def fetch(pool: ConnectionPool, request: Request, seconds: float = SECONDS) -> bytes:
    exchange = pool.exchange(request, Deadline(seconds))
    try:
        return exchange.read(1024 * 1024)
    finally:
        exchange.close()


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    made = ConnectionPool()
    yield made
    made.close()


def test_a_connection_is_used_again(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1")) as host:
        assert [fetch(pool, request_to(host)) for _ in range(3)] == [b"1"] * 3
        assert host.connections == 1
    statistics = pool.statistics()
    assert (statistics.idle, statistics.opened, statistics.reused) == (1, 1, 2)


def test_the_connection_used_last_is_used_first(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1")) as host:
        first = pool.exchange(request_to(host), Deadline(SECONDS))
        second = pool.exchange(request_to(host), Deadline(SECONDS))
        for exchange in (first, second):
            exchange.read(10)
            exchange.close()
        fetch(pool, request_to(host))
        assert [item.connection for item in host.requests][2] == 2


def test_idle_connections_are_bounded_per_origin_and_in_all() -> None:
    pool = ConnectionPool(PoolOptions(max_idle_per_origin=2, max_idle=3))
    with ScriptedHost(response(b"1")) as one, ScriptedHost(response(b"1")) as two:
        for host in (one, two):
            exchanges = [pool.exchange(request_to(host), Deadline(SECONDS)) for _ in range(4)]
            for exchange in exchanges:
                exchange.read(10)
                exchange.close()
        assert pool.statistics().idle == 3
        pool.close()


def test_a_connection_that_lay_idle_too_long_is_not_used() -> None:
    pool = ConnectionPool(PoolOptions(idle_seconds=0.0))
    with ScriptedHost(response(b"1")) as host:
        fetch(pool, request_to(host))
        fetch(pool, request_to(host))
        assert host.connections == 2
        pool.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_the_server_ended_is_noticed_before_use(pool: ConnectionPool, method: str) -> None:
    with ScriptedHost(response(b"1")) as host:
        fetch(pool, request_to(host, method))
        host.end_connections()
        assert fetch(pool, request_to(host, method)) == b"1"
        assert [item.method for item in host.requests] == [method, method]


def close_second_request(request: Received, _connection: socket.socket) -> bytes | None:
    """Answer the first request of a connection, and end the connection at the second."""
    seen.append(request.connection)
    return response(b"1") if seen.count(request.connection) == 1 else None


seen: list[int] = []


@pytest.fixture(autouse=True)
def forget_seen() -> None:
    seen.clear()


def test_a_get_is_repeated_once_when_a_reused_connection_dies(pool: ConnectionPool) -> None:
    with ScriptedHost(close_second_request) as host:
        fetch(pool, request_to(host))
        assert fetch(pool, request_to(host)) == b"1"
        assert [item.connection for item in host.requests] == [1, 1, 2]


def test_a_post_that_was_sent_is_never_repeated(pool: ConnectionPool) -> None:
    with ScriptedHost(close_second_request) as host:
        fetch(pool, request_to(host, "POST", b"x"))
        with pytest.raises(ConnectionResetError):
            fetch(pool, request_to(host, "POST", b"x"))
        assert len(host.requests) == 2


def test_a_request_on_a_new_connection_is_never_repeated(pool: ConnectionPool) -> None:
    with ScriptedHost(lambda _request, _connection: None) as host:
        with pytest.raises(ConnectionResetError):
            fetch(pool, request_to(host))
        assert len(host.requests) == 1


def test_a_partial_answer_is_never_repeated(pool: ConnectionPool) -> None:
    def answer(request: Received, connection: socket.socket) -> bytes | None:
        seen.append(request.connection)
        if len(seen) == 1:
            return response(b"1")
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        return None

    with ScriptedHost(answer) as host:
        fetch(pool, request_to(host))
        with pytest.raises(ConnectionResetError):
            fetch(pool, request_to(host))
        assert len(host.requests) == 2


def test_a_body_that_ends_early_is_an_error(pool: ConnectionPool) -> None:
    def answer(_request: Received, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")

    with ScriptedHost(answer) as host, pytest.raises(ConnectionResetError):
        fetch(pool, request_to(host))
    assert pool.statistics().idle == 0


def test_a_body_may_end_with_the_connection(pool: ConnectionPool) -> None:
    def answer(_request: Received, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nabc")

    with ScriptedHost(answer) as host:
        assert fetch(pool, request_to(host)) == b"abc"
    assert pool.statistics().idle == 0


def test_a_chunked_body_with_trailers_is_read(pool: ConnectionPool) -> None:
    body = b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nafter: all\r\n\r\n"
    with ScriptedHost(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body) as host:
        assert fetch(pool, request_to(host)) == b"abcde"
        assert fetch(pool, request_to(host)) == b"abcde"
        assert host.connections == 1


def test_a_chunked_body_without_its_end_is_an_error(pool: ConnectionPool) -> None:
    def answer(_request: Received, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")

    with ScriptedHost(answer) as host, pytest.raises(ConnectionResetError):
        fetch(pool, request_to(host))


def test_an_interim_answer_is_skipped(pool: ConnectionPool) -> None:
    with ScriptedHost(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + response(b"1", x="y")) as host:
        exchange = pool.exchange(request_to(host), Deadline(SECONDS))
        assert (exchange.status, exchange.read(10), "link" in exchange.headers) == (200, b"1", False)
        exchange.close()
        assert pool.statistics().idle == 1


@pytest.mark.parametrize("garbage", [b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x16\x03\x01\x02\x00"])
def test_what_is_not_http_is_refused(pool: ConnectionPool, garbage: bytes) -> None:
    with ScriptedHost(garbage) as host, pytest.raises(ProtocolError):
        fetch(pool, request_to(host))
    assert pool.statistics().idle == 0


def test_an_endless_head_is_refused(pool: ConnectionPool) -> None:
    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"x-padding: " + b"x" * 4096 + b"\r\n")

    with ScriptedHost(answer) as host, pytest.raises(ProtocolError, match="too large"):
        fetch(pool, request_to(host))


def test_a_second_answer_that_nobody_asked_for_ends_the_connection(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1") + response(b"evil")) as host:
        assert fetch(pool, request_to(host)) == b"1"
        assert fetch(pool, request_to(host)) == b"1"
        assert host.connections == 2


@pytest.mark.parametrize("length", ["content-length: 5000000\r\n", ""])
def test_a_body_above_the_limit_is_not_read(pool: ConnectionPool, length: str) -> None:
    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{length}\r\n".encode())
        while True:
            connection.sendall(b"x" * 65536)

    with ScriptedHost(answer) as host, pytest.raises(BodyTooLargeError):
        fetch(pool, request_to(host))


def test_a_response_that_was_not_read_gives_no_connection_back(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"x" * 1_000_000)) as host:
        pool.exchange(request_to(host), Deadline(SECONDS)).close()
        assert pool.statistics().idle == 0


def test_connection_close_is_respected(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1", connection="close")) as host:
        assert fetch(pool, request_to(host)) == b"1"
        assert pool.statistics().idle == 0


def test_the_deadline_is_for_the_whole_call(pool: ConnectionPool) -> None:
    """A server that keeps sending a little is late all the same."""
    ended = threading.Event()

    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not ended.wait(0.01):
            connection.sendall(b"x")
        return None

    with ScriptedHost(answer) as host:
        try:
            with pytest.raises(TimeoutError):
                fetch(pool, request_to(host), 0.2)
        finally:
            ended.set()


def test_a_stall_deadline_starts_anew_with_every_piece(pool: ConnectionPool) -> None:
    pieces = 6
    release = threading.Semaphore(0)

    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        connection.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {pieces}\r\n\r\n".encode())
        for _ in range(pieces):
            release.acquire(timeout=0.3)
            connection.sendall(b"x")
        return b""

    with ScriptedHost(answer) as host:
        exchange = pool.exchange(request_to(host), Deadline(1.5, whole=False))
        try:
            assert b"".join(exchange.pieces()) == b"x" * pieces
        finally:
            exchange.close()


def test_no_time_at_all_is_a_timeout(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1")) as host, pytest.raises(ConnectTimeoutError):
        fetch(pool, request_to(host), 0.0)


def test_a_server_that_never_accepts_is_a_connect_timeout(pool: ConnectionPool) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # One connection fills the queue of the listener; the next one gets no answer at all.
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        request = Request("GET", Origin("http", address[0], address[1]), b"GET / HTTP/1.1\r\n\r\n")
        try:
            with pytest.raises(ConnectTimeoutError):
                pool.exchange(request, Deadline(0.2))
            with pytest.raises(NotSentError, match=r"no connection within 0\.2 s"):
                pool.exchange(request, Deadline(SECONDS, connecting=0.2))
        finally:
            for filler in fillers:
                filler.close()


def test_a_refused_connection_is_an_error_at_once(pool: ConnectionPool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    request = Request("GET", Origin("http", "127.0.0.1", port), b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(NotSentError) as caught:
        pool.exchange(request, Deadline(SECONDS))
    assert isinstance(caught.value.cause, ConnectionRefusedError)
    assert str(caught.value) == str(caught.value.cause)


def test_pieces_are_sent_as_chunks(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1")) as host:
        plain = request_to(host, "POST")
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        pieces: list[bytes | memoryview] = [b"abc", b"", memoryview(b"defg")]
        assert fetch(pool, Request("POST", plain.origin, head, pieces, chunked=True)) == b"1"
        assert (host.requests[0].body, host.requests[0].chunks) == (b"abcdefg", [3, 4])


@pytest.mark.parametrize("hang_up", [True, False])
def test_a_refusal_stops_the_sending_of_a_body(pool: ConnectionPool, hang_up: bool) -> None:
    """A server may say no before it has read the body, and may or may not hang up then."""
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 65536

    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        connection.sendall(response(b"no", "413 Content Too Large"))
        if hang_up:
            return None
        done.wait(SECONDS)
        return None

    done = threading.Event()
    with ScriptedHost(answer, read_body=False) as host:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        origin = request_to(host).origin
        exchange = pool.exchange(Request("POST", origin, head, body(), chunked=True), Deadline(SECONDS))
        try:
            assert (exchange.status, exchange.read(10)) == (413, b"no")
        finally:
            exchange.close()
            done.set()
    assert pool.statistics().idle == 0


@pytest.mark.parametrize("kind", ["bytes", "pieces", "file"])
def test_a_refusal_is_read_although_the_rest_has_nowhere_to_go(pool: ConnectionPool, tmp_path: Path, kind: str) -> None:
    """Whoever waits for a server that reads no more is woken by its answer, not by the end of his time."""
    size = 64 * 1024 * 1024  # more than the system takes for a peer that does not read
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", size)
    read = threading.Event()

    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        connection.sendall(response(b"no", "413 Content Too Large"))
        read.wait(3 * SECONDS)
        return None

    with ScriptedHost(answer, read_body=False) as host, (tmp_path / "file").open("rb") as stream:
        plain = request_to(host, "POST", bytes(size))
        bodies = {"bytes": plain.body, "pieces": [plain.body], "file": FileBody(stream, tmp_path / "file", 0, size)}
        request = replace(plain, body=bodies[kind])
        deadline = Deadline(SECONDS)
        exchange = pool.exchange(request, deadline)
        try:
            assert (exchange.status, exchange.read(10)) == (413, b"no")
            assert deadline.remaining()
        finally:
            exchange.close()
            read.set()
    assert pool.statistics().idle == 0


def test_what_the_body_raises_passes_and_ends_the_connection(pool: ConnectionPool) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise ArithmeticError("from the body")

    with ScriptedHost(response(b"1")) as host:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        with pytest.raises(ArithmeticError, match="from the body"):
            pool.exchange(Request("POST", request_to(host).origin, head, body(), chunked=True), Deadline(SECONDS))
        host.end_connections()
    assert pool.statistics().idle == 0


def test_a_large_body_and_answer_pass(pool: ConnectionPool) -> None:
    with ScriptedHost(lambda request, _connection: response(request.body)) as host:
        body = os.urandom(600_000)
        assert fetch(pool, request_to(host, "POST", body)) == body


def test_many_threads_share_a_pool(pool: ConnectionPool) -> None:
    with ScriptedHost(lambda request, _connection: response(request.body)) as host:
        wrong: list[bytes] = []

        def work(number: int) -> None:
            body = str(number).encode() * 50
            wrong.extend(got for _ in range(20) if (got := fetch(pool, request_to(host, "POST", body))) != body)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert not wrong
        assert host.connections <= 8


def test_after_close_nothing_is_kept(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1")) as host:
        fetch(pool, request_to(host))
        pool.close()
        assert pool.statistics().idle == 0
        assert fetch(pool, request_to(host)) == b"1"
        assert pool.statistics().idle == 0


def test_a_forgotten_pool_closes_its_connections() -> None:
    with ScriptedHost(response(b"1")) as host:
        pool = ConnectionPool()
        fetch(pool, request_to(host))
        # Warnings are errors here: a socket left open would be reported.
        del pool


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_without_connections(pool: ConnectionPool) -> None:
    with ScriptedHost(response(b"1")) as host:
        fetch(pool, request_to(host))
        # In a process of its own with one thread: forking one that has more is an error in recent versions.
        program = (
            "import os, sys\n"
            "from paglets.remote.client import HostClient\n"
            "client = HostClient()\n"
            "client.get_json(sys.argv[1])\n"
            "pid = os.fork()\n"
            "idle = client.connections.statistics().idle\n"
            "client.get_json(sys.argv[1])\n"
            "if pid == 0:\n"
            "    os._exit(10 + idle)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) - 10, idle)\n"
            "client.close()\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program, host.url], capture_output=True, text=True, timeout=60, check=True
        )
        assert ended.stdout.split() == ["0", "1"]
        # One of this process, one shared by nobody for parent and child each.
        assert host.connections == 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "host.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    arguments = [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", "-"]
    try:
        made = subprocess.run(arguments, capture_output=True, timeout=60, check=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    with path.open("ab") as stream:
        stream.write(made.stdout)
    return path


def serve_tls(listener: socket.socket, context: ssl.SSLContext, connections: list[int]) -> None:
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:
            return
        connections.append(1)
        with accepted:
            try:
                with context.wrap_socket(accepted, server_side=True) as secured:
                    while secured.recv(65536):
                        secured.sendall(response(b"1"))
            except OSError:
                continue


def test_tls_connections_are_verified_and_used_again(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_tls, args=(listener, server, connections))
        thread.start()
        request = Request("GET", Origin("https", "localhost", listener.getsockname()[1]), b"GET / HTTP/1.1\r\n\r\n")
        trusting = ConnectionPool(ssl_context=ssl.create_default_context(cafile=str(certificate)))
        doubting = ConnectionPool()
        try:
            assert [fetch(trusting, request) for _ in range(3)] == [b"1"] * 3
            assert len(connections) == 1
            trusting.close()
            with pytest.raises(NotSentError) as caught:
                doubting.exchange(request, Deadline(SECONDS))
            assert isinstance(caught.value.cause, ssl.SSLCertVerificationError)
        finally:
            trusting.close()
            doubting.close()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(SECONDS)
