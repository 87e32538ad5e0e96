"""Calls of services that a type checker must refuse. Each marked line has exactly one error, of the named code."""

from __future__ import annotations

from paglets.core.agent import Paglet
from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceOperation, StreamOperation
from paglets.services.pool import ServicePool
from tests.typing.right_services import ASK, LINES, PING, TICKS, Answer, Line, Question


def calls(handle: ServiceHandle, pool: ServicePool) -> None:
    handle.call(ASK, Answer(1))  # error: misc
    handle.call("ask", Question("x"))  # error: arg-type
    handle.call(LINES, Question("x"))  # error: arg-type
    handle.send_oneway(ASK, Answer(1))  # error: misc
    pool.call(PING, Question("x"))  # error: misc
    wrong: Question = handle.call(ASK, Question("x"))  # error: assignment
    handle.call(ASK, Question("x"), timeout="1")  # error: arg-type
    got = handle.send_oneway(PING)  # error: func-returns-value
    print(wrong, got)


async def asynchronous(handle: ServiceHandle) -> None:
    await handle.acall(ASK, Answer(1))  # error: misc
    await handle.asend_oneway(ASK, Answer(1))  # error: misc
    handle.acall(ASK)  # error: unused-coroutine
    number: Line = await handle.acall(ASK)  # error: arg-type
    for item in handle.astream(LINES):  # error: attr-defined
        print(item)
    print(number)


def streams(handle: ServiceHandle, pool: ServicePool) -> None:
    handle.stream(LINES, Answer(1))  # error: misc
    handle.stream(ASK, Question("x"))  # error: arg-type
    line: Answer = next(handle.stream(LINES))  # error: assignment
    for tick in pool.stream(TICKS):
        print(tick.text)  # error: attr-defined
    handle.stream(LINES, window="3")  # error: arg-type
    print(line)


def contracts(paglet: Paglet[None]) -> None:
    ServiceContract("c", (LINES,))  # error: arg-type
    ServiceContract("c", (ASK,), streams=(ASK,))  # error: arg-type
    StreamOperation("s", Question, 3)  # error: arg-type
    ServiceOperation("o", Question, Answer, idempotent="yes")  # error: arg-type
    ServiceOperation[Question, Line]("o", Question, Answer)  # error: arg-type
    ASK.name = "other"  # error: misc
