"""What a service can be asked to do: the types of question and answer, and how they are encoded."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, cast

from paglets.core.errors import SerializationError, ServiceContractError
from paglets.core.frozen import stays_frozen
from paglets.core.messages import Message
from paglets.serialization.codec import from_wire, to_wire
from paglets.serialization.names import qualified_name, resolve_qualified_name

__all__ = ["MOST_WINDOW", "EmptyPayload", "ItemT", "RepT", "ReqT", "ServiceOperation", "StreamOperation", "stripped"]

MOST_WINDOW: Final = 10_000
"""The largest window of a stream, in items."""


@dataclass(frozen=True, slots=True)
class EmptyPayload:
    """A request or reply without content."""


# Contracts on the wire name it by the module that has always handed it out.
EmptyPayload.__module__ = "paglets.services.contracts"


if TYPE_CHECKING:
    # Lets `ServiceOperation("ping")` be checked as an operation on empty payloads.
    from typing_extensions import TypeVar

    ReqT = TypeVar("ReqT", default=EmptyPayload)
    RepT = TypeVar("RepT", default=EmptyPayload)
    ItemT = TypeVar("ItemT", default=EmptyPayload)
else:
    from typing import TypeVar

    ReqT = TypeVar("ReqT")
    RepT = TypeVar("RepT")
    ItemT = TypeVar("ItemT")


_EMPTY: Final[Any] = EmptyPayload
_PayloadT = TypeVar("_PayloadT")


@stays_frozen
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
    idempotent: bool = field(default=False, compare=False)
    """Whether doing it twice is like doing it once, so that a call whose outcome is unknown may be made again. It is
    the caller's declaration that counts, and no part of what a provider advertises."""

    def __post_init__(self) -> None:
        name = stripped(self.name, "operation name")
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

    def answer(self, message: Message, handler: Callable[[ReqT], Any]) -> Any:
        """Return the encoded reply that a handler gives to a message.

        :param handler: plain, or ``async def``: then this is a coroutine, which the host awaits as that of any handler.
        :raises ServiceContractError: request or reply do not fit.
        """
        reply = handler(self.decode_request(message))
        return self._encoded_later(reply) if inspect.isawaitable(reply) else self.encode_reply(reply)

    async def _encoded_later(self, reply: Awaitable[RepT]) -> dict[str, Any]:
        return self.encode_reply(await reply)


@stays_frozen
@dataclass(frozen=True, slots=True)
class StreamOperation(Generic[ReqT, ItemT]):
    """One thing a service can be asked to send a series of items about.

    :raises ServiceContractError: the name is empty, a type is not an importable dataclass, or a bound is not positive.
    """

    name: str
    """The kind of the messages of such a stream."""
    request_type: type[ReqT] = _EMPTY
    """The dataclass of the question."""
    item_type: type[ItemT] = _EMPTY
    """The dataclass of each item."""
    idempotent: bool = field(default=False, compare=False)
    """Whether a stream that may have been opened already, and has brought no item, may be opened elsewhere."""
    window: int = field(default=64, compare=False)
    """How many items the provider makes at most before the first of them is asked for."""
    idle_timeout: float = field(default=30.0, compare=False)
    """Seconds after which the provider ends a stream that nobody asks for items."""

    def __post_init__(self) -> None:
        name = stripped(self.name, "stream name")
        object.__setattr__(self, "name", name)
        _require_payload_type(self.request_type, f"request type of stream {name!r}")
        _require_payload_type(self.item_type, f"item type of stream {name!r}")
        if not 1 <= self.window <= MOST_WINDOW:
            raise ServiceContractError(f"The window of stream {name!r} must be 1 to {MOST_WINDOW} items")
        if not 0 < self.idle_timeout < math.inf:
            raise ServiceContractError(f"The idle_timeout of stream {name!r} must be a positive number of seconds")

    @property
    def request_schema(self) -> str:
        """The qualified name of the request type."""
        return qualified_name(self.request_type)

    @property
    def item_schema(self) -> str:
        """The qualified name of the item type."""
        return qualified_name(self.item_type)

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

    def encode_item(self, item: ItemT) -> dict[str, Any]:
        """Return an item as plain values.

        :raises ServiceContractError: it is of another type, or holds a value that cannot travel.
        """
        if item is None:
            raise ServiceContractError(f"The item of operation {self.name!r} must be a {self.item_type.__name__}")
        return _encode(self.item_type, item, "item", self.name)

    def decode_item(self, payload: Any) -> ItemT:
        """Return an item as the provider made it.

        :raises ServiceContractError: it does not fit the item type; the text names the field.
        """
        return _decode(self.item_type, payload, "item", self.name)


def stripped(value: Any, what: str) -> str:
    """Return a text without the blanks around it.

    :raises ServiceContractError: nothing is left, or it is no text.
    """
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
