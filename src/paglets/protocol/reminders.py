"""Work out when reminders are due, and keep the times that a host waits for.

Pure: `now` is Unix time in seconds and passed in. A series stands on a grid: it goes on from the time that was due,
never from the time when somebody looked (what rounding adds is below a microsecond per firing). A series that was
missed (the host was down, the clock was set forward) fires once and goes on with the first slot after now. A clock that
was set back makes a reminder wait until its time comes again; no slot fires twice. Every firing has an id that depends
on the reminder and its count only, so that a firing that is repeated after a crash is recognised as the same message.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace
from hashlib import sha256
from heapq import heapify, heappop, heappush
from typing import Any, Final, Generic, TypeVar

from paglets.core.messages import Message

SHORTEST_PERIOD: Final = 0.1
"""Seconds; the shortest `every`."""
LONGEST_TIME: Final = 1e9
"""Seconds; the longest `after` and `every` (31 years)."""
LATEST: Final = 253_402_300_799.0
"""The last Unix time that a reminder may be set to: the end of the year 9999."""
LONGEST_NAME: Final = 200
"""Characters; the longest name."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Reminder:
    """Hold one timer of a paglet: what a row of the journal holds."""

    agent_id: str
    name: str
    due: float
    """Unix time at which it fires next."""
    every: float | None = None
    """Seconds between slots, None where it fires once."""
    count: int = 0
    """How often it has fired."""
    series: str = ""
    """Made anew, at random, whenever a reminder is set; see `occurrence_id`."""


@dataclass(frozen=True, slots=True)
class Firing:
    """Say what a reminder that fires leaves behind."""

    occurrence: str
    """The id of the message."""
    missed: int
    """How many slots between the one that fired and now were left out."""
    next: Reminder | None
    """The reminder as it waits from now on; None where this was the last time."""


def first_due(now: float, after: float | None = None, every: float | None = None, at: float | None = None) -> float:
    """Return when a reminder fires for the first time.

    :param now: Unix time
    :param after: seconds from now
    :param every: seconds between firings; alone it also says when the first one is
    :param at: Unix time, which may be over: it fires at once then
    :raises ValueError: neither of them, both `after` and `at`, or one is out of range
    """
    if after is not None and at is not None:
        raise ValueError("a reminder is due after some seconds or at a time, not both")
    if every is not None and not SHORTEST_PERIOD <= every <= LONGEST_TIME:
        raise ValueError(f"every must be between {SHORTEST_PERIOD:g} and {LONGEST_TIME:g} seconds, not {every!r}")
    if after is not None and not 0 <= after <= LONGEST_TIME:
        raise ValueError(f"after must be between 0 and {LONGEST_TIME:g} seconds, not {after!r}")
    if at is not None and not 0 <= at <= LATEST:
        raise ValueError(f"at must be a Unix time between 0 and {LATEST:.0f}, not {at!r}")
    if at is not None:
        return at
    if after is not None:
        return now + after
    if every is not None:
        return now + every
    raise ValueError("a reminder needs after, at or every")


def reminder(
    agent_id: str,
    name: str,
    now: float,
    *,
    series: str,
    after: float | None = None,
    every: float | None = None,
    at: float | None = None,
) -> Reminder:
    """Set a reminder; see `first_due` for the times.

    :param series: a new random token, so that a reminder that is set again under its name fires with new ids
    :raises ValueError: the name is empty or too long, or a time is out of range
    """
    if not name or len(name) > LONGEST_NAME:
        raise ValueError(f"the name of a reminder has between 1 and {LONGEST_NAME} characters")
    return Reminder(agent_id, name, first_due(now, after, every, at), every, series=series)


def occurrence_id(row: Reminder) -> str:
    """Return the message id of the firing that is due: the same whenever this firing is repeated, else never.

    The series is part of it because a count starts anew when a reminder is set again under the same name, and the
    receiver would take its first firing for one that it has handled.
    """
    text = "\0".join((row.agent_id, row.name, row.series, str(row.count)))
    return sha256(text.encode()).hexdigest()[:32]


def firing_message(row: Reminder, firing: Firing, args: dict[str, Any]) -> Message:
    """Return the message of a firing; its `arg` has `due`, `missed` and `count`."""
    facts = {"due": row.due, "missed": firing.missed, "count": row.count}
    return Message(row.name, args, arg=facts, sender=row.agent_id, message_id=firing.occurrence)


def is_firing(message: Message, agent_id: str) -> bool:
    """Tell whether a message that waits for a paglet is one of its reminders."""
    facts = message.arg
    return message.sender == agent_id and isinstance(facts, dict) and facts.keys() == {"due", "missed", "count"}


def fire(row: Reminder, now: float) -> Firing:
    """Let a due reminder fire.

    :raises ValueError: it is not due yet
    """
    if row.due > now:
        raise ValueError(f"reminder {row.name} of {row.agent_id} is not due for {row.due - now:g} s")
    occurrence = occurrence_id(row)
    if row.every is None:
        return Firing(occurrence, 0, None)
    slots = max(1, math.floor((now - row.due) / row.every) + 1)
    # The division may be off by one slot in either direction; the grid itself decides.
    while slots > 1 and row.due + (slots - 1) * row.every > now:
        slots -= 1
    while row.due + slots * row.every <= now:
        slots += 1
    return Firing(occurrence, slots - 1, replace(row, due=row.due + slots * row.every, count=row.count + 1))


class TimerQueue(Generic[K]):
    """Keep one due time per key, for reminders and sleepers alike.

    `set` and `cancel` are O(log n) and O(1); what they make obsolete stays in the heap until it comes up or until it
    outweighs the rest, when the heap is built anew (amortised O(1)).
    """

    __slots__ = ("_heap", "_latest", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        # Key -> (due, sequence): an entry of the heap with another sequence is obsolete.
        self._latest: dict[K, tuple[float, int]] = {}
        self._sequence = 0

    def __len__(self) -> int:
        """Count the keys that wait."""
        return len(self._latest)

    def __contains__(self, key: object) -> bool:
        """Tell whether a key waits."""
        return key in self._latest

    def set(self, key: K, due: float) -> None:
        """Let a key be due at a time, instead of any earlier wish for it.

        :raises ValueError: the time is not a number
        """
        if math.isnan(due):
            raise ValueError("a due time must be a number")
        self._sequence = sequence = self._sequence + 1
        self._latest[key] = (due, sequence)
        heappush(self._heap, (due, sequence, key))
        self._tidy()

    def cancel(self, key: K) -> bool:
        """Forget a key; tell whether it waited."""
        if self._latest.pop(key, None) is None:
            return False
        self._tidy()
        return True

    def due(self, now: float, limit: int | None = None) -> list[K]:
        """Take out the keys whose time has come, the eldest first.

        :param limit: how many to take at most; the others stay
        """
        keys: list[K] = []
        heap = self._heap
        while heap and heap[0][0] <= now and (limit is None or len(keys) < limit):
            _, sequence, key = heappop(heap)
            found = self._latest.get(key)
            if found is not None and found[1] == sequence:
                del self._latest[key]
                keys.append(key)
        return keys

    def next_due(self) -> float | None:
        """Return the earliest due time, None where no key waits."""
        heap = self._heap
        while heap:
            due, sequence, key = heap[0]
            found = self._latest.get(key)
            if found is not None and found[1] == sequence:
                return due
            heappop(heap)
        return None

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._latest) + 64:
            self._heap = [(due, sequence, key) for key, (due, sequence) in self._latest.items()]
            heapify(self._heap)
