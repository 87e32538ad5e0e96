from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import StreamInterruptedError
from paglets.services.contracts import StreamOperation
from paglets.services.streams.turns import TURN_SECONDS, TurnStream
from paglets.services.streams.wire import BATCH_BYTES, NEXT, Batch, Step
from tests.services.test_providers import Clock


@dataclass(frozen=True)
class Item:
    number: int
    content: bytes = b""


NUMBERS = StreamOperation("numbers", item_type=Item)


def pull(first: int, credit: int = 8) -> Step:
    return Step(NEXT, "s", credit, first)


def numbers(batch: Batch) -> list[int]:
    return [item["number"] for item in batch.items]


class Source:
    """Items, and what became of their generator."""

    def __init__(self, count: int, *, fail_at: int = -1, size: int = 0, on_item: Any = None) -> None:
        self.made = 0
        self.closed = 0
        self._count = count
        self._fail_at = fail_at
        self._size = size
        self._on_item = on_item

    def items(self) -> Iterator[Any]:
        try:
            for number in range(self._count):
                if number == self._fail_at:
                    raise KeyError(f"no {number}")
                self.made += 1
                if self._on_item is not None:
                    self._on_item(number)
                yield Item(number, b"x" * self._size)
        finally:
            self.closed += 1


def test_no_more_is_made_than_was_asked_for() -> None:
    source = Source(100)
    stream = TurnStream(NUMBERS, source.items(), clock=Clock())
    assert source.made == 0
    assert numbers(stream.advance(pull(0))) == list(range(8))
    assert source.made == 8
    assert numbers(stream.advance(pull(8, credit=3))) == [8, 9, 10]
    assert source.made == 11


def test_a_repeated_pull_gets_the_same_answer() -> None:
    stream = TurnStream(NUMBERS, Source(10).items(), clock=Clock())
    batch = stream.advance(pull(0))
    assert stream.advance(pull(0)) is batch
    last = stream.advance(pull(8))
    assert (numbers(last), last.ended) == ([8, 9], True)
    assert stream.advance(pull(8)) is last
    with pytest.raises(StreamInterruptedError, match="item 0 of stream 'numbers'"):
        stream.advance(pull(0))
    with pytest.raises(StreamInterruptedError):
        stream.advance(pull(10))


def test_an_error_comes_after_the_items_before_it(caplog: pytest.LogCaptureFixture) -> None:
    source = Source(10, fail_at=3)
    stream = TurnStream(NUMBERS, source.items(), clock=Clock())
    batch = stream.advance(pull(0))
    assert numbers(batch) == [0, 1, 2]
    assert batch.ended
    assert batch.error == {"error_type": "HostError", "error": "'no 3'"}
    assert source.closed == 1
    assert "stream 'numbers' failed" in caplog.text


def test_an_item_of_another_type_ends_the_stream() -> None:
    def items() -> Iterator[Any]:
        yield Item(1)
        yield "two"

    batch = TurnStream(NUMBERS, items(), clock=Clock()).advance(pull(0))
    assert numbers(batch) == [1]
    assert batch.error is not None
    assert batch.error["error_type"] == "ServiceContractError"
    assert "must be a Item, not str" in batch.error["error"]


def test_a_turn_ends_when_it_takes_long_but_not_without_an_item() -> None:
    clock = Clock()

    def slow(_: int) -> None:
        clock.now += TURN_SECONDS

    stream = TurnStream(NUMBERS, Source(10, on_item=slow).items(), clock=clock)
    assert numbers(stream.advance(pull(0))) == [0]
    assert stream.asked_at == clock.now


def test_a_turn_ends_when_it_has_many_bytes() -> None:
    stream = TurnStream(NUMBERS, Source(10, size=BATCH_BYTES // 2).items(), clock=Clock())
    assert numbers(stream.advance(pull(0))) == [0, 1]


def test_closing_runs_the_finally_once() -> None:
    source = Source(10)
    stream = TurnStream(NUMBERS, source.items(), clock=Clock())
    stream.advance(pull(0, credit=1))
    stream.close()
    stream.close()
    assert source.closed == 1
    with pytest.raises(StreamInterruptedError):
        stream.advance(pull(1))


def test_a_finally_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def items() -> Iterator[Any]:
        try:
            yield Item(1)
        finally:
            raise OSError("no")

    stream = TurnStream(NUMBERS, items(), clock=Clock())
    stream.advance(pull(0, credit=1))
    stream.close()
    assert "failed while it was closed" in caplog.text


def test_a_generator_that_ends_its_own_paglet_is_left_alone() -> None:
    streams: list[TurnStream] = []
    stream = TurnStream(NUMBERS, Source(3, on_item=lambda _: streams[0].close()).items(), clock=Clock())
    streams.append(stream)
    assert numbers(stream.advance(pull(0))) == [0, 1, 2]


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=60))
def test_every_item_comes_once_and_in_order(count: int, pulls: list[tuple[int, bool]]) -> None:
    source = Source(count)
    stream = TurnStream(NUMBERS, source.items(), clock=Clock())
    got: list[int] = []
    for credit, repeated in pulls:
        first = len(got)
        batch = stream.advance(pull(first, credit))
        if repeated:
            assert stream.advance(pull(first, credit)) == batch
        got += numbers(batch)
        assert source.made <= first + credit
        if batch.ended:
            assert got == list(range(count))
            assert source.closed == 1
            return
    assert got == list(range(len(got)))
