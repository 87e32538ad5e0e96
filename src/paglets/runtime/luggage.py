"""What travels with a paglet beside its state and files: accepted messages, remembered replies, timers, its home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import OverloadedError, SerializationError
from paglets.core.runtime_values import Durability
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import ReminderRow
from paglets.protocol.delivery.window import Outcome, Remembered
from paglets.runtime.timekeeper import rows_from_wire, rows_to_wire
from paglets.serialization.values import pack, unpack

MAX_LUGGAGE_BYTES = 256 * 1024 * 1024
MAX_REMINDERS = 1_000


@dataclass(slots=True)
class Luggage:
    """Everything of a paglet that is neither state nor file."""

    home: str = ""
    """Base URL of its home host; empty for a clone, whose home is where it begins."""
    durability: Durability | None = None
    mailbox: list[QueuedMessage] = field(default_factory=list)
    """Accepted one-way messages, in the order of their delivery."""
    window: list[Remembered] = field(default_factory=list)
    window_lost: float | None = None
    """Seconds since the paglet came back from a crash without its window, None where it did not."""
    reminders: list[ReminderRow] = field(default_factory=list)

    def set_timers(self, timers: Mapping[str, ReminderRow | None]) -> None:
        """Add timers that the paglet set on its arrival, and leave out those that are None.

        :raises OverloadedError: it has more than it may.
        """
        rows: dict[str, ReminderRow | None] = {row.name: row for row in self.reminders}
        rows.update(timers)
        self.reminders = [row for row in rows.values() if row is not None]
        if len(self.reminders) > MAX_REMINDERS:
            raise OverloadedError(f"a paglet may have {MAX_REMINDERS} reminders at once")

    def pack(self) -> bytes:
        """Return it as bytes."""
        return pack(
            {
                "home": self.home,
                "durability": None if self.durability is None else self.durability.value,
                "mailbox": [message.to_wire() for message in self.mailbox],
                "window": [
                    [message_id, None if outcome is None else [outcome.reply, outcome.error]]
                    for message_id, outcome in self.window
                ],
                "window_lost": self.window_lost,
                "reminders": rows_to_wire(self.reminders),
            }
        )

    @classmethod
    def unpack(cls, packed: bytes | memoryview, agent_id: str) -> Luggage:
        """Read it.

        :param agent_id: whose it is now.
        :raises SerializationError: it is malformed.
        """
        if not len(packed):
            return cls()
        try:
            wire = unpack(packed)
            durability, window_lost = wire["durability"], wire.get("window_lost")
            reminders = rows_from_wire(wire["reminders"], agent_id)
            if len(reminders) > MAX_REMINDERS or not isinstance(wire["home"], str):
                raise ValueError("out of bounds")
            if not isinstance(window_lost, float | None):
                raise TypeError("window_lost is a number of seconds")
            return cls(
                wire["home"],
                None if durability is None else Durability(durability),
                [QueuedMessage.from_wire(item) for item in wire["mailbox"]],
                _window(wire["window"]),
                window_lost,
                reminders,
            )
        except (TypeError, ValueError, KeyError) as exc:
            raise SerializationError(f"malformed luggage of paglet {agent_id}: {exc}") from None


def _window(wire: Sequence[Any]) -> list[Remembered]:
    window: list[Remembered] = []
    for message_id, outcome in wire:
        if not isinstance(message_id, str):
            raise TypeError("a message id is a text")
        if outcome is None:
            window.append((message_id, None))
            continue
        reply, error = outcome
        if not isinstance(reply, bytes | None) or not isinstance(error, bytes | None):
            raise TypeError("an outcome is bytes")
        window.append((message_id, Outcome(reply, error)))
    return window
