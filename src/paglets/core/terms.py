"""What travels beside a message: how often it was tried, how long its sender waits, and who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

MAX_HOPS: Final = 16
"""How often a message may be forwarded."""
MAX_CHAIN: Final = 64
"""How many handlers may wait for each other."""


@dataclass(frozen=True, slots=True)
class DeliveryTerms:
    """The terms of one delivery; the defaults say nothing and are not sent."""

    attempt: int = 1
    """Counts from 1; more where the sender repeats the message because it does not know whether it arrived."""
    timeout: float | None = None
    """Seconds that the sender still waits for the reply; afterwards the message need not be handled any more."""
    chain: tuple[str, ...] = ()
    """Ids of the paglets whose handlers wait for the reply, the eldest first."""
    hops: int = 0
    """How often the message has been forwarded."""

    def to_wire(self) -> dict[str, Any]:
        """Return what differs from the defaults as plain values, to be put beside the message in a request."""
        wire: dict[str, Any] = {}
        if self.attempt != 1:
            wire["attempt"] = self.attempt
        if self.timeout is not None:
            wire["timeout"] = self.timeout
        if self.chain:
            wire["chain"] = list(self.chain)
        if self.hops:
            wire["hops"] = self.hops
        return wire


FIRST_ATTEMPT: Final = DeliveryTerms()
