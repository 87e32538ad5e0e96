"""Speak HTTP byte by byte, also wrongly."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from paglets.runtime.host import Host
from paglets.runtime.http.app import application
from paglets.runtime.http.connection import ServerLimits
from paglets.runtime.http.guards import Application, GuardPolicy, Receive, Scope, Send, send_json
from paglets.runtime.http.server import HttpServer, bind
from paglets.runtime.loop import LoopThread

DEADLINE_SECONDS = 15.0


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json()["error_type"])

    @property
    def text(self) -> str:
        return str(self.json()["error"])


class Wire:
    """A connection to a host."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.authority = parts.netloc
        self.sock = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=DEADLINE_SECONDS)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> Self:
        self.sock.sendall(data)
        return self

    def ask(self, method: str, path: str, body: bytes | Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request, a body that is not bytes as JSON, and return the answer."""
        self.send(head_and_body(method, path, body, {"Host": self.authority, **(headers or {})}))
        return self.reply()

    def reply(self) -> Reply:
        """Read one answer."""
        return self.body_of(self.head())

    def body_of(self, head: Reply) -> Reply:
        """Read the body that belongs to a head."""
        return replace(head, body=self._exactly(int(head.headers["content-length"])))

    def head(self) -> Reply:
        """Read the head of an answer."""
        head = self._until(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Reply(int(status.split()[1]), headers, b"")

    def ended(self) -> bool:
        """Wait until the other end has closed; what still came is ignored."""
        try:
            while self.sock.recv(65536):
                continue
        except ConnectionError:
            return True
        return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._more()
        found, _, self._rest = self._rest.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended after {self._rest!r}")
        self._rest += data


def head_and_body(method: str, path: str, body: bytes | Any, headers: Mapping[str, str]) -> bytes:
    """Return a request; headers given as None are left out."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json"} if content else {}
    if content or method == "POST":
        fields["Content-Length"] = str(len(content))
    fields |= headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + content


def ask(
    address: str, method: str, path: str, body: bytes | Any = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """Send one request over a connection of its own."""
    with Wire(address) as wire:
        return wire.ask(method, path, body, headers)


class Runner(Protocol):
    """Whoever can run things on an event loop."""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...

    def call(self, work: Callable[[], Any]) -> Any: ...


class Served:
    """Serve an application on a port of its own, with bounds that a test need not wait long for.

    :param on: the loop to serve on, a new one by default.
    """

    def __init__(
        self, application: Application, limits: ServerLimits | None = None, *, on: Runner | None = None
    ) -> None:
        self._own = LoopThread("paglets-served") if on is None else None
        self._on: Runner = on or self._own  # type: ignore[assignment]  # one of them is there
        sockets = bind(["127.0.0.1"], 0)
        self.address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self.server = HttpServer(application, sockets, limits)
        self._on.run(self.server.start())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on.run(self.server.stop())
        if self._own is not None:
            self._own.stop()

    @property
    def connections(self) -> int:
        return int(self._on.call(lambda: self.server.statistics().connections))

    @property
    def requests(self) -> int:
        return int(self._on.call(lambda: self.server.statistics().requests))


def served_again(host: Host, limits: ServerLimits | None = None, **policy: Any) -> Served:
    """Serve a running host on one more port, under other bounds."""
    assembly = host._running()
    chosen = GuardPolicy(api_key=None, host_names=frozenset({"localhost"}), **policy)
    return Served(application(assembly.node, lambda: chosen, version=lambda: "0"), limits, on=assembly)


def in_threads(work: Any, count: int) -> list[Any]:
    """Call a function with each number in a thread of its own, all at once, and return the results."""
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        results[index] = work(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def get(host: Host, path: str) -> Any:
    reply = ask(host.address, "GET", path)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


def post(host: Host, path: str, body: Any = None) -> Any:
    reply = ask(host.address, "POST", path, body)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


def say(kind: str, **args: Any) -> dict[str, Any]:
    return {"message": {"kind": kind, "args": args}}


def message_request(agent_id: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /agents/{agent_id}/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def refused_and_closed(reply: Reply, status: int) -> None:
    assert reply.status == status, reply.body
    assert set(reply.json()) == refusal_fields(status)
    assert reply.headers["connection"] == "close"


def refusal_fields(status: int) -> set[str]:
    """Return what a refusal says; of one for the type of the body also that the body was not looked at."""
    return {"error_type", "error"} | ({"refused"} if status == 415 else set())


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
