"""Remember what became of the newest messages of one paglet, so that a repeated one is answered and not handled again.

A window is pure: no lock, no clock. It is on the path of every message, so `remember` and `seen` are a few dictionary
and deque operations whatever it holds. Two bounds: ids are forgotten beyond `max_entries`, oldest first; outcomes are
stripped beyond `max_bytes`, oldest first, which leaves their ids. An outcome that is larger than `max_bytes` by itself
is never held. A repeated message whose outcome is gone is still recognised; its sender is told that it was handled and
that the reply is not held any more.

The window travels with a paglet that moves, and is on disk for one whose durability is `MESSAGE`.

Source: P. Helland, "Life beyond Distributed Transactions: an Apostate's Opinion", CIDR 2007 (an entity remembers the
messages it has handled).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

MOST_ENTRIES: Final = 1_000
MOST_BYTES: Final = 1_000_000
_ENTRY_BYTES: Final = 400
"""About what an id with the objects around it takes in memory, beside reply and error (CPython 3.11)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what the sender of a handled message was told, as it goes over the wire.

    A one-way message that was handled has neither reply nor error.
    """

    reply: bytes | None = None
    error: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Count the bytes of reply and error."""
        return (len(self.reply) if self.reply is not None else 0) + (len(self.error) if self.error is not None else 0)


HANDLED: Final = Outcome()
"""What became of a one-way message that was handled."""

Remembered: TypeAlias = tuple[str, Outcome | None]
"""A message id with its outcome, None where that is not held any more."""


@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """Show how full a window is."""

    entries: int
    outcome_bytes: int
    stripped: int
    """Ids that were remembered without their outcome, or lost it to newer ones, since the window was made."""
    forgotten: int
    """Ids that gave way to newer ones since the window was made."""
    max_entries: int
    max_bytes: int


class DedupWindow:
    """Remember the newest handled messages of one paglet.

    :param max_entries: how many ids are remembered
    :param max_bytes: how many bytes their outcomes may have together
    :raises ValueError: a bound is out of range
    """

    __slots__ = ("_bytes", "_entries", "_forgotten", "_held", "_max_bytes", "_max_entries", "_order", "_stripped")

    def __init__(self, max_entries: int = MOST_ENTRIES, max_bytes: int = MOST_BYTES) -> None:
        if max_entries < 1 or max_bytes < 0:
            raise ValueError("a window remembers at least one message, and no negative number of bytes")
        self._entries: dict[str, Outcome | None] = {}
        # Oldest first. The first key of a dict would do, but finding it costs a walk over all that were deleted.
        self._order: deque[str] = deque()
        # Ids whose outcomes have bytes, in the same order.
        self._held: deque[str] = deque()
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._stripped = 0
        self._forgotten = 0

    def __len__(self) -> int:
        """Count the remembered ids."""
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Tell about how many bytes of memory it takes."""
        return len(self._entries) * _ENTRY_BYTES + self._bytes

    def __contains__(self, message_id: object) -> bool:
        """Tell whether a message was handled, as `seen` does."""
        return message_id in self._entries

    def remember(self, message_id: str, outcome: Outcome | None) -> bool:
        """Note that a message was handled.

        What was told to its sender first stays: a second outcome for the same id is ignored.

        :param outcome: None where it is not to be held
        :return: whether the outcome is held; False where it is too large or None
        """
        entries = self._entries
        if message_id in entries:
            return entries[message_id] is not None
        nbytes = 0
        if outcome is None:
            self._stripped += 1
        else:
            nbytes = outcome.nbytes
            if nbytes > self._max_bytes:
                outcome, nbytes = None, 0
                self._stripped += 1
        entries[message_id] = outcome
        self._order.append(message_id)
        if len(entries) > self._max_entries:
            self._forget_oldest()
        if nbytes:
            self._held.append(message_id)
            self._bytes += nbytes
            while self._bytes > self._max_bytes:
                self._strip_oldest()
        return outcome is not None

    def _forget_oldest(self) -> None:
        message_id = self._order.popleft()
        outcome = self._entries.pop(message_id)
        self._forgotten += 1
        if outcome is not None and (nbytes := outcome.nbytes):
            self._bytes -= nbytes
            self._held.popleft()  # the oldest of all is the oldest of those with bytes

    def _strip_oldest(self) -> None:
        message_id = self._held.popleft()
        outcome = self._entries[message_id]
        self._entries[message_id] = None
        self._bytes -= outcome.nbytes if outcome is not None else 0
        self._stripped += 1

    def seen(self, message_id: str) -> bool:
        """Tell whether a message was handled, as far as it is remembered."""
        return message_id in self._entries

    def outcome(self, message_id: str) -> Outcome | None:
        """Return what the sender was told; None where that is not held, or the message was not `seen`."""
        return self._entries.get(message_id)

    def export(self) -> list[Remembered]:
        """Return everything, oldest first, for the paglet's luggage."""
        return list(self._entries.items())

    def restore(self, items: Iterable[Remembered]) -> None:
        """Remember what another window exported, within the bounds of this one, as newer than what is here."""
        for message_id, outcome in items:
            self.remember(message_id, outcome)

    def statistics(self) -> WindowStatistics:
        """Show how full it is."""
        return WindowStatistics(
            entries=len(self._entries),
            outcome_bytes=self._bytes,
            stripped=self._stripped,
            forgotten=self._forgotten,
            max_entries=self._max_entries,
            max_bytes=self._max_bytes,
        )
