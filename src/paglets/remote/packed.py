"""Messages between hosts in the encoding that a host and the processes of its paglets use.

Whoever sends a message may send JSON, and every host takes it. Between two hosts that would be three translations there
and three back of what neither of them looks into. So a host says with a message that it understands an answer in this
encoding too, as HTTP has it (`Accept`, RFC 9110, section 12.5.1), and one that answers in it gets its next messages in
it as well. If another one has its place by then, that refuses the message before it looks at it (415), and gets JSON.

The values inside are what `paglets.serialization.values` packs; JSON begins with other bytes than any answer here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from paglets.core.errors import RemoteHostError, SerializationError
from paglets.core.terms import DeliveryTerms
from paglets.remote.bounds import Attempt, Chain, Hops, MessageType, Name, Priority, Seconds, ShortText
from paglets.serialization.kinds import MisfitError
from paglets.serialization.packing import TOO_DEEP, check_wire, unpack_extension

__all__ = [
    "MESSAGE_CONTENT_TYPE",
    "PackedAnswer",
    "PackedDelivery",
    "PackedMessage",
    "Understood",
    "decode_answer",
    "decode_delivery",
    "encode_answer",
    "encode_delivery",
    "is_packed",
]

MESSAGE_CONTENT_TYPE: Final = "application/x-paglets-message"

_MOST_PLACES: Final = 4096


class PackedDelivery(msgspec.Struct, array_like=True, frozen=True):
    """A delivery: what the fields of the same names are in JSON."""

    oneway: bool
    activate_if_inactive: bool
    no_delay: bool
    attempt: Attempt
    timeout: Seconds | None
    chain: Chain
    hops: Hops
    message: msgspec.Raw
    """The packed wire form of a message."""

    def terms(self) -> DeliveryTerms:
        """Return what travels beside the message."""
        return DeliveryTerms(self.attempt, self.timeout, tuple(self.chain), self.hops)


class PackedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as its wire form has it; a host looks at no more than where it goes, and when."""

    kind: Name
    args: dict[str, Any]
    arg: Any
    sender: ShortText | None
    reply_to: ShortText | None
    priority: Priority
    message_type: MessageType
    timestamp: float
    message_id: Annotated[ShortText, msgspec.Meta(min_length=1)]


class PackedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a delivery."""

    result: msgspec.Raw
    """What the handler returned, packed."""
    location: str | None = None
    home: str | None = None


_ENCODER: Final = msgspec.msgpack.Encoder()
_DELIVERIES: Final = msgspec.msgpack.Decoder(PackedDelivery)
_MESSAGES: Final = msgspec.msgpack.Decoder(PackedMessage, ext_hook=unpack_extension)
_ANSWERS: Final = msgspec.msgpack.Decoder(PackedAnswer)
_NOTHING: Final = msgspec.Raw(_ENCODER.encode(None))


def encode_delivery(
    message: bytes, terms: DeliveryTerms, *, oneway: bool, activate_if_inactive: bool, no_delay: bool
) -> bytes:
    """Return the body of a delivery of a packed message."""
    return _ENCODER.encode(
        PackedDelivery(
            oneway,
            activate_if_inactive,
            no_delay,
            terms.attempt,
            terms.timeout,
            list(terms.chain),
            terms.hops,
            msgspec.Raw(message),
        )
    )


def decode_delivery(body: bytes) -> tuple[PackedDelivery, PackedMessage]:
    """Return what a body says, and what its message does.

    :raises SerializationError: it is malformed, or its message is: it could not be handled later.
    """
    try:
        delivery = _DELIVERIES.decode(body)
        message = _MESSAGES.decode(delivery.message)
        check_wire(message.args)
        check_wire(message.arg)
    except MisfitError as misfit:
        raise SerializationError(misfit.at("message")) from None
    except RecursionError:
        raise SerializationError(f"message: {TOO_DEEP}") from None
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as exc:
        raise SerializationError(f"malformed message: {exc}") from None
    return delivery, message


def encode_answer(result: bytes | memoryview | None, found: Mapping[str, str]) -> bytes:
    """Return the body of an answer.

    :param result: the packed reply, None for a one-way message.
    :param found: `location` and `home`, where the paglet is not at the host that answers.
    """
    return _ENCODER.encode(PackedAnswer(_NOTHING if result is None else msgspec.Raw(result), **found))


def is_packed(answer: bytes) -> bool:
    """Tell whether a good answer to a message is in this encoding: its first byte is that of a map."""
    return 0x80 <= answer[0] <= 0x8F if answer else False


def decode_answer(body: bytes, url: str) -> dict[str, Any]:
    """Return an answer as the same dict that JSON gives, but for `result`: that stays packed, as `msgspec.Raw`.

    :raises RemoteHostError: it is malformed.
    """
    try:
        answer = _ANSWERS.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise RemoteHostError(f"{url} answered with something that is no answer to a message: {exc}") from None
    fields: dict[str, Any] = {"result": answer.result}
    if answer.location is not None:
        fields["location"] = answer.location
    if answer.home is not None:
        fields["home"] = answer.home
    return fields


class Understood:
    """Remember the hosts that understand this encoding; bounded."""

    def __init__(self) -> None:
        self._places: dict[str, None] = {}

    def __contains__(self, place: str) -> bool:
        return place in self._places

    def add(self, place: str) -> None:
        """Note that the host at a base URL does."""
        if place not in self._places and len(self._places) >= _MOST_PLACES:
            del self._places[next(iter(self._places))]
        self._places[place] = None

    def discard(self, place: str) -> None:
        """Note that it does not, any more."""
        self._places.pop(place, None)
