"""Calls that a type checker must refuse. Each marked line has exactly one error, of the named code."""

from __future__ import annotations

from paglets.core.handlers import handler
from paglets.remote.aio import AsyncPagletProxy
from paglets.remote.proxy import CallOptions, PagletProxy
from tests.typing.right_calls import Counter


class Marked:
    @handler
    def increment(self, by: int) -> int:
        return by


def marking() -> None:
    handler(kind=5)  # error: call-overload
    handler()  # error: call-overload
    handler("kind")(5)  # error: type-var


def plain(proxy: PagletProxy) -> None:
    proxy.call(Counter.increment, by="2")  # error: call-overload
    proxy.call(Counter.increment, "2")  # error: call-overload
    proxy.call(Counter.increment, buy=2)  # error: call-overload
    proxy.call(Counter.increment, 1, 2)  # error: call-overload
    proxy.call(Counter.by_name)  # error: call-overload
    proxy.call(Counter.by_name, first="a")  # error: call-overload
    proxy.call(Counter.later, by="2")  # error: call-overload
    proxy.call(Counter.later)  # error: call-overload
    proxy.call("increment")  # error: call-overload
    text: str = proxy.call(Counter.increment, by=2)  # error: assignment
    number: int = proxy.call(Counter.later, by=2)  # error: assignment
    proxy.call(Counter.increment).upper()  # error: attr-defined
    proxy.call_oneway(Counter.increment, by="2")  # error: arg-type
    got = proxy.call_oneway(Counter.increment)  # error: func-returns-value
    calls = proxy.with_options(CallOptions(timeout="1"))  # error: arg-type
    calls.call(Counter.increment, by="2")  # error: call-overload
    calls.call_oneway(Counter.later, buy=2)  # error: call-arg
    proxy.with_options(timeout=1)  # error: call-arg
    print(text, number, got)


async def asynchronous(proxy: AsyncPagletProxy) -> None:
    await proxy.call(Counter.increment, by="2")  # error: call-overload
    await proxy.call(Counter.increment, buy=2)  # error: call-overload
    await proxy.call(Counter.later)  # error: call-overload
    await proxy.call_oneway(Counter.later, by="2")  # error: arg-type
    text: str = await proxy.call(Counter.increment, by=2)  # error: call-overload
    number: int = await proxy.call(Counter.later, by=2)  # error: call-overload
    not_awaited: int = proxy.call(Counter.increment, by=2)  # error: assignment
    proxy.call(Counter.increment, by=2)  # error: unused-coroutine
    await proxy.with_options(CallOptions()).call(Counter.increment, by="2")  # error: call-overload
    print(text, number, not_awaited)


def handlers_are_still_methods(marked: Marked) -> None:
    marked.increment(by="2")  # error: arg-type
    marked.increment(1).upper()  # error: attr-defined
