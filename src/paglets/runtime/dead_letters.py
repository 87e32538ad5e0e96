"""The dead letters of a host: messages that it accepted and cannot deliver, until somebody decides about them.

A letter is removed only after its message was accepted again, so a host that dies in between has it twice: in the
receiver's mailbox and here. A second retry then carries the same message id, by which the receiver knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from paglets.core.error_wire import HTTP_ERRORS, error_to_wire
from paglets.core.errors import ConflictError, NotFoundError, PagletError, RemoteHostError
from paglets.core.messages import Message
from paglets.persistence.journal import Journal
from paglets.persistence.persistency import QueuedMessage
from paglets.persistence.rows import DeadLetter
from paglets.persistence.tables import dead_letters
from paglets.serialization.values import unpack

T = TypeVar("T")

MAX_LISTED: Final = 1000
"""Letters that one answer lists."""
MAX_RETRIED: Final = dead_letters.MOST_LETTERS
"""Letters that one request retries: all there can be."""
RETRY_SECONDS: Final = 20.0
"""How long one request may begin deliveries."""


class Deliver(Protocol):
    """Have a host accept a message again."""

    def __call__(self, host_url: str, agent_id: str, message: Message, oneway: bool, /) -> Awaitable[object]:
        """Return when the message was accepted: it is in a mailbox or on disk, there or where it was passed on to.

        :raises PagletError: it was not accepted.
        """


class OnDisk(Protocol):
    """Run blocking work beside the event loop."""

    async def __call__(self, work: Callable[..., T], *args: Any) -> T:
        """Return what the work returns."""


@dataclass(slots=True)
class RetryReport:
    """What became of several letters."""

    accepted: list[int] = field(default_factory=list)
    """Ids of those that were delivered, and are dead letters no more."""
    failed: list[dict[str, Any]] = field(default_factory=list)
    """Of the others: `letter_id`, `error_type` and `error`."""
    untried: int = 0
    """How many were left for another time, because these had taken long enough."""

    def to_wire(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {"accepted": list(self.accepted), "failed": list(self.failed), "untried": self.untried}


class DeadLetterDesk:
    """Show, deliver again or forget the dead letters of one host; every method runs on its loop.

    :param on_disk: runs blocking reads.
    :param deliver: delivers a message again. Nobody waits for its reply any more, so it is always one-way.
    """

    def __init__(self, journal: Journal, on_disk: OnDisk, deliver: Deliver) -> None:
        self._journal = journal
        self._on_disk = on_disk
        self._deliver = deliver
        self._in_progress: set[int] = set()

    async def listing(self, *, since: int = 0, limit: int = 100, agent_id: str | None = None) -> list[dict[str, Any]]:
        """Return letters as plain values without their messages, oldest first.

        :param since: only those with a greater id.
        :param limit: at most so many, and at most `MAX_LISTED`.
        :param agent_id: only those to this paglet.
        """
        found = await self._headings(since, min(limit, MAX_LISTED), agent_id)
        return [described(letter, size) for letter, size in found]

    async def get(self, letter_id: int) -> dict[str, Any]:
        """Return a letter as plain values, with its message.

        :raises NotFoundError: there is no such letter.
        """
        letter = await self._letter(letter_id)
        queued = message_of(letter)
        return described(letter, len(letter.body)) | {
            "message": queued.message.to_wire(),
            "oneway": queued.oneway,
            "queued_at": queued.queued_at,
        }

    async def count(self) -> int:
        """Return how many letters there are."""
        return await self._on_disk(self._journal.read, dead_letters.count)

    async def retry(self, letter_id: int) -> None:
        """Deliver a letter again and remove it when it was accepted.

        :raises NotFoundError: there is no such letter.
        :raises ConflictError: it is being delivered already.
        :raises PagletError: it was not accepted; it stays.
        """
        if letter_id in self._in_progress:
            raise ConflictError(f"dead letter {letter_id} is being delivered already")
        self._in_progress.add(letter_id)
        try:
            letter = await self._letter(letter_id)
            await self._deliver(letter.host_url, letter.agent_id, message_of(letter).message, True)
            await self._journal.write(lambda connection: dead_letters.remove(connection, letter_id))
        finally:
            self._in_progress.discard(letter_id)

    async def retry_all(
        self, *, agent_id: str | None = None, limit: int = MAX_RETRIED, seconds: float = RETRY_SECONDS
    ) -> RetryReport:
        """Deliver letters again, one after the other in their order, and say what became of each.

        After the first letter to a paglet that is not accepted the later ones to it are left alone, so that none
        overtakes it, and after a host that cannot be reached all others to it; they are reported with the same error.

        :param agent_id: only those to this paglet.
        :param limit: at most so many, the oldest.
        :param seconds: after which no further one is begun.
        """
        report = RetryReport()
        failures: dict[str, dict[str, str]] = {}
        deadline = asyncio.get_running_loop().time() + seconds
        since, left = 0, limit
        while page := await self._headings(since, min(left, MAX_LISTED), agent_id):
            for letter, _ in page:
                await self._retry_unless_hopeless(letter, report, failures, deadline)
            since, left = page[-1][0].letter_id, left - len(page)
        return report

    async def _retry_unless_hopeless(
        self, letter: DeadLetter, report: RetryReport, failures: dict[str, dict[str, str]], deadline: float
    ) -> None:
        failure = failures.get(letter.agent_id) or failures.get(letter.host_url)
        if failure is None and asyncio.get_running_loop().time() >= deadline:
            report.untried += 1
            return
        if failure is None:
            try:
                await self.retry(letter.letter_id)
            except NotFoundError:
                return  # cleared, or accepted on behalf of somebody else, meanwhile
            except (PagletError, OSError) as exc:
                failure = failures[letter.agent_id] = error_to_wire(exc, table=HTTP_ERRORS)
                if isinstance(exc, RemoteHostError | OSError):
                    failures[letter.host_url] = failure
            else:
                report.accepted.append(letter.letter_id)
                return
        report.failed.append({"letter_id": letter.letter_id, **failure})

    async def clear(self, letter_id: int) -> None:
        """Forget a letter.

        :raises NotFoundError: there is no such letter.
        """
        if not await self._journal.write(lambda connection: dead_letters.remove(connection, letter_id)):
            raise _unknown(letter_id)

    async def clear_all(self, *, agent_id: str | None = None) -> int:
        """Forget all letters, or those to one paglet, and return how many there were."""
        return await self._journal.write(lambda connection: dead_letters.clear(connection, agent_id))

    async def _letter(self, letter_id: int) -> DeadLetter:
        letter: DeadLetter | None = await self._on_disk(
            self._journal.read, lambda connection: dead_letters.get(connection, letter_id)
        )
        if letter is None:
            raise _unknown(letter_id)
        return letter

    async def _headings(self, since: int, limit: int, agent_id: str | None) -> list[tuple[DeadLetter, int]]:
        return await self._on_disk(
            self._journal.read,
            lambda connection: dead_letters.headings(
                connection, since=since, limit=max(0, limit), agent_id=agent_id or None
            ),
        )


def _unknown(letter_id: int) -> NotFoundError:
    return NotFoundError(f"there is no dead letter {letter_id}")


def message_of(letter: DeadLetter) -> QueuedMessage:
    """Return the message that a letter holds."""
    return QueuedMessage.from_wire(unpack(letter.body))


def described(letter: DeadLetter, size: int) -> dict[str, Any]:
    """Return a letter as plain values, without its message, which has so many bytes."""
    return {
        "letter_id": letter.letter_id,
        "died_at": letter.died_at,
        "agent_id": letter.agent_id,
        "host_url": letter.host_url,
        "message_id": letter.message_id,
        "kind": letter.kind,
        "reason": letter.reason,
        "size_bytes": size,
    }
