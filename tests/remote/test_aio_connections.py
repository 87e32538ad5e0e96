"""The connections of one event loop, against scripted servers: how they are kept, shared, repeated and ended."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from paglets.core import errors
from paglets.remote.aio_connections import AsyncConnectionPool, AsyncRequest
from paglets.remote.aio_http import AsyncHttp
from paglets.remote.exchanges import split_url
from paglets.remote.fabric import Ask
from paglets.remote.idle import PoolOptions
from paglets.remote.responses import BodyTooLargeError, ProtocolError
from paglets.remote.sockets import NotSentError
from tests.remote.scripted import Received, ScriptedHost, reply, response

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Give what runs a coroutine on each kind of loop; what the loop complains of is a failure."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def runner(coroutine: Coroutine[Any, Any, Any]) -> Any:
        complaints: list[dict[str, Any]] = []

        async def main() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            return await asyncio.wait_for(coroutine, 30)

        with asyncio.Runner(loop_factory=factory) as loop:
            result = loop.run(main())
        assert complaints == []
        return result

    return runner


class Asker:
    """Exchange over a pool of its own."""

    def __init__(self, url: str, *, max_connections: int = 100, options: PoolOptions | None = None) -> None:
        self.origin, self.authority, _ = split_url(url)
        self.pool = AsyncConnectionPool(max_connections=max_connections, options=options)

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.aclose()

    async def noticed(self) -> None:
        """Wait until no open connection is usable; that has no event of its own."""
        deadline = asyncio.get_running_loop().time() + 10
        while any(connection.usable for connection in self.pool._open):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.001)

    async def ask(
        self,
        target: str = "/",
        *,
        method: str = "GET",
        body: bytes | AsyncIterator[bytes] = b"",
        most: int = 10_000_000,
        tls: ssl.SSLContext | None = None,
        connecting: float | None = None,
    ) -> tuple[int, bytes]:
        length = f"Content-Length: {len(body)}" if isinstance(body, bytes) else "Transfer-Encoding: chunked"
        head = f"{method} {target} HTTP/1.1\r\nHost: {self.authority}\r\n{length}\r\n\r\n".encode()
        request = AsyncRequest(method, self.origin, head, body)
        return await self.pool.exchange(request, most, tls=tls, connecting=connecting)


def echo(request: Received, _connection: socket.socket) -> bytes:
    return response(request.body or request.target.encode())


def test_one_connection_serves_one_request_after_another(run: Run) -> None:
    async def main() -> None:
        async with Asker(host.url) as asker:
            for number in range(5):
                assert await asker.ask(f"/{number}") == (200, f"/{number}".encode())
            assert await asker.ask(method="POST", body=b"x" * 3_000_000) == (200, b"x" * 3_000_000)

    with ScriptedHost(echo) as host:
        run(main())
        assert host.connections == 1


def test_no_more_connections_than_allowed_and_all_that_were_needed_are_kept(run: Run) -> None:
    together = threading.Barrier(3, timeout=10)

    def answer(request: Received, _connection: socket.socket) -> bytes:
        together.wait()
        return response(request.target.encode())

    async def main() -> None:
        async with Asker(host.url, max_connections=3) as asker:
            for _ in range(2):
                found = await asyncio.gather(*(asker.ask(f"/{number}") for number in range(9)))
                assert found == [(200, f"/{number}".encode()) for number in range(9)]

    with ScriptedHost(answer) as host:
        run(main())
        assert host.connections == 3


def test_an_idle_connection_is_closed_after_a_while(run: Run) -> None:
    ended = threading.Event()

    def answer(_request: Received, connection: socket.socket) -> None:
        connection.sendall(response(b"first"))
        assert connection.recv(1) == b""
        ended.set()

    async def main() -> None:
        async with Asker(host.url, options=PoolOptions(idle_seconds=0.05)) as asker:
            assert await asker.ask() == (200, b"first")
            assert await asyncio.to_thread(ended.wait, 10)

    with ScriptedHost(answer) as host:
        run(main())


def test_a_connection_that_the_server_ended_is_not_used_again(run: Run) -> None:
    async def main() -> None:
        async with Asker(host.url) as asker:
            await asyncio.gather(asker.ask(), asker.ask())
            host.end_connections()
            await asker.noticed()
            # What cannot be repeated is not lost either.
            assert await asker.ask(method="POST", body=b"once") == (200, b"once")

    with ScriptedHost(echo) as host:
        run(main())
        assert [request.body for request in host.requests].count(b"once") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_on_a_kept_connection_that_dies_with_it_is_repeated_if_that_is_harmless(
    run: Run, method: str
) -> None:
    def answer(request: Received, _connection: socket.socket) -> bytes | None:
        return None if request.connection == 1 and request.target == "/second" else response(b"answer")

    async def main() -> Any:
        async with Asker(host.url) as asker:
            await asker.ask("/first", method=method)
            return await asker.ask("/second", method=method)

    with ScriptedHost(answer) as host:
        if method == "GET":
            assert run(main()) == (200, b"answer")
        else:
            with pytest.raises(ConnectionResetError):
                run(main())
        assert [request.target for request in host.requests].count("/second") == (2 if method == "GET" else 1)


def test_a_request_on_a_new_connection_is_never_repeated(run: Run) -> None:
    async def main() -> None:
        async with Asker(host.url) as asker:
            with pytest.raises(ConnectionResetError):
                await asker.ask()

    with ScriptedHost(lambda _request, _connection: None) as host:
        run(main())
        assert len(host.requests) == 1


@pytest.mark.parametrize("later", [False, True], ids=["with the answer", "after it"])
def test_bytes_that_nobody_asked_for_end_a_connection(run: Run, later: bool) -> None:
    said = threading.Event()

    def answer(request: Received, connection: socket.socket) -> bytes | None:
        if request.connection > 1:
            return response(b"right")
        if not later:
            return response(b"right") + response(b"smuggled")
        connection.sendall(response(b"right"))
        assert said.wait(10)
        connection.sendall(response(b"smuggled"))
        return b""

    async def main() -> None:
        async with Asker(host.url) as asker:
            assert await asker.ask() == (200, b"right")
            said.set()
            await asker.noticed()
            assert await asker.ask() == (200, b"right")

    with ScriptedHost(answer) as host:
        run(main())


def test_a_body_that_ends_with_the_connection(run: Run) -> None:
    async def main() -> None:
        async with Asker(host.url) as asker:
            for _ in range(2):
                assert await asker.ask() == (200, b"all of it")

    with ScriptedHost(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it") as host:
        run(main())
        assert host.connections == 2


def test_an_interim_answer_is_not_the_answer(run: Run) -> None:
    async def main() -> None:
        async with Asker(host.url) as asker:
            assert await asker.ask() == (200, b"real")

    with ScriptedHost(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + response(b"real")) as host:
        run(main())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SMTP ready\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, ProtocolError),
        (response(b"x" * 2_000), BodyTooLargeError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", BodyTooLargeError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n800\r\n" + b"z" * 2_048, BodyTooLargeError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nab", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\n", ConnectionResetError),
    ],
    ids=["no HTTP", "endless head", "long", "announced as long", "long in chunks", "broken off", "half a head"],
)
def test_answers_that_are_none(run: Run, answer: bytes, error: type[Exception]) -> None:
    def answered(_request: Received, connection: socket.socket) -> None:
        connection.sendall(answer)

    async def main() -> None:
        async with Asker(host.url) as asker:
            with pytest.raises(error):
                await asker.ask(most=1_000)

    with ScriptedHost(answered) as host:
        run(main())


def test_a_body_in_pieces_goes_in_chunks_as_fast_as_it_is_taken(run: Run) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(200):
            yield bytes([number]) * 50_000
        yield b""

    async def main() -> None:
        async with Asker(host.url) as asker:
            status, body = await asker.ask(method="POST", body=pieces(), most=20_000_000)
            assert status == 200
            assert body == b"".join(bytes([number]) * 50_000 for number in range(200))
            assert await asker.ask("/again") == (200, b"/again")

    with ScriptedHost(echo) as host:
        run(main())
        assert host.connections == 1


def test_a_refusal_ends_the_sending_of_a_body(run: Run) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 100_000

    async def main() -> None:
        async with Asker(host.url) as asker:
            assert await asker.ask(method="POST", body=endless()) == (413, b"too much")

    def answer(_request: Received, connection: socket.socket) -> bytes | None:
        connection.sendall(response(b"too much", "413 Too Large"))
        while connection.recv(1_000_000):
            pass
        return None

    with ScriptedHost(answer, read_body=False) as host:
        run(main())
    assert sent


def test_a_body_that_fails_fails_the_exchange(run: Run) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError("the file is gone")

    async def main() -> None:
        async with Asker(host.url) as asker:
            with pytest.raises(LookupError):
                await asker.ask(method="POST", body=failing())
            assert await asker.ask("/next") == (200, b"/next")

    with ScriptedHost(echo) as host:
        run(main())


def test_a_server_that_ends_while_a_body_is_sent(run: Run) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def main() -> None:
        async with Asker(host.url) as asker:
            with pytest.raises(OSError):
                await asker.ask(method="POST", body=endless())

    with ScriptedHost(lambda _request, _connection: None, read_body=False) as host:
        run(main())


def test_closing_the_pool_ends_what_is_under_way(run: Run) -> None:
    asked, release = threading.Event(), threading.Event()

    def answer(_request: Received, _connection: socket.socket) -> bytes:
        asked.set()
        assert release.wait(10)
        return response(b"late")

    async def main() -> None:
        async with Asker(host.url) as asker:
            under_way = asyncio.create_task(asker.ask())
            assert await asyncio.to_thread(asked.wait, 10)
            await asker.pool.aclose()
            with pytest.raises(OSError):
                await under_way
            assert not asker.pool._open

    with ScriptedHost(answer) as host:
        try:
            run(main())
        finally:
            release.set()


def test_nobody_listens(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def main() -> None:
        async with Asker(url) as asker:
            with pytest.raises(NotSentError):
                await asker.ask()

    run(main())


def test_a_host_that_is_silent_is_not_waited_for_longer_than_asked(run: Run) -> None:
    with socket.socket() as deaf:
        # Full backlog: what connects next hears nothing.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())

        async def main() -> None:
            async with Asker(f"http://127.0.0.1:{deaf.getsockname()[1]}") as asker:
                with pytest.raises(NotSentError, match="in time"):
                    await asker.ask(connecting=0.1)

        run(main())
        for filler in fillers:
            filler.close()


def test_of_several_addresses_one_that_answers_is_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()

    async def main(url: str) -> None:
        open_address = ("127.0.0.1", split_url(url)[0].port)
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        found = [(*kind, closed), (*kind, open_address)]

        async def getaddrinfo(*_: object, **__: object) -> Any:
            return found

        async with Asker(url) as asker:
            monkeypatch.setattr(asker.pool, "_loop", _Resolving(asyncio.get_running_loop(), getaddrinfo))
            assert await asker.ask("/here") == (200, b"/here")

    with ScriptedHost(echo) as host:
        run(main(host.url))


class _Resolving:
    """A loop with another way to look names up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, getaddrinfo: Any) -> None:
        self._loop = loop
        self.getaddrinfo = getaddrinfo

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


def test_a_server_that_does_not_speak_tls_gets_no_request(run: Run) -> None:
    async def main() -> None:
        async with Asker(host.url) as asker:
            with pytest.raises(NotSentError):
                await asker.ask(tls=ssl.create_default_context())

    def answer(_request: Received, _connection: socket.socket) -> bytes:
        raise AssertionError("no request was to come")

    with ScriptedHost(answer, read_body=False) as host:
        run(main())
        assert not any(request.method == "GET" for request in host.requests)


# --- as a fabric ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "\N{SNOWMAN}"])
def test_a_header_field_is_one_line_of_ascii(value: str) -> None:
    async def main() -> None:
        http = AsyncHttp()
        try:
            with pytest.raises(errors.RemoteHostError, match="Could not reach"):
                await http.ask(Ask("GET", host.url, {"X-Field": value}))
        finally:
            await http.aclose()

    with ScriptedHost(reply(1)) as host:
        asyncio.run(main())
        assert host.requests == []
