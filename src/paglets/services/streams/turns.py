"""A stream made by a plain generator: it goes on in turns of its paglet's mailbox, like a handler."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from paglets.core.error_wire import error_to_wire
from paglets.core.errors import PagletError, StreamInterruptedError
from paglets.serialization.values import pack
from paglets.services.operations import StreamOperation
from paglets.services.streams.wire import BATCH_BYTES, Batch, Step

TURN_SECONDS: Final = 0.02
"""How long one turn may go on to a further item, while other messages wait."""

logger = logging.getLogger(__name__)


class TurnStream:
    """Advance an iterator, a bounded number of items a turn; called by one thread at a time.

    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        operation: StreamOperation[Any, Any],
        items: Iterator[Any],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.operation = operation
        self._items = items
        self._clock = clock
        self._next = 0
        self._last: Batch | None = None
        self.running = False
        """Whether the iterator makes an item at this moment."""
        self.ended = False
        self.asked_at = clock()
        """When items were asked for last."""

    def advance(self, step: Step) -> Batch:
        """Return the next items: at least one, unless the stream ends.

        :raises StreamInterruptedError: an item is asked for that has been given away, or is not next.
        """
        last = self._last
        if last is not None and last.first == step.first and (last.items or last.ended):
            return last
        if self.ended or step.first != self._next:
            raise StreamInterruptedError(f"item {step.first} of stream {self.operation.name!r} cannot be had any more")
        self.running = True
        try:
            batch = self._turn(step)
        finally:
            self.running = False
            self.asked_at = self._clock()
        self._next += len(batch.items)
        self._last = batch
        self.ended = batch.ended
        return batch

    def _turn(self, step: Step) -> Batch:
        items: list[Any] = []
        nbytes = 0
        until = self._clock() + TURN_SECONDS
        try:
            while len(items) < step.credit and nbytes < BATCH_BYTES:
                try:
                    item = next(self._items)
                except StopIteration:
                    return Batch(tuple(items), step.first, ended=True, turns=True)
                encoded = self.operation.encode_item(item)
                nbytes += len(pack(encoded))
                items.append(encoded)
                if self._clock() >= until:
                    break
        except Exception as exc:
            close(self._items, self.operation.name)
            return Batch(tuple(items), step.first, ended=True, error=described(exc, self.operation.name), turns=True)
        return Batch(tuple(items), step.first, turns=True)

    def close(self) -> None:
        """Let the generator run its ``finally``, unless it is what ends the paglet itself."""
        if not self.ended and not self.running:
            self.ended = True
            close(self._items, self.operation.name)


def close(items: Iterator[Any], name: str) -> None:
    """Close an iterator that can be closed; what its ``finally`` raises is logged, because nobody waits for it."""
    end = getattr(items, "close", None)
    if end is None:
        return
    try:
        end()
    except Exception:
        logger.warning("stream %r failed while it was closed", name, exc_info=True)


def described(exc: Exception, name: str) -> dict[str, str]:
    """Return an exception as it travels; the trace of one that is no answer is logged here."""
    if not isinstance(exc, PagletError):
        logger.warning("stream %r failed", name, exc_info=exc)
    return error_to_wire(exc)
