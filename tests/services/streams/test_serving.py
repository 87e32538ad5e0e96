from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from paglets.core.errors import OverloadedError, ServiceContractError, StreamInterruptedError
from paglets.core.messages import Message
from paglets.core.stage import Stage, current_stage
from paglets.services.contracts import EmptyPayload, StreamOperation
from paglets.services.streams.serving import MOST_REMEMBERED, MOST_STREAMS, StreamTable, serve
from paglets.services.streams.wire import CLOSE, NEXT, OPEN, PULL, Step
from tests.services.streams.test_turns import NUMBERS, Item, Source
from tests.support import eventually

BRIEF = StreamOperation("brief", item_type=Item, idle_timeout=0.05)


class Theatre:
    """A stage with a loop of its own, and what a paglet would tell itself on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.told: list[Message] = []
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.stage = Stage(lambda: self.loop, self.told.append)

    def open(self, handler: Callable[[Any], Any], operation: Any = NUMBERS, *, name: str = "s", credit: int = 4) -> Any:
        message = Message(operation.name, arg=Step(OPEN, name, credit).to_wire())
        return serve(operation, message, handler)

    def turn(self, do: str, first: int = 0, name: str = "s", operation: Any = NUMBERS) -> Any:
        return serve(operation, Message(operation.name, arg=Step(do, name, 4, first).to_wire()), lambda _: None)

    def pull(self, do: str, first: int = 0, name: str = "s") -> Any:
        message = Message(PULL, arg=Step(do, name, 4, first, 5.0).to_wire())
        return asyncio.run_coroutine_threadsafe(self.table.pull(message), self.loop).result(5)

    @property
    def table(self) -> StreamTable:
        table: StreamTable = self.stage.streams
        return table

    def close(self) -> None:
        if self.stage.streams is not None:
            self.table.close_all("the test is over", on_loop=False)
        asyncio.run_coroutine_threadsafe(self.loop.shutdown_asyncgens(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def theatre() -> Iterator[Theatre]:
    made = Theatre()
    token = current_stage.set(made.stage)
    try:
        yield made
    finally:
        current_stage.reset(token)
        made.close()


def numbers(answer: dict[str, Any]) -> list[int]:
    return [item["number"] for item in answer["items"]]


def test_a_generator_goes_on_in_turns(theatre: Theatre) -> None:
    source = Source(6)
    answer = theatre.open(lambda _: source.items())
    assert (numbers(answer), answer["turns"], answer["ended"]) == ([0, 1, 2, 3], True, False)
    assert len(theatre.table) == 1
    last = theatre.turn(NEXT, 4)
    assert (numbers(last), last["ended"]) == ([4, 5], True)
    assert len(theatre.table) == 0
    assert theatre.turn(NEXT, 4) == last
    with pytest.raises(StreamInterruptedError):
        theatre.pull(NEXT)


def test_anything_that_can_be_iterated_will_do(theatre: Theatre) -> None:
    answer = theatre.open(lambda _: [Item(1), Item(2)])
    assert (numbers(answer), answer["ended"]) == ([1, 2], True)
    assert len(theatre.table) == 0


@pytest.mark.parametrize("made", [None, 3, EmptyPayload()])
def test_what_cannot_be_iterated_is_refused(theatre: Theatre, made: Any) -> None:
    with pytest.raises(ServiceContractError, match="must be a generator or return an iterable"):
        theatre.open(lambda _: made)
    assert len(theatre.table) == 0


def test_a_coroutine_that_returns_a_generator_is_refused_and_leaves_nothing(theatre: Theatre) -> None:
    async def handler(_: Any) -> Iterator[Item]:
        return Source(3).items()

    with pytest.raises(ServiceContractError, match="not coroutine"):
        theatre.open(handler)


def test_an_asynchronous_generator_goes_on_beside(theatre: Theatre) -> None:
    async def items(_: Any) -> AsyncIterator[Item]:
        for number in range(6):
            yield Item(number)

    answer = theatre.open(items)
    assert (answer["items"], answer["ended"], "turns" in answer) == ([], False, False)
    got: list[int] = []
    while not answer["ended"]:
        answer = theatre.pull(NEXT, len(got))
        got += numbers(answer)
    assert got == list(range(6))
    assert len(theatre.table) == 0
    with pytest.raises(StreamInterruptedError):
        theatre.turn(NEXT)


def test_an_id_is_used_once_and_an_unknown_one_is_no_stream(theatre: Theatre) -> None:
    theatre.open(lambda _: Source(9).items())
    with pytest.raises(ServiceContractError, match="is open already"):
        theatre.open(lambda _: Source(9).items())
    with pytest.raises(StreamInterruptedError, match="no such stream"):
        theatre.turn(NEXT, name="other")
    assert theatre.turn(CLOSE, name="other")["ended"]
    assert theatre.pull(CLOSE, name="other")["ended"]


def test_closing_frees_the_place(theatre: Theatre) -> None:
    sources = [Source(9) for _ in range(MOST_STREAMS + 1)]
    for number, source in enumerate(sources[:-1]):
        theatre.open(lambda _, source=source: source.items(), name=f"s{number}")
    with pytest.raises(OverloadedError, match=f"{MOST_STREAMS} streams"):
        theatre.open(lambda _: sources[-1].items(), name="more")
    assert sources[-1].made == 0
    theatre.turn(CLOSE, name="s3")
    assert sources[3].closed == 1
    theatre.open(lambda _: sources[-1].items(), name="more")


def test_so_many_ended_streams_are_remembered(theatre: Theatre) -> None:
    for number in range(MOST_REMEMBERED + 1):
        theatre.open(lambda _: Source(5).items(), name=f"s{number}")
        assert theatre.turn(NEXT, 4, name=f"s{number}")["ended"]
    assert theatre.turn(NEXT, 4, name="s1")["ended"]
    with pytest.raises(StreamInterruptedError):
        theatre.turn(NEXT, 4, name="s0")


def test_a_generator_that_nobody_asks_is_closed_in_a_turn(theatre: Theatre) -> None:
    source = Source(9)
    theatre.open(lambda _: source.items(), BRIEF)
    eventually(lambda: theatre.told, "the paglet to tell itself")
    assert source.closed == 0
    message = theatre.told[0]
    assert (message.kind, message.arg["do"], message.arg["stream"]) == ("brief", CLOSE, "s")
    serve(BRIEF, message, lambda _: None)
    assert source.closed == 1


def test_leaving_closes_everything(theatre: Theatre) -> None:
    ended = threading.Event()

    async def items(_: Any) -> AsyncIterator[Item]:
        try:
            while True:
                yield Item(0)
        finally:
            ended.set()

    source = Source(9)
    theatre.open(lambda _: source.items(), name="turns")
    theatre.open(items, name="flow")
    theatre.pull(NEXT, name="flow")
    theatre.table.close_all("ended, because its provider leaves", on_loop=False)
    assert ended.is_set()
    assert source.closed == 1
    assert len(theatre.table) == 0
    with pytest.raises(StreamInterruptedError):
        theatre.pull(NEXT, 4, name="flow")


def test_a_window_is_not_larger_than_the_operation_says(theatre: Theatre) -> None:
    source = Source(99)
    theatre.open(lambda _: source.items(), replace(NUMBERS, window=3), credit=50)
    assert source.made == 3
