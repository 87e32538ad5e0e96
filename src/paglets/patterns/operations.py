"""Paglets that answer typed operations without being services, and the client that calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from paglets.core.agent import Paglet, StateT
from paglets.core.errors import ServiceContractError
from paglets.core.messages import Message
from paglets.patterns.declining import other_answer
from paglets.remote.proxy import PagletProxy
from paglets.services.calling import DirectCaller
from paglets.services.contracts import ItemT, RepT, ReqT, ServiceOperation, StreamOperation

if TYPE_CHECKING:
    from paglets.services.streams.pulling import AsyncServiceStream, ServiceStream

__all__ = ["OperationClient", "OperationPaglet", "RepT", "ReqT", "StateT"]


class OperationPaglet(Paglet[StateT], Generic[StateT]):
    """Answer the operations that `operation_handlers` lists, and serve the streams of `stream_handlers`.

    Requests are decoded, replies and items encoded.
    """

    Operations: ClassVar[tuple[ServiceOperation[Any, Any], ...]] = ()
    """What the class can be asked. An operation that only `operation_handlers` names is answered as well."""
    Streams: ClassVar[tuple[StreamOperation[Any, Any], ...]] = ()
    """What the class can be asked to send a series of items about. One that only `stream_handlers` names is served as
    well."""

    def handle_message(self, message: Message) -> Any:
        """Answer an operation or stream, or else what `handle_operation_message` or a method with `@handler` answers.

        :raises ServiceContractError: the operation has no handler, or request or reply do not fit it.
        :raises OverloadedError: the paglet has as many streams open as it may.
        """
        operation = self.operation_for_message(message)
        if operation is not None:
            return self.dispatch_operation(operation, message)
        stream = self.stream_for_message(message)
        if stream is not None:
            return self.dispatch_stream(stream, message)
        return other_answer(self, message, self.handle_operation_message(message))

    def operation_handlers(self) -> Mapping[ServiceOperation[Any, Any], Callable[[Any], Any]]:
        """Return what answers each operation, plain or `async def`: it takes the request and returns the reply."""
        return {}

    def stream_handlers(self) -> Mapping[StreamOperation[Any, Any], Callable[[Any], Any]]:
        """Return what makes the items of each stream, given the request: see `ServiceContract.route`."""
        return {}

    def handle_operation_message(self, message: Message) -> Any | None:
        """Answer a message that asks for no operation; None declines it."""
        return None

    def operation_for_message(self, message: Message) -> ServiceOperation[Any, Any] | None:
        """Return the operation that a message asks for, by its kind: of `Operations`, or else one with a handler."""
        for operation in (*self.Operations, *self.operation_handlers()):
            if operation.name == message.kind:
                return operation
        return None

    def dispatch_operation(self, operation: ServiceOperation[Any, Any], message: Message) -> Any:
        """Call the handler of an operation and return the encoded reply, or a coroutine for it: see `answer` there.

        :raises ServiceContractError: there is none, or request or reply do not fit.
        """
        handler = self.operation_handlers().get(operation)
        if handler is None:
            raise ServiceContractError(f"No handler registered for operation {operation.name!r}")
        return operation.answer(message, handler)

    def stream_for_message(self, message: Message) -> StreamOperation[Any, Any] | None:
        """Return the stream that a message is about, by its kind: of `Streams`, or else one with a handler."""
        for stream in (*self.Streams, *self.stream_handlers()):
            if stream.name == message.kind:
                return stream
        return None

    def dispatch_stream(self, stream: StreamOperation[Any, Any], message: Message) -> dict[str, Any]:
        """Open a stream, go on with it or end it, as the message says; return the encoded items.

        :raises ServiceContractError: it has no handler, the request does not fit, or no host runs this paglet.
        :raises StreamInterruptedError: there is no such stream any more.
        :raises OverloadedError: the paglet has as many streams open as it may.
        """
        # Imported here: a paglet without streams has no use for it.
        from paglets.services.streams.serving import serve

        handler = self.stream_handlers().get(stream)
        if handler is None:
            raise ServiceContractError(f"No handler registered for stream {stream.name!r}")
        return serve(stream, message, handler)


@dataclass(slots=True)
class OperationClient:
    """Call typed operations of one paglet."""

    proxy: PagletProxy

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
        :raises ServiceContractError: the request, or what the paglet answered, does not fit the operation.
        :raises PagletInactiveError: the paglet sleeps and the request may not wake it.
        :raises PagletError: as `PagletProxy.send`.
        """
        del no_delay
        reply = self.proxy.send(
            operation.to_message(request),
            activate_if_inactive=activate_if_inactive,
            no_delay=True,
            timeout=timeout,
        )
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

        :raises ServiceContractError: the request does not fit the operation; nothing was sent then.
        :raises PagletError: as `PagletProxy.send_oneway`.
        """
        self.proxy.send_oneway(
            operation.to_message(request),
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
            timeout=timeout,
        )

    def stream(
        self,
        operation: StreamOperation[ReqT, ItemT],
        request: ReqT | None = None,
        *,
        window: int | None = None,
        timeout: float | None = None,
    ) -> ServiceStream[ItemT]:
        """Return an iterator over the items of a stream; see `ServiceHandle.stream`.

        :raises ServiceContractError: the request does not fit the stream.
        """
        from paglets.services.streams.pulling import ServiceStream, reading_of

        return ServiceStream(self._caller(), operation, reading_of(operation, request, window, timeout))

    def astream(
        self,
        operation: StreamOperation[ReqT, ItemT],
        request: ReqT | None = None,
        *,
        window: int | None = None,
        timeout: float | None = None,
    ) -> AsyncServiceStream[ItemT]:
        """Return an asynchronous iterator over the items of a stream; see `ServiceHandle.astream`."""
        from paglets.services.streams.pulling import AsyncServiceStream, reading_of

        return AsyncServiceStream(self._caller(), operation, reading_of(operation, request, window, timeout))

    def _caller(self) -> DirectCaller:
        return DirectCaller(self.proxy.ref(), self.proxy.client)
