"""Typed services: what a provider offers, and how it is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from paglets.core.errors import ServiceContractError
from paglets.core.messages import Message
from paglets.services.handles import ServiceHandle
from paglets.services.operations import (
    EmptyPayload,
    ItemT,
    RepT,
    ReqT,
    ServiceOperation,
    StreamOperation,
    stripped,
)
from paglets.services.records import ServiceRecord
from paglets.services.registry import ServiceRegistry

__all__ = [
    "CONTRACT_METADATA_KEY",
    "EmptyPayload",
    "ItemT",
    "RepT",
    "ReqT",
    "ServiceContract",
    "ServiceHandle",
    "ServiceOperation",
    "ServiceRecord",
    "ServiceRegistry",
    "StreamOperation",
]

CONTRACT_METADATA_KEY: Final = "paglets.service_contract"


class _Unset:
    """The type of the default that means that there is none."""


_UNSET: Final = _Unset()


@dataclass(frozen=True, slots=True)
class ServiceContract:
    """A named and versioned set of operations.

    :raises ServiceContractError: name or version is empty, or the operations are none, not operations or share a name.
    """

    name: str
    operations: tuple[ServiceOperation[Any, Any], ...]
    version: str = "1"
    streams: tuple[StreamOperation[Any, Any], ...] = ()
    """What it can be asked to send a series of items about; old hosts and programs find no such contract."""

    def __post_init__(self) -> None:
        name = stripped(self.name, "contract name")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "version", stripped(self.version, f"version of contract {name!r}"))
        object.__setattr__(self, "operations", _parts_of(name, "operations", self.operations, ServiceOperation))
        object.__setattr__(self, "streams", _parts_of(name, "streams", self.streams, StreamOperation))
        if not self.operations and not self.streams:
            raise ServiceContractError(f"Contract {name!r} has no operations")
        for entry, count in Counter(self.capabilities).items():
            if count > 1:
                raise ServiceContractError(f"Contract {name!r} has two operations named {entry!r}")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The operation names in order, those of streams last."""
        return (*(operation.name for operation in self.operations), *(stream.name for stream in self.streams))

    def operation_for(self, name: str) -> ServiceOperation[Any, Any] | None:
        """Return the operation of this name, or None."""
        return next((operation for operation in self.operations if operation.name == name), None)

    def require_operation(self, operation: ServiceOperation[Any, Any]) -> ServiceOperation[Any, Any]:
        """Return the operation.

        :raises ServiceContractError: no equal operation is part of this contract.
        """
        if operation not in self.operations:
            name = getattr(operation, "name", operation)
            raise ServiceContractError(
                f"Operation {name!r} is no part of contract {self.name!r} version {self.version}"
            )
        return operation

    def stream_for(self, name: str) -> StreamOperation[Any, Any] | None:
        """Return the stream of this name, or None."""
        return next((stream for stream in self.streams if stream.name == name), None)

    def require_stream(self, stream: StreamOperation[Any, Any]) -> StreamOperation[Any, Any]:
        """Return the stream.

        :raises ServiceContractError: no equal stream is part of this contract.
        """
        if stream not in self.streams:
            name = getattr(stream, "name", stream)
            raise ServiceContractError(f"Stream {name!r} is no part of contract {self.name!r} version {self.version}")
        return stream

    def require_part(self, part: ServiceOperation[Any, Any] | StreamOperation[Any, Any]) -> None:
        """Check that this is an operation or a stream of the contract.

        :raises ServiceContractError: no equal one is part of this contract.
        """
        if isinstance(part, StreamOperation):
            self.require_stream(part)
        else:
            self.require_operation(part)

    def metadata(self) -> dict[str, Any]:
        """Return the contract as plain values."""
        metadata: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "operations": [
                {
                    "name": operation.name,
                    "request_type": operation.request_schema,
                    "reply_type": operation.reply_schema,
                }
                for operation in self.operations
            ],
        }
        if self.streams:
            metadata["streams"] = [
                {"name": stream.name, "request_type": stream.request_schema, "item_type": stream.item_schema}
                for stream in self.streams
            ]
        return metadata

    def advertise_metadata(self, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the metadata of a provider, with the contract under its reserved key.

        :raises ServiceContractError: the given metadata use that key themselves.
        """
        combined = dict(metadata or {})
        if CONTRACT_METADATA_KEY in combined:
            raise ServiceContractError(f"Metadata key {CONTRACT_METADATA_KEY!r} is reserved for the contract itself")
        combined[CONTRACT_METADATA_KEY] = self.metadata()
        return combined

    def matches_record(self, record: ServiceRecord) -> bool:
        """Return whether the provider offers exactly this contract."""
        return (
            record.name == self.name
            and tuple(record.capabilities) == self.capabilities
            and record.metadata.get(CONTRACT_METADATA_KEY) == self.metadata()
        )

    def route(
        self,
        message: Message,
        handlers: Mapping[ServiceOperation[Any, Any], Callable[[Any], Any]],
        *,
        default: Any = _UNSET,
        streams: Mapping[StreamOperation[Any, Any], Callable[[Any], Any]] | None = None,
    ) -> Any:
        """Answer a message with the handler of its operation; return the encoded reply.

        An ``async def`` handler gives a coroutine, which the host awaits like that of any handler.

        :param default: returned for a message that asks for no operation of this contract.
        :param streams: what makes the items of each stream: a generator function, or anything else that takes the
            request and returns an iterable. A plain generator goes on in turns of the mailbox, so that no other message
            is handled while it makes an item; one of ``async def`` goes on beside the handlers, like an ``async def
            run``, and waits without holding them up.
        :raises ServiceContractError: there is no such operation or no handler for it, or request or reply do not fit.
        :raises OverloadedError: the paglet has as many streams open as it may.
        """
        operation = self.operation_for(message.kind)
        if operation is None:
            stream = self.stream_for(message.kind)
            if stream is not None:
                return self._route_stream(stream, message, streams or {})
            if not isinstance(default, _Unset):
                return default
            raise ServiceContractError(f"Contract {self.name!r} has no operation {message.kind!r}")
        handler = handlers.get(operation)
        if handler is None:
            raise ServiceContractError(f"Contract {self.name!r}: no handler for operation {operation.name!r}")
        return operation.answer(message, handler)

    def _route_stream(
        self,
        stream: StreamOperation[Any, Any],
        message: Message,
        handlers: Mapping[StreamOperation[Any, Any], Callable[[Any], Any]],
    ) -> Any:
        # Imported here: a service without streams has no use for it.
        from paglets.services.streams.serving import serve

        handler = handlers.get(stream)
        if handler is None:
            raise ServiceContractError(f"Contract {self.name!r}: no handler for stream {stream.name!r}")
        return serve(stream, message, handler)


def _parts_of(contract: str, field: str, given: object, kind: type[Any]) -> tuple[Any, ...]:
    """Return the operations or streams of a contract.

    :raises ServiceContractError: it is no collection of them.
    """
    if isinstance(given, kind):
        raise ServiceContractError(
            f"Contract {contract!r}: {field} must be a tuple of {kind.__name__} objects, not a single one; "
            "a tuple of one is written with a comma: (OPERATION,)"
        )
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise ServiceContractError(
            f"Contract {contract!r}: {field} must be a tuple of {kind.__name__} objects, not {type(given).__name__}"
        )
    parts = tuple(given)
    for part in parts:
        if not isinstance(part, kind):
            raise ServiceContractError(
                f"Contract {contract!r}: {field} must be {kind.__name__} objects, not {type(part).__name__}"
            )
    return parts
