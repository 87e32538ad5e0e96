"""Paglets that answer typed operations without being services, and the client that calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from paglets.core.agent import NOT_HANDLED, Paglet, StateT
from paglets.core.errors import ServiceContractError
from paglets.core.handlers import dispatch_message, handlers_of
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.services.contracts import RepT, ReqT, ServiceOperation

__all__ = ["OperationClient", "OperationPaglet", "RepT", "ReqT", "StateT"]


class OperationPaglet(Paglet[StateT], Generic[StateT]):
    """Answer the operations that `operation_handlers` lists; the request is decoded, the reply encoded."""

    Operations: ClassVar[tuple[ServiceOperation[Any, Any], ...]] = ()
    """What the class can be asked. An operation that only `operation_handlers` names is answered as well."""

    def handle_message(self, message: Message) -> Any:
        """Answer an operation, or else what `handle_operation_message` or a method marked with `@handler` answers.

        :raises ServiceContractError: the operation has no handler, or request or reply do not fit it.
        """
        operation = self.operation_for_message(message)
        if operation is not None:
            return self.dispatch_operation(operation, message)
        reply = self.handle_operation_message(message)
        if reply is not None:
            return reply
        if message.kind in handlers_of(type(self)):
            return dispatch_message(self, message)
        return NOT_HANDLED

    def operation_handlers(self) -> Mapping[ServiceOperation[Any, Any], Callable[[Any], Any]]:
        """Return what answers each operation: it takes the request and returns the reply."""
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

    def dispatch_operation(self, operation: ServiceOperation[Any, Any], message: Message) -> dict[str, Any]:
        """Call the handler of an operation and return the encoded reply.

        :raises ServiceContractError: there is none, or request or reply do not fit.
        """
        handler = self.operation_handlers().get(operation)
        if handler is None:
            raise ServiceContractError(f"No handler registered for operation {operation.name!r}")
        return operation.encode_reply(handler(operation.decode_request(message)))


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

        :raises ServiceContractError: the request, or what the paglet answered, does not fit the operation.
        :raises PagletError: as `PagletProxy.send`.
        """
        reply = self.proxy.send(
            operation.to_message(request),
            activate_if_inactive=activate_if_inactive,
            no_delay=no_delay,
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
