"""What a caller asks of a move: where to, how patiently, and what the target must offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.errors import SerializationError
from paglets.core.runtime_values import ArrivalMode, enum_from_wire, require_enum
from paglets.core.wire_fields import WireFields

_DEFAULT_TIMEOUT_SECONDS = 10.0
_DEFAULT_RETRY_INTERVAL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class TransferTicket:
    """The terms of one move.

    :raises TypeError: `arrival_mode` is not an `ArrivalMode` member.
    """

    destination: str
    """Mesh name or URL of the target host."""
    timeout: float = _DEFAULT_TIMEOUT_SECONDS
    """Seconds for each request to the target."""
    retries: int = 0
    """Further attempts after a failed one."""
    retry_interval: float = _DEFAULT_RETRY_INTERVAL_SECONDS
    """Seconds between two attempts."""
    required_capabilities: tuple[str, ...] = ()
    """What the target must list among its capabilities."""
    expected_code_version: str | None = None
    """Code version the target must have; None accepts any."""
    arrival_mode: ArrivalMode = ArrivalMode.ACTIVATE
    """Whether the paglet runs at the target or is stored inactive."""

    def __post_init__(self) -> None:
        require_enum(self.arrival_mode, ArrivalMode, "arrival_mode")

    @classmethod
    def from_target(cls, target: str | TransferTicket) -> TransferTicket:
        """Return the ticket itself, or one with default terms for a name or URL.

        :raises TypeError: the target is neither.
        """
        if isinstance(target, cls):
            return target
        if not isinstance(target, str):
            raise TypeError(f"a target is a host name, a URL or a TransferTicket, not {type(target).__name__}")
        return cls(target)

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> TransferTicket:
        """Restore a ticket; all but the destination may be missing.

        :raises SerializationError: the destination is missing, a field has the wrong type or a number is negative.
        :raises TypeError: the arrival mode is not a string.
        :raises ValueError: the arrival mode is not a known one.
        """
        fields = WireFields(payload, "transfer ticket")
        mode = fields.get("arrival_mode")
        ticket = cls(
            destination=fields.text("destination"),
            timeout=fields.number_or("timeout", _DEFAULT_TIMEOUT_SECONDS),
            retries=fields.integer_or("retries", 0),
            retry_interval=fields.number_or("retry_interval", _DEFAULT_RETRY_INTERVAL_SECONDS),
            required_capabilities=fields.texts_or_empty("required_capabilities"),
            expected_code_version=fields.text_or_none("expected_code_version"),
            arrival_mode=ArrivalMode.ACTIVATE if mode is None else enum_from_wire(mode, ArrivalMode, "arrival_mode"),
        )
        if min(ticket.timeout, ticket.retries, ticket.retry_interval) < 0:
            raise SerializationError("transfer ticket has a negative timeout, retries or retry_interval")
        return ticket

    def to_wire(self) -> dict[str, Any]:
        """Return the ticket as plain values."""
        return {
            "destination": self.destination,
            "timeout": self.timeout,
            "retries": self.retries,
            "retry_interval": self.retry_interval,
            "required_capabilities": list(self.required_capabilities),
            "expected_code_version": self.expected_code_version,
            "arrival_mode": self.arrival_mode.value,
        }
