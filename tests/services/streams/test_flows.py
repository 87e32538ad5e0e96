from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from paglets.core.errors import StreamInterruptedError
from paglets.services.streams.flows import BUFFER_BYTES, FlowStream
from paglets.services.streams.wire import NEXT, Batch, Step
from tests.services.streams.test_turns import NUMBERS, Item, numbers


def pull(first: int, credit: int = 4, wait: float = 5.0) -> Step:
    return Step(NEXT, "s", credit, first, wait)


class Source:
    """Items that are made when they may be, and what became of their generator."""

    def __init__(self, count: int, *, fail_at: int = -1, hold_at: int = -1, size: int = 0) -> None:
        self.made = 0
        self.closed = 0
        self.released = asyncio.Event()
        self.held = asyncio.Event()
        self._count = count
        self._fail_at = fail_at
        self._hold_at = hold_at
        self._size = size

    async def items(self) -> AsyncIterator[Any]:
        try:
            for number in range(self._count):
                if number == self._hold_at:
                    self.held.set()
                    await self.released.wait()
                if number == self._fail_at:
                    raise KeyError(f"no {number}")
                self.made += 1
                yield Item(number, b"x" * self._size)
        finally:
            self.closed += 1


def started(source: Source, window: int = 4) -> FlowStream:
    stream = FlowStream(NUMBERS, source.items(), window=window)
    stream.start()
    return stream


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_it_runs_ahead_as_far_as_the_window_and_no_farther() -> None:
    async def main() -> None:
        source = Source(100)
        stream = started(source)
        await settled()
        assert source.made == 4
        assert numbers(await stream.advance(pull(0))) == [0, 1, 2, 3]
        await settled()
        assert source.made == 8
        assert numbers(await stream.advance(pull(4, credit=1))) == [4]
        await settled()
        assert source.made == 9
        await stream.close()
        assert source.closed == 1

    asyncio.run(main())


def test_it_runs_ahead_by_so_many_bytes_only() -> None:
    async def main() -> None:
        source = Source(100, size=BUFFER_BYTES // 2)
        stream = started(source, window=50)
        await settled()
        assert source.made == 2
        await stream.close()

    asyncio.run(main())


def test_a_pull_waits_for_an_item() -> None:
    async def main() -> None:
        source = Source(3, hold_at=0)
        stream = started(source)
        waiting = asyncio.create_task(stream.advance(pull(0)))
        await source.held.wait()
        assert stream.running
        source.released.set()
        assert numbers(await waiting)[0] == 0
        assert not stream.running
        await stream.close()

    asyncio.run(main())


def test_a_pull_that_waited_long_enough_gets_none() -> None:
    async def main() -> None:
        stream = started(Source(3, hold_at=0))
        batch = await stream.advance(pull(0, wait=0.0))
        assert batch == Batch((), 0)
        await stream.close()

    asyncio.run(main())


def test_two_pulls_for_the_same_item_get_the_same_answer() -> None:
    async def main() -> None:
        source = Source(3, hold_at=0)
        stream = started(source)
        pulls = [asyncio.create_task(stream.advance(pull(0))) for _ in range(2)]
        await source.held.wait()
        await settled()
        source.released.set()
        one, other = await asyncio.gather(*pulls)
        assert one == other
        assert await stream.advance(pull(0)) == one
        rest = await stream.advance(pull(len(one.items)))
        assert numbers(one) + numbers(rest) == [0, 1, 2]
        with pytest.raises(StreamInterruptedError, match="does not have item 0"):
            await stream.advance(pull(0))

    asyncio.run(main())


def test_an_error_comes_after_the_items_before_it(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        source = Source(10, fail_at=2)
        stream = started(source)
        await settled()
        batch = await stream.advance(pull(0))
        assert (numbers(batch), batch.ended) == ([0, 1], True)
        assert batch.error == {"error_type": "HostError", "error": "'no 2'"}
        assert stream.ended
        assert source.closed == 1

    asyncio.run(main())


def test_closing_ends_the_generator_and_who_waits_is_told() -> None:
    async def main() -> None:
        source = Source(10, hold_at=0)
        stream = started(source)
        waiting = asyncio.create_task(stream.advance(pull(0)))
        await source.held.wait()
        await stream.close("ended, because its provider leaves")
        assert source.closed == 1
        batch = await waiting
        assert batch.ended
        assert batch.error is not None
        assert batch.error["error_type"] == "StreamInterruptedError"
        assert "its provider leaves" in batch.error["error"]
        await stream.close()
        assert source.closed == 1

    asyncio.run(main())


def test_one_that_is_closed_before_it_began_makes_nothing() -> None:
    async def main() -> None:
        source = Source(10)
        stream = FlowStream(NUMBERS, source.items(), window=4)
        await stream.close()
        stream.start()
        await settled()
        assert source.made == 0

    asyncio.run(main())
