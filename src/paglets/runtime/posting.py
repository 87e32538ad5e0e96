"""A message on its way to a mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paglets.core.errors import RemoteTimeoutError
from paglets.core.messages import Message
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.remote.packed import PackedDelivery, PackedMessage
from paglets.remote.requests import Parcel
from paglets.serialization.values import pack, unpack


@dataclass(frozen=True, slots=True)
class Posting:
    """A message as it arrives at a host: packed once, with what delivery needs to know beside it."""

    packed: bytes
    kind: str
    priority: int
    message_id: str
    oneway: bool = False
    activate_if_inactive: bool = True
    no_delay: bool = False
    terms: DeliveryTerms = FIRST_ATTEMPT
    found: dict[str, str] | None = None
    """Gets the ``location`` and ``home`` of a paglet that turns out to be on another host, for whoever wants it."""
    wakes: int = 0
    """How often it has woken its receiver, which went back to sleep before it was handled."""

    @classmethod
    def of(
        cls,
        message: Message,
        *,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        terms: DeliveryTerms = FIRST_ATTEMPT,
        found: dict[str, str] | None = None,
    ) -> Posting:
        """Pack a message.

        :raises SerializationError: it holds something that cannot travel.
        """
        return cls(
            pack(message.to_wire()),
            message.kind,
            message.priority,
            message.message_id,
            oneway,
            activate_if_inactive,
            no_delay,
            terms,
            found,
        )

    @classmethod
    def arrived(cls, delivery: PackedDelivery, message: PackedMessage, *, found: dict[str, str]) -> Posting:
        """Take over a delivery as another host sends it."""
        return cls(
            bytes(delivery.message),
            message.kind,
            message.priority,
            message.message_id,
            delivery.oneway,
            delivery.activate_if_inactive,
            delivery.no_delay,
            delivery.terms(),
            found,
        )

    @classmethod
    def sent(cls, delivery: Mapping[str, Any], terms: DeliveryTerms, *, oneway: bool) -> Posting:
        """Take over a delivery as a paglet's process sends it; its message is packed already."""
        return cls(
            delivery["message"],
            delivery["kind"],
            delivery["priority"],
            delivery["message_id"],
            oneway,
            delivery["activate_if_inactive"],
            delivery["no_delay"],
            terms,
        )

    def message(self) -> Message:
        """Unpack the message."""
        return Message.from_wire(unpack(self.packed))

    def parcel(self) -> Parcel:
        """Return what a request to another host carries of it."""
        return Parcel(
            None,
            self.oneway,
            self.activate_if_inactive,
            self.no_delay,
            packed=self.packed,
            message_id=self.message_id,
        )


def unanswered(agent_id: str, seconds: float) -> RemoteTimeoutError:
    """Return the error of a message whose reply did not come in time."""
    return RemoteTimeoutError(f"paglet {agent_id} did not answer within {round(seconds, 3):g} s")
