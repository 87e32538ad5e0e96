"""One message while its handler runs: who waits for its reply, and what the handler has sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import OverloadedError
from paglets.runtime.frames import DURABLE, ONEWAY, OUTBOX_FULL
from paglets.serialization.values import unpack

MAX_OUTBOX_MESSAGES = 10_000
MAX_OUTBOX_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Exchange:
    """What a handler's own sends depend on."""

    message_id: str
    oneway: bool = False
    durable: bool = False
    """Whether state, reply and one-way messages of this handler are written to disk together, when it has ended."""
    chain: tuple[str, ...] = ()
    """Paglets whose handlers wait for the handler, and its own: calling one of them could never be answered."""
    outbox: list[dict[str, Any]] = field(default_factory=list)
    """One-way messages that leave with the reply."""
    outbox_bytes: int = 0
    outbox_full: bool = False
    """Whether the host holds as many unsent messages as it may."""
    calls: int = 0

    @classmethod
    def begin(cls, payload: bytes, message_id: str, agent_id: str) -> Exchange:
        """Read what the host says about a message."""
        if not payload:
            return cls(message_id, chain=(agent_id,))
        flags = payload[0]
        waiting = tuple(unpack(payload[1:])) if len(payload) > 1 else ()
        # Nobody waits for the reply to a one-way message.
        exchange = cls(message_id, bool(flags & ONEWAY), bool(flags & DURABLE), (*waiting, agent_id))
        exchange.outbox_full = bool(flags & OUTBOX_FULL)
        return exchange

    def post(self, delivery: dict[str, Any]) -> None:
        """Put a one-way message into the outbox.

        :raises OverloadedError: it holds as much as one handler may send, or that of the host as much as it may.
        """
        if self.outbox_full:
            raise OverloadedError("too many one-way messages of this host wait for hosts that do not take them")
        self.outbox_bytes += len(delivery["message"])
        if len(self.outbox) >= MAX_OUTBOX_MESSAGES or self.outbox_bytes > MAX_OUTBOX_BYTES:
            raise OverloadedError(
                f"one handler of a durable paglet may send {MAX_OUTBOX_MESSAGES} one-way messages of "
                f"{MAX_OUTBOX_BYTES} bytes in total"
            )
        self.outbox.append(delivery)

    def call_id(self) -> str:
        """Return the id of the next message that the handler sends and waits for.

        It follows from the id of the message being handled, so that a handler that runs again after a crash repeats its
        calls under their old ids, and a receiver that remembers them answers with what it answered then.
        """
        self.calls += 1
        return hashlib.blake2b(f"{self.message_id}:{self.calls}".encode(), digest_size=16).hexdigest()
