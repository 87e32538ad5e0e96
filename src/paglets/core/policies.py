"""When an inactive paglet wakes and why it was put to sleep, and what happens when a paglet's process dies."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from paglets.core.wire import WirePayload
from paglets.core.wire_fields import WireFields

_DEFAULT_REASON = "deactivate"
_DEFAULT_SOURCE = "external"


@dataclass(slots=True)
class DeactivationPolicy:
    """What wakes an inactive paglet."""

    activate_on_message: bool = True
    """A message that may wake its receiver does."""
    queue_messages_when_inactive: bool = True
    """A message that does not wake the paglet is stored until something else does."""
    activate_on_startup: bool = False
    """The start of the host wakes it."""
    activate_at: float | None = None
    """Unix time at which the host wakes it."""

    @classmethod
    def after(cls, seconds: float, **kwargs: Any) -> DeactivationPolicy:
        """Return a policy that wakes the paglet that many seconds from now; other fields are keywords."""
        return cls(activate_at=time.time() + seconds, **kwargs)

    def to_wire(self) -> WirePayload:
        """Return the policy as plain values."""
        return {
            "activate_on_message": self.activate_on_message,
            "queue_messages_when_inactive": self.queue_messages_when_inactive,
            "activate_on_startup": self.activate_on_startup,
            "activate_at": self.activate_at,
        }

    @classmethod
    def from_wire(cls, payload: WirePayload | None) -> DeactivationPolicy:
        """Restore a policy; None and missing keys give the defaults.

        :raises SerializationError: a field has the wrong type.
        """
        if payload is None:
            return cls()
        fields = WireFields(payload, "deactivation policy")
        return cls(
            activate_on_message=fields.flag_or("activate_on_message", True),
            queue_messages_when_inactive=fields.flag_or("queue_messages_when_inactive", True),
            activate_on_startup=fields.flag_or("activate_on_startup", False),
            activate_at=fields.number_or_none("activate_at"),
        )


@dataclass(slots=True)
class DeactivationRequest:
    """Who puts a paglet to sleep and why; the paglet answers with its policy."""

    reason: str = _DEFAULT_REASON
    source: str = _DEFAULT_SOURCE
    policy: DeactivationPolicy | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_wire(self) -> WirePayload:
        """Return the request as plain values."""
        return {
            "reason": self.reason,
            "source": self.source,
            "policy": None if self.policy is None else self.policy.to_wire(),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_wire(cls, payload: WirePayload | None) -> DeactivationRequest:
        """Restore a request; None, missing keys and empty texts give the defaults.

        :raises SerializationError: a field has the wrong type.
        """
        if payload is None:
            return cls()
        fields = WireFields(payload, "deactivation request")
        policy = fields.get("policy")
        return cls(
            reason=fields.text_or("reason", _DEFAULT_REASON),
            source=fields.text_or("source", _DEFAULT_SOURCE),
            policy=None if policy is None else DeactivationPolicy.from_wire(policy),
            metadata=fields.mapping_or_empty("metadata"),
        )


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What a host does when the process of a paglet dies by itself: start it again from its last durable state.

    The default restarts nothing: the crashed paglet stays visible, and can be revived or disposed.

    :raises ValueError: a number is out of range.
    """

    restarts: int = 0
    """How many deaths within `window` are answered with a restart."""
    window: float = 60.0
    """Seconds within which deaths are counted."""
    backoff: float = 0.1
    """Seconds before the first restart; doubled with each further death in the window."""
    max_backoff: float = 30.0
    """The longest wait before a restart, in seconds."""

    def __post_init__(self) -> None:
        if self.restarts < 0:
            raise ValueError("restarts must be a whole number of at least 0")
        for name in ("window", "backoff", "max_backoff"):
            if not 0 <= getattr(self, name) < 1e9:
                raise ValueError(f"{name} must be a number of seconds of at least 0")

    def to_wire(self) -> WirePayload:
        """Return the policy as plain values."""
        return {
            "restarts": self.restarts,
            "window": self.window,
            "backoff": self.backoff,
            "max_backoff": self.max_backoff,
        }

    @classmethod
    def from_wire(cls, payload: WirePayload | None) -> RestartPolicy:
        """Restore a policy; None and missing keys give the defaults.

        :raises SerializationError: a field has the wrong type.
        :raises ValueError: a number is out of range.
        """
        if payload is None:
            return cls()
        fields = WireFields(payload, "restart policy")
        default = cls()
        numbers = {name: fields.number_or_none(name) for name in ("window", "backoff", "max_backoff")}
        return cls(
            restarts=fields.integer_or("restarts", default.restarts),
            **{name: value for name, value in numbers.items() if value is not None},
        )
