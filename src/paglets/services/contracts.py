"""Typed services: what a provider offers, how a call is encoded, and where the provider is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, cast

from paglets.core.errors import SerializationError, ServiceContractError
from paglets.core.messages import Message
from paglets.serialization.codec import from_wire, to_wire
from paglets.serialization.names import qualified_name, resolve_qualified_name
from paglets.services.records import ServiceRecord
from paglets.services.registry import ServiceRegistry

__all__ = [
    "CONTRACT_METADATA_KEY",
    "EmptyPayload",
    "RepT",
    "ReqT",
    "ServiceContract",
    "ServiceHandle",
    "ServiceOperation",
    "ServiceRecord",
    "ServiceRegistry",
]

CONTRACT_METADATA_KEY: Final = "paglets.service_contract"


@dataclass(frozen=True, slots=True)
class EmptyPayload:
    """A request or reply without content."""


if TYPE_CHECKING:
    # Lets `ServiceOperation("ping")` be checked as an operation on empty payloads.
    from typing_extensions import TypeVar

    ReqT = TypeVar("ReqT", default=EmptyPayload)
    RepT = TypeVar("RepT", default=EmptyPayload)
else:
    from typing import TypeVar

    ReqT = TypeVar("ReqT")
    RepT = TypeVar("RepT")


_EMPTY: Final[Any] = EmptyPayload
_PayloadT = TypeVar("_PayloadT")


class _Unset:
    """The type of the default that means that there is none."""


_UNSET: Final = _Unset()


@dataclass(frozen=True, slots=True)
class ServiceOperation(Generic[ReqT, RepT]):
    """One thing a service can be asked to do.

    :raises ServiceContractError: the name is empty, or a type is not an importable dataclass.
    """

    name: str
    """The kind of the message that asks for it."""
    request_type: type[ReqT] = _EMPTY
    """The dataclass of the question."""
    reply_type: type[RepT] = _EMPTY
    """The dataclass of the answer."""

    def __post_init__(self) -> None:
        name = _stripped(self.name, "operation name")
        object.__setattr__(self, "name", name)
        _require_payload_type(self.request_type, f"request type of operation {name!r}")
        _require_payload_type(self.reply_type, f"reply type of operation {name!r}")

    @property
    def request_schema(self) -> str:
        """The qualified name of the request type."""
        return qualified_name(self.request_type)

    @property
    def reply_schema(self) -> str:
        """The qualified name of the reply type."""
        return qualified_name(self.reply_type)

    def to_message(self, request: ReqT | None = None) -> Message:
        """Return the message that asks for this operation.

        :raises ServiceContractError: as `encode_request`.
        """
        return Message(kind=self.name, args=self.encode_request(request))

    def encode_request(self, request: ReqT | None = None) -> dict[str, Any]:
        """Return a request as plain values; None means a request made without arguments.

        :raises ServiceContractError: it is of another type, or holds a value that cannot travel.
        """
        return _encode(self.request_type, request, "request", self.name)

    def decode_request(self, message: Message | dict[str, Any]) -> ReqT:
        """Return the request in a message, or in its arguments.

        :raises ServiceContractError: the arguments do not fit the request type; the text names the field.
        """
        payload = message.args if isinstance(message, Message) else message
        return _decode(self.request_type, payload, "request", self.name)

    def encode_reply(self, reply: RepT | None = None) -> dict[str, Any]:
        """Return a reply as plain values; None means a reply made without arguments.

        :raises ServiceContractError: it is of another type, or holds a value that cannot travel.
        """
        return _encode(self.reply_type, reply, "reply", self.name)

    def decode_reply(self, payload: Any) -> RepT:
        """Return the reply in what a service answered.

        :raises ServiceContractError: the answer does not fit the reply type; the text names the field.
        """
        if isinstance(payload, self.reply_type):
            return payload
        if payload is None and cast("type[Any]", self.reply_type) is EmptyPayload:
            payload = {}
        return _decode(self.reply_type, payload, "reply", self.name)


@dataclass(frozen=True, slots=True)
class ServiceContract:
    """A named and versioned set of operations.

    :raises ServiceContractError: name or version is empty, or the operations are none, not operations or share a name.
    """

    name: str
    operations: tuple[ServiceOperation[Any, Any], ...]
    version: str = "1"

    def __post_init__(self) -> None:
        name = _stripped(self.name, "contract name")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "version", _stripped(self.version, f"version of contract {name!r}"))
        operations = tuple(self.operations)
        object.__setattr__(self, "operations", operations)
        if not operations:
            raise ServiceContractError(f"Contract {name!r} has no operations")
        seen: set[str] = set()
        for operation in cast("tuple[object, ...]", operations):
            if not isinstance(operation, ServiceOperation):
                raise ServiceContractError(
                    f"Contract {name!r}: operations must be ServiceOperation objects, not {type(operation).__name__}"
                )
            if operation.name in seen:
                raise ServiceContractError(f"Contract {name!r} has two operations named {operation.name!r}")
            seen.add(operation.name)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The operation names in order."""
        return tuple(operation.name for operation in self.operations)

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

    def metadata(self) -> dict[str, Any]:
        """Return the contract as plain values."""
        return {
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
    ) -> Any:
        """Answer a message with the handler of its operation; return the encoded reply.

        :param default: returned for a message that asks for no operation of this contract.
        :raises ServiceContractError: there is no such operation or no handler for it, or request or reply do not fit.
        """
        operation = self.operation_for(message.kind)
        if operation is None:
            if not isinstance(default, _Unset):
                return default
            raise ServiceContractError(f"Contract {self.name!r} has no operation {message.kind!r}")
        handler = handlers.get(operation)
        if handler is None:
            raise ServiceContractError(f"Contract {self.name!r}: no handler for operation {operation.name!r}")
        return operation.encode_reply(handler(operation.decode_request(message)))


@dataclass(frozen=True, slots=True)
class ServiceHandle:
    """The means to call one provider of a contract.

    :raises ServiceContractError: the record does not offer exactly this contract.
    """

    contract: ServiceContract
    record: ServiceRecord
    context_or_client: Any = None
    """Whose client the calls use: a paglet context or a host client; otherwise a fresh one."""

    def __post_init__(self) -> None:
        if not self.contract.matches_record(self.record):
            raise ServiceContractError(
                f"The provider of {self.record.name!r} at {self.record.host_url or self.record.proxy.host_url!r} "
                f"does not offer contract {self.contract.name!r} version {self.contract.version}"
            )

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

        :raises ServiceContractError: operation, request or reply do not fit the contract; the first two are found
            before anything is sent.
        :raises PagletError: as `PagletProxy.send`.
        """
        self.contract.require_operation(operation)
        message = operation.to_message(request)
        reply = self.record.proxy.resolve(self.context_or_client).send(
            message, activate_if_inactive=activate_if_inactive, no_delay=no_delay, timeout=timeout
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

        :raises ServiceContractError: operation or request do not fit the contract; nothing was sent then.
        :raises PagletError: as `PagletProxy.send_oneway`.
        """
        self.contract.require_operation(operation)
        message = operation.to_message(request)
        self.record.proxy.resolve(self.context_or_client).send_oneway(
            message, activate_if_inactive=activate_if_inactive, no_delay=no_delay, timeout=timeout
        )


def _stripped(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ServiceContractError(f"The {what} must be a text that is not empty")
    return value.strip()


def _require_payload_type(cls: Any, what: str) -> None:
    if not isinstance(cls, type) or not is_dataclass(cls):
        raise ServiceContractError(f"The {what} must be a dataclass, not {cls!r}")
    try:
        resolved = resolve_qualified_name(qualified_name(cls))
    except SerializationError as error:
        raise ServiceContractError(f"The {what} cannot be imported by others: {error}") from error
    if resolved is not cls:
        raise ServiceContractError(f"The {what} is not what {qualified_name(cls)!r} stands for")


def _encode(cls: type[Any], value: Any, part: str, operation: str) -> dict[str, Any]:
    what = f"{part} of operation {operation!r}"
    if value is None:
        try:
            value = cls()
        except Exception as error:
            raise ServiceContractError(f"The {what} needs a {cls.__name__}: {error}") from error
    if not isinstance(value, cls):
        raise ServiceContractError(f"The {what} must be a {cls.__name__}, not {type(value).__name__}")
    try:
        return cast("dict[str, Any]", to_wire(value, path=part))
    except SerializationError as error:
        raise ServiceContractError(f"The {what} cannot travel: {error}") from error


def _decode(cls: type[_PayloadT], payload: Any, part: str, operation: str) -> _PayloadT:
    what = f"{part} of operation {operation!r}"
    if not isinstance(payload, dict):
        raise ServiceContractError(f"The {what} must be an object for {cls.__name__}, not {type(payload).__name__}")
    try:
        return cast("_PayloadT", from_wire(cls, payload, path=part))
    except SerializationError as error:
        raise ServiceContractError(f"The {what} does not fit {cls.__name__}: {error}") from error
