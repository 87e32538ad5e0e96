"""The caller's side of a stream: what to ask next, and what the answers mean; no input or output happens here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, Final, Generic

from paglets.core.error_wire import HTTP_ERRORS, error_from_wire
from paglets.core.errors import (
    ConnectionLostError,
    HostUnreachableError,
    InvalidAgentError,
    OutcomeUnknownError,
    PagletCrashedError,
    PagletError,
    PagletInactiveError,
    RemoteHostError,
    RemoteTimeoutError,
    ServiceContractError,
    StreamInterruptedError,
)
from paglets.core.messages import ONEWAY, Message
from paglets.services.operations import ItemT, StreamOperation
from paglets.services.streams.wire import CLOSE, MOST_WAIT_SECONDS, NEXT, OPEN, PULL, Batch, Step

LOST: Final = (
    ConnectionLostError,
    HostUnreachableError,
    InvalidAgentError,
    OutcomeUnknownError,
    PagletCrashedError,
    PagletInactiveError,
)
"""The failures of a pull that say that the provider is not there any more."""
SLACK_SECONDS: Final = 5.0
"""How long the answer to a pull may take beyond the time that the provider may wait."""


class Reading(Generic[ItemT]):
    """One stream as its caller sees it.

    :param args: the encoded request.
    :param window: how many items to take at a time.
    :param timeout: seconds that one item may take; None for as long as the provider says that it is there, and for a
        stream that goes on in turns as long as any call.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        operation: StreamOperation[Any, ItemT],
        args: dict[str, Any],
        *,
        window: int,
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operation = operation
        self._args = args
        self._window = window
        self.timeout = timeout
        self._clock = clock
        self._id = uuid.uuid4().hex
        self._opened = False
        self._turns = False
        self._count = 0
        self._ended = False
        self._error: Exception | None = None
        self._since = clock()

    @property
    def opened(self) -> bool:
        """Whether the provider has said that it serves the stream."""
        return self._opened

    @property
    def ended(self) -> bool:
        """Whether no item comes any more."""
        return self._ended

    def opening(self) -> Message:
        """Return the message that opens the stream."""
        step = Step(OPEN, self._id, self._window)
        return Message(self._operation.name, dict(self._args), step.to_wire())

    def pull(self) -> tuple[Message, float | None]:
        """Return the message that asks for the next items, and the seconds to wait for its answer, None for the usual.

        :raises RemoteTimeoutError: the next item has taken longer than it may.
        """
        if self._turns:
            return self._message(Step(NEXT, self._id, self._window, self._count)), self.timeout
        wait = MOST_WAIT_SECONDS
        if self.timeout is not None:
            wait = self._since + self.timeout - self._clock()
            if wait <= 0:
                raise RemoteTimeoutError(
                    f"no item of stream {self._operation.name!r} within {self.timeout:g} s, after {self._count}"
                )
            wait = min(wait, MOST_WAIT_SECONDS)
        return self._message(Step(NEXT, self._id, self._window, self._count, wait)), wait + SLACK_SECONDS

    def closing(self) -> Message | None:
        """Return the message that ends the stream at its provider, None if there is nothing to end."""
        if self._ended or not self._opened:
            return None
        message = self._message(Step(CLOSE, self._id))
        message.message_type = ONEWAY
        return message

    def _message(self, step: Step) -> Message:
        return Message(self._operation.name if self._turns else PULL, arg=step.to_wire())

    def take(self, reply: Any) -> list[ItemT]:
        """Return the items in an answer, in order; none if there is none yet.

        :raises ServiceContractError: the answer is none, or an item does not fit its type.
        """
        batch = Batch.from_wire(reply, self._operation.name)
        if batch.first != self._count:
            raise ServiceContractError(
                f"Stream {self._operation.name!r} went on with item {batch.first} instead of {self._count}"
            )
        if not self._opened:
            self._opened, self._turns = True, batch.turns
        items = [self._operation.decode_item(item) for item in batch.items]
        self._count += len(items)
        self._ended = batch.ended
        if batch.error is not None:
            self._error = error_from_wire(batch.error, unknown=RemoteHostError, table=HTTP_ERRORS)
        return items

    def resume(self) -> None:
        """Start the time of the next item: that in which the caller worked with the last ones does not count."""
        self._since = self._clock()

    def finish(self) -> None:
        """Raise what the stream ended in, if that was an error."""
        if self._error is not None:
            raise self._error

    def failed(self, failure: PagletError) -> PagletError:
        """Return what the caller is told when a pull failed."""
        if isinstance(failure, StreamInterruptedError):
            # The provider has nothing to close.
            self._ended = True
        elif isinstance(failure, LOST):
            self._ended = True
            return StreamInterruptedError(
                f"stream {self._operation.name!r} lost its provider after {self._count} items: {failure}"
            )
        return failure
