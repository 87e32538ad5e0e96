"""The streams that one paglet serves."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Final

from paglets.core.errors import OverloadedError, PagletError, ServiceContractError, StreamInterruptedError
from paglets.core.messages import ONEWAY, Message
from paglets.core.stage import Stage, current_stage
from paglets.remote import senders
from paglets.services.operations import StreamOperation
from paglets.services.streams.flows import CLOSE_SECONDS, FlowStream
from paglets.services.streams.turns import TurnStream
from paglets.services.streams.wire import CLOSE, OPEN, PULL, Batch, Step

MOST_STREAMS: Final = 64
"""Streams that one paglet serves at the same time."""
MOST_REMEMBERED: Final = 64
"""Streams of one paglet whose last answer is remembered, for a caller that did not get it."""

logger = logging.getLogger(__name__)


def serve(operation: StreamOperation[Any, Any], message: Message, handler: Callable[[Any], Any]) -> dict[str, Any]:
    """Answer a message of a stream's kind: open it, or go on with one that goes on in turns, or end that.

    :raises ServiceContractError: the message is none of that, or the request does not fit.
    :raises StreamInterruptedError: there is no such stream any more.
    :raises OverloadedError: the paglet has as many streams open as it may.
    """
    step = Step.from_wire(message.arg, operation.name, window=operation.window)
    table = _table()
    if step.do == OPEN:
        request = operation.decode_request(message)
        return table.open(operation, step, lambda: handler(request)).to_wire()
    return table.take_turn(step).to_wire()


def _table() -> StreamTable:
    stage = current_stage.get()
    if stage is None:
        raise ServiceContractError("A stream is served by a paglet that a host runs")
    if stage.streams is None:
        stage.streams = StreamTable(stage)
    table: StreamTable = stage.streams
    return table


class StreamTable:
    """Hold the open streams of one paglet and end those that nobody asks for items.

    :param stage: where the paglet runs.
    :param clock: monotonic seconds.
    """

    def __init__(self, stage: Stage, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage = stage
        self._clock = clock
        self._lock = threading.Lock()
        self._streams: dict[str, TurnStream | FlowStream] = {}
        self._ended: OrderedDict[str, TurnStream | FlowStream] = OrderedDict()
        self._sweeping = False

    def __len__(self) -> int:
        """Return how many streams are open."""
        return len(self._streams)

    def open(self, operation: StreamOperation[Any, Any], step: Step, make: Callable[[], Any]) -> Batch:
        """Open a stream and return its first items, if it goes on in turns.

        :param make: calls the author's handler.
        :raises ServiceContractError: it returns nothing that can be iterated.
        """
        stream: TurnStream | FlowStream
        with self._lock:
            if step.stream_id in self._streams:
                raise ServiceContractError(f"Stream {step.stream_id} is open already")
            if len(self._streams) >= MOST_STREAMS:
                raise OverloadedError(f"this paglet serves {MOST_STREAMS} streams already; try again later")
        made = make()
        if inspect.iscoroutine(made):
            made.close()
        if isinstance(made, AsyncIterator):
            stream = FlowStream(operation, made, window=step.credit, clock=self._clock)
            self._keep(step.stream_id, stream)
            self._stage.loop().call_soon_threadsafe(stream.start)
            return Batch()
        stream = TurnStream(operation, _iterator(made, operation.name), clock=self._clock)
        batch = stream.advance(step)
        if not batch.ended:
            self._keep(step.stream_id, stream)
        return batch

    def _keep(self, stream_id: str, stream: TurnStream | FlowStream) -> None:
        with self._lock:
            self._streams[stream_id] = stream
            sweeps, self._sweeping = self._sweeping, True
        if not sweeps:
            loop = self._stage.loop()
            loop.call_soon_threadsafe(self._sweep_later, loop)

    def take_turn(self, step: Step) -> Batch:
        """Go on with a stream that goes on in turns, or end it.

        :raises StreamInterruptedError: there is no such stream any more.
        """
        stream = self._find(step.stream_id)
        if step.do == CLOSE:
            self._forget(step.stream_id)
            if isinstance(stream, TurnStream):
                stream.close()
            return Batch(ended=True)
        if not isinstance(stream, TurnStream):
            raise _unknown()
        return self._answered(step.stream_id, stream, stream.advance(step))

    async def pull(self, message: Message) -> dict[str, Any]:
        """Answer a message that came beside the mailbox; runs on the loop of the paglet's coroutines.

        :raises ServiceContractError: it is no pull.
        :raises StreamInterruptedError: there is no such stream any more.
        """
        step = Step.from_wire(message.arg, PULL, window=1 << 31)
        stream = self._find(step.stream_id)
        if step.do == CLOSE:
            self._forget(step.stream_id)
            if isinstance(stream, FlowStream):
                await stream.close()
            return Batch(ended=True).to_wire()
        if not isinstance(stream, FlowStream):
            raise _unknown()
        return self._answered(step.stream_id, stream, await stream.advance(step)).to_wire()

    def _find(self, stream_id: str) -> TurnStream | FlowStream | None:
        return self._streams.get(stream_id) or self._ended.get(stream_id)

    def _answered(self, stream_id: str, stream: TurnStream | FlowStream, batch: Batch) -> Batch:
        if batch.ended:
            with self._lock:
                if self._streams.pop(stream_id, None) is not None:
                    self._ended[stream_id] = stream
                while len(self._ended) > MOST_REMEMBERED:
                    self._ended.popitem(last=False)
        return batch

    def close_all(self, why: str, *, on_loop: bool) -> None:
        """End every stream before the paglet leaves its process; takes a few seconds at most.

        :param on_loop: the calling thread is that of the loop: coroutines are told to end, but cannot be waited for.
        """
        with self._lock:
            streams, self._streams = list(self._streams.values()), {}
        flows = [stream for stream in streams if isinstance(stream, FlowStream)]
        for stream in streams:
            if isinstance(stream, TurnStream):
                stream.close()
        if not flows:
            return

        async def close() -> None:
            await asyncio.gather(*(flow.close(why) for flow in flows))

        ending = asyncio.run_coroutine_threadsafe(close(), self._stage.loop())
        if not on_loop:
            ending.result(CLOSE_SECONDS + 1.0)

    # --- streams that nobody asks for items ---------------------------------------------------------------------------

    def _forget(self, stream_id: str) -> None:
        with self._lock:
            self._streams.pop(stream_id, None)

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if not self._streams:
                self._sweeping = False
                return
            now = self._clock()
            due = min(_idle_at(stream, now) for stream in self._streams.values())
        loop.call_later(max(0.05, due - now), self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock()
        with self._lock:
            idle = [(stream_id, stream) for stream_id, stream in self._streams.items() if now >= _idle_at(stream, now)]
        for stream_id, stream in idle:
            logger.info("stream %r ends: nobody asks for its items", stream.operation.name)
            if isinstance(stream, FlowStream):
                self._forget(stream_id)
                self._end_soon(loop, stream)
            else:
                stream.asked_at = now  # tried again later, should the message not get through
                senders.submit(partial(self._close_in_a_turn, stream_id, stream))
        self._sweep_later(loop)

    def _end_soon(self, loop: asyncio.AbstractEventLoop, stream: FlowStream) -> None:
        task = loop.create_task(stream.close("was idle for too long"))
        _ending.add(task)
        task.add_done_callback(_ending.discard)

    def _close_in_a_turn(self, stream_id: str, stream: TurnStream) -> None:
        """Have a plain generator closed where it runs: in a turn of the mailbox."""
        message = Message(stream.operation.name, arg=Step(CLOSE, stream_id).to_wire(), message_type=ONEWAY)
        try:
            self._stage.tell_self(message)
        except PagletError:
            logger.warning("stream %r could not be ended yet", stream.operation.name, exc_info=True)


_ending: set[asyncio.Task[None]] = set()
"""Keeps the tasks that end streams from being collected."""


def _idle_at(stream: TurnStream | FlowStream, now: float) -> float:
    """Return when a stream will have been idle for too long, unless it is asked for items before."""
    return (now if stream.running else stream.asked_at) + stream.operation.idle_timeout


def _iterator(made: Any, name: str) -> Iterator[Any]:
    try:
        return iter(made)
    except TypeError:
        raise ServiceContractError(
            f"The handler of stream {name!r} must be a generator or return an iterable, not {type(made).__name__}"
        ) from None


def _unknown() -> StreamInterruptedError:
    return StreamInterruptedError(
        "there is no such stream here: it has ended, was idle too long, or its provider moved"
    )
