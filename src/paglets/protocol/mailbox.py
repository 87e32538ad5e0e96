"""Order and bound the messages that wait for one paglet.

A mailbox is pure: no lock, no clock, no waiting. One thread owns it (the host's loop); whoever may deliver calls
`next()`, and calls it again after `done()`. Order is descending priority, then arrival. At most one is in flight.

    OPEN --pause()--> PAUSED --resume()--> OPEN       pushes are taken in both, deliveries happen in OPEN only
      +------close()----+-----> CLOSED                nothing is taken, nothing is delivered

A mailbox is created paused where its paglet is still starting or arriving.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

DEFAULT_MAX_COUNT: Final = 10_000
DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024


class MailboxState(StrEnum):
    """Say what a mailbox does with messages."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """Show how full a mailbox is and what became of its messages."""

    state: MailboxState
    queued: int
    queued_bytes: int
    in_flight: int
    delivered: int
    """Handled without an exception."""
    failed: int
    """Handled with one."""
    rejected: int
    """Turned away because the mailbox was full."""
    max_count: int
    max_bytes: int


class MailboxFullError(Exception):
    """Turn a message away: the mailbox holds as much as it may. Nothing was queued; the sender may try later."""

    def __init__(self, statistics: MailboxStatistics) -> None:
        super().__init__(
            f"mailbox is full: {statistics.queued} of {statistics.max_count} messages, "
            f"{statistics.queued_bytes} of {statistics.max_bytes} bytes"
        )
        self.statistics = statistics


class MailboxClosedError(Exception):
    """Turn a message away: its paglet is gone from here."""


class Queued(NamedTuple, Generic[T]):
    """Hold one waiting message with what is needed to queue it elsewhere."""

    item: T
    priority: int
    nbytes: int


class Mailbox(Generic[T]):
    """Queue messages for one paglet.

    :param max_count: how many messages may wait
    :param max_bytes: how many bytes they may have together
    :param paused: whether to start paused
    """

    __slots__ = (
        "_bytes",
        "_delivered",
        "_failed",
        "_flying",
        "_heap",
        "_max_bytes",
        "_max_count",
        "_newest",
        "_oldest",
        "_rejected",
        "_state",
    )

    def __init__(
        self, *, max_count: int = DEFAULT_MAX_COUNT, max_bytes: int = DEFAULT_MAX_BYTES, paused: bool = False
    ) -> None:
        if max_count < 1 or max_bytes < 1:
            raise ValueError("a mailbox must have room for at least one message and one byte")
        # (-priority, sequence, nbytes, item): the sequence is unique, so items are never compared.
        self._heap: list[tuple[int, int, int, T]] = []
        self._flying: tuple[int, int, int, T] | None = None
        self._state = MailboxState.PAUSED if paused else MailboxState.OPEN
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._newest = 0
        self._oldest = 0
        self._delivered = 0
        self._failed = 0
        self._rejected = 0

    def __len__(self) -> int:
        """Count the waiting messages, without the one in flight."""
        return len(self._heap)

    @property
    def state(self) -> MailboxState:
        """Tell whether it is open, paused or closed."""
        return self._state

    @property
    def idle(self) -> bool:
        """Tell whether no message is in flight."""
        return self._flying is None

    @property
    def handled(self) -> int:
        """Count the messages that were handled, with success or without."""
        return self._delivered + self._failed

    def push(self, item: T, priority: int, nbytes: int = 0, *, bounded: bool = True) -> None:
        """Queue a message behind all others of its priority.

        :param bounded: False for what was accepted before, and so is never turned away
        :raises MailboxFullError: where it would exceed a bound
        :raises MailboxClosedError: after `close()`
        """
        heap = self._heap
        total = self._bytes + nbytes
        if bounded and (len(heap) >= self._max_count or total > self._max_bytes):
            if self._state is not MailboxState.CLOSED:
                self._rejected += 1
                raise MailboxFullError(self.statistics())
            raise MailboxClosedError("mailbox is closed")
        if self._state is MailboxState.CLOSED:
            raise MailboxClosedError("mailbox is closed")
        self._bytes = total
        self._newest = sequence = self._newest + 1
        heappush(heap, (-priority, sequence, nbytes, item))

    def push_front(self, item: T, priority: int, nbytes: int = 0) -> None:
        """Queue a message ahead of all others of its priority.

        Bounds do not apply: it was accepted before, and an accepted message is never dropped.

        :raises MailboxClosedError: after `close()`
        """
        if self._state is MailboxState.CLOSED:
            raise MailboxClosedError("mailbox is closed")
        self._bytes += nbytes
        self._oldest = sequence = self._oldest - 1
        heappush(self._heap, (-priority, sequence, nbytes, item))

    def next(self) -> T | None:
        """Take the message to deliver now; None where none waits, one is in flight, or deliveries are stopped."""
        if self._flying is not None or not self._heap or self._state is not MailboxState.OPEN:
            return None
        self._flying = entry = heappop(self._heap)
        self._bytes -= entry[2]
        return entry[3]

    def done(self, ok: bool = True) -> None:
        """Count the message in flight as handled, with or without success.

        :raises RuntimeError: where none is in flight
        """
        if self._flying is None:
            raise RuntimeError("no message is in flight")
        self._flying = None
        self.count(ok)

    def detach(self) -> None:
        """Let the message in flight go on without holding up the ones behind it; `count` hears what became of it.

        For a paglet that is restarted on its host by the very handler that runs: the process that takes over need not
        wait for the one that it replaces. No effect where none is in flight.
        """
        self._flying = None

    def count(self, ok: bool) -> None:
        """Count a detached message as handled, with or without success."""
        if ok:
            self._delivered += 1
        else:
            self._failed += 1

    def put_back(self) -> None:
        """Return the message in flight to the very place it came from, unhandled and uncounted.

        :raises RuntimeError: where none is in flight
        """
        if self._flying is None:
            raise RuntimeError("no message is in flight")
        heappush(self._heap, self._flying)
        self._bytes += self._flying[2]
        self._flying = None

    def withdraw(self, item: T) -> bool:
        """Take one waiting message out again; tell whether it waited. O(n)."""
        for place, (_, _, nbytes, waiting) in enumerate(self._heap):
            if waiting is item:
                del self._heap[place]
                heapify(self._heap)
                self._bytes -= nbytes
                return True
        return False

    def pause(self) -> None:
        """Stop deliveries; messages still queue. The one in flight goes on. No effect when closed."""
        if self._state is MailboxState.OPEN:
            self._state = MailboxState.PAUSED

    def resume(self) -> None:
        """Let deliveries happen again. No effect when closed."""
        if self._state is MailboxState.PAUSED:
            self._state = MailboxState.OPEN

    def close(self) -> list[Queued[T]]:
        """End the mailbox and hand out what still waits, so that its senders can be told. The one in flight goes on."""
        self._state = MailboxState.CLOSED
        return self.drain()

    def drain(self) -> list[Queued[T]]:
        """Take out everything that waits, in delivery order."""
        entries = sorted(self._heap)
        self._heap.clear()
        self._bytes = 0
        return [Queued(item, -negated, nbytes) for negated, _, nbytes, item in entries]

    def waiting(self) -> list[Queued[T]]:
        """Show everything that waits, in delivery order; it stays."""
        return [Queued(item, -negated, nbytes) for negated, _, nbytes, item in sorted(self._heap)]

    def restore(self, entries: Iterable[Queued[T]]) -> None:
        """Put drained messages, from here or from the host the paglet came from, ahead of what queued meanwhile.

        Their order among themselves is kept. Bounds do not apply, as for `push_front`.

        :raises MailboxClosedError: after `close()`
        """
        if self._state is MailboxState.CLOSED:
            raise MailboxClosedError("mailbox is closed")
        returned = list(entries)
        self._oldest -= len(returned)
        first = self._oldest
        for offset, (item, priority, nbytes) in enumerate(returned):
            self._heap.append((-priority, first + offset, nbytes, item))
            self._bytes += nbytes
        heapify(self._heap)

    def statistics(self) -> MailboxStatistics:
        """Show how full it is and what became of its messages."""
        return MailboxStatistics(
            state=self._state,
            queued=len(self._heap),
            queued_bytes=self._bytes,
            in_flight=int(self._flying is not None),
            delivered=self._delivered,
            failed=self._failed,
            rejected=self._rejected,
            max_count=self._max_count,
            max_bytes=self._max_bytes,
        )
