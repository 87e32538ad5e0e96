"""Calls of services that a type checker must accept, with the types that it must infer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, assert_type

from paglets.core.agent import Paglet
from paglets.core.messages import Message
from paglets.remote.aio import AsyncHostClient
from paglets.services.contracts import (
    EmptyPayload,
    ServiceContract,
    ServiceHandle,
    ServiceOperation,
    StreamOperation,
)
from paglets.services.directory import AsyncServiceDirectory, ServiceDirectory
from paglets.services.pool import ServicePool
from paglets.services.streams.pulling import AsyncServiceStream, ServiceStream


@dataclass(frozen=True)
class Question:
    text: str = ""


@dataclass(frozen=True)
class Answer:
    number: int = 0


@dataclass(frozen=True)
class Line:
    text: str = ""


ASK = ServiceOperation("ask", Question, Answer, idempotent=True)
PING = ServiceOperation("ping")
LINES = StreamOperation("lines", Question, Line, window=8)
TICKS = StreamOperation("ticks", item_type=Answer)
NAMED = ServiceOperation[Question, Answer]("named", Question, Answer)
CONTRACT = ServiceContract("oracle", (ASK, PING), streams=(LINES, TICKS))


def calls(handle: ServiceHandle, pool: ServicePool) -> None:
    assert_type(handle.call(ASK, Question("x")), Answer)
    assert_type(handle.call(ASK), Answer)
    assert_type(handle.call(PING), EmptyPayload)
    assert_type(handle.call(NAMED, Question("x")), Answer)
    assert_type(pool.call(ASK, Question("x"), timeout=1.0), Answer)
    handle.send_oneway(ASK, Question("x"), no_delay=True)
    pool.send_oneway(PING)


async def asynchronous(handle: ServiceHandle, pool: ServicePool) -> None:
    assert_type(await handle.acall(ASK, Question("x")), Answer)
    assert_type(await pool.acall(PING), EmptyPayload)
    await handle.asend_oneway(ASK, Question("x"))
    async for line in handle.astream(LINES, Question("x")):
        assert_type(line, Line)
    async with pool.astream(TICKS, window=3) as ticks:
        assert_type(ticks, AsyncServiceStream[Answer])
        assert_type(await anext(ticks), Answer)


def streams(handle: ServiceHandle, pool: ServicePool) -> None:
    for line in handle.stream(LINES, Question("x"), timeout=1):
        assert_type(line, Line)
    with pool.stream(TICKS) as ticks:
        assert_type(ticks, ServiceStream[Answer])
        assert_type([tick.number for tick in ticks], list[int])


def found(paglet: Paglet[Any], directory: ServiceDirectory) -> None:
    assert_type(paglet.require_contract(CONTRACT, operation=ASK), ServiceHandle)
    assert_type(paglet.service(CONTRACT).call(ASK), Answer)
    assert_type(directory.require_contract(CONTRACT).call(ASK), Answer)


async def found_by_coroutines(client: AsyncHostClient) -> None:
    directory = AsyncServiceDirectory("http://127.0.0.1:8765", client)
    handle = await directory.require_contract(CONTRACT)
    assert_type(await handle.acall(ASK), Answer)


class Oracle(Paglet[Any]):
    def _ask(self, question: Question) -> Answer:
        return Answer(len(question.text))

    async def _ping(self, _: EmptyPayload) -> EmptyPayload:
        return EmptyPayload()

    def _lines(self, question: Question) -> Iterator[Line]:
        yield Line(question.text)

    async def _ticks(self, _: EmptyPayload) -> AsyncIterator[Answer]:
        yield Answer(1)

    def handle_message(self, message: Message) -> Any:
        return CONTRACT.route(
            message,
            {ASK: self._ask, PING: self._ping},
            streams={LINES: self._lines, TICKS: self._ticks},
            default=self.not_handled(),
        )
