"""A stream made by an asynchronous generator: it goes on beside its paglet's handlers, with its coroutines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from paglets.core.error_wire import error_to_wire
from paglets.core.errors import StreamInterruptedError
from paglets.serialization.values import pack
from paglets.services.operations import StreamOperation
from paglets.services.streams.turns import described
from paglets.services.streams.wire import BATCH_BYTES, Batch, Step

BUFFER_BYTES: Final = 4 * BATCH_BYTES
"""Bytes of items that a stream holds ready at most, one larger item aside."""
CLOSE_SECONDS: Final = 2.0
"""How long the end of one generator is waited for."""

logger = logging.getLogger(__name__)


class FlowStream:
    """Make items ahead, as far as the window goes; every method but the constructor belongs to the loop's thread.

    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        operation: StreamOperation[Any, Any],
        items: AsyncIterator[Any],
        *,
        window: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.operation = operation
        self._items = items
        self._window = window
        self._clock = clock
        self._ready: deque[tuple[Any, int]] = deque()
        self._ready_bytes = 0
        self._next = 0
        self._last: Batch | None = None
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._made_all = False
        self._error: dict[str, str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._waiting = 0
        self.asked_at = clock()
        """When items were asked for last."""

    @property
    def running(self) -> bool:
        """Whether somebody waits for an item at this moment."""
        return self._waiting > 0

    @property
    def ended(self) -> bool:
        """Whether everything there was has been given away."""
        return self._last is not None and self._last.ended

    def start(self) -> None:
        """Begin to make items."""
        if not self._closed and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._make(), name=f"stream-{self.operation.name}")

    async def _make(self) -> None:
        try:
            async for item in self._items:
                encoded = self.operation.encode_item(item)
                size = len(pack(encoded))
                self._ready.append((encoded, size))
                self._ready_bytes += size
                self._news.set()
                while len(self._ready) >= self._window or self._ready_bytes >= BUFFER_BYTES:
                    self._room.clear()
                    await self._room.wait()
        except asyncio.CancelledError:
            self._error = self._error or error_to_wire(self._interrupted("was closed"))
            raise
        except Exception as exc:
            self._error = described(exc, self.operation.name)
        finally:
            self._made_all = True
            self._news.set()
            await self._end_items()

    async def _end_items(self) -> None:
        end = getattr(self._items, "aclose", None)
        if end is None:
            return
        try:
            await end()
        except Exception:
            # Nobody waits for it.
            logger.warning("stream %r failed while it was closed", self.operation.name, exc_info=True)

    async def advance(self, step: Step) -> Batch:
        """Return the next items; none if there is none in the time that the step gives.

        :raises StreamInterruptedError: an item is asked for that has been given away, or is not next.
        """
        self._waiting += 1
        try:
            async with asyncio.timeout(step.wait):
                while not (self._ready or self._made_all) and step.first == self._next:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass  # the answer without items says that the stream is alive
        finally:
            self._waiting -= 1
            self.asked_at = self._clock()
        last = self._last
        if last is not None and last.first == step.first and (last.items or last.ended):
            return last
        if step.first != self._next:
            raise self._interrupted(f"does not have item {step.first} any more")
        return self._take(step)

    def _take(self, step: Step) -> Batch:
        items: list[Any] = []
        nbytes = 0
        while self._ready and len(items) < step.credit and nbytes < BATCH_BYTES:
            encoded, size = self._ready.popleft()
            items.append(encoded)
            nbytes += size
        self._ready_bytes -= nbytes
        self._room.set()
        self._news.set()  # a repetition of this very pull need not wait on
        ended = self._made_all and not self._ready
        batch = Batch(tuple(items), step.first, ended, self._error if ended else None)
        self._next += len(items)
        self._last = batch
        return batch

    async def close(self, why: str = "was closed") -> None:
        """Let the generator run its ``finally``; returns when it has, or when that takes too long."""
        self._closed = True
        if self._task is None:
            self._made_all = True
            self._news.set()
            await self._end_items()
        elif not self._task.done():
            self._error = error_to_wire(self._interrupted(why))
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CLOSE_SECONDS)

    def _interrupted(self, what: str) -> StreamInterruptedError:
        return StreamInterruptedError(f"stream {self.operation.name!r} {what}")
