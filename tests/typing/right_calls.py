"""Typed calls that a type checker must accept, with the types of their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from paglets.core.agent import Paglet, PagletState
from paglets.core.handlers import handler
from paglets.core.messages import Message
from paglets.remote.aio import AsyncHostClient, AsyncPagletProxy
from paglets.remote.proxy import CallOptions, PagletProxy


@dataclass
class CounterState(PagletState):
    count: int = 0


class Counter(Paglet[CounterState]):
    State = CounterState

    @handler
    def increment(self, by: int = 1) -> int:
        return self.state.count + by

    @handler("named")
    def by_name(self, first: str, /, *, second: bytes | None = None) -> list[str]:
        return [first, str(second)]

    @handler(kind="slow")
    async def later(self, by: int) -> dict[str, int]:
        return {"by": by}

    @handler
    async def never(self) -> None: ...

    @handler
    def with_message(self, message: Message | None = None) -> str:
        return "" if message is None else message.kind


class Special(Counter):
    def increment(self, by: int = 1) -> int:
        return -by


def plain(proxy: PagletProxy, client: AsyncHostClient) -> None:
    assert_type(proxy.call(Counter.increment), int)
    assert_type(proxy.call(Counter.increment, 2), int)
    assert_type(proxy.call(Counter.increment, by=2), int)
    assert_type(proxy.call(Special.increment, by=2), int)
    assert_type(proxy.call(Counter.by_name, "a", second=b"b"), list[str])
    assert_type(proxy.call(Counter.later, by=2), dict[str, int])
    assert_type(proxy.call(Counter.with_message), str)
    proxy.call(Counter.never)
    wider: float | None = proxy.call(Counter.increment, by=2)
    anything: object = proxy.call(Counter.later, by=2)
    print(wider, anything)
    proxy.call_oneway(Counter.increment, by=2)
    calls = proxy.with_options(CallOptions(timeout=2.0, no_delay=True))
    assert_type(calls.call(Counter.increment, by=2), int)
    assert_type(calls.call(Counter.later, 2), dict[str, int])
    calls.call_oneway(Counter.later, by=2)
    assert_type(proxy.aio(client), AsyncPagletProxy)


async def asynchronous(proxy: AsyncPagletProxy) -> None:
    assert_type(await proxy.call(Counter.increment, by=2), int)
    assert_type(await proxy.call(Counter.by_name, "a"), list[str])
    assert_type(await proxy.call(Counter.later, by=2), dict[str, int])
    await proxy.call(Counter.never)
    wider: float | None = await proxy.call(Counter.increment, by=2)
    anything: object = await proxy.call(Counter.later, by=2)
    print(wider, anything)
    await proxy.call_oneway(Counter.increment, by=2)
    calls = proxy.with_options(CallOptions())
    assert_type(await calls.call(Counter.increment, by=2), int)
    assert_type(await calls.call(Counter.later, by=2), dict[str, int])
    assert_type(proxy.sync(), PagletProxy)


def handlers_are_still_methods(counter: Counter) -> None:
    assert_type(counter.increment(by=2), int)
    assert_type(counter.by_name("a"), list[str])
