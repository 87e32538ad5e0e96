"""The calls that handles and pools have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paglets.remote.calls import CallOptions
from paglets.services.operations import ItemT, RepT, ReqT, ServiceOperation, StreamOperation

if TYPE_CHECKING:
    from paglets.services.calling import Caller
    from paglets.services.contracts import ServiceContract
    from paglets.services.streams.pulling import AsyncServiceStream, ServiceStream

__all__ = ["ServiceCalls"]


class ServiceCalls:
    """Typed calls of the operations of a contract."""

    __slots__ = ()

    contract: ServiceContract

    def _caller(self) -> Caller:
        raise NotImplementedError

    def call(
        self,
        operation: ServiceOperation[ReqT, RepT],
        request: ReqT | None = None,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> RepT:
        """Send a request and return the decoded reply; the options are those of `PagletProxy.send`.

        :param no_delay: makes no difference: nobody would get the reply to a request that is stored, so none is.
        :raises ServiceContractError: operation or request do not fit the contract, and nothing was sent; or the
            service answered something that does not fit.
        :raises PagletInactiveError: every provider that was asked sleeps, and the request may not wake it.
        :raises OutcomeUnknownError: the provider was lost meanwhile, and the operation is not declared idempotent.
        :raises PagletError: as `PagletProxy.send`.
        """
        del no_delay
        self.contract.require_operation(operation)
        options = CallOptions(activate_if_inactive, no_delay=True, timeout=timeout)
        _, reply = self._caller().ask(operation.to_message(request), options, idempotent=operation.idempotent)
        return operation.decode_reply(reply)

    async def acall(
        self,
        operation: ServiceOperation[ReqT, RepT],
        request: ReqT | None = None,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> RepT:
        """Do what `call` does, in a coroutine; cancelling it withdraws the request only with an asynchronous client."""
        del no_delay
        self.contract.require_operation(operation)
        options = CallOptions(activate_if_inactive, no_delay=True, timeout=timeout)
        _, reply = await self._caller().aask(operation.to_message(request), options, idempotent=operation.idempotent)
        return operation.decode_reply(reply)

    def send_oneway(
        self,
        operation: ServiceOperation[ReqT, Any],
        request: ReqT | None = None,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send a request without waiting for an answer; the options are those of `PagletProxy.send_oneway`.

        :raises ServiceContractError: operation or request do not fit the contract; nothing was sent then.
        :raises PagletError: as `PagletProxy.send_oneway`.
        """
        self.contract.require_operation(operation)
        options = CallOptions(activate_if_inactive, no_delay, timeout)
        self._caller().ask(operation.to_message(request), options, idempotent=operation.idempotent, oneway=True)

    async def asend_oneway(
        self,
        operation: ServiceOperation[ReqT, Any],
        request: ReqT | None = None,
        *,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Do what `send_oneway` does, in a coroutine."""
        self.contract.require_operation(operation)
        options = CallOptions(activate_if_inactive, no_delay, timeout)
        await self._caller().aask(operation.to_message(request), options, idempotent=operation.idempotent, oneway=True)

    def stream(
        self,
        operation: StreamOperation[ReqT, ItemT],
        request: ReqT | None = None,
        *,
        window: int | None = None,
        timeout: float | None = None,
    ) -> ServiceStream[ItemT]:
        """Return an iterator over the items of a stream; nothing is sent before the first item is asked for.

        Leaving the loop early ends the stream at its provider, and so does `close()` or the end of a ``with``.

        :param window: how many items are taken at a time, and made ahead at most; the operation's by default, which is
            the most there can be.
        :param timeout: seconds that one item may take. By default as long as the provider says that it is there; and
            where a plain generator makes the items, as long as the client waits for any answer.
        :raises ServiceContractError: stream or request do not fit the contract.
        :raises StreamInterruptedError: (of the iterator) the provider was lost, moved or slept, or was asked for
            nothing for the stream's `idle_timeout`.
        :raises RemoteTimeoutError: (of the iterator) an item took longer than it may.
        :raises PagletError: (of the iterator) what the provider's generator raised, after the items before.
        """
        from paglets.services.streams.pulling import ServiceStream, reading_of

        self.contract.require_stream(operation)
        return ServiceStream(self._caller(), operation, reading_of(operation, request, window, timeout))

    def astream(
        self,
        operation: StreamOperation[ReqT, ItemT],
        request: ReqT | None = None,
        *,
        window: int | None = None,
        timeout: float | None = None,
    ) -> AsyncServiceStream[ItemT]:
        """Return an asynchronous iterator over the items of a stream; see `stream`.

        Leaving an ``async for`` early ends the stream soon; an ``async with`` or `aclose()` ends it at once.
        """
        from paglets.services.streams.pulling import AsyncServiceStream, reading_of

        self.contract.require_stream(operation)
        return AsyncServiceStream(self._caller(), operation, reading_of(operation, request, window, timeout))
