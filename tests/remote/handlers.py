"""A paglet whose handlers are called through proxies in tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.agent import Paglet, PagletState
from paglets.core.handlers import handler, handlers_of
from paglets.core.messages import Message


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class CounterState(PagletState):
    count: int = 0


class Counter(Paglet[CounterState]):
    State = CounterState

    @handler
    def increment(self, by: int = 1) -> int:
        self.state.count += by
        return self.state.count

    @handler("shift")
    async def move_point(self, point: Point, *, dx: int) -> Point:
        return Point(point.x + dx, point.y)

    @handler
    def echo(self, data: bytes) -> bytes:
        return data

    @handler
    def leave(self) -> None: ...

    @handler
    def lie(self) -> int:
        return "no int"  # type: ignore[return-value]

    @handler
    def named(self, message: Message | None = None) -> str:
        return "" if message is None else str(message.sender)


async def handle(paglet: Paglet[Any], message: Message) -> Any:
    """Do what the process of a paglet does with a message."""
    result = paglet.handle_message(message)
    if hasattr(result, "__await__"):
        result = await result
    return handlers_of(type(paglet))[message.kind].encode_reply(result)
