"""Typed services: a call through a handle, and the items of streams, near and far."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from bench import floors
from bench.agents import EchoState
from bench.measure import Row, milliseconds
from bench.peers import local_host, peer_host
from paglets.core.agent import Paglet, handler
from paglets.core.messages import Message
from paglets.core.runtime_values import ServiceScope
from paglets.remote.calls import CallOptions
from paglets.remote.references import PagletProxyRef
from paglets.services.contracts import ServiceContract, ServiceOperation, StreamOperation

_LONG = CallOptions(timeout=120.0)


@dataclass(frozen=True)
class Question:
    """A small request, or how many items are wanted."""

    number: int = 0


@dataclass(frozen=True)
class Answer:
    """A small reply."""

    number: int
    text: str = ""


ASK = ServiceOperation("ask", Question, Answer)
TURNS = StreamOperation("turns", Question, Answer)
FLOW = StreamOperation("flow", Question, Answer)
CONTRACT = ServiceContract("bench", (ASK,), streams=(TURNS, FLOW))


class Provider(Paglet[EchoState]):
    """Answer, and make items."""

    State = EchoState

    def on_creation(self, event: Any) -> None:
        """Be found."""
        self.advertise_contract(CONTRACT)

    def _ask(self, question: Question) -> Answer:
        return Answer(question.number, "an answer")

    def _turns(self, question: Question) -> Iterator[Answer]:
        for number in range(question.number):
            yield Answer(number, "an item")

    async def _flow(self, question: Question) -> AsyncIterator[Answer]:
        for number in range(question.number):
            yield Answer(number, "an item")

    def handle_message(self, message: Message) -> Any:
        """Route to the operation."""
        return CONTRACT.route(message, {ASK: self._ask}, streams={TURNS: self._turns, FLOW: self._flow})


class Customer(Paglet[EchoState]):
    """Use a provider and say how long it took."""

    State = EchoState

    def _handle(self, where: PagletProxyRef | None) -> Any:
        if where is None:
            return self.require_contract(CONTRACT)
        # As a lookup in the mesh would give it, without a mesh that gossips meanwhile.
        (record,) = [
            record
            for record in self._records(where.host_url)
            if record.proxy.agent_id == where.agent_id and CONTRACT.matches_record(record)
        ]
        return self.context.host.service_handle(CONTRACT, record, scope=ServiceScope.LOCAL)

    def _records(self, url: str) -> list[Any]:
        from paglets.services.contracts import ServiceRecord

        answer = self.context.host.client.get_json(f"{url}/services?name={CONTRACT.name}")  # type: ignore[attr-defined]
        return [ServiceRecord.from_wire(wire) for wire in answer["services"]]

    @handler
    def calls(self, where: PagletProxyRef | None, rounds: int) -> list[float]:
        """Return the seconds of each of ``rounds`` calls."""
        handle = self._handle(where)
        seconds = []
        for number in range(rounds):
            start = time.perf_counter()
            handle.call(ASK, Question(number))
            seconds.append(time.perf_counter() - start)
        return seconds

    @handler
    def items(self, where: PagletProxyRef | None, flow: bool, count: int) -> float:
        """Return how many items a second come."""
        handle = self._handle(where)
        start = time.perf_counter()
        got = sum(1 for _ in handle.stream(FLOW if flow else TURNS, Question(count)))
        assert got == count
        return count / (time.perf_counter() - start)


def calls(quick: bool) -> Iterator[Row]:
    """Call and stream."""
    rounds = 200 if quick else 1500
    count = 5_000 if quick else 50_000
    floor = floors.send_round_trip(rounds)
    http_floor = floors.http_round_trip(rounds)
    with local_host(modules=("bench.service_calls",)) as host, peer_host() as peer:
        host.create(Provider)
        customer = host.create(Customer)
        far = host.create_remote(peer, Provider).ref()
        customer.call(Customer.calls, None, 100)
        customer.call(Customer.calls, far, 100)
        long = customer.with_options(_LONG)
        yield milliseconds("service call, same host", long.call(Customer.calls, None, rounds), floor=2 * floor, aim=0.4)
        yield milliseconds(
            "service call, other host", long.call(Customer.calls, far, rounds), floor=http_floor + floor, aim=0.8
        )
        # One round trip for each window of items, and nothing else.
        for name, where, trip in (("same host", None, 2 * floor), ("other host", far, http_floor + floor)):
            for flow in (False, True):
                rate = long.call(Customer.items, where, flow, count)
                kind = "asynchronous generator" if flow else "generator"
                yield Row(
                    f"items of a stream, {kind}, {name}",
                    "/s",
                    round(rate),
                    round(TURNS.window / (trip / 1e3)),
                    larger_is_better=True,
                    samples=count,
                )
