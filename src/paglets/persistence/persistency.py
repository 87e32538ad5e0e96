"""What is kept of a paglet that sleeps: its envelope, its policy and the messages that wait for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from paglets.core.errors import SerializationError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.wire import WirePayload
from paglets.core.wire_fields import WireFields
from paglets.persistence.envelope import PagletEnvelope

__all__ = ["SCHEMA_VERSION", "DeactivationPolicy", "DeactivationRequest", "InactiveRecord", "QueuedMessage"]

SCHEMA_VERSION = 1


@dataclass(slots=True)
class QueuedMessage:
    """A message that waits for its receiver to wake; `queued_at` is Unix seconds."""

    message: Message
    oneway: bool = False
    queued_at: float = field(default_factory=time.time)

    def to_wire(self) -> WirePayload:
        """Return the entry as plain values."""
        return {"message": self.message.to_wire(), "oneway": self.oneway, "queued_at": self.queued_at}

    @classmethod
    def from_wire(cls, payload: WirePayload) -> QueuedMessage:
        """Restore an entry; all but the message may be missing.

        :raises SerializationError: the message is missing or a field has the wrong type.
        """
        fields = WireFields(payload, "queued message")
        queued_at = fields.number_or_none("queued_at")
        return cls(
            message=Message.from_wire(fields.required("message")),
            oneway=fields.flag_or("oneway", False),
            queued_at=time.time() if queued_at is None else queued_at,
        )


@dataclass(slots=True)
class InactiveRecord:
    """A sleeping paglet; `deactivated_at` is Unix seconds."""

    envelope: PagletEnvelope
    policy: DeactivationPolicy
    request: DeactivationRequest
    deactivated_at: float = field(default_factory=time.time)
    queued_messages: list[QueuedMessage] = field(default_factory=list)

    @property
    def agent_id(self) -> str:
        """The id of the paglet."""
        return self.envelope.agent_id

    def to_wire(self) -> WirePayload:
        """Return the record as plain values, in the current schema version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "envelope": self.envelope.to_wire(),
            "policy": self.policy.to_wire(),
            "request": self.request.to_wire(),
            "deactivated_at": self.deactivated_at,
            "queued_messages": [entry.to_wire() for entry in self.queued_messages],
        }

    @classmethod
    def from_wire(cls, payload: WirePayload) -> InactiveRecord:
        """Restore a record; all but the envelope may be missing.

        :raises SerializationError: the schema version is unknown, the envelope missing or a field of the wrong type.
        :raises TypeError: the kind of the envelope is not a string.
        :raises ValueError: the kind of the envelope is not a known one.
        """
        fields = WireFields(payload, "inactive record")
        version = fields.integer_or("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise SerializationError(
                f"inactive record has schema version {version}; this release reads version {SCHEMA_VERSION}"
            )
        deactivated_at = fields.number_or_none("deactivated_at")
        return cls(
            envelope=PagletEnvelope.from_wire(fields.required("envelope")),
            policy=DeactivationPolicy.from_wire(fields.get("policy")),
            request=DeactivationRequest.from_wire(fields.get("request")),
            deactivated_at=time.time() if deactivated_at is None else deactivated_at,
            queued_messages=[QueuedMessage.from_wire(entry) for entry in fields.items_or_empty("queued_messages")],
        )
