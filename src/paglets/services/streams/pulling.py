"""Iterate over the items of a stream: `Reading` with a provider at the other end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic

from paglets.core.errors import PagletError
from paglets.remote.calls import CallOptions
from paglets.remote.pursuit import Patience
from paglets.services.operations import ItemT, ReqT, StreamOperation
from paglets.services.streams.reading import Reading

if TYPE_CHECKING:
    from typing import Self

    from paglets.core.messages import Message
    from paglets.remote.references import PagletProxyRef
    from paglets.services.calling import Caller

__all__ = ["AsyncServiceStream", "ServiceStream", "reading_of"]

# A stream whose provider has gone is not to be resumed elsewhere, so there is little to wait for.
PATIENCE: Final = Patience(2.0, 2.0)
CLOSE_PATIENCE: Final = Patience(0.2, 0.2)
CLOSE_SECONDS: Final = 2.0


def reading_of(
    operation: StreamOperation[ReqT, ItemT], request: ReqT | None, window: int | None, timeout: float | None
) -> Reading[ItemT]:
    """Return the state of a stream that is not open yet.

    :raises ServiceContractError: the request does not fit.
    :raises ValueError: window or timeout are not positive.
    """
    chosen = operation.window if window is None else min(window, operation.window)
    if chosen < 1 or (timeout is not None and not timeout > 0):
        raise ValueError("the window and the timeout of a stream must be positive")
    return Reading(operation, operation.encode_request(request), window=chosen, timeout=timeout)


def _opening_terms(reading: Reading[Any]) -> CallOptions:
    # One that is opened when its provider wakes some time is read by nobody.
    return CallOptions(no_delay=True, timeout=reading.timeout)


def _terms(timeout: float | None) -> CallOptions:
    # One that sleeps has forgotten its streams, so nothing of them wakes it.
    return CallOptions(activate_if_inactive=False, no_delay=True, timeout=timeout)


class ServiceStream(Iterator[ItemT], Generic[ItemT]):
    """The items of one stream, for threads; see `ServiceHandle.stream`."""

    def __init__(self, caller: Caller, operation: StreamOperation[Any, ItemT], reading: Reading[ItemT]) -> None:
        self._items = _items(caller, operation, reading)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        return next(self._items)

    def close(self) -> None:
        """End the stream at its provider, unless it has ended."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncServiceStream(AsyncIterator[ItemT], Generic[ItemT]):
    """The items of one stream, for coroutines; see `ServiceHandle.astream`."""

    def __init__(self, caller: Caller, operation: StreamOperation[Any, ItemT], reading: Reading[ItemT]) -> None:
        self._items = _aitems(caller, operation, reading)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the stream at its provider, unless it has ended."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _items(
    caller: Caller, operation: StreamOperation[Any, ItemT], reading: Reading[ItemT]
) -> Generator[ItemT, None, None]:
    ref: PagletProxyRef | None = None
    try:
        ref, reply = caller.ask(reading.opening(), _opening_terms(reading), idempotent=operation.idempotent)
        while True:
            items = reading.take(reply)
            yield from items
            if reading.ended:
                break
            if items:
                reading.resume()
            reply = _pull(caller, ref, reading)
        reading.finish()
    finally:
        message = None if ref is None else reading.closing()
        if ref is not None and message is not None:
            _close(caller, ref, message)


def _pull(caller: Caller, ref: PagletProxyRef, reading: Reading[Any]) -> Any:
    message, seconds = reading.pull()
    try:
        return caller.ask_at(ref, message, _terms(seconds), PATIENCE)
    except PagletError as exc:
        error = reading.failed(exc)
        if error is exc:
            raise
        raise error from exc


def _close(caller: Caller, ref: PagletProxyRef, message: Message) -> None:
    # The provider ends by itself what nobody asks for items.
    with suppress(PagletError):
        caller.ask_at(ref, message, _terms(CLOSE_SECONDS), CLOSE_PATIENCE)


async def _aitems(
    caller: Caller, operation: StreamOperation[Any, ItemT], reading: Reading[ItemT]
) -> AsyncGenerator[ItemT, None]:
    ref: PagletProxyRef | None = None
    try:
        ref, reply = await caller.aask(reading.opening(), _opening_terms(reading), idempotent=operation.idempotent)
        while True:
            items = reading.take(reply)
            for item in items:
                yield item
            if reading.ended:
                break
            if items:
                reading.resume()
            message, seconds = reading.pull()
            try:
                reply = await caller.aask_at(ref, message, _terms(seconds), PATIENCE)
            except PagletError as exc:
                error = reading.failed(exc)
                if error is exc:
                    raise
                raise error from exc
        reading.finish()
    finally:
        closing = None if ref is None else reading.closing()
        if ref is not None and closing is not None:
            # The provider ends by itself what nobody asks for items.
            with suppress(PagletError):
                await caller.aask_at(ref, closing, _terms(CLOSE_SECONDS), CLOSE_PATIENCE)
