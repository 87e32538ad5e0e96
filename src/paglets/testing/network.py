"""The network of a testing mesh: requests to the hosts' own HTTP applications, and what can go wrong on the way."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import unquote_to_bytes

from paglets.remote.connections import NotSentError
from paglets.remote.exchanges import split_url
from paglets.runtime.http.guards import Application
from paglets.testing.scheduler import CURRENT, Process, Scheduler

#: What the test itself is called as a sender.
TEST = "test"


class Fault(Enum):
    """What becomes of a request."""

    LOSE_REQUEST = "lose-request"
    """The connection breaks before it arrives."""
    LOSE_ANSWER = "lose-answer"
    """It is carried out, and the connection breaks before the answer arrives."""
    DUPLICATE = "duplicate"
    """It arrives twice; the first answer counts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host answered."""

    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes


@dataclass(slots=True)
class Rule:
    """A fault, and which requests it meets.

    :param sender: name of a host, `test`, or None for any.
    :param target: name of a host, None for any.
    :param path: part of the path; empty for any.
    :param count: how many requests it meets; None for no end.
    :param rate: how likely one that fits is met.
    """

    fault: Fault
    sender: str | None = None
    target: str | None = None
    path: str = ""
    count: int | None = 1
    rate: float = 1.0


@dataclass(slots=True)
class _Place:
    name: str
    process: Process
    application: Application
    pending: set[asyncio.Future[Any]]


class Network:
    """Carry requests between the hosts and the test.

    Each takes `latency` seconds there and as many back, a little more or less by the seed. A host that is not there
    refuses connections at once. Over a partition nothing arrives, and nobody is told: a request ends with its time.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._places: dict[str, _Place] = {}
        self.latency = 0.001
        self.jitter = 0.5
        """By what part of the latency single messages differ from it."""
        self.extra: dict[frozenset[str], float] = {}
        """Further seconds between two hosts."""
        self.cuts: set[frozenset[str]] = set()
        self.rules: list[Rule] = []
        self.in_flight = 0
        self.log: Callable[[str, str, str, str], None] = lambda *_: None

    def serve(self, address: str, name: str, application: Application) -> None:
        """Have an application answer at an address."""
        process = CURRENT.get()
        assert process is not None  # noqa: S101 - hosts serve, and they are processes
        self._places[address] = _Place(name, process, application, set())

    def leave(self, address: str) -> None:
        """Have nobody answer at an address; who waits for an answer loses the connection."""
        place = self._places.pop(address, None)
        for pending in () if place is None else place.pending:
            if not pending.done():
                pending.set_exception(ConnectionResetError("the host has ended"))

    async def request(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
    ) -> Answer:
        """Send a request and return the answer; it takes as long as it takes.

        :raises NotSentError: nobody is at the address.
        :raises ConnectionError: the connection broke; the request may have been carried out.
        """
        origin, authority, target = split_url(url)
        address = f"{origin.scheme}://{origin.host}:{origin.port}"
        process = CURRENT.get()
        sender = TEST if process is None else process.host
        self.in_flight += 1
        try:
            return await self._carry(sender, address, authority, method, target, headers, body)
        finally:
            self.in_flight -= 1

    async def _carry(
        self,
        sender: str,
        address: str,
        authority: str,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
    ) -> Answer:
        there = self._places.get(address)
        receiver = address if there is None else there.name
        await self._travel(sender, receiver)
        place = self._places.get(address)
        if place is None:
            raise NotSentError(ConnectionRefusedError(f"[Errno 111] connection refused at {address}"))
        fault = self._fault(sender, place.name, target)
        self.log(sender, place.name, f"{method} {target}", "" if fault is None else fault.value)
        if fault is Fault.LOSE_REQUEST:
            raise ConnectionResetError("the connection broke")
        scope = _scope(method, authority, target, headers, body)
        if fault is Fault.DUPLICATE:
            _ = self._begin(place, dict(scope), body)
        answer = await self._begin(place, scope, body)
        if fault is Fault.LOSE_ANSWER:
            raise ConnectionResetError("the connection broke before the answer")
        await self._travel(place.name, sender)
        return answer

    async def _travel(self, sender: str, receiver: str) -> None:
        pair = frozenset((sender, receiver))
        if sender == receiver:
            return
        random = self._scheduler.random
        seconds = self.latency * (1 + self.jitter * (2 * random.random() - 1)) + self.extra.get(pair, 0.0)
        if seconds > 0:
            await asyncio.sleep(seconds)
        if pair in self.cuts:
            # Whoever waits gives up some time; what is lost does not arrive when the network is whole again.
            await asyncio.get_running_loop().create_future()

    def _fault(self, sender: str, target: str, path: str) -> Fault | None:
        for rule in self.rules:
            fits = rule.sender in (None, sender) and rule.target in (None, target) and rule.path in path
            if not fits or (rule.rate < 1.0 and self._scheduler.random.random() >= rule.rate):
                continue
            if rule.count is not None:
                rule.count -= 1
                if rule.count <= 0:
                    self.rules.remove(rule)
            return rule.fault
        return None

    def _begin(self, place: _Place, scope: dict[str, Any], body: bytes) -> asyncio.Future[Answer]:
        """Have an application serve a request, in a task of its host."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        future.add_done_callback(_seen)
        place.pending.add(future)
        future.add_done_callback(place.pending.discard)
        context = contextvars.Context()
        context.run(CURRENT.set, place.process)
        task = loop.create_task(_serve(place.application, scope, body, future), context=context)
        task.add_done_callback(lambda _: place)  # held until it ends
        return future


async def _serve(application: Application, scope: dict[str, Any], body: bytes, future: asyncio.Future[Answer]) -> None:
    pieces = [body]
    received: list[bytes] = []
    head: dict[str, Any] = {}

    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}
        await asyncio.get_running_loop().create_future()  # a connection that stays
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            head.update(message)
        elif message["type"] == "http.response.body":
            received.append(bytes(message.get("body", b"")))
            if not message.get("more_body", False) and not future.done():
                fields = {
                    name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head.get("headers", ())
                }
                future.set_result(Answer(head["status"], fields, b"".join(received)))

    try:
        await application(scope, receive, send)
    except Exception as exc:
        if not future.done():
            future.set_exception(ConnectionResetError(f"the host failed to answer: {type(exc).__name__}: {exc}"))
    if not future.done():
        future.set_exception(ConnectionResetError("the host closed the connection without an answer"))


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # whoever asked may have stopped waiting


def _scope(method: str, authority: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> dict[str, Any]:
    path, _, query = target.partition("?")
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    names = {name for name, _ in fields}
    if b"host" not in names:
        fields.insert(0, (b"host", authority.encode("ascii")))
    if body and b"content-length" not in names:
        fields.append((b"content-length", str(len(body)).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "surrogateescape"),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": fields,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8765),
        "extensions": {},
        "state": {},
    }
